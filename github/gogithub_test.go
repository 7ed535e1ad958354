package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	gh "github.com/google/go-github/v45/github"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// goGitHub is the client of that name, unchanged.
func goGitHub(t *testing.T, url string) *gh.Client {
	t.Helper()
	c, err := gh.NewEnterpriseClient(url, url, &http.Client{Transport: withToken{http.DefaultTransport}})
	must(t, err)
	return c
}

type withToken struct{ next http.RoundTripper }

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "token "+credential)
	return w.next.RoundTrip(r)
}

// TestGoGitHubAgainstEveryVersion uses each of the 15 operations that it has.
func TestGoGitHubAgainstEveryVersion(t *testing.T) {
	t.Parallel()
	for _, version := range githubsim.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s, url := simulator(t, func(c *githubsim.Config) { c.Version = version })
			c, ctx := goGitHub(t, url), t.Context()
			for _, at := range []struct {
				scope      fleet.Scope
				list       func(*gh.ListOptions) (*gh.Runners, *gh.Response, error)
				remove     func(int64) (*gh.Response, error)
				register   func() (*gh.RegistrationToken, *gh.Response, error)
				unregister func() (*gh.RemoveToken, *gh.Response, error)
				get        func(int64) (*gh.Runner, *gh.Response, error)
				downloads  func() ([]*gh.RunnerApplicationDownload, *gh.Response, error)
			}{
				{
					scope: scopes[2],
					list: func(o *gh.ListOptions) (*gh.Runners, *gh.Response, error) {
						return c.Actions.ListRunners(ctx, "acme", "widgets", o)
					},
					remove: func(id int64) (*gh.Response, error) { return c.Actions.RemoveRunner(ctx, "acme", "widgets", id) },
					register: func() (*gh.RegistrationToken, *gh.Response, error) {
						return c.Actions.CreateRegistrationToken(ctx, "acme", "widgets")
					},
					unregister: func() (*gh.RemoveToken, *gh.Response, error) {
						return c.Actions.CreateRemoveToken(ctx, "acme", "widgets")
					},
					get: func(id int64) (*gh.Runner, *gh.Response, error) {
						return c.Actions.GetRunner(ctx, "acme", "widgets", id)
					},
					downloads: func() ([]*gh.RunnerApplicationDownload, *gh.Response, error) {
						return c.Actions.ListRunnerApplicationDownloads(ctx, "acme", "widgets")
					},
				},
				{
					scope: org,
					list: func(o *gh.ListOptions) (*gh.Runners, *gh.Response, error) {
						return c.Actions.ListOrganizationRunners(ctx, "acme", o)
					},
					remove: func(id int64) (*gh.Response, error) { return c.Actions.RemoveOrganizationRunner(ctx, "acme", id) },
					register: func() (*gh.RegistrationToken, *gh.Response, error) {
						return c.Actions.CreateOrganizationRegistrationToken(ctx, "acme")
					},
					unregister: func() (*gh.RemoveToken, *gh.Response, error) {
						return c.Actions.CreateOrganizationRemoveToken(ctx, "acme")
					},
					get: func(id int64) (*gh.Runner, *gh.Response, error) {
						return c.Actions.GetOrganizationRunner(ctx, "acme", id)
					},
					downloads: func() ([]*gh.RunnerApplicationDownload, *gh.Response, error) {
						return c.Actions.ListOrganizationRunnerApplicationDownloads(ctx, "acme")
					},
				},
				{
					scope: scopes[0],
					list: func(o *gh.ListOptions) (*gh.Runners, *gh.Response, error) {
						return c.Enterprise.ListRunners(ctx, "octo", o)
					},
					remove: func(id int64) (*gh.Response, error) { return c.Enterprise.RemoveRunner(ctx, "octo", id) },
					register: func() (*gh.RegistrationToken, *gh.Response, error) {
						return c.Enterprise.CreateRegistrationToken(ctx, "octo")
					},
				},
			} {
				ids, err := s.CreateMany(at.scope, 45, func(i int) githubsim.RunnerSpec {
					return githubsim.RunnerSpec{Name: fmt.Sprint("r", i), Labels: []string{"gpu"}, Online: true, Busy: i == 0}
				})
				must(t, err)
				seen := make(map[int64]bool)
				for page := 1; page != 0; {
					rs, resp, err := at.list(&gh.ListOptions{PerPage: 20, Page: page})
					must(t, err)
					for _, r := range rs.Runners {
						seen[r.GetID()] = true
						if r.GetStatus() != "online" || r.GetBusy() != (r.GetName() == "r0") || len(r.Labels) != 4 || r.GetOS() == "" {
							t.Errorf("%s: runner %+v", at.scope, r)
						}
					}
					if rs.TotalCount != 45 {
						t.Errorf("%s: total %d", at.scope, rs.TotalCount)
					}
					page = resp.NextPage
				}
				if len(seen) != 45 {
					t.Errorf("%s: %d runners, want 45", at.scope, len(seen))
				}
				if token, resp, err := at.register(); err != nil || resp.StatusCode != 201 || token.GetToken() == "" || token.GetExpiresAt().IsZero() {
					t.Errorf("%s: registration token %v, %v", at.scope, token, err)
				}
				if at.get != nil {
					if r, _, err := at.get(ids[1]); err != nil || r.GetID() != ids[1] || r.GetName() != "r1" {
						t.Errorf("%s: runner %v, %v", at.scope, r, err)
					}
					if token, _, err := at.unregister(); err != nil || token.GetToken() == "" || token.GetExpiresAt().IsZero() {
						t.Errorf("%s: remove token %v, %v", at.scope, token, err)
					}
					if list, _, err := at.downloads(); err != nil || len(list) < 5 || list[0].GetDownloadURL() == "" {
						t.Errorf("%s: downloads %v, %v", at.scope, list, err)
					}
				}
				if resp, err := at.remove(ids[1]); err != nil || resp.StatusCode != 204 {
					t.Errorf("%s: remove an idle runner: %v", at.scope, err)
				}
				for id, want := range map[int64]int{ids[0]: map[bool]int{true: 500, false: 422}[version == "3.1"], ids[1]: 404} {
					var refused *gh.ErrorResponse
					if _, err := at.remove(id); !errors.As(err, &refused) || refused.Response.StatusCode != want || refused.Message == "" || refused.DocumentationURL == "" {
						t.Errorf("%s: remove runner %d: %v, want %d", at.scope, id, err, want)
					}
				}
			}
		})
	}
}

// TestGoGitHubKnowsTheLimits has it tell the refusals apart, as far as it can:
// v45 knows neither 429 nor the documentation of today.
func TestGoGitHubKnowsTheLimits(t *testing.T) {
	t.Parallel()
	s, url := simulator(t, func(c *githubsim.Config) { c.Limits = githubsim.Limits{Primary: 100, Points: 1, OldDocs: true} })
	c := goGitHub(t, url)
	limits, _, err := c.RateLimits(t.Context())
	must(t, err)
	if limits.GetCore().Limit != 100 || limits.GetCore().Remaining != 100 {
		t.Errorf("limits %v", limits)
	}
	if _, resp, err := c.Enterprise.ListRunners(t.Context(), "octo", nil); err != nil || resp.Rate.Remaining != 99 {
		t.Errorf("rate %+v, %v", resp.Rate, err)
	}
	var abuse *gh.AbuseRateLimitError
	if _, _, err := c.Enterprise.ListRunners(t.Context(), "octo", nil); !errors.As(err, &abuse) || abuse.GetRetryAfter().Seconds() != 60 {
		t.Errorf("a secondary limit: %v", err)
	}
	s.SetLimits(githubsim.Limits{Primary: 1})
	s.Penalise(credential, 0)
	var limited *gh.RateLimitError
	if _, _, err := c.Enterprise.ListRunners(t.Context(), "octo", nil); !errors.As(err, &limited) || limited.Rate.Limit != 1 {
		t.Errorf("the primary limit: %v", err)
	}
}
