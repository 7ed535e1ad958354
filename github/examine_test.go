package github_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

// One request, of one runner, tells all; of every version and in every scope.
func TestExamine(t *testing.T) {
	t.Parallel()
	ends := time.Now().Add(50 * 24 * time.Hour).UTC().Truncate(time.Second)
	for _, version := range githubsim.Versions() {
		for _, scope := range scopes {
			sim, url := simulator(t, func(c *githubsim.Config) {
				c.Version, c.Limits, c.Skew = version, githubsim.Limits{Primary: 5000}, -90*time.Second
			})
			sim.SetScopes(credential, "repo", "admin:org", "manage_runners:enterprise")
			sim.SetExpiry(credential, ends)
			if _, err := sim.CreateMany(scope, 3, func(i int) githubsim.RunnerSpec {
				return githubsim.RunnerSpec{Name: strings.Repeat("r", i+1)}
			}); err != nil {
				t.Fatal(err)
			}
			x := client(t, url).Examine(t.Context(), scope)
			name := ""
			if version != githubsim.DotCom {
				name = version + ".0"
			}
			ahead, within, known := x.Offset()
			if !known || (ahead+90*time.Second).Abs() > within {
				t.Errorf("%s: the server's clock is %s ahead within %s (%v), want -90s", version, ahead, within, known)
			}
			if x.Reset.IsZero() {
				t.Errorf("%s: no reset", version)
			}
			x.ServerTime, x.Asked, x.Answered, x.Reset = time.Time{}, time.Time{}, time.Time{}, time.Time{}
			x.Server.Groups, x.Server.Ephemeral, x.Server.RunnerVersion = fleet.NotKnown, fleet.NotKnown, fleet.NotKnown
			want := github.Examination{
				Server: github.Sight{Answered: true, Version: name}, Runners: 3,
				Classic: true, Scopes: []string{"repo", "admin:org", "manage_runners:enterprise"}, Expires: ends,
				Limit: 5000, Remaining: 4999,
			}
			if diff := cmp.Diff(want, x); diff != "" {
				t.Errorf("%s %s: Examine (-want +got):\n%s", version, scope, diff)
			}
			if log := sim.Log(); len(log) == 0 || log[len(log)-1].Method != http.MethodGet || log[len(log)-1].Query != "per_page=1&page=1" {
				t.Errorf("%s: %+v was asked", version, log[len(log)-1])
			}
			if may, _ := github.MayAct(scope.Kind, x.Scopes); !may {
				t.Errorf("%s: %s may not act in %s", version, x.Scopes, scope)
			}
		}
	}
}

// What is refused tells as much of the credential.
func TestExamineOfARefusal(t *testing.T) {
	t.Parallel()
	gh := answers(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-OAuth-Scopes"] = []string{""} // as of a token without any
		h.Set("X-Accepted-GitHub-Permissions", "organization_self_hosted_runners=read")
		h.Set("GitHub-Authentication-Token-Expiration", "2026-03-19 16:09:19 -0800")
		h.Set("X-GitHub-Request-Id", "1")
		says(http.StatusForbidden, `{"message":"Resource not accessible"}`)(w, r)
	})
	x := gh.Examine(t.Context(), org)
	if !errors.Is(x.Err, fleet.ErrForbidden) || !x.Classic || len(x.Scopes) != 0 || x.Wants != "organization_self_hosted_runners=read" ||
		!x.Expires.Equal(time.Date(2026, 3, 20, 0, 9, 19, 0, time.UTC)) || x.Limit != 0 || x.ServerTime.IsZero() || !x.Server.Answered {
		t.Errorf("Examine = %+v", x)
	}
	if may, enough := github.MayAct(org.Kind, x.Scopes); may || len(enough) == 0 {
		t.Errorf("MayAct without scopes = %v, %v", may, enough)
	}
}

func TestExamineWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	gh := answers(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	x := gh.Examine(t.Context(), org)
	if _, _, known := x.Offset(); !errors.Is(x.Err, fleet.ErrUnavailable) || known || x.Server.Answered || !x.Answered.IsZero() {
		t.Errorf("Examine = %+v, want only that nobody answered", x)
	}
}

// The permissions of an App are those of the token that it got.
func TestPermissionsOfAnApp(t *testing.T) {
	t.Parallel()
	key := keys()[0]
	sim, url := simulator(t)
	granted := map[string]string{"organization_self_hosted_runners": "read", "metadata": "read"}
	must(t, sim.AddApp(githubsim.App{
		ID: 7, PublicKey: &key.PublicKey, Permissions: granted, Installations: []githubsim.Installation{{ID: 70, Account: org.Owner}},
	}))
	app, err := github.NewApp(github.AppConfig{
		APIURL: url, ID: 7, InstallationID: 70, UserAgent: "muster/test", PrivateKey: token(pkcs1(key)),
	})
	must(t, err)
	if got := app.Permissions(); got != nil {
		t.Errorf("Permissions before any token = %v", got)
	}
	x := client(t, url, func(c *github.Config) { c.Token, c.Refused = app.Token, app.Refused }).Examine(t.Context(), org)
	if x.Err != nil || x.Classic {
		t.Errorf("Examine = %+v", x)
	}
	if diff := cmp.Diff(granted, app.Permissions()); diff != "" {
		t.Errorf("Permissions (-want +got):\n%s", diff)
	}
}
