package github_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// A redirect is followed once, and never to where another has the say.
func TestARepositoryIsFollowedOnceWithinTheSameAPI(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the credential went elsewhere") }))
	t.Cleanup(elsewhere.Close)
	repo := fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"}
	for _, tt := range []struct{ name, to, then, want string }{
		{"within the API", "/api/v3/repositories/3", "", "repo/acme/sprockets"},
		{"twice", "/api/v3/repositories/3", "/api/v3/repositories/4", ""},
		{"out of the API", "/login", "", ""},
		{"to another host", elsewhere.URL + "/api/v3/repositories/3", "", ""},
		{"nowhere", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				to := map[string]string{"/api/v3/repos/acme/widgets": tt.to, "/api/v3/repositories/3": tt.then}[r.URL.Path]
				w.Header().Set("Content-Type", "application/json")
				if r.URL.Path == "/api/v3/repos/acme/widgets" || to != "" {
					w.Header().Set("Location", to)
					w.WriteHeader(http.StatusMovedPermanently)
					_, _ = w.Write([]byte(`{"message":"Moved Permanently"}`))
					return
				}
				_, _ = w.Write([]byte(`{"full_name":"acme/sprockets"}`))
			}))
			t.Cleanup(server.Close)
			client, err := github.New(github.Config{
				APIURL: server.URL + "/api/v3", UserAgent: "muster/test",
				Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret("ghp_canary"), nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			now, err := client.RepositoryNow(t.Context(), repo)
			if tt.want != "" {
				if err != nil || now.String() != tt.want {
					t.Errorf("RepositoryNow = %s, %v, want %s", now, err, tt.want)
				}
				return
			}
			if !errors.Is(err, fleet.ErrUnavailable) || !github.Moved(err) {
				t.Errorf("RepositoryNow = %s, %v, want a redirect that was refused", now, err)
			}
		})
	}
}
