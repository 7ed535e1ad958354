package githubsim_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

const groupsPath = "/api/v3/orgs/acme/actions/runner-groups"

func TestRunnerGroupsAreListed(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.19"})
	must(t, s.SetGroup(org, fleet.RunnerGroup{ID: "2", Name: "gpu", Visibility: fleet.GroupSelected, Public: true, Selected: []string{"acme/widgets", "acme/new"}}))
	must(t, s.SetGroup(enterprise, fleet.RunnerGroup{ID: "2", Visibility: fleet.GroupSelected, Selected: []string{"acme"}}))
	const of = "/api/v3/enterprises/octo/actions/runner-groups"
	for path, parts := range map[string][]string{
		groupsPath: {
			`{"total_count":2,"runner_groups":[{"id":1,"name":"Default","visibility":"all","default":true,"runners_url":"`,
			`"inherited":false,"allows_public_repositories":false,"restricted_to_workflows":false,"selected_workflows":[]},{"id":2,"name":"gpu","visibility":"selected","default":false,`,
			`/orgs/acme/actions/runner-groups/2/repositories","runners_url":"`, `"allows_public_repositories":true`,
		},
		groupsPath + "?per_page=1&page=2":                {`{"total_count":2,"runner_groups":[{"id":2,`},
		groupsPath + "/2/repositories":                   {`"total_count":2}`, `"full_name":"acme/widgets","private":true`, `"full_name":"acme/new"`},
		groupsPath + "/2/repositories?per_page=1&page=2": {`{"repositories":[{"id":4,"name":"new",`},
		groupsPath + "/1/repositories":                   {`{"repositories":[],"total_count":0}`},
		of:                                               {`{"id":2,"name":"group-2","visibility":"selected","default":false,"selected_organizations_url":"`},
		of + "/2/organizations":                          {`{"organizations":[{"id":2,"login":"acme","type":"Organization"}],"total_count":1}`},
	} {
		r := s.ask("GET", path, "")
		for _, part := range parts {
			if r.status != http.StatusOK || !strings.Contains(r.body, part) {
				t.Errorf("%s: %d %s, want %s", path, r.status, r.body, part)
			}
		}
	}
	if link := s.ask("GET", groupsPath+"?per_page=1", "").header.Get("Link"); !strings.Contains(link, `/actions/runner-groups?page=2&per_page=1>; rel="next"`) {
		t.Errorf("Link %s", link)
	}
	for _, path := range []string{groupsPath + "/9/repositories", groupsPath + "/x/repositories", groupsPath + "/2/organizations", of + "/2/repositories", repoPath + "/runner-groups"} {
		if r := s.ask("GET", path, ""); r.status != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", path, r.status)
		}
	}
	r := s.ask("GET", groupsPath, "")
	if again := s.ask("GET", groupsPath, "", "If-None-Match", r.header.Get("Etag")); again.status != http.StatusNotModified {
		t.Errorf("with the validator: %d, want 304", again.status)
	}
	if e := s.last(); e.Path != "/orgs/{org}/actions/runner-groups" || e.Status != http.StatusNotModified {
		t.Errorf("the log has %s %d", e.Path, e.Status)
	}
	s.ask("GET", groupsPath+"/2/repositories", "")
	if e := s.last(); e.Path != "/orgs/{org}/actions/runner-groups/{runner_group_id}/repositories" {
		t.Errorf("the log has %s", e.Path)
	}
	stop, err := s.Inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: http.StatusBadGateway, Path: "/runner-groups"})
	must(t, err)
	if r := s.ask("GET", groupsPath, ""); r.status != http.StatusBadGateway {
		t.Errorf("with a fault: %d, want 502", r.status)
	}
	stop()
	s.Revoke(credential)
	if r := s.ask("GET", groupsPath, ""); r.status != http.StatusUnauthorized {
		t.Errorf("with a bad credential: %d, want 401", r.status)
	}
}

func TestWhatAnAppNeedsForRunnerGroups(t *testing.T) {
	t.Parallel()
	s := startWithApp(t, githubsim.Config{Version: "3.19"}, map[string]string{"actions": "read", "organization_self_hosted_runners": "read"})
	for permissions, want := range map[string]string{
		`{"organization_self_hosted_runners":"read"}`: "200 ",
		`{"actions":"read"}`:                          "403 organization_self_hosted_runners=read",
	} {
		r := s.ask("GET", groupsPath, "", "Authorization", s.token(70, `{"permissions":`+permissions+`}`))
		if got := fmt.Sprint(r.status, " ", r.header.Get("X-Accepted-GitHub-Permissions")); got != want {
			t.Errorf("with %s: %s, want %s", permissions, got, want)
		}
	}
}

// A job goes to no runner whose group does not take its repository, whoever
// hands it out.
func TestAGroupTakesJobsOfItsRepositoriesOnly(t *testing.T) {
	t.Parallel()
	everything := []string{"inner", "outer"}
	for name, tt := range map[string]struct {
		scope fleet.Scope
		group fleet.RunnerGroup
		takes []string // of inner, which is private, and outer, which is public
	}{
		"all":                          {org, fleet.RunnerGroup{}, []string{"inner"}},
		"all, public too":              {org, fleet.RunnerGroup{Public: true}, everything},
		"private":                      {org, fleet.RunnerGroup{Visibility: fleet.GroupPrivate}, []string{"inner"}},
		"private, public too":          {org, fleet.RunnerGroup{Visibility: fleet.GroupPrivate, Public: true}, []string{"inner"}},
		"selected":                     {org, fleet.RunnerGroup{Visibility: fleet.GroupSelected, Selected: []string{"acme/Inner", "acme/outer"}}, []string{"inner"}},
		"selected, public too":         {org, fleet.RunnerGroup{Visibility: fleet.GroupSelected, Public: true, Selected: []string{"acme/outer"}}, []string{"outer"}},
		"nothing selected":             {org, fleet.RunnerGroup{Visibility: fleet.GroupSelected, Public: true}, nil},
		"of an enterprise":             {enterprise, fleet.RunnerGroup{Public: true}, everything},
		"of selected organisations":    {enterprise, fleet.RunnerGroup{Visibility: fleet.GroupSelected, Public: true, Selected: []string{"Acme"}}, everything},
		"of another organisation":      {enterprise, fleet.RunnerGroup{Visibility: fleet.GroupSelected, Public: true, Selected: []string{"other"}}, nil},
		"of an enterprise, not public": {enterprise, fleet.RunnerGroup{}, []string{"inner"}},
	} {
		for _, repository := range everything {
			s := start(t, githubsim.Config{})
			at := fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: repository}
			must(t, s.AddScope(at))
			must(t, s.SetPublic(at, repository == "outer"))
			tt.group.ID = "2"
			must(t, s.SetGroup(tt.scope, tt.group))
			one := s.create(tt.scope, githubsim.RunnerSpec{Name: "one", Group: 2, Online: true})
			two := s.create(tt.scope, githubsim.RunnerSpec{Name: "two", Group: 2, Online: true})
			job, err := s.QueueJob(tt.scope, githubsim.JobSpec{Repository: "acme/" + repository})
			must(t, err)
			want := slices.Contains(tt.takes, repository)
			ran := s.RunJob(tt.scope, one, job)
			if (ran == nil) != want || !want && !errors.Is(ran, fleet.ErrConflict) {
				t.Errorf("%s: RunJob of %s: %v, want it taken: %t", name, repository, ran, want)
			}
			if want {
				must(t, s.FinishJob(job, "success"))
				_, err := s.QueueJob(tt.scope, githubsim.JobSpec{Repository: "acme/" + repository})
				must(t, err)
			}
			if n, err := s.Dispatch(tt.scope); err != nil || (n == 1) != want {
				t.Errorf("%s: Dispatch of %s = %d, %v, want it taken: %t", name, repository, n, err, want)
			}
			// What it is made to work on is then of a repository that it takes.
			none := tt.group.Visibility == fleet.GroupSelected && tt.group.Selected == nil
			if err := s.Assign(tt.scope, two); errors.Is(err, fleet.ErrConflict) != none || !none && err != nil {
				t.Errorf("%s: Assign: %v", name, err)
			}
			for _, j := range s.Jobs() {
				if j.RunnerID == two && !want && j.ID == job {
					t.Errorf("%s: Assign gave it %s", name, j.Repository)
				}
			}
		}
	}
}

func TestRunnersOfARepositoryTakeAllItsJobs(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	must(t, s.SetPublic(repo, true))
	s.create(repo, githubsim.RunnerSpec{Name: "a", Online: true})
	s.queue(githubsim.JobSpec{})
	if n, err := s.Dispatch(repo); n != 1 || err != nil {
		t.Errorf("Dispatch() = %d, %v, want 1", n, err)
	}
}

func TestASelectionOutlivesARenaming(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	must(t, s.SetGroup(org, fleet.RunnerGroup{ID: "2", Visibility: fleet.GroupSelected, Selected: []string{"acme/widgets"}}))
	s.create(org, githubsim.RunnerSpec{Name: "a", Group: 2, Online: true})
	s.queue(githubsim.JobSpec{})
	must(t, s.Rename(repo, fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "gadgets"}))
	if r := s.ask("GET", groupsPath+"/2/repositories", ""); !strings.Contains(r.body, `"full_name":"acme/gadgets"`) {
		t.Error(r.body)
	}
	if n, err := s.Dispatch(org); n != 1 || err != nil {
		t.Errorf("Dispatch() = %d, %v, want 1", n, err)
	}
}

func TestABusyRunnerWorksForItsGroup(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	must(t, s.SetGroup(org, fleet.RunnerGroup{ID: "2", Name: "gpu", Visibility: fleet.GroupSelected, Selected: []string{"acme/gadgets"}}))
	s.create(org, githubsim.RunnerSpec{Name: "a", Group: 2, Online: true, Busy: true})
	if j := s.Jobs()[0]; j.Repository != "acme/gadgets" {
		t.Errorf("its job is of %s, want acme/gadgets", j.Repository)
	}
	if r := s.ask("GET", "/api/v3/repos/acme/gadgets/actions/jobs/1", ""); !strings.Contains(r.body, `"runner_group_id":2,"runner_group_name":"gpu"}`) {
		t.Error(r.body)
	}
}

func TestSetGroupRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for _, tt := range []struct {
		scope fleet.Scope
		group fleet.RunnerGroup
		says  string
	}{
		{org, fleet.RunnerGroup{}, "want a number above 0"},
		{org, fleet.RunnerGroup{ID: "gpu"}, "want a number above 0"},
		{org, fleet.RunnerGroup{ID: "0"}, "want a number above 0"},
		{repo, fleet.RunnerGroup{ID: "2"}, "a repository has none"},
		{org, fleet.RunnerGroup{ID: "2", Visibility: "some"}, `visibility "some": want all, private or selected`},
		{enterprise, fleet.RunnerGroup{ID: "2", Visibility: fleet.GroupPrivate}, "want all or selected"},
		{org, fleet.RunnerGroup{ID: "2", Selected: []string{"acme/widgets"}}, "the visibility is all"},
		{org, fleet.RunnerGroup{ID: "2", Visibility: fleet.GroupSelected, Selected: []string{"widgets"}}, "repo/widgets"},
		{org, fleet.RunnerGroup{ID: "2", Visibility: fleet.GroupSelected, Selected: []string{"other/widgets"}}, "other/widgets is not of the organisation"},
		{enterprise, fleet.RunnerGroup{ID: "2", Visibility: fleet.GroupSelected, Selected: []string{"acme/widgets"}}, "org/acme/widgets"},
		{fleet.Scope{Kind: fleet.ScopeOrg, Owner: "nobody"}, fleet.RunnerGroup{ID: "2"}, "org/nobody: not found"},
	} {
		if err := s.SetGroup(tt.scope, tt.group); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("SetGroup(%s, %+v) = %v, want %q", tt.scope, tt.group, err, tt.says)
		}
	}
	for scope, says := range map[fleet.Scope]string{org: "want a repository", {Kind: fleet.ScopeRepo, Owner: "acme", Repo: "none"}: "not found"} {
		if err := s.SetPublic(scope, true); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("SetPublic(%s) = %v, want %q", scope, err, says)
		}
	}
	if r := s.ask("GET", groupsPath, ""); !strings.HasPrefix(r.body, `{"total_count":1,`) {
		t.Errorf("afterwards: %s", r.body)
	}
}

func TestControlOfRunnerGroups(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for _, tt := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"group", `{"scope":"org/acme","id":"2","name":"gpu","visibility":"selected","selected":["acme/widgets"]}`, 200, "{}"},
		{"group", `{"scope":"org/acme","id":"3","public":true}`, 200, "{}"},
		{"public", `{"scope":"repo/acme/widgets","on":true}`, 200, "{}"},
		{"create", `{"scope":"org/acme","name":"a","group":2,"online":true}`, 200, "[1]"},
		{"create", `{"scope":"org/acme","name":"b","group":3,"online":true}`, 200, "[2]"},
		{"queue-job", `{"scope":"org/acme","count":2}`, 200, "[1,2]"},
		{"dispatch", `{"scope":"org/acme"}`, 200, `{"assigned":1}`},
		{"run-job", `{"scope":"org/acme","job":2,"names":["a"]}`, 409, "its group takes no jobs of acme/widgets"},
		{"group", `{"scope":"org/acme","id":"x"}`, 400, "want a number"},
		{"group", `{"scope":"org/acme"}`, 400, "id is required"},
		{"group", `{"scope":"org/nobody","id":"2"}`, 404, "org/nobody"},
		{"public", `{"scope":"org/acme","on":true}`, 400, "want a repository"},
	} {
		if status, body := s.control(tt.path, tt.body); status != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s %s: %d %s, want %d with %s", tt.path, tt.body, status, body, tt.status, tt.says)
		}
	}
	s.wantJobs("the one that takes them", "in_progress b", "queued")
}
