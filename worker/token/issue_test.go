package token_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/token"
)

func TestAGrantedHostGetsATokenThatWorks(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	id := newID()
	got := r.ask(t, "build-01", request(fleet.TokenRegistration, id))

	web, err := fleet.Target{Name: "acme", Scope: acme, APIURL: r.sim.APIURL()}.WebURL()
	if err != nil {
		t.Fatal(err)
	}
	if got.V != 1 || got.RequestID != id || got.Kind != "registration" || got.Target != "acme" || got.URL != web || got.Token == "" {
		t.Fatalf("answer is %s", got.body)
	}
	if left := time.Until(got.ExpiresAt); left < 50*time.Minute || left > 61*time.Minute || !strings.Contains(got.body, `Z"`) {
		t.Errorf("expires_at of %s is not an hour away in UTC", got.body)
	}
	if _, _, err := r.sim.RegisterRunner(got.Token, githubsim.RunnerSpec{Name: "build-01", OS: "linux"}); err != nil {
		t.Errorf("the token does not register: %v", err)
	}

	fingerprint := fleet.NewSecret(got.Token).Fingerprint()
	want := []string{fmt.Sprintf("%s 1 build-01 acme registration issued  %s", id, fingerprint)}
	if diff := cmp.Diff(want, r.rows(t, "request_id::text, attempt, host, target, kind, outcome, code, fingerprint")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
	if diff := cmp.Diff([]string{"TK100I", "TK101I"}, r.trail(t)); diff != "" {
		t.Errorf("trail: %s", diff)
	}
	events, err := r.db.ReadAPI(t.Context(), `SELECT event_id::text, actor_type, actor, host, target,
		payload::jsonb->'details'->>'fingerprint', payload::jsonb->'details'->>'request_id' FROM api.audit WHERE code = 'TK101I'`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]string{{got.AuditID, "host", "build-01", "build-01", "acme", fingerprint, id}}, events.Rows); diff != "" {
		t.Errorf("the event that audit_id names: %s", diff)
	}
	if n := r.seen.count("registration issued"); n != 1 {
		t.Errorf("observed %d times, want once", n)
	}
	if n := strings.Count(r.log.String(), `"token issued"`); n != 1 {
		t.Errorf("%d lines of log, want one", n)
	}
	if strings.Contains(r.log.String(), "answer not sent") {
		t.Error("the log says that the answer was not sent")
	}
}

func TestARequestWithoutAnIDGetsOne(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	got := r.ask(t, "build-01", `{"v":1,"target":"acme","kind":"registration","demand_id":"d-7"}`)
	if diff := cmp.Diff([]string{got.RequestID + " issued"}, r.rows(t, "request_id::text, outcome")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
}

func TestTheIntentIsRecordedBeforeGitHubIsAsked(t *testing.T) {
	t.Parallel()
	for kind, path := range map[fleet.TokenKind]string{
		fleet.TokenRegistration: "/orgs/{org}/actions/runners/registration-token",
		fleet.TokenRemoval:      "/orgs/{org}/actions/runners/remove-token",
	} {
		r := start(t, anyone())
		var rows, codes []string
		r.sim.Before(func(asked githubsim.Request) {
			if asked.Path != path {
				t.Errorf("for a %s token GitHub is asked for %s", kind, asked.Path)
			}
			rows, codes = r.rows(t, "kind, outcome"), r.trail(t)
		})
		if got := r.ask(t, "build-01", request(kind, newID())); got.Token == "" {
			t.Fatalf("answer is %s", got.body)
		}
		if diff := cmp.Diff([]string{string(kind) + " requested"}, rows); diff != "" {
			t.Errorf("api.tokens when GitHub was asked: %s", diff)
		}
		if diff := cmp.Diff([]string{"TK100I"}, codes); diff != "" {
			t.Errorf("trail when GitHub was asked: %s", diff)
		}
	}
}

func TestOneRegistrationTokenServesHostsThatComeTogether(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	const hosts = 50
	tokens := make([]string, hosts)
	var asking sync.WaitGroup
	for n := range hosts {
		host := fmt.Sprintf("build-%02d", n)
		nc := r.client(t, host)
		asking.Go(func() { tokens[n] = ask(t, nc, host, registration).Token })
	}
	asking.Wait()
	if distinct := slices.Compact(slices.Sorted(slices.Values(tokens))); len(distinct) != 1 || distinct[0] == "" {
		t.Errorf("%d distinct tokens, want one", len(distinct))
	}
	if n := len(r.minted()); n != 1 {
		t.Errorf("GitHub minted %d times, want once", n)
	}
	if n := len(r.rows(t, "host")); n != hosts {
		t.Errorf("%d rows in api.tokens, want %d", n, hosts)
	}
}

func TestASharedTokenThatIsTooShortForABootIsReplaced(t *testing.T) {
	t.Parallel()
	r := start(t, anyone()) // tokens live an hour, and a boot takes 20 minutes
	first := r.ask(t, "build-01", registration)
	r.pass(39 * time.Minute)
	if got := r.ask(t, "build-02", registration); got.Token != first.Token {
		t.Error("a token that is good for 21 minutes is not shared")
	}
	r.pass(2 * time.Minute)
	if got := r.ask(t, "build-03", registration); got.Token == "" || got.Token == first.Token {
		t.Error("a token that is good for 19 minutes is still shared")
	}
	if n := len(r.minted()); n != 2 {
		t.Errorf("GitHub minted %d times, want 2", n)
	}
}

func TestTokensThatAreNotToBeSharedAreNot(t *testing.T) {
	t.Parallel()
	unshared := anyone()
	unshared.target = func(t *token.Target) { t.ShareRegistration = false }
	tests := []struct {
		name string
		kind fleet.TokenKind
		with settings
	}{
		{"removal", fleet.TokenRemoval, anyone()},
		{"registration with share_registration off", fleet.TokenRegistration, unshared},
	}
	for _, tt := range tests {
		r := start(t, tt.with)
		one := r.ask(t, "build-01", request(tt.kind, newID()))
		two := r.ask(t, "build-02", request(tt.kind, newID()))
		if one.Token == "" || one.Token == two.Token {
			t.Errorf("%s: the answers %s and %s share a token", tt.name, one.body, two.body)
		}
	}
}

func TestAFaultOfGitHubIsRecordedByItsClassAlone(t *testing.T) {
	t.Parallel()
	answer := func(status int, headers map[string]string) func(*githubsim.Sim) {
		return func(s *githubsim.Sim) {
			s.Intercept(func(*http.Request) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.Header().Set("X-GitHub-Request-Id", "1")
					for k, v := range headers {
						w.Header().Set(k, v)
					}
					w.WriteHeader(status)
					_, _ = w.Write([]byte(`{"message":"SECRETBODY","token":"SECRETBODY"}`))
				})
			})
		}
	}
	tests := []struct {
		name    string
		fault   func(*githubsim.Sim)
		reason  string
		retryMS int64
		trail   []string
	}{
		{"no answer", func(s *githubsim.Sim) { s.Down(true) }, "unavailable (no answer)", 0, nil},
		{"500", answer(500, nil), "unavailable (5xx)", 0, nil},
		{"429", answer(429, map[string]string{"Retry-After": "7"}), "rate limited (4xx)", 7000, nil},
		{"403", answer(403, nil), "forbidden (4xx)", 0, nil},
		{"404", answer(404, nil), "not found (4xx)", 0, nil},
		{"200 without a token", answer(200, nil), "malformed answer (2xx)", 0, nil},
		{"401", func(s *githubsim.Sim) { s.Revoke(credential) }, "credential not accepted (4xx)", 0, []string{"TG300E"}},
	}
	r := start(t, anyone())
	recorded := 0
	for n, tt := range tests {
		tt.fault(r.sim)
		got := r.ask(t, "build-01", registration)
		r.sim.Down(false)
		r.sim.Intercept(nil)
		if got.Code != 502 || got.Error != "github_error" || got.RetryAfterMS != tt.retryMS {
			t.Errorf("%s: answer is %s", tt.name, got.body)
		}
		if rows := r.rows(t, "outcome, code"); len(rows) != n+1 || rows[n] != "failed 502" {
			t.Errorf("%s: api.tokens: %q", tt.name, rows)
		}
		codes := r.trail(t)[recorded:]
		recorded += len(codes)
		slices.Sort(codes)
		if diff := cmp.Diff(append(tt.trail, "TK100I", "TK104E"), codes); diff != "" {
			t.Errorf("%s: trail: %s", tt.name, diff)
		}
		if got := r.reason(t, fleet.AuditTokenFailed); got != tt.reason {
			t.Errorf("%s: reason is %q, want %q", tt.name, got, tt.reason)
		}
	}
	if n := len(r.minted()); n != 0 {
		t.Errorf("GitHub minted %d times", n)
	}
	if strings.Contains(r.log.String(), "SECRETBODY") || strings.Contains(dump(t, r.raw(t)), "SECRETBODY") {
		t.Error("the body of GitHub's answer is written down")
	}
}

func TestAFaultOfGitHubIsNotRemembered(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	id := newID()
	r.sim.Maintenance(true)
	if got := r.ask(t, "build-01", request(fleet.TokenRegistration, id)); got.Code != 502 {
		t.Fatalf("answer is %s", got.body)
	}
	r.sim.Maintenance(false)
	if got := r.ask(t, "build-01", request(fleet.TokenRegistration, id)); got.Token == "" {
		t.Errorf("answer is %s", got.body)
	}
	if diff := cmp.Diff([]string{"1 failed", "2 issued"}, r.rows(t, "attempt, outcome")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
}

func TestATargetUnderAnotherScopeThanAtItsFirstCompleteSyncIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	if got := r.ask(t, "build-01", registration); got.Token == "" {
		t.Fatalf("answer is %s", got.body)
	}
	if _, err := r.raw(t).Exec(t.Context(), `UPDATE muster.target SET complete_syncs = 1`); err != nil {
		t.Fatal(err)
	}
	elsewhere := anyone()
	elsewhere.target = func(t *token.Target) { t.Scope.Owner = "octo" }
	other := r.replica(t, elsewhere)
	if got := other.ask(t, "build-01", registration); got.Code != 403 {
		t.Errorf("answer is %s", got.body)
	}
	if got := r.reason(t, fleet.AuditTokenDenied); !strings.Contains(got, "fixed at the first complete sync") {
		t.Errorf("reason is %q", got)
	}
}
