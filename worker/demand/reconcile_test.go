package demand_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// Whatever events were lost, repeated and mixed up: once jobs are compared, the
// record has those that GitHub has.
func TestDemandAfterOneReconcileIsGitHubs(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	_, err := o.sim.CreateMany(acme, 4, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprint("build-", i), Labels: []string{"linux"}, Online: true}
	})
	o.ok(err)
	rapid.Check(t, func(r *rapid.T) {
		o.forget()
		o.exec(`TRUNCATE muster.repository, muster.reconciliation`)
		before := len(o.sim.Jobs())
		for _, j := range o.sim.Jobs() {
			if j.State != githubsim.JobCompleted {
				o.ok(o.sim.FinishJob(j.ID, "cancelled"))
			}
		}
		o.events()
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			o.step(r, before)
			o.pass(time.Second)
		}
		events := o.events()
		heard := rapid.SliceOfN(rapid.IntRange(0, max(len(events)-1, 0)), 0, 2*len(events)).Draw(r, "heard") // any order, some twice, some never
		for n, i := range heard {
			d := events[i]
			d.ID = fmt.Sprint(n)
			if err := o.intake.Receive(t.Context(), d); err != nil {
				r.Fatal(err)
			}
		}
		o.reconcile()
		if diff := cmp.Diff(o.truth(), o.rows(openJobs)); diff != "" {
			r.Fatalf("open workflow jobs (-GitHub +record):\n%s", diff)
		}
		o.wantConfidence(fleet.ConfidenceKnown, "")
	})
}

// step is something that happens to GitHub's workflow jobs, but for the first
// few.
func (o *oracle) step(r *rapid.T, before int) {
	var open, over []githubsim.Job
	for _, j := range o.sim.Jobs()[before:] {
		if j.State == githubsim.JobCompleted {
			over = append(over, j)
		} else {
			open = append(open, j)
		}
	}
	must := func(err error) {
		if err != nil {
			r.Fatal(err)
		}
	}
	what := rapid.SampledFrom([]string{"queue", "queue", "more", "wait", "approve", "start", "finish", "finish", "rerun"}).Draw(r, "what")
	switch {
	case what == "queue" || len(open) == 0:
		o.queue(githubsim.JobSpec{Repository: rapid.SampledFrom([]string{"acme/widgets", "acme/gadgets"}).Draw(r, "repository"), Labels: []string{"linux"}})
	case what == "more":
		o.queue(githubsim.JobSpec{RunID: rapid.SampledFrom(open).Draw(r, "of").RunID, Labels: []string{"Linux", "gpu"}})
	case what == "wait":
		o.queue(githubsim.JobSpec{Waiting: true, Labels: []string{"linux"}})
	case what == "approve":
		if j := rapid.SampledFrom(open).Draw(r, "job"); j.State == githubsim.JobWaiting {
			must(o.sim.Approve(j.ID))
		}
	case what == "start":
		_, err := o.sim.Dispatch(acme)
		must(err)
		o.pass(time.Minute)
	case what == "finish":
		must(o.sim.FinishJob(rapid.SampledFrom(open).Draw(r, "job").ID, rapid.SampledFrom([]string{"success", "failure", "cancelled"}).Draw(r, "conclusion")))
	case what == "rerun" && len(over) > 0:
		run := rapid.SampledFrom(over).Draw(r, "run").RunID
		if !slices.ContainsFunc(open, func(j githubsim.Job) bool { return j.RunID == run }) {
			must(o.sim.Rerun(run))
		}
	}
}

func TestARunOf150JobsIsCountedWhole(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	first := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	for range 149 {
		o.queue(githubsim.JobSpec{Labels: []string{"linux"}, RunID: o.run(first)})
	}
	o.reconcile() // no event was heard
	if got := len(o.rows(openJobs)); got != 150 {
		t.Errorf("%d open workflow jobs, want 150", got)
	}
	o.wantConfidence(fleet.ConfidenceKnown, "")
}

// What GitHub does not answer makes nothing smaller, and demand is not known
// then.
func TestAFaultOfGitHubsLeavesDemandUnknownAndNotSmaller(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	first := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	for range 149 {
		o.queue(githubsim.JobSpec{Labels: []string{"linux"}, RunID: o.run(first)})
	}
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	for range 5 {
		o.queue(githubsim.JobSpec{Labels: []string{"linux"}, RunID: o.run(first)})
	}
	var bad atomic.Pointer[string]
	o.sim.Intercept(func(r *http.Request) http.Handler {
		want := bad.Load()
		if want == nil || !strings.Contains(r.URL.String(), *want) {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	for _, part := range []string{"jobs?filter=latest&per_page=100&page=2", "status=queued", "status=in_progress"} {
		bad.Store(&part)
		o.reconcile()
		if got := len(o.rows(openJobs)); got != 150 {
			t.Errorf("502 at %s: %d open workflow jobs, want the 150 that were known", part, got)
		}
		o.wantConfidence(fleet.ConfidenceUnknown, "HTTP 502")
	}
	// Lists that lack what is there, and say so coherently, end no job either.
	bad.Store(nil)
	o.sim.Intercept(func(r *http.Request) http.Handler {
		if !strings.Contains(r.URL.String(), "status=") {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"total_count":0,"workflow_runs":[]}`)
		})
	})
	o.reconcile()
	o.wantTruth()
	o.sim.Intercept(nil)
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	o.pass(11 * time.Minute)
	o.wantConfidence(fleet.ConfidenceStale, "")
}

// runsListed is a listing of runs in the place of the simulator's, each in a
// state.
func runsListed(total int, states map[int64]string) http.Handler {
	runs := []string{}
	for _, id := range slices.Sorted(maps.Keys(states)) {
		runs = append(runs, fmt.Sprintf(`{"id":%d,"status":%q}`, id, states[id]))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := runs
		if r.URL.Query().Get("page") != "1" {
			page = nil
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"total_count":%d,"workflow_runs":[%s]}`, total, strings.Join(page, ","))
	})
}

// GitHub's lists by state lag: runs that have moved on stand in them, as what
// they are by now. They are no fault, and their jobs are read.
func TestRunsThatMovedOnAreNoFault(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	waits := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	over := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	o.ok(o.sim.FinishJob(over, "success"))
	o.events() // lost
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}, RunID: o.run(waits)})
	o.sim.Intercept(func(r *http.Request) http.Handler {
		if r.URL.Query().Get("status") != "queued" {
			return nil
		}
		return runsListed(2, map[int64]string{o.run(waits): "in_progress", o.run(over): "completed"})
	})
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
}

// Of more runs than GitHub shows, the jobs of those shown are learnt. That there
// are others is said, and none is forgotten for not being shown.
func TestOfTooManyRunsThoseShownAreLearnt(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	hidden := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	for i := range 3 { // such repositories, which keep no other from its turn
		o.queue(githubsim.JobSpec{Repository: fmt.Sprint("acme/a", i), Labels: []string{"linux"}})
	}
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	shown := map[int64]string{}
	for range 3 {
		shown[o.run(o.queue(githubsim.JobSpec{Labels: []string{"linux"}}))] = "queued"
	}
	o.events() // lost
	o.sim.Intercept(func(r *http.Request) http.Handler {
		switch {
		case r.URL.Query().Get("status") == "queued" && strings.Contains(r.URL.Path, "/acme/a"):
			return runsListed(1001, nil)
		case r.URL.Query().Get("status") == "queued":
			return runsListed(1001, shown)
		case strings.Contains(r.URL.Path, fmt.Sprint("/jobs/", hidden)):
			return http.NotFoundHandler() // it would be forgotten, were it asked for
		}
		return nil
	})
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceUnknown, "queued runs of repo/acme/a0: there are 1001")
	o.sim.Intercept(nil)
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
}

// A job that waits and of which there is nothing left, in a repository that can
// be seen, wants nobody; in one that cannot be seen nothing is. One that runs keeps
// its runner: that GitHub has nothing of it is one answer against an event.
func TestAJobThatIsGoneWantsNobody(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{})
	old := strings.ReplaceAll(body(9001, fleet.WorkflowJobQueued), `"id":9001`, `"id":9001,"run_id":77`)
	o.ok(o.intake.Receive(t.Context(), delivery("gone", "workflow_job", old, hookSecret)))
	hidden := strings.ReplaceAll(body(9002, fleet.WorkflowJobQueued), "acme/widgets", "acme/hidden")
	o.ok(o.intake.Receive(t.Context(), delivery("hidden", "workflow_job", hidden, hookSecret)))
	running := strings.ReplaceAll(body(9003, fleet.WorkflowJobInProgress), `"id":9003`, `"id":9003,"run_id":79`)
	o.ok(o.intake.Receive(t.Context(), delivery("running", "workflow_job", running, hookSecret)))
	o.reconcile()
	const which = `SELECT workflow_job_id, state, coalesce(conclusion, '-') FROM api.workflow_jobs WHERE target = 'acme' AND workflow_job_id > 9000 ORDER BY 1`
	if diff := cmp.Diff([]string{"9002 queued -", "9003 in_progress -"}, o.rows(which)); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
	o.wantConfidence(fleet.ConfidenceKnown, "")

	// GitHub was wrong about one: it runs, and its event is the only one to say so.
	late := strings.ReplaceAll(body(9001, fleet.WorkflowJobInProgress), `"id":9001`, `"id":9001,"run_id":77`)
	o.ok(o.intake.Receive(t.Context(), delivery("late", "workflow_job", late, hookSecret)))
	if diff := cmp.Diff([]string{"9001 in_progress -", "9002 queued -", "9003 in_progress -"}, o.rows(which)); diff != "" {
		t.Errorf("jobs after an event of one that was gone (-want +got):\n%s", diff)
	}
}

// A job may wait for its approval for days. The day that GitHub lets it wait for
// a runner begins with that.
func TestAJobThatIsApprovedAfterDaysWaitsForARunner(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	id := o.queue(githubsim.JobSpec{Waiting: true, Labels: []string{"linux"}})
	hear := func() {
		t.Helper()
		for _, d := range o.events() {
			o.ok(o.intake.Receive(t.Context(), d))
		}
	}
	wait := func(want int) {
		t.Helper()
		open, err := o.db.OpenJobs(t.Context(), "acme", o.clock())
		o.ok(err)
		if len(open) != want {
			t.Errorf("open jobs %+v, want %d", open, want)
		}
	}
	hear()
	wait(0)
	o.pass(48 * time.Hour)
	o.ok(o.sim.Approve(id))
	hear()
	wait(1)
	o.pass(23 * time.Hour)
	o.reconcile()
	wait(0) // GitHub has ended it by now, whoever tells of that
}
