package github_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	newgh "github.com/google/go-github/v89/github"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// newGoGitHub is the client of that name as it is today, unchanged: what it
// makes of the simulator is what it makes of GitHub.
func newGoGitHub(t *testing.T, url string) *newgh.Client {
	t.Helper()
	c, err := newgh.NewClient(newgh.WithEnterpriseURLs(url, url), newgh.WithAuthToken(credential))
	must(t, err)
	return c
}

// atScope is the operations of one scope, as go-github has them; nil: it has
// not.
type atScope struct {
	scope      fleet.Scope
	list       func(context.Context, *newgh.ListRunnersOptions) (*newgh.Runners, *newgh.Response, error)
	get        func(context.Context, int64) (*newgh.Runner, *newgh.Response, error)
	remove     func(context.Context, int64) (*newgh.Response, error)
	register   func(context.Context) (*newgh.RegistrationToken, *newgh.Response, error)
	unregister func(context.Context) (*newgh.RemoveToken, *newgh.Response, error)
	downloads  func(context.Context) ([]*newgh.RunnerApplicationDownload, *newgh.Response, error)
	jit        func(context.Context, newgh.CreateJITConfigRequest) (*newgh.JITRunnerConfig, *newgh.Response, error)
}

func scopesOf(c *newgh.Client) []atScope {
	type ctx = context.Context
	return []atScope{
		{
			scope: scopes[0],
			list: func(ctx ctx, o *newgh.ListRunnersOptions) (*newgh.Runners, *newgh.Response, error) {
				return c.Enterprise.ListRunners(ctx, "octo", o)
			},
			get: func(ctx ctx, id int64) (*newgh.Runner, *newgh.Response, error) {
				return c.Enterprise.GetRunner(ctx, "octo", id)
			},
			remove: func(ctx ctx, id int64) (*newgh.Response, error) { return c.Enterprise.RemoveRunner(ctx, "octo", id) },
			register: func(ctx ctx) (*newgh.RegistrationToken, *newgh.Response, error) {
				return c.Enterprise.CreateRegistrationToken(ctx, "octo")
			},
			downloads: func(ctx ctx) ([]*newgh.RunnerApplicationDownload, *newgh.Response, error) {
				return c.Enterprise.ListRunnerApplicationDownloads(ctx, "octo")
			},
			jit: func(ctx ctx, r newgh.CreateJITConfigRequest) (*newgh.JITRunnerConfig, *newgh.Response, error) {
				return c.Enterprise.CreateJITConfig(ctx, "octo", r)
			},
		},
		{
			scope: org,
			list: func(ctx ctx, o *newgh.ListRunnersOptions) (*newgh.Runners, *newgh.Response, error) {
				return c.Actions.ListOrganizationRunners(ctx, "acme", o)
			},
			get: func(ctx ctx, id int64) (*newgh.Runner, *newgh.Response, error) {
				return c.Actions.GetOrganizationRunner(ctx, "acme", id)
			},
			remove: func(ctx ctx, id int64) (*newgh.Response, error) {
				return c.Actions.RemoveOrganizationRunner(ctx, "acme", id)
			},
			register: func(ctx ctx) (*newgh.RegistrationToken, *newgh.Response, error) {
				return c.Actions.CreateOrganizationRegistrationToken(ctx, "acme")
			},
			unregister: func(ctx ctx) (*newgh.RemoveToken, *newgh.Response, error) {
				return c.Actions.CreateOrganizationRemoveToken(ctx, "acme")
			},
			downloads: func(ctx ctx) ([]*newgh.RunnerApplicationDownload, *newgh.Response, error) {
				return c.Actions.ListOrganizationRunnerApplicationDownloads(ctx, "acme")
			},
			jit: func(ctx ctx, r newgh.CreateJITConfigRequest) (*newgh.JITRunnerConfig, *newgh.Response, error) {
				return c.Actions.CreateOrgJITConfig(ctx, "acme", r)
			},
		},
		{
			scope: scopes[2],
			list: func(ctx ctx, o *newgh.ListRunnersOptions) (*newgh.Runners, *newgh.Response, error) {
				return c.Actions.ListRunners(ctx, "acme", "widgets", o)
			},
			get: func(ctx ctx, id int64) (*newgh.Runner, *newgh.Response, error) {
				return c.Actions.GetRunner(ctx, "acme", "widgets", id)
			},
			remove: func(ctx ctx, id int64) (*newgh.Response, error) {
				return c.Actions.RemoveRunner(ctx, "acme", "widgets", id)
			},
			register: func(ctx ctx) (*newgh.RegistrationToken, *newgh.Response, error) {
				return c.Actions.CreateRegistrationToken(ctx, "acme", "widgets")
			},
			unregister: func(ctx ctx) (*newgh.RemoveToken, *newgh.Response, error) {
				return c.Actions.CreateRemoveToken(ctx, "acme", "widgets")
			},
			downloads: func(ctx ctx) ([]*newgh.RunnerApplicationDownload, *newgh.Response, error) {
				return c.Actions.ListRunnerApplicationDownloads(ctx, "acme", "widgets")
			},
			jit: func(ctx ctx, r newgh.CreateJITConfigRequest) (*newgh.JITRunnerConfig, *newgh.Response, error) {
				return c.Actions.CreateRepoJITConfig(ctx, "acme", "widgets", r)
			},
		},
	}
}

// TestNewGoGitHubAgainstEveryVersion uses each of the 17 operations that it has
// for runners, and what it knows beside v45: names, groups, versions and
// just-in-time configurations, as far as the version of GitHub does.
func TestNewGoGitHubAgainstEveryVersion(t *testing.T) {
	t.Parallel()
	for at, version := range githubsim.Versions() {
		since := func(first string) bool { return at >= slices.Index(githubsim.Versions(), first) }
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s, url := simulator(t, func(c *githubsim.Config) { c.Version = version })
			for _, ops := range scopesOf(newGoGitHub(t, url)) {
				t.Run(string(ops.scope.Kind), func(t *testing.T) { newGoGitHubAt(t, s, ops, since) })
			}
		})
	}
}

func newGoGitHubAt(t *testing.T, s *githubsim.Sim, ops atScope, since func(string) bool) {
	ctx := t.Context()
	ids, err := s.CreateMany(ops.scope, 45, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprint("r", i), Labels: []string{"gpu"}, Online: true, Busy: i == 0, Ephemeral: i == 1}
	})
	must(t, err)
	busy, idle := ids[0], ids[1]

	seen := map[int64]bool{}
	for page := 1; page != 0; {
		rs, resp, err := ops.list(ctx, &newgh.ListRunnersOptions{ListOptions: newgh.ListOptions{PerPage: 20, Page: page}})
		must(t, err)
		for _, r := range rs.Runners {
			seen[r.GetID()] = true
			if r.GetStatus() != "online" || r.GetBusy() != (r.GetID() == busy) || len(r.Labels) != 4 || r.GetOS() == "" || (r.RunnerGroupID != nil) != since("3.7") {
				t.Errorf("runner %v", r)
			}
			if since("3.19") && (r.GetEphemeral() != (r.GetID() == idle) || r.GetVersion() == "") {
				t.Errorf("runner %v, want whether it is ephemeral and its version", r)
			}
		}
		if rs.TotalCount != 45 {
			t.Errorf("total %d, want 45", rs.TotalCount)
		}
		page = resp.NextPage
	}
	if len(seen) != 45 {
		t.Errorf("%d runners, want 45", len(seen))
	}
	named := 45 // where names are not heeded
	if since("3.11") {
		named = 1
	}
	if rs, _, err := ops.list(ctx, &newgh.ListRunnersOptions{Name: newgh.Ptr("r7")}); err != nil || rs.TotalCount != named {
		t.Errorf("runners of one name: %v, %v, want %d", rs, err, named)
	}

	if r, _, err := ops.get(ctx, idle); err != nil || r.GetID() != idle || r.GetName() != "r1" {
		t.Errorf("runner %v, %v", r, err)
	}
	refused := http.StatusInternalServerError
	if since("3.4") {
		refused = http.StatusUnprocessableEntity
	}
	for id, want := range map[int64]int{busy: refused, idle: http.StatusNoContent, 1 << 40: http.StatusNotFound} {
		if resp, err := ops.remove(ctx, id); resp == nil || resp.StatusCode != want || (err == nil) != (want == http.StatusNoContent) {
			t.Errorf("remove runner %d: %v, want status %d", id, err, want)
		}
	}
	var missing *newgh.ErrorResponse
	if _, _, err := ops.get(ctx, idle); !errors.As(err, &missing) || missing.Message != "Not Found" || missing.DocumentationURL == "" {
		t.Errorf("a runner that was removed: %v", err)
	}

	hour := func(end newgh.Timestamp) bool { return time.Until(end.Time).Round(time.Minute) == time.Hour }
	if token, _, err := ops.register(ctx); err != nil || token.GetToken() == "" || !hour(token.GetExpiresAt()) {
		t.Errorf("registration token %v, %v", token, err)
	}
	if ops.unregister != nil {
		if token, _, err := ops.unregister(ctx); err != nil || token.GetToken() == "" || !hour(token.GetExpiresAt()) {
			t.Errorf("remove token %v, %v", token, err)
		}
	}
	if list, _, err := ops.downloads(ctx); err != nil || len(list) < 5 || list[0].GetDownloadURL() == "" {
		t.Errorf("downloads %v, %v", list, err)
	}
	config, resp, err := ops.jit(ctx, newgh.CreateJITConfigRequest{Name: "jit", RunnerGroupID: 1, Labels: []string{"gpu"}})
	switch {
	case !since("3.10"):
		if resp == nil || resp.StatusCode != http.StatusNotFound {
			t.Errorf("a just-in-time configuration: %v, %v, want 404", config, err)
		}
	case err != nil || config.GetEncodedJITConfig() == "" || config.GetRunner().GetName() != "jit" || config.GetRunner().GetStatus() != "offline":
		t.Errorf("a just-in-time configuration: %v, %v", config, err)
	}
}

// TestNewGoGitHubKnowsTheLimits has it tell refusals apart, those that v45 does
// not know among them.
func TestNewGoGitHubKnowsTheLimits(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusForbidden, http.StatusTooManyRequests} {
		s, url := simulator(t, func(c *githubsim.Config) {
			c.Limits = githubsim.Limits{Primary: 100, PrimaryStatus: status, Points: 1, SecondaryStatus: status}
		})
		c := newGoGitHub(t, url)
		if _, resp, err := c.Enterprise.ListRunners(t.Context(), "octo", nil); err != nil || resp.Rate.Remaining != 99 {
			t.Errorf("%d: rate %+v, %v", status, resp.Rate, err)
		}
		var secondary *newgh.AbuseRateLimitError
		if _, _, err := c.Enterprise.ListRunners(t.Context(), "octo", nil); !errors.As(err, &secondary) || secondary.RetryAfter == nil || *secondary.RetryAfter != time.Minute {
			t.Errorf("%d: a secondary limit: %v", status, err)
		}
		s.SetLimits(githubsim.Limits{Primary: 1, PrimaryStatus: status})
		s.Penalise(credential, 0)
		var primary *newgh.RateLimitError
		// Another client: this one would not ask again.
		if _, _, err := newGoGitHub(t, url).Enterprise.ListRunners(t.Context(), "octo", nil); !errors.As(err, &primary) || primary.Rate.Limit != 1 {
			t.Errorf("%d: the primary limit: %v", status, err)
		}
	}
}
