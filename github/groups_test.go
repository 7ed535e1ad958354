package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

var defaultGroup = fleet.RunnerGroup{ID: "1", Name: "Default", Visibility: fleet.GroupAll}

func TestRunnerGroupsOfEveryVersion(t *testing.T) {
	t.Parallel()
	for _, version := range githubsim.Versions() {
		sim, url := simulator(t, func(c *githubsim.Config) { c.Version = version })
		must(t, sim.AddScope(fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "Gadgets"}))
		_, err := sim.Create(org, githubsim.RunnerSpec{Name: "r", Group: 7})
		must(t, err)
		unset := fleet.RunnerGroup{ID: "7", Name: "group-7", Visibility: fleet.GroupAll}
		want := map[fleet.ScopeKind][]fleet.RunnerGroup{
			fleet.ScopeOrg: {
				defaultGroup,
				{ID: "2", Name: "gpu", Visibility: fleet.GroupSelected, Public: true, Selected: []string{"acme/gadgets", "acme/widgets"}},
				{ID: "3", Name: "nobody's", Visibility: fleet.GroupSelected},
				unset,
				{ID: "10", Name: "inside", Visibility: fleet.GroupPrivate},
			},
			fleet.ScopeEnterprise: {
				defaultGroup,
				{ID: "2", Name: "some", Visibility: fleet.GroupSelected, Selected: []string{"acme", "zeta"}},
				{ID: "3", Name: "open", Visibility: fleet.GroupAll, Public: true},
			},
		}
		gh := client(t, url)
		for _, scope := range scopes {
			for _, g := range want[scope.Kind] {
				if g.ID != unset.ID {
					slices.Reverse(g.Selected)
					must(t, sim.SetGroup(scope, g))
					slices.Reverse(g.Selected)
				}
			}
			groups, charged, err := gh.RunnerGroups(t.Context(), scope)
			if diff := cmp.Diff(want[scope.Kind], groups); err != nil || diff != "" {
				t.Errorf("%s, %s: %v (-want +got):\n%s", version, scope, err, diff)
			}
			if requests := map[fleet.ScopeKind]int{fleet.ScopeOrg: 3, fleet.ScopeEnterprise: 2}[scope.Kind]; charged != requests {
				t.Errorf("%s, %s: %d requests, want %d", version, scope, charged, requests)
			}
		}
		for _, e := range sim.Log() {
			if e.Method != "" && (e.Status != http.StatusOK || strings.Contains(e.Path, "/repos/")) {
				t.Errorf("%s: %s %s was answered %d", version, e.Method, e.Path, e.Status)
			}
		}
	}
}

// many has 249 more groups, the last of them with 250 repositories.
func many(t *testing.T, sim *githubsim.Sim) {
	t.Helper()
	for id := 2; id <= 250; id++ {
		g := fleet.RunnerGroup{ID: strconv.Itoa(id), Name: fmt.Sprint("g", id)}
		if id == 250 {
			g.Visibility = fleet.GroupSelected
			for n := range 250 {
				g.Selected = append(g.Selected, fmt.Sprint("acme/r", n))
			}
		}
		must(t, sim.SetGroup(org, g))
	}
}

func TestManyRunnerGroupsAndRepositoriesAreListedWhole(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	many(t, sim)
	groups, charged, err := client(t, url).RunnerGroups(t.Context(), org)
	if err != nil || len(groups) != 250 || charged != 6 {
		t.Fatalf("%d groups for %d requests, %v, want 250 for 6", len(groups), charged, err)
	}
	last := groups[249]
	if last.ID != "250" || len(last.Selected) != 250 || !slices.IsSorted(last.Selected) || len(slices.Compact(last.Selected)) != 250 {
		t.Errorf("the last group: %s with %d repositories", last.ID, len(last.Selected))
	}
}

// What does not add up is no group at all, wherever it is. A group that cannot be
// read, or one of whose members cannot, costs itself alone.
func TestRunnerGroupsAreWholeOrAnError(t *testing.T) {
	t.Parallel()
	group := func(fields string) string { return `{"total_count":1,"runner_groups":[{` + fields + `}]}` }
	const (
		list    = "/orgs/acme/actions/runner-groups"
		members = list + "/250/repositories"
		denied  = `{"message":"Must have admin rights to Organization."}`
	)
	for name, tt := range map[string]struct {
		path, page string
		status     int
		body       string
		want       error
		says       string
	}{
		"no right":                 {list, "1", 403, denied, fleet.ErrForbidden, "admin:org"},
		"no such organisation":     {list, "1", 404, `{"message":"Not Found"}`, fleet.ErrNotFound, "list runner groups of org/acme"},
		"a server that is down":    {list, "3", 502, `{}`, fleet.ErrUnavailable, ""},
		"a total that lies":        {list, "2", 200, `{"total_count":251,"runner_groups":[]}`, fleet.ErrMalformed, "total_count is 250 on page 1 and 251 on page 2"},
		"fewer than the total":     {list, "3", 200, `{"total_count":250,"runner_groups":[]}`, fleet.ErrMalformed, "200 are shown where total_count says 250"},
		"no total":                 {list, "1", 200, `{"runner_groups":[]}`, fleet.ErrMalformed, "total_count is missing"},
		"no groups":                {list, "1", 200, `{"total_count":0}`, fleet.ErrMalformed, "runner_groups is missing"},
		"a group without an id":    {list, "1", 200, group(`"visibility":"all","allows_public_repositories":true`), fleet.ErrMalformed, "no id"},
		"a visibility not known":   {list, "1", 200, group(`"id":4,"visibility":"internal","allows_public_repositories":true`), fleet.ErrMalformed, `group 4 has the visibility "internal"`},
		"no visibility":            {list, "1", 200, group(`"id":4,"allows_public_repositories":true`), fleet.ErrMalformed, `the visibility ""`},
		"public or not":            {list, "1", 200, group(`"id":4,"visibility":"all"`), fleet.ErrMalformed, "group 4 does not say whether it takes public"},
		"no right to members":      {members, "1", 403, denied, fleet.ErrForbidden, "runner group 250: list runner group members"},
		"members that are away":    {members, "2", 500, `{}`, fleet.ErrUnavailable, "runner group 250: "},
		"a total of members":       {members, "3", 200, `{"total_count":250,"repositories":[]}`, fleet.ErrMalformed, "200 are shown where total_count says 250"},
		"a repository has no name": {members, "1", 200, `{"total_count":1,"repositories":[{"id":1,"login":"acme"}]}`, fleet.ErrMalformed, "scope"},
		"a repository has no id":   {members, "1", 200, `{"total_count":1,"repositories":[{"full_name":"acme/a"}]}`, fleet.ErrMalformed, `"acme/a", which is selected, has no id`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, url := simulator(t)
			many(t, sim)
			sim.Intercept(func(r *http.Request) http.Handler {
				if strings.HasSuffix(r.URL.Path, tt.path) && r.URL.Query().Get("page") == tt.page {
					return says(tt.status, tt.body)
				}
				return nil
			})
			groups, _, err := client(t, url).RunnerGroups(t.Context(), org)
			wantKind(t, name, err, tt.want)
			if len(groups) > 0 && !github.Unread(err) || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%d groups, %v, want none and %q", len(groups), err, tt.says)
			}
			if github.Unread(err) && tt.path == members && len(groups) != 249 {
				t.Errorf("%d groups, want all but the one with the member", len(groups))
			}
			var e *github.Error
			if !errors.As(err, &e) || e.Scope != org || e.Op != github.OpRunnerGroups && e.Op != github.OpGroupMembers {
				t.Errorf("error %#v, want the operation and the scope", err)
			}
			sim.Intercept(nil)
			if groups, _, err := client(t, url).RunnerGroups(t.Context(), org); err != nil || len(groups) != 250 {
				t.Errorf("%d groups, %v, once it is over", len(groups), err)
			}
		})
	}
}

// A group that cannot be read costs itself, and no other.
func TestARunnerGroupThatCannotBeReadCostsItselfAlone(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{
		"visibility": `{"id":4,"visibility":"internal","allows_public_repositories":true}`,
		"no id":      `{"visibility":"all","allows_public_repositories":true}`,
		"null":       `null`,
		"a word":     `{"id":"x","visibility":"all","allows_public_repositories":true}`,
	} {
		groups, _, err := answers(t, says(http.StatusOK, `{"total_count":2,"runner_groups":[`+bad+
			`,{"id":5,"name":"a\u0000b","visibility":"all","allows_public_repositories":true}]}`)).RunnerGroups(t.Context(), org)
		if len(groups) != 1 || groups[0].ID != "5" || groups[0].Name != "a\uFFFDb" || !github.Unread(err) || !strings.Contains(err.Error(), "1 cannot be read") {
			t.Errorf("%s: %+v, %v, want the other group and the reason", name, groups, err)
		}
	}
}

func TestARunnerGroupThatIsDeletedMeanwhileIsLeftOut(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	for id := 2; id <= 4; id++ {
		must(t, sim.SetGroup(org, fleet.RunnerGroup{ID: strconv.Itoa(id), Visibility: fleet.GroupSelected, Selected: []string{"acme/widgets"}}))
	}
	sim.Intercept(func(r *http.Request) http.Handler {
		if strings.HasSuffix(r.URL.Path, "/runner-groups/3/repositories") {
			return says(http.StatusNotFound, `{"message":"Not Found"}`)
		}
		return nil
	})
	groups, charged, err := client(t, url).RunnerGroups(t.Context(), org)
	want := []fleet.RunnerGroup{
		defaultGroup,
		{ID: "2", Name: "group-2", Visibility: fleet.GroupSelected, Selected: []string{"acme/widgets"}},
		{ID: "4", Name: "group-4", Visibility: fleet.GroupSelected, Selected: []string{"acme/widgets"}},
	}
	if diff := cmp.Diff(want, groups); err != nil || diff != "" || charged != 4 {
		t.Errorf("%d requests, want 4, %v (-want +got):\n%s", charged, err, diff)
	}
}

// A list that is as it was costs nothing of the hour, and what changed in one of
// them costs that one.
func TestRunnerGroupsThatAreAsTheyWereAreFree(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	gh := client(t, url)
	list := func(what string, charged int, selected ...string) {
		t.Helper()
		groups, n, err := gh.RunnerGroups(t.Context(), org)
		if err != nil || len(groups) != 2 || n != charged {
			t.Fatalf("%s: %d groups for %d requests, %v, want 2 for %d", what, len(groups), n, err, charged)
		}
		if diff := cmp.Diff(selected, groups[1].Selected); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	g := fleet.RunnerGroup{ID: "2", Name: "gpu", Visibility: fleet.GroupSelected, Selected: []string{"acme/widgets"}}
	must(t, sim.SetGroup(org, g))
	list("at first", 2, "acme/widgets")
	list("again", 0, "acme/widgets")
	g.Selected = append(g.Selected, "acme/gadgets")
	must(t, sim.SetGroup(org, g))
	list("one more repository", 1, "acme/gadgets", "acme/widgets")
	g.Name = "cuda"
	must(t, sim.SetGroup(org, g))
	list("another name", 1, "acme/gadgets", "acme/widgets")
	list("at last", 0, "acme/gadgets", "acme/widgets")
}
