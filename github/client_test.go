package github_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

const credential = "ghp_the-credential-of-the-tests"

var (
	org    = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
	scopes = []fleet.Scope{
		{Kind: fleet.ScopeEnterprise, Owner: "octo"},
		org,
		{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"},
	}
)

// token is a source that always gives the same credential.
func token(value string) func(context.Context) (fleet.Secret, error) {
	return func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(value), nil }
}

// client talks to a server whose API is at url.
func client(t testing.TB, url string, change ...func(*github.Config)) *github.Client {
	t.Helper()
	c := github.Config{APIURL: url, Token: token(credential), UserAgent: "muster/test"}
	for _, f := range change {
		f(&c)
	}
	gh, err := github.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return gh
}

// simulator is a GitHub that knows the scopes and accepts the credential.
func simulator(t testing.TB, change ...func(*githubsim.Config)) (*githubsim.Sim, string) {
	t.Helper()
	c := githubsim.Config{Tokens: []string{credential}, Seed: 1}
	for _, f := range change {
		f(&c)
	}
	sim := githubsim.New(c)
	for _, s := range scopes {
		if err := sim.AddScope(s); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(sim.Handler())
	t.Cleanup(srv.Close)
	return sim, srv.URL + "/api/v3"
}

// answers is a server that answers everything with h, and a client for it.
func answers(t testing.TB, h http.HandlerFunc) *github.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return client(t, srv.URL+"/api/v3")
}

// says answers with a status and a JSON body.
func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("X-GitHub-Request-Id", "1")
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}
}

// fill registers n runners in the scope.
func fill(t testing.TB, sim *githubsim.Sim, scope fleet.Scope, n int) []int64 {
	t.Helper()
	ids, err := sim.CreateMany(scope, n, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprintf("build-%05d", i), Labels: []string{"GPU"}, Online: i%2 == 0}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := github.Config{APIURL: "https://ghes.example.com/api/v3", Token: token(credential), UserAgent: "muster/test"}
	tests := []struct {
		name   string
		change func(*github.Config)
	}{
		{"no address", func(c *github.Config) { c.APIURL = "" }},
		{"no scheme", func(c *github.Config) { c.APIURL = "ghes.example.com/api/v3" }},
		{"another scheme", func(c *github.Config) { c.APIURL = "ftp://ghes.example.com" }},
		{"no host", func(c *github.Config) { c.APIURL = "https:///api/v3" }},
		{"only a port", func(c *github.Config) { c.APIURL = "https://:443/api/v3" }},
		{"a query", func(c *github.Config) { c.APIURL += "?x=1" }},
		{"a fragment", func(c *github.Config) { c.APIURL += "#x" }},
		{"a password", func(c *github.Config) { c.APIURL = "https://u:hunter2@ghes.example.com/api/v3" }},
		{"a password in what is no address", func(c *github.Config) { c.APIURL = "https://u:hunter2@ghes.example.com:x" }},
		{"no token", func(c *github.Config) { c.Token = nil }},
		{"no user agent", func(c *github.Config) { c.UserAgent = "" }},
		{"negative concurrency", func(c *github.Config) { c.Concurrency = -1 }},
		{"negative timeout", func(c *github.Config) { c.Timeout = -1 }},
	}
	for _, tt := range tests {
		c := good
		tt.change(&c)
		_, err := github.New(c)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: New() = %v, want an error without the password", tt.name, err)
		}
	}
}

func TestEveryOperationAsksForItsOwnPath(t *testing.T) {
	t.Parallel()
	type request struct{ Method, Path, Auth, Agent, Accept string }
	var got []request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, request{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.UserAgent(), r.Header.Get("Accept")})
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(srv.Close)
	bases := map[fleet.Scope]string{scopes[0]: "/enterprises/octo", scopes[1]: "/orgs/acme", scopes[2]: "/repos/acme/widgets"}
	for _, prefix := range []string{"", "/api/v3"} {
		for _, slash := range []string{"", "/"} {
			gh := client(t, srv.URL+prefix+slash)
			for _, scope := range scopes {
				got = nil
				calls := []func() error{
					func() error { _, err := gh.Runners(t.Context(), scope, fleet.KeptListing{}); return err },
					func() error { return gh.CanList(t.Context(), scope) },
					func() error { _, err := gh.Runner(t.Context(), scope, 7); return err },
					func() error { _, err := gh.Confirm(t.Context(), scope, 7); return err },
					func() error { return gh.RemoveRunner(t.Context(), scope, 7, nil) },
					func() error { _, err := gh.Downloads(t.Context(), scope); return err },
					func() error { _, err := gh.RegistrationToken(t.Context(), scope); return err },
					func() error { _, err := gh.RemovalToken(t.Context(), scope); return err },
				}
				for _, call := range calls {
					wantKind(t, "teapot", call(), fleet.ErrMalformed)
				}
				at := prefix + bases[scope] + "/actions/runners"
				var want []request
				for _, r := range [][2]string{
					{"GET", at + "?per_page=100&page=1"}, {"GET", at + "?per_page=1&page=1"}, {"GET", at + "/7"}, {"GET", at + "/7"}, {"DELETE", at + "/7"},
					{"GET", at + "/downloads"}, {"POST", at + "/registration-token"}, {"POST", at + "/remove-token"},
				} {
					want = append(want, request{r[0], r[1], "token " + credential, "muster/test", "application/vnd.github.v3+json"})
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("requests of %s at %q (-want +got):\n%s", scope, prefix+slash, diff)
				}
			}
		}
	}
}

func TestTheTokenIsAskedForBeforeEveryRequest(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	fill(t, sim, org, 1)
	current := credential
	gh := client(t, url, func(c *github.Config) {
		c.Token = func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(current), nil }
	})
	if err := gh.CanList(t.Context(), org); err != nil {
		t.Fatal(err)
	}
	sim.Revoke(credential)
	wantKind(t, "revoked", gh.CanList(t.Context(), org), fleet.ErrUnauthorized)
	sim.Accept("ghp_rotated")
	current = "ghp_rotated"
	if err := gh.CanList(t.Context(), org); err != nil {
		t.Errorf("with the rotated token: %v", err)
	}
}

func TestARefusedCredentialIsReplacedOnceAndTheRequestSentAgain(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	ids := fill(t, sim, org, 1)
	current, renewed := "ghp_expired", credential
	var refused []string
	var calls []github.Call
	gh := client(t, url, func(c *github.Config) {
		c.Token = func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(current), nil }
		c.Refused = func(s fleet.Secret) bool {
			refused, current = append(refused, s.Reveal()), renewed
			return true
		}
		c.Observe = func(call github.Call) { calls = append(calls, call) }
	})
	if err := gh.RemoveRunner(t.Context(), org, ids[0], nil); err != nil {
		t.Errorf("RemoveRunner() = %v, want it done with the second credential", err)
	}
	if len(calls) != 2 || calls[0].Status != http.StatusUnauthorized || calls[1].Status != http.StatusNoContent {
		t.Errorf("observed %+v, want a 401 and a 204", calls)
	}
	current, renewed = "ghp_revoked", "ghp_revoked_too"
	wantKind(t, "both refused", gh.CanList(t.Context(), org), fleet.ErrUnauthorized)
	if diff := cmp.Diff([]string{"ghp_expired", "ghp_revoked"}, refused); diff != "" {
		t.Errorf("told of refused credentials (-want +got):\n%s", diff)
	}
	if len(calls) != 4 {
		t.Errorf("%d requests, want 4: one more for each operation", len(calls))
	}
}

func TestAResetThatCannotBeBelievedStopsNothing(t *testing.T) {
	t.Parallel()
	asked := 0
	var calls []github.Call
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("X-RateLimit-Limit", "5000")
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", "32503680000") // the year 3000
		says(http.StatusOK, `{"total_count":0,"runners":[]}`)(w, r)
	}))
	t.Cleanup(srv.Close)
	gh := client(t, srv.URL, func(c *github.Config) { c.Observe = func(call github.Call) { calls = append(calls, call) } })
	for range 2 {
		if err := gh.CanList(t.Context(), org); err != nil {
			t.Error(err)
		}
	}
	if asked != 2 {
		t.Errorf("%d requests arrived, want 2", asked)
	}
	for _, call := range calls {
		if call.RateRemaining != 0 {
			t.Errorf("observed %+v, want 0 remaining", call)
		}
	}
}

func TestObserveHearsOfEveryRequest(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	ids := fill(t, sim, org, 1)
	var calls []github.Call
	gh := client(t, url, func(c *github.Config) { c.Observe = func(call github.Call) { calls = append(calls, call) } })
	if _, err := gh.Runners(t.Context(), org, fleet.KeptListing{}); err != nil {
		t.Fatal(err)
	}
	if err := gh.RemoveRunner(t.Context(), org, ids[0], nil); err != nil {
		t.Fatal(err)
	}
	_, err := gh.Runner(t.Context(), org, ids[0])
	sim.Down(true)
	lost := gh.CanList(t.Context(), org)
	want := []github.Call{
		{Op: github.OpRunners, Scope: org, Status: 200, RateRemaining: -1},
		{Op: github.OpRemoveRunner, Scope: org, Status: 204, RateRemaining: -1},
		{Op: github.OpRunner, Scope: org, Status: 404, Err: err, RateRemaining: -1},
		{Op: github.OpCanList, Scope: org, Status: 0, Err: lost, RateRemaining: -1},
	}
	if diff := cmp.Diff(want, calls, cmpopts.IgnoreFields(github.Call{}, "Took"), cmpopts.EquateErrors()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	for _, call := range calls {
		if call.Took <= 0 {
			t.Errorf("%s took %s", call.Op, call.Took)
		}
	}
}

func wantNot(t *testing.T, text, secret string) {
	t.Helper()
	if strings.Contains(text, secret) {
		t.Errorf("%q holds the secret", text)
	}
}
