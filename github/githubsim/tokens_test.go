package githubsim_test

import (
	"errors"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// mint asks for a token.
func (s *simulator) mint(path string) (token, expires string) {
	s.t.Helper()
	r := s.ask("POST", "/api/v3/"+path, "")
	var body struct {
		Token   string
		Expires string `json:"expires_at"`
	}
	if r.status != http.StatusCreated {
		s.t.Fatalf("POST %s = %d %s", path, r.status, r.body)
	}
	r.decode(s.t, &body)
	return body.Token, body.Expires
}

const (
	registrationToken = "orgs/acme/actions/runners/registration-token"
	removeToken       = "orgs/acme/actions/runners/remove-token"
)

func TestMintedTokens(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	first, expires := s.mint(registrationToken)
	if !regexp.MustCompile(`^A[A-Z2-7]{28}$`).MatchString(first) || expires != "2026-03-01T05:00:00.000-08:00" {
		t.Errorf("token %s, expires %s", first, expires)
	}
	if e := s.last(); !e.Acted || e.Token != fleet.NewSecret(first).Fingerprint() || e.Status != http.StatusCreated || e.Scope != "org/acme" {
		t.Errorf("log: %+v", e)
	}
	second, _ := s.mint(registrationToken)
	if second == first {
		t.Error("the same token twice")
	}
	for i, name := range []string{"host-1", "host-2"} { // one token is good for many
		scope, id, err := s.RegisterRunner(first, githubsim.RunnerSpec{Name: name, Labels: []string{"gpu"}, Online: true})
		must(t, err)
		got := s.Snapshot(org)[i]
		if scope != org || got.ID != id || got.RegisteredWith != fleet.NewSecret(first).Fingerprint() || got.Online {
			t.Errorf("%s: scope %s, %+v", name, scope, got)
		}
	}
	if _, _, err := s.RegisterRunner(second, githubsim.RunnerSpec{Name: "host-1"}); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("the same name again: %v", err)
	}
	removal, _ := s.mint(removeToken)
	s.now = s.now.Add(time.Hour)
	for name, token := range map[string]string{"expired": first, "of another kind": removal, "unknown": "AXXX", "empty": ""} {
		if _, _, err := s.RegisterRunner(token, githubsim.RunnerSpec{Name: "host-3"}); !errors.Is(err, fleet.ErrUnauthorized) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokenLifeAndZoneCanBeSet(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{TokenLife: 2 * time.Minute, Zone: time.FixedZone("", 90*60)})
	if _, expires := s.mint(registrationToken); expires != "2026-03-01T13:32:00.000+01:30" {
		t.Errorf("expires %s", expires)
	}
}

func TestTokensDifferBetweenSeeds(t *testing.T) {
	t.Parallel()
	one, _ := start(t, githubsim.Config{Seed: 7}).mint(registrationToken)
	again, _ := start(t, githubsim.Config{Seed: 7}).mint(registrationToken)
	other, _ := start(t, githubsim.Config{Seed: 8}).mint(registrationToken)
	if one != again || one == other {
		t.Errorf("seed 7: %s and %s, seed 8: %s", one, again, other)
	}
}

func TestABodyThatIsNoJSONIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	wantError(t, "mint", s.ask("POST", "/api/v3/"+registrationToken, "{"), http.StatusBadRequest, "Problems parsing JSON")
	if e := s.last(); e.Acted || e.Token != "" {
		t.Errorf("log: %+v", e)
	}
	if r := s.ask("POST", "/api/v3/"+registrationToken, "{}"); r.status != http.StatusCreated {
		t.Errorf("an empty object: %d", r.status)
	}
}

func TestARunnerTradesItsTokenForAConnection(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Tokens: []string{credential}})
	registration, _ := s.mint(registrationToken)
	removal, _ := s.mint(removeToken)
	const path = "/api/v3/actions/runner-registration"
	body := func(url, event string) string { return `{"url":"` + url + `","runner_event":"` + event + `"}` }
	const url = "https://ghes.example.com/ACME"
	for _, tt := range []struct {
		name, auth, body string
		want             int
	}{
		{"registers", "RemoteAuth " + registration, body(url, "register"), 200},
		{"removes", "RemoteAuth " + removal, body(url, "remove"), 200},
		{"the wrong kind", "RemoteAuth " + removal, body(url, "register"), 401},
		{"the other wrong kind", "RemoteAuth " + registration, body(url, "remove"), 401},
		{"unknown", "RemoteAuth AXXX", body(url, "register"), 401},
		{"nothing", "", body(url, "register"), 401},
		{"a credential", "token " + credential, body(url, "register"), 401},
		{"another place", "RemoteAuth " + registration, body("https://ghes.example.com/other", "register"), 404},
		{"no JSON", "RemoteAuth " + registration, "{", 400},
		{"another event", "RemoteAuth " + registration, body(url, "dance"), 422},
		{"no address", "RemoteAuth " + registration, body("acme", "register"), 422},
	} {
		r := s.ask("POST", path, tt.body, "Authorization", tt.auth)
		if r.status != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.name, r.status, r.body, tt.want)
		}
	}
	s.now = s.now.Add(time.Hour)
	if r := s.ask("POST", path, body(url, "register"), "Authorization", "RemoteAuth "+registration); r.status != 401 {
		t.Errorf("expired: %d", r.status)
	}
}
