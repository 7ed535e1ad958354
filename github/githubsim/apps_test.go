package githubsim_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// keys are an App's and another's. Making one takes a while.
var keys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = key
	}
	return keys
})

// assertion signs a JSON web token.
func assertion(t *testing.T, key *rsa.PrivateKey, header, claims string) string {
	t.Helper()
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	hash := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hash[:])
	must(t, err)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

const rs256 = `{"alg":"RS256","typ":"JWT"}`

// asApp is the header of an App's own requests.
func (s *simulator) asApp() string {
	claims := fmt.Sprintf(`{"iss":"7","iat":%d,"exp":%d}`, s.now.Unix(), s.now.Add(10*time.Minute).Unix())
	return "Bearer " + assertion(s.t, keys()[0], rs256, claims)
}

func startWithApp(t *testing.T, c githubsim.Config, permissions map[string]string) *simulator {
	t.Helper()
	s := start(t, c)
	must(t, s.AddScope(scopeOf("other")))
	must(t, s.AddScope(fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "secret"}))
	must(t, s.AddApp(githubsim.App{
		ID: 7, PublicKey: &keys()[0].PublicKey, Permissions: permissions,
		Installations: []githubsim.Installation{{ID: 70, Account: "Acme", Repositories: []string{"Widgets"}}, {ID: 71, Account: "other"}},
	}))
	return s
}

// token has a token issued and gives it as a header.
func (s *simulator) token(installation int, body string) string {
	s.t.Helper()
	r := s.ask("POST", fmt.Sprintf("/api/v3/app/installations/%d/access_tokens", installation), body, "Authorization", s.asApp())
	var v struct{ Token string }
	if r.status != http.StatusCreated {
		s.t.Fatalf("a token of installation %d: %d %s", installation, r.status, r.body)
	}
	r.decode(s.t, &v)
	return "token " + v.Token
}

func TestAnAppLogsInByAssertion(t *testing.T) {
	t.Parallel()
	s := startWithApp(t, githubsim.Config{Skew: 30 * time.Second}, nil)
	now := s.now.Add(30 * time.Second) // as the server has it
	claims := func(iss string, iat, exp time.Duration) string {
		return fmt.Sprintf(`{"iss":%s,"iat":%d,"exp":%d}`, iss, now.Add(iat).Unix(), now.Add(exp).Unix())
	}
	const (
		undecodable = "A JSON web token could not be decoded"
		badIssued   = "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
		badExpires  = "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires"
		farExpires  = "'Expiration time' claim ('exp') is too far in the future"
	)
	good := claims(`7`, 0, 10*time.Minute)
	for _, tt := range []struct {
		name, auth string
		status     int
		message    string
	}{
		{"as a number", "Bearer " + assertion(t, keys()[0], rs256, good), 200, ""},
		{"as a text", "Bearer " + assertion(t, keys()[0], rs256, claims(`"7"`, -time.Hour, time.Second)), 200, ""},
		{"no credential", "", 401, "Requires authentication"},
		{"another key", "Bearer " + assertion(t, keys()[1], rs256, good), 401, undecodable},
		{"another algorithm", "Bearer " + assertion(t, keys()[0], `{"alg":"RS512"}`, good), 401, undecodable},
		{"no algorithm", "Bearer " + assertion(t, keys()[0], `{"alg":"none"}`, good), 401, undecodable},
		{"not bearer", "token " + assertion(t, keys()[0], rs256, good), 401, undecodable},
		{"no signature", "Bearer " + assertion(t, keys()[0], rs256, good) + "x", 401, undecodable},
		{"two parts", "Bearer a.b", 401, undecodable},
		{"a personal token", "Bearer " + credential, 401, undecodable},
		{"another App", "Bearer " + assertion(t, keys()[0], rs256, claims(`8`, 0, time.Minute)), 404, "Integration not found"},
		{"from the future", "Bearer " + assertion(t, keys()[0], rs256, claims(`7`, time.Second, time.Minute)), 401, badIssued},
		{"without iat", "Bearer " + assertion(t, keys()[0], rs256, fmt.Sprintf(`{"iss":7,"exp":%d}`, now.Unix()+60)), 401, badIssued},
		{"over", "Bearer " + assertion(t, keys()[0], rs256, claims(`7`, -time.Minute, 0)), 401, badExpires},
		{"without exp", "Bearer " + assertion(t, keys()[0], rs256, fmt.Sprintf(`{"iss":7,"iat":%d}`, now.Unix())), 401, badExpires},
		{"too long", "Bearer " + assertion(t, keys()[0], rs256, claims(`7`, 0, 10*time.Minute+time.Second)), 401, farExpires},
	} {
		r := s.ask("GET", "/api/v3/app", "", "Authorization", tt.auth)
		if tt.status != 200 {
			wantError(t, tt.name, r, tt.status, tt.message)
		} else if r.status != 200 || !strings.Contains(r.body, `"slug":"app-7"`) {
			t.Errorf("%s: %d %s", tt.name, r.status, r.body)
		}
	}
	wantError(t, "an assertion elsewhere", s.ask("GET", list, "", "Authorization", "Bearer "+assertion(t, keys()[0], rs256, good)), 401, "Bad credentials")
}

func TestInstallationTokens(t *testing.T) {
	t.Parallel()
	s := startWithApp(t, githubsim.Config{}, nil)
	r := s.ask("POST", "/api/v3/app/installations/70/access_tokens", "", "Authorization", s.asApp())
	var v struct {
		Token       string
		Expires     time.Time `json:"expires_at"`
		Permissions map[string]string
		Selection   string `json:"repository_selection"`
	}
	r.decode(t, &v)
	if r.status != 201 || !strings.HasPrefix(v.Token, "ghs_") || len(v.Token) != 40 || !v.Expires.Equal(s.now.Add(time.Hour)) || v.Selection != "selected" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if diff := cmp.Diff(map[string]string{"administration": "write", "organization_self_hosted_runners": "write"}, v.Permissions); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
	if e := s.last(); !e.Acted || e.Installation != 70 || e.Token != fleet.NewSecret(v.Token).Fingerprint() || e.Path != "/app/installations/{installation_id}/access_tokens" {
		t.Errorf("log: %+v", e)
	}
	auth := "Bearer " + v.Token
	for path, want := range map[string]int{
		"orgs/acme/actions/runners": 200, "organizations/2/actions/runners": 200, "repos/acme/widgets/actions/runners": 200,
		"repos/acme/secret/actions/runners": 404, "orgs/other/actions/runners": 404, "orgs/nobody/actions/runners": 404,
		"enterprises/octo/actions/runners": 403, "user": 403, "app": 401,
	} {
		if r := s.ask("GET", "/api/v3/"+path, "", "Authorization", auth); r.status != want {
			t.Errorf("GET %s: %d %s, want %d", path, r.status, r.body, want)
		}
	}
	wantError(t, "enterprise", s.ask("POST", "/api/v3/enterprises/octo/actions/runners/registration-token", "", "Authorization", auth), 403, "Resource not accessible by integration")
	if r := s.ask("POST", mint, "", "Authorization", auth); r.status != 201 || s.last().Installation != 70 {
		t.Errorf("a registration token: %d, log %+v", r.status, s.last())
	}
	s.now = s.now.Add(time.Hour - time.Second)
	if r := s.ask("GET", list, "", "Authorization", auth); r.status != 200 {
		t.Errorf("just before its end: %d", r.status)
	}
	s.now = s.now.Add(time.Second)
	wantError(t, "after its end", s.ask("GET", list, "", "Authorization", auth), 401, "Bad credentials")
}

func TestPermissionsOfApps(t *testing.T) {
	t.Parallel()
	s := startWithApp(t, githubsim.Config{}, map[string]string{"organization_self_hosted_runners": "write"})
	full, less := s.token(70, ""), s.token(70, `{"permissions":{"organization_self_hosted_runners":"read"}}`)
	for _, tt := range []struct {
		auth, method, path string
		want               int
		header             string
	}{
		{full, "GET", list, 200, ""},
		{full, "POST", mint, 201, ""},
		{less, "GET", list, 200, ""},
		{less, "POST", mint, 403, "organization_self_hosted_runners=write"},
		{less, "DELETE", list + "/1", 403, "organization_self_hosted_runners=write"},
		{full, "GET", "/api/v3/repos/acme/widgets/actions/runners", 403, "administration=read"},
	} {
		r := s.ask(tt.method, tt.path, "", "Authorization", tt.auth)
		if got := r.header.Get("X-Accepted-GitHub-Permissions"); r.status != tt.want || got != tt.header {
			t.Errorf("%s %s: %d, accepted %q; want %d, %q", tt.method, tt.path, r.status, got, tt.want, tt.header)
		}
		if tt.want == 403 {
			wantError(t, tt.path, r, 403, "Resource not accessible by integration")
		}
	}
	r := s.ask("POST", "/api/v3/app/installations/70/access_tokens", `{"permissions":{"administration":"read"}}`, "Authorization", s.asApp())
	wantError(t, "more than granted", r, 422, "The permissions requested are not granted to this installation.")
	wantError(t, "no JSON", s.ask("POST", "/api/v3/app/installations/70/access_tokens", `{`, "Authorization", s.asApp()), 400, "Problems parsing JSON")
}

func TestInstallationsComeAndGo(t *testing.T) {
	t.Parallel()
	s := startWithApp(t, githubsim.Config{}, nil)
	issue := func() response {
		return s.ask("POST", "/api/v3/app/installations/70/access_tokens", "", "Authorization", s.asApp())
	}
	about := func() response {
		return s.ask("GET", "/api/v3/app/installations/70", "", "Authorization", s.asApp())
	}
	auth := s.token(70, "")
	others := s.token(71, "")
	use := func() response { return s.ask("GET", list, "", "Authorization", auth) }

	must(t, s.Suspend(70, true))
	wantError(t, "issue while suspended", issue(), 403, "This installation has been suspended")
	wantError(t, "use while suspended", use(), 403, "This installation has been suspended")
	if r := about(); r.status != 200 || !strings.Contains(r.body, `"suspended_at":"2026-03-01T12:00:00Z"`) {
		t.Errorf("about while suspended: %d %s", r.status, r.body)
	}
	must(t, s.Suspend(70, false))
	if r := use(); r.status != 200 {
		t.Errorf("use afterwards: %d", r.status)
	}
	if r := about(); r.status != 200 || !strings.Contains(r.body, `"suspended_at":null`) {
		t.Errorf("about afterwards: %d %s", r.status, r.body)
	}

	must(t, s.RevokeInstallationTokens(70))
	wantError(t, "use of a revoked token", use(), 401, "Bad credentials")
	auth = s.token(70, "")
	if r := use(); r.status != 200 {
		t.Errorf("use of the next: %d", r.status)
	}

	must(t, s.Uninstall(70))
	wantError(t, "issue when it is gone", issue(), 404, "Not Found")
	wantError(t, "about it when it is gone", about(), 404, "Not Found")
	wantError(t, "use when it is gone", use(), 401, "Bad credentials")
	if r := s.ask("GET", "/api/v3/orgs/other/actions/runners", "", "Authorization", others); r.status != 200 {
		t.Errorf("the other installation: %d", r.status)
	}
	unknown := s.ask("POST", "/api/v3/app/installations/72/access_tokens", "", "Authorization", s.asApp())
	wantError(t, "an unknown one", unknown, 404, "Not Found")
	for name, err := range map[string]error{
		"unknown":         s.Suspend(72, true),
		"gone":            s.Uninstall(72),
		"the same App":    s.AddApp(githubsim.App{ID: 7, PublicKey: &keys()[1].PublicKey}),
		"no key":          s.AddApp(githubsim.App{ID: 8}),
		"its id is taken": s.AddApp(githubsim.App{ID: 8, PublicKey: &keys()[1].PublicKey, Installations: []githubsim.Installation{{ID: 71, Account: "x"}}}),
		"no account":      s.AddApp(githubsim.App{ID: 8, PublicKey: &keys()[1].PublicKey, Installations: []githubsim.Installation{{ID: 80}}}),
	} {
		if err == nil {
			t.Errorf("%s: nil, want an error", name)
		}
	}
}

func TestTheTokensOfAnInstallationShareItsBudget(t *testing.T) {
	t.Parallel()
	s := startWithApp(t, githubsim.Config{Limits: githubsim.Limits{Primary: 3}}, nil)
	one, two := s.token(70, ""), s.token(70, "")
	s.wantLimited("one", limited{Status: 200, Remaining: "2", LogRemaining: 2, Points: 1}, "GET", list, "Authorization", one)
	s.wantLimited("two", limited{Status: 200, Remaining: "1", LogRemaining: 1, Points: 1}, "GET", list, "Authorization", two)
	s.wantLimited("one again", limited{Status: 200, Remaining: "0", Points: 1}, "GET", list, "Authorization", one)
	s.wantLimited("two again", limited{Status: 403, Remaining: "0", Points: 1, Message: "API rate limit exceeded for installation ID 70."}, "GET", list, "Authorization", two)
	if got := s.token(71, ""); got == "" {
		t.Error("no token of the other")
	}
}

func TestWhatAPersonalTokenIsTold(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.10"})
	for path, accepted := range map[string]string{
		"orgs/acme/actions/runners": "admin:org", "repos/acme/widgets/actions/runners": "repo", "enterprises/octo/actions/runners": "admin:enterprise, manage_runners:enterprise", "user": "",
	} {
		r := s.ask("GET", "/api/v3/"+path, "")
		if got := r.header.Get("X-Accepted-OAuth-Scopes"); r.status != 200 || got != accepted || r.header.Get("X-OAuth-Scopes") != "admin:org, manage_runners:enterprise, repo" {
			t.Errorf("GET %s: %d, accepted %q, has %q", path, r.status, got, r.header.Get("X-OAuth-Scopes"))
		}
	}
	s.SetScopes(credential, "repo", "read:org")
	s.SetExpiry(credential, s.now.Add(time.Minute))
	r := s.ask("GET", "/api/v3/repos/acme/widgets/actions/runners", "")
	if got := r.header.Get("GitHub-Authentication-Token-Expiration"); r.status != 200 || got != "2026-03-01 12:01:00 UTC" || r.header.Get("X-OAuth-Scopes") != "repo, read:org" {
		t.Errorf("%d, header %v", r.status, r.header)
	}
	r = s.ask("GET", list, "")
	var body struct{ Message string }
	r.decode(t, &body)
	if r.status != 403 || body.Message != "Must have admin rights to Organization." {
		t.Errorf("without the scope: %d %s", r.status, r.body)
	}
	s.now = s.now.Add(time.Minute)
	if r := s.ask("GET", "/api/v3/user", ""); r.status != 401 {
		t.Errorf("after its end: %d", r.status)
	}
}

func TestTheServerNamesItsVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"3.19": `{"verifiable_password_authentication":true,"installed_version":"3.19.0"}`, "dotcom": `{"verifiable_password_authentication":false}`,
	} {
		s := start(t, githubsim.Config{Version: version, Tokens: []string{credential}})
		for _, auth := range []string{"", "token " + credential} {
			if r := s.ask("GET", "/api/v3/meta", "", "Authorization", auth); r.status != 200 || r.body != want {
				t.Errorf("%s, %q: %d %s, want %s", version, auth, r.status, r.body, want)
			}
		}
		if r := s.ask("GET", "/api/v3/meta", "", "Authorization", "token bad"); r.status != 401 {
			t.Errorf("%s, a bad credential: %d", version, r.status)
		}
	}
}

func TestAppsByCommand(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	der, err := x509.MarshalPKIXPublicKey(&keys()[0].PublicKey)
	must(t, err)
	key := strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "\n", `\n`)
	for _, tt := range []struct {
		verb, body string
		want       int
	}{
		{"app", `{"app":7,"public_key":"no key"}`, 400},
		{"app", `{"app":7,"public_key":"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}`, 400},
		{"app", `{"app":7,"public_key":"` + key + `","installations":[{"id":70,"account":"acme"}]}`, 200},
		{"suspend", `{"installation":70,"on":true}`, 200},
		{"suspend", `{"installation":70,"on":false}`, 200},
		{"revoke-installation-tokens", `{"installation":70}`, 200},
		{"uninstall", `{"installation":71}`, 404},
	} {
		if status, text := s.control(tt.verb, tt.body); status != tt.want {
			t.Errorf("%s %s: %d %s, want %d", tt.verb, tt.body, status, text, tt.want)
		}
	}
	auth := s.token(70, "")
	if r := s.ask("GET", list, "", "Authorization", auth); r.status != 200 {
		t.Errorf("with a token: %d %s", r.status, r.body)
	}
	if status, text := s.control("uninstall", `{"installation":70}`); status != 200 {
		t.Errorf("uninstall: %d %s", status, text)
	}
	if r := s.ask("GET", list, "", "Authorization", auth); r.status != 401 {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
}
