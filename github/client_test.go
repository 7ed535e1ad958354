package github_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

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
