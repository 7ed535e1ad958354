package github_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

var widgets = fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"}

// queue makes n workflow jobs of one run.
func queue(t *testing.T, sim *githubsim.Sim, n int) []int64 {
	t.Helper()
	var ids []int64
	for range n {
		spec := githubsim.JobSpec{Labels: []string{"GPU", "linux"}}
		if len(ids) > 0 {
			spec.RunID = runOf(sim, ids[0])
		}
		id, err := sim.QueueJob(widgets, spec)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func runOf(sim *githubsim.Sim, job int64) int64 {
	for _, j := range sim.Jobs() {
		if j.ID == job {
			return j.RunID
		}
	}
	return 0
}

func TestARunOf150JobsIsListedWhole(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 99, 100, 101, 150, 200} {
		sim, url := simulator(t)
		gh := client(t, url)
		ids := queue(t, sim, n)
		list, _, err := gh.WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued)
		runs := list.Runs
		if diff := cmp.Diff(github.WorkflowRuns{Runs: []github.WorkflowRun{{ID: runOf(sim, ids[0]), State: fleet.WorkflowJobQueued}}}, list); err != nil || diff != "" {
			t.Fatalf("WorkflowRuns: %v (-want +got):\n%s", err, diff)
		}
		jobs, _, err := gh.WorkflowJobs(t.Context(), widgets, runs[0].ID, github.LatestAttempt)
		if err != nil || len(jobs) != n {
			t.Fatalf("run of %d: %d jobs, %v", n, len(jobs), err)
		}
		for i, j := range jobs {
			want := fleet.WorkflowJob{
				ID: ids[i], RunID: runs[0].ID, RunAttempt: 1, Repository: "acme/widgets", Labels: []string{"gpu", "linux"},
				State: fleet.WorkflowJobQueued, QueuedAt: j.QueuedAt,
			}
			if diff := cmp.Diff(want, j); diff != "" || j.QueuedAt.IsZero() {
				t.Fatalf("job %d (-want +got):\n%s", i, diff)
			}
		}
		one, err := gh.WorkflowJob(t.Context(), widgets, ids[n-1])
		if diff := cmp.Diff(jobs[n-1], one); err != nil || diff != "" {
			t.Errorf("WorkflowJob: %v (-want +got):\n%s", err, diff)
		}
	}
}

func TestManyRunsAreListedWholeOrSaidToLackSome(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	gh := client(t, url)
	for range 1000 {
		queue(t, sim, 1)
	}
	if list, _, err := gh.WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued); err != nil || len(list.Runs) != 1000 || list.Lacks != "" {
		t.Errorf("%d runs, lacks %q, %v, want 1,000 and nothing lacking", len(list.Runs), list.Lacks, err)
	}
	queue(t, sim, 1) // GitHub counts it and shows one of the others no more
	list, charged, err := gh.WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued)
	if err != nil || len(list.Runs) != 1000 || charged != 10 || !strings.Contains(list.Lacks, "there are 1001, of which no more than 1000 are shown") {
		t.Errorf("%d runs for %d requests, lacks %q, %v, want 1,000 for 10 and why not all", len(list.Runs), charged, list.Lacks, err)
	}
}

// Where others come all the time the pages never add up: what they show is there
// all the same.
func TestRunsOnPagesThatDoNotAddUpAreListed(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	for range 150 {
		queue(t, sim, 1)
	}
	sim.Intercept(func(*http.Request) http.Handler {
		queue(t, sim, 1)
		return nil
	})
	list, charged, err := client(t, url).WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued)
	if err != nil || len(list.Runs) < 150 || charged != 4 || !strings.Contains(list.Lacks, "twice in a row: total_count is 153 on page 1 and 154 on page 2") {
		t.Errorf("%d runs for %d requests, lacks %q, %v", len(list.Runs), charged, list.Lacks, err)
	}
}

func TestAFaultOnTheSecondPageGivesNoJobsAtAll(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	gh := client(t, url)
	run := runOf(sim, queue(t, sim, 150)[0])
	page := ""
	sim.Intercept(func(r *http.Request) http.Handler {
		if page == "" || r.URL.Query().Get("page") != "2" {
			return nil
		}
		if page == "502" {
			return says(http.StatusBadGateway, `{"message":"Server Error"}`)
		}
		return says(http.StatusOK, page)
	})
	job := `{"id":1,"run_id":1,"status":"queued","labels":["a"]}`
	for name, tt := range map[string]struct {
		page string
		want error
	}{
		"502":                   {"502", fleet.ErrUnavailable},
		"nothing there":         {`{"total_count":150,"jobs":[]}`, fleet.ErrMalformed},
		"another total":         {`{"total_count":1,"jobs":[` + job + `]}`, fleet.ErrMalformed},
		"no total":              {`{"jobs":[]}`, fleet.ErrMalformed},
		"a total that is text":  {`{"total_count":"150","jobs":[]}`, fleet.ErrMalformed},
		"half a job":            {`{"total_count":150.5,"jobs":[]}`, fleet.ErrMalformed},
		"no jobs":               {`{"total_count":150}`, fleet.ErrMalformed},
		"jobs that are null":    {`{"total_count":150,"jobs":null}`, fleet.ErrMalformed},
		"one that is null":      {`{"total_count":150,"jobs":[null]}`, fleet.ErrMalformed},
		"one without an id":     {`{"total_count":150,"jobs":[{"status":"queued"}]}`, fleet.ErrMalformed},
		"one without a status":  {`{"total_count":150,"jobs":[{"id":1}]}`, fleet.ErrMalformed},
		"more than were wanted": {`{"total_count":150,"jobs":[` + strings.Repeat(job+",", 100) + job + `]}`, fleet.ErrMalformed},
		"empty":                 {` `, fleet.ErrMalformed},
		"null":                  {`null`, fleet.ErrMalformed},
	} {
		page = tt.page
		jobs, _, err := gh.WorkflowJobs(t.Context(), widgets, run, github.LatestAttempt)
		wantKind(t, name, err, tt.want)
		if jobs != nil {
			t.Errorf("%s: %d jobs, want none", name, len(jobs))
		}
	}
	page = ""
	if jobs, _, err := gh.WorkflowJobs(t.Context(), widgets, run, github.LatestAttempt); err != nil || len(jobs) != 150 {
		t.Errorf("%d jobs, %v, once it is over", len(jobs), err)
	}
}

// A job that comes between two pages costs another walk, and no job.
func TestAJobThatComesBetweenPagesIsListed(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	run := runOf(sim, queue(t, sim, 150)[0])
	pages := 0
	sim.Intercept(func(r *http.Request) http.Handler {
		if pages++; pages == 2 {
			if _, err := sim.QueueJob(widgets, githubsim.JobSpec{RunID: run}); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	jobs, _, err := client(t, url).WorkflowJobs(t.Context(), widgets, run, github.LatestAttempt)
	if err != nil || len(jobs) != 151 || pages != 4 {
		t.Errorf("%d jobs on %d pages, %v, want 151 on 4", len(jobs), pages, err)
	}
}

// The index of states lags, and a server may not heed the status at all: each run
// is in the state that it says.
func TestARunThatMovedOnIsInTheStateThatItSays(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		runs string
		want []github.WorkflowRun
	}{
		"one that is over":    {`{"id":1,"status":"completed"}`, nil},
		"one that began":      {`{"id":1,"status":"in_progress"}`, []github.WorkflowRun{{ID: 1, State: fleet.WorkflowJobInProgress}}},
		"one of another kind": {`{"id":1,"status":"pending"}`, []github.WorkflowRun{{ID: 1, State: "pending"}}},
	} {
		gh := answers(t, says(http.StatusOK, `{"total_count":2,"workflow_runs":[`+tt.runs+`,{"id":2,"status":"queued"}]}`))
		list, _, err := gh.WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued)
		want := github.WorkflowRuns{Runs: append(tt.want, github.WorkflowRun{ID: 2, State: fleet.WorkflowJobQueued})}
		if diff := cmp.Diff(want, list); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	_, err := answers(t, says(http.StatusOK, `{"id":2,"status":"queued"}`)).WorkflowJob(t.Context(), widgets, 1)
	wantKind(t, "another job", err, fleet.ErrMalformed)
}

// One element that cannot be read costs itself, and no other.
func TestAnElementThatCannotBeReadCostsItselfAlone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		runs, want, lacks string
	}{
		"status null":    {`{"id":1,"status":null},{"id":2,"status":"queued"}`, "[{1 } {2 queued}]", ""},
		"status missing": {`{"id":1},{"id":2,"status":"queued"}`, "[{1 } {2 queued}]", ""},
		"no id":          {`{"status":"queued"},{"id":2,"status":"queued"}`, "[{2 queued}]", "1 cannot be read: element 1 of workflow_runs: a run has no id"},
		"null":           {`null,{"id":2,"status":"queued"}`, "[{2 queued}]", "1 cannot be read: element 1 of workflow_runs: it is null"},
		"id a word":      {`{"id":"x","status":"queued"},{"id":2,"status":"queued"}`, "[{2 queued}]", "1 cannot be read: element 1 of workflow_runs: field \"id\" of the answer has the wrong type"},
	} {
		list, _, err := answers(t, says(http.StatusOK, `{"total_count":2,"workflow_runs":[`+tt.runs+`]}`)).WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued)
		if err != nil || fmt.Sprint(list.Runs) != tt.want || !strings.HasSuffix(list.Lacks, tt.lacks) || (tt.lacks == "") != (list.Lacks == "") {
			t.Errorf("%s: %v, lacks %q, %v, want %s and %q", name, list.Runs, list.Lacks, err, tt.want, tt.lacks)
		}
	}
	jobs, _, err := answers(t, says(http.StatusOK, `{"total_count":3,"jobs":[{"id":1,"status":null},{"id":2,"status":"queued"},{"id":3,"labels":"x"}]}`)).
		WorkflowJobs(t.Context(), widgets, 7, github.LatestAttempt)
	wantKind(t, "a job with labels in words", err, fleet.ErrMalformed)
	if len(jobs) != 2 || jobs[0].State != "" || jobs[1].State != fleet.WorkflowJobQueued {
		t.Errorf("jobs: %+v, want the two that can be read", jobs)
	}
}

// A list whose only element cannot be read says so, and is no fault of others.
func TestAnOnlyElementThatCannotBeReadIsSaidToBeUnread(t *testing.T) {
	t.Parallel()
	jobs, _, err := answers(t, says(http.StatusOK, `{"total_count":1,"jobs":[{"id":3,"labels":"x"}]}`)).WorkflowJobs(t.Context(), widgets, 7, github.LatestAttempt)
	if !github.Unread(err) || len(jobs) != 0 || !strings.Contains(err.Error(), "1 cannot be read: element 1 of jobs") {
		t.Errorf("%v, %v, want no job and an element that is unread", jobs, err)
	}
	_, _, err = answers(t, says(http.StatusOK, `{"total_count":2,"jobs":[]}`)).WorkflowJobs(t.Context(), widgets, 7, github.LatestAttempt)
	if err == nil || github.Unread(err) {
		t.Errorf("%v, want a listing that does not add up, and not elements that are unread", err)
	}
}

// A repository that cannot be read costs itself, and no other.
func TestARepositoryThatCannotBeReadCostsItselfAlone(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{
		"no name":        `{"private":true}`,
		"an empty name":  `{"name":"","private":true}`,
		"a NUL":          `{"name":"a\u0000b","private":true}`,
		"a slash":        `{"name":"a/b","private":true}`,
		"too long":       `{"name":"` + strings.Repeat("a", 101) + `","private":true}`,
		"a number":       `{"name":7,"private":true}`,
		"null":           `null`,
		"private a word": `{"name":"c","private":"no"}`,
		"no object":      `"widgets"`,
	} {
		got, unread, err := answers(t, says(http.StatusOK, `[{"name":"a","private":true},`+bad+`,{"name":"b","private":true}]`)).Repositories(t.Context(), org)
		if err != nil || len(got) != 2 || len(unread) != 1 || !strings.HasPrefix(unread[0], "repository 2 of page 1: ") || strings.ContainsRune(unread[0], 0) {
			t.Errorf("%s: %v, unread %q, %v, want two repositories and the reason for one", name, got, unread, err)
		}
	}
	_, unread, err := answers(t, says(http.StatusOK, `[{"name":"a"},{"name":"b/c","archived":true}]`)).Repositories(t.Context(), org)
	if err != nil || len(unread) != 0 {
		t.Errorf("archived: unread %q, %v, want none", unread, err)
	}
}

// Of a server that lists all runs there ever were, whatever it is asked, no more
// are read than GitHub shows, and they are not taken for all.
func TestAServerThatDoesNotHeedTheStatusIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	pages := 0
	gh := answers(t, func(w http.ResponseWriter, r *http.Request) {
		runs := make([]string, 100)
		for i := range runs {
			runs[i] = fmt.Sprintf(`{"id":%d,"status":"completed"}`, pages*100+i+1)
		}
		pages++
		says(http.StatusOK, `{"total_count":5000,"workflow_runs":[`+strings.Join(runs, ",")+`]}`)(w, r)
	})
	list, _, err := gh.WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued)
	if err != nil || len(list.Runs) != 0 || list.Lacks == "" || pages != 10 {
		t.Errorf("%d runs on %d pages, lacks %q, %v, want none on 10 and why", len(list.Runs), pages, list.Lacks, err)
	}
}

func TestRepositoriesThatCanHaveRuns(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	for i := range 130 {
		repo := fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: fmt.Sprint("r", i)}
		if err := sim.AddScope(repo); err != nil {
			t.Fatal(err)
		}
		if err := sim.SetPublic(repo, i == 7); err != nil {
			t.Fatal(err)
		}
	}
	repos, _, err := client(t, url).Repositories(t.Context(), org)
	if err != nil || len(repos) != 131 { // with widgets
		t.Errorf("%d repositories, %v, want 131", len(repos), err)
	}
	for _, repo := range repos {
		if repo.Public != (repo.Repo == "r7") {
			t.Errorf("%s: public %t", repo.Scope, repo.Public)
		}
	}
	got, _, err := answers(t, says(http.StatusOK, `[{"name":"a","private":false},{"name":"b","private":true,"archived":true},{"name":"c","private":true,"disabled":true},{"name":"d","private":true}]`)).Repositories(t.Context(), org)
	want := []github.Repository{
		{Scope: fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "a"}, Public: true},
		{Scope: fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "d"}},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("repositories: %v (-want +got):\n%s", err, diff)
	}
	scopes := func(list string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-OAuth-Scopes", list)
			says(http.StatusOK, `[{"name":"a","private":true}]`)(w, r)
		}
	}
	// GitHub shows public repositories to anybody, and says nothing of others.
	for _, list := range []string{"", "admin:org", "admin:org, public_repo"} {
		got, _, err = answers(t, scopes(list)).Repositories(t.Context(), org)
		wantKind(t, "scopes "+list, err, fleet.ErrForbidden)
		if got != nil {
			t.Errorf("scopes %s: repositories %v", list, got)
		}
	}
	if got, _, err = answers(t, scopes("admin:org, repo")).Repositories(t.Context(), org); err != nil || len(got) != 1 {
		t.Errorf("with repo: %v, %v", got, err)
	}
	_, _, err = answers(t, says(http.StatusOK, `[{"name":".."}]`)).Repositories(t.Context(), org)
	wantKind(t, "a name that is a path", err, fleet.ErrMalformed)
	got, _, err = answers(t, says(http.StatusOK, `[{"name":"a"},{"name":"b","private":null}]`)).Repositories(t.Context(), org)
	if err != nil || len(got) != 2 || got[0].Public || got[1].Public {
		t.Errorf("repositories that do not say whether they are private: %v, %v, want two that are not public", got, err)
	}
	_, _, err = answers(t, says(http.StatusForbidden, `{"message":"Resource not accessible by integration"}`)).WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued)
	wantKind(t, "no right", err, fleet.ErrForbidden)
	if !strings.Contains(err.Error(), "read access to actions") {
		t.Errorf("%v, want the right that lacks", err)
	}
}

// A list that is as it was costs nothing of the hour, and one that is not is
// read anew.
func TestListsOfRunsThatAreAsTheyWereAreFree(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	gh := client(t, url)
	list := func(what string, want, charged int) {
		t.Helper()
		listed, n, err := gh.WorkflowRuns(t.Context(), widgets, fleet.WorkflowJobQueued)
		if err != nil || len(listed.Runs) != want || listed.Lacks != "" || n != charged {
			t.Errorf("%s: %d runs for %d requests, lacks %q, %v, want %d for %d", what, len(listed.Runs), n, listed.Lacks, err, want, charged)
		}
	}
	for range 150 {
		queue(t, sim, 1)
	}
	list("at first", 150, 2)
	list("again", 150, 0)
	last := queue(t, sim, 1)[0]
	list("one more", 151, 2)
	if err := sim.FinishJob(last, "cancelled"); err != nil {
		t.Fatal(err)
	}
	list("one fewer", 150, 2)
	// A cache that says 304 whatever happens is found out where pages disagree.
	stop, err := sim.Inject(githubsim.Fault{Kind: githubsim.FaultStale304, Path: "/actions/runs", Nth: 2, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	queue(t, sim, 1)
	list("one more, and page 2 as it was", 151, 3)
	stop()
	list("once more", 151, 1)
	list("at last", 151, 0)
}
