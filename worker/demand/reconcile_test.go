package demand_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/demand"
)

const hookSecret = "hook-canary-acme"

var acme = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}

// oracle is a world with a GitHub, which knows all workflow jobs there are, and
// a webhook that hands over what GitHub sends. They have one clock.
type oracle struct {
	*world
	sim        *githubsim.Sim
	gh         *github.Client
	hook       int64
	target     demand.Compared
	reconciler *demand.Reconciler
	now        atomic.Int64 // Unix, ns

	// answer is what the receiver makes of a delivery; nothing: it keeps it.
	answer atomic.Value // of func(fleet.Delivery) int

	mu   sync.Mutex
	sent []fleet.Delivery
}

func newOracle(t *testing.T) *oracle {
	t.Helper()
	o := &oracle{world: newWorld(t)}
	o.now.Store(t0.UnixNano())
	o.intake.Now = func(context.Context) (time.Time, error) { return o.clock(), nil }
	o.sim = githubsim.New(githubsim.Config{Version: githubsim.DotCom, Tokens: []string{"ghp_canary"}, Now: o.clock})
	o.ok(o.sim.AddScope(acme))
	server := httptest.NewServer(o.sim.Handler())
	t.Cleanup(server.Close)
	receiver := httptest.NewServer(http.HandlerFunc(o.receive))
	t.Cleanup(receiver.Close)
	var err error
	o.hook, err = o.sim.AddHook(githubsim.Hook{Scope: acme, URL: receiver.URL, Secret: hookSecret})
	o.ok(err)
	o.gh, err = github.New(github.Config{
		APIURL: server.URL + "/api/v3", UserAgent: "muster/test",
		Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret("ghp_canary"), nil },
		Now:   o.clock,
		Sleep: func(_ context.Context, d time.Duration) error { o.pass(d); return nil },
	})
	o.ok(err)
	o.target = demand.Compared{Target: fleet.Target{Name: "acme", Scope: acme}, GitHub: o.gh}
	o.reconciler = &demand.Reconciler{
		Intake:  o.intake,
		Targets: func() map[string]demand.Compared { return map[string]demand.Compared{"acme": o.target} },
	}
	return o
}

func (o *oracle) ok(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

func (o *oracle) clock() time.Time     { return time.Unix(0, o.now.Load()).UTC() }
func (o *oracle) pass(d time.Duration) { o.now.Add(int64(d)) }

// receive keeps what GitHub sends, for the test to hand over.
func (o *oracle) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		o.Error(err)
	}
	hook, _ := strconv.ParseInt(r.Header.Get("X-GitHub-Hook-ID"), 10, 64)
	d := fleet.Delivery{
		ID: r.Header.Get("X-GitHub-Delivery"), Event: r.Header.Get("X-GitHub-Event"), Signature: r.Header.Get("X-Hub-Signature-256"), Body: body,
		Hook: hook, HookOf: r.Header.Get("X-GitHub-Hook-Installation-Target-Type"),
	}
	if answer, ok := o.answer.Load().(func(fleet.Delivery) int); ok {
		w.WriteHeader(answer(d))
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = append(o.sent, d)
}

// events takes what GitHub has sent so far.
func (o *oracle) events() []fleet.Delivery {
	o.sim.Deliver(o.Context())
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.sent
	o.sent = nil
	return slices.DeleteFunc(all, func(d fleet.Delivery) bool { return d.Event == "ping" })
}

func (o *oracle) queue(spec githubsim.JobSpec) int64 {
	o.Helper()
	id, err := o.sim.QueueJob(acme, spec)
	o.ok(err)
	return id
}

// run is the run of a workflow job.
func (o *oracle) run(job int64) int64 {
	o.Helper()
	i := slices.IndexFunc(o.sim.Jobs(), func(j githubsim.Job) bool { return j.ID == job })
	return o.sim.Jobs()[i].RunID
}

// reconcile passes an hour, in which a comparison becomes due, and has it done.
func (o *oracle) reconcile() {
	o.Helper()
	o.pass(time.Hour)
	done, err := o.reconciler.Reconcile(o.Context(), "acme")
	if err != nil || !done {
		o.Fatalf("Reconcile = %v, %v, want it done", done, err)
	}
}

// wantConfidence compares how far demand is relied on, and why it is not.
func (o *oracle) wantConfidence(want fleet.Confidence, fault string) {
	o.Helper()
	r, err := o.db.Reconciliation(o.Context(), "acme")
	o.ok(err)
	if got := fleet.DemandConfidence(r.AsOf, r.Fault == "", o.clock()); got != want || !strings.Contains(r.Fault, fault) || (fault == "") != (r.Fault == "") {
		o.Errorf("confidence %s (%+v), want %s and the fault %q", got, r, want, fault)
	}
}

const openJobs = `SELECT workflow_job_id, repository, state, array_to_string(labels, ',') FROM api.workflow_jobs
	WHERE target = 'acme' AND state IN ('queued', 'in_progress') ORDER BY workflow_job_id`

// truth is what openJobs has to give.
func (o *oracle) truth() []string {
	all := []string{}
	for _, j := range o.sim.Jobs() {
		if j.State == githubsim.JobQueued || j.State == githubsim.JobInProgress {
			labels := strings.Split(strings.ToLower(strings.Join(j.Labels, ",")), ",")
			slices.Sort(labels)
			all = append(all, fmt.Sprint(j.ID, " ", j.Repository, " ", j.State, " ", strings.Join(labels, ",")))
		}
	}
	return all
}

func (o *oracle) wantTruth() {
	o.Helper()
	if diff := cmp.Diff(o.truth(), o.rows(openJobs)); diff != "" {
		o.Errorf("open workflow jobs (-GitHub +record):\n%s", diff)
	}
}

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

// Whoever takes the next part, the others leave it.
func TestReplicasTakeTurns(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{})
	o.reconcile()
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {50 * time.Second, false}, {15 * time.Second, true}, {time.Second, false}} {
		o.pass(tt.after)
		if done, err := o.reconciler.Reconcile(t.Context(), "acme"); err != nil || done != tt.want {
			t.Errorf("after %s: %v, %v, want %v", tt.after, done, err, tt.want)
		}
	}
	if _, err := o.reconciler.Reconcile(t.Context(), "nobody"); err == nil {
		t.Error("a target that is not configured was compared")
	}
}

// Where there is more to ask than a part may, demand is known once all had
// their turn, and what a part costs sets the next one off.
func TestALargeFleetIsComparedInParts(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.sim.SetLimits(githubsim.Limits{Primary: 5000})
	for i := range 50 {
		o.queue(githubsim.JobSpec{Repository: fmt.Sprint("acme/r", i), Labels: []string{"linux"}})
	}
	asked := func() int {
		n := 0
		for _, e := range o.sim.Log() {
			if e.Method == http.MethodGet {
				n++
			}
		}
		return n
	}
	before := asked()
	o.reconcile()
	if n := asked() - before; n < 60 || n > 63 {
		t.Errorf("a part of %d requests, want about 60", n)
	}
	o.wantConfidence(fleet.ConfidenceUnknown, "")
	o.pass(119 * time.Second)
	if done, err := o.reconciler.Reconcile(t.Context(), "acme"); done || err != nil {
		t.Errorf("the next part came before its time, %v", err)
	}
	for range 2 {
		o.pass(2 * time.Minute)
		if _, err := o.reconciler.Reconcile(t.Context(), "acme"); err != nil {
			t.Fatal(err)
		}
	}
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
}

// A credential that may ask more often is used more, and no server is asked
// without end.
func TestAPartIsAShareOfWhatTheCredentialMayAsk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ hourly, repositories, want, every int }{
		{15_000, 100, 180, 120},
		{0, 100, 301, 61},
		{0, 250, 600, 120},
	} {
		o := newOracle(t)
		o.sim.SetLimits(githubsim.Limits{Primary: tt.hourly})
		for i := range tt.repositories {
			o.queue(githubsim.JobSpec{Repository: fmt.Sprint("acme/r", i), Labels: []string{"linux"}})
		}
		before := len(o.sim.Log())
		o.reconcile()
		if n := len(o.sim.Log()) - before; n < tt.want || n > tt.want+6 {
			t.Errorf("of %d an hour: a part of %d requests, want about %d", tt.hourly, n, tt.want)
		}
		o.pass(time.Duration(tt.every-2) * time.Second)
		if done, err := o.reconciler.Reconcile(t.Context(), "acme"); done || err != nil {
			t.Errorf("of %d an hour: the next part came before its time, %v", tt.hourly, err)
		}
		o.pass(5 * time.Second)
		if done, err := o.reconciler.Reconcile(t.Context(), "acme"); !done || err != nil {
			t.Errorf("of %d an hour: the next part did not come, %v", tt.hourly, err)
		}
	}
}

// A pause that GitHub asks for ends the part, and the next one waits for its
// end.
func TestAPauseEndsAPart(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{})
	_, err := o.sim.Inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: 429, RetryAfter: 5 * time.Minute, Path: "/actions/runs", Count: 1})
	o.ok(err)
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceUnknown, "429")
	for _, want := range []bool{false, true} {
		o.pass(4 * time.Minute)
		if done, err := o.reconciler.Reconcile(t.Context(), "acme"); err != nil || done != want {
			t.Errorf("Reconcile = %v, %v, want %v", done, err, want)
		}
	}
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

// An app may be installed on some repositories, and an organisation's webhook tells
// of all: those that it cannot see are counted by their events, are asked for once
// each time that repositories are listed, and leave the others known.
func TestRepositoriesThatTheCredentialDoesNotSeeAreLeftToTheirEvents(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.reconcile()
	asked, away := 0, false
	o.sim.Intercept(func(r *http.Request) http.Handler {
		if !strings.Contains(r.URL.Path, "/acme/hidden/") {
			return nil
		}
		if asked++; !away {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"Not Found"}`)
		})
	})
	for i := range 5 {
		told := strings.ReplaceAll(body(9001+int64(i), fleet.WorkflowJobQueued), "acme/widgets", "acme/hidden")
		o.ok(o.intake.Receive(t.Context(), delivery(fmt.Sprint(i), "workflow_job", told, hookSecret)))
		o.reconcile()
		o.wantConfidence(fleet.ConfidenceKnown, "")
		if n := len(o.rows(openJobs)); n != 2+i {
			t.Errorf("%d open workflow jobs, want %d", n, 2+i)
		}
		if asked != 1 {
			t.Errorf("asked for what is not seen %d times within hours, want once", asked)
		}
	}
	// Once the app is installed there, too, the next listing says so.
	o.queue(githubsim.JobSpec{Repository: "acme/hidden", Labels: []string{"linux"}})
	o.events() // lost
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	o.wantTruth()
	// One that is listed and not there is another matter.
	away = true
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceUnknown, "runs of repo/acme/hidden: not found")
}

// Nobody lists the repositories of an enterprise: until one is heard of, nothing
// is known of its demand.
func TestAnEnterprisesRepositoriesAreThoseHeardOf(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.target = demand.Compared{Target: fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: "octo"}}, GitHub: o.gh}
	id := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceUnknown, "")
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	o.ok(o.sim.FinishJob(id, "success"))
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	o.events() // lost
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
	o.pass(8 * 24 * time.Hour)
	o.reconcile()
	o.wantConfidence(fleet.ConfidenceUnknown, "") // nothing was heard of for a week
}

// Repositories in which nothing happens cost nothing: however many there are,
// they are compared every time.
func TestRepositoriesInWhichNothingHappensAreFree(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.sim.SetLimits(githubsim.Limits{Primary: 5000})
	for i := range 80 {
		id := o.queue(githubsim.JobSpec{Repository: fmt.Sprint("acme/r", i)})
		o.ok(o.sim.FinishJob(id, "success"))
	}
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	next := func(after time.Duration, want bool) {
		t.Helper()
		o.pass(after)
		if done, err := o.reconciler.Reconcile(t.Context(), "acme"); err != nil || done != want {
			t.Errorf("Reconcile = %v, %v, want %v", done, err, want)
		}
	}
	for range 4 { // 160 requests, of which a part asks some sixty
		next(130*time.Second, true)
	}
	o.wantConfidence(fleet.ConfidenceKnown, "")
	for range 3 {
		next(61*time.Second, true) // the part before it has set it off by no more
		r, err := o.db.Reconciliation(t.Context(), "acme")
		o.ok(err)
		if !r.AsOf.Equal(o.clock()) {
			t.Errorf("as of %s, want all of them as of now, %s", r.AsOf, o.clock())
		}
	}
}

// Where no event comes, a repository that was at rest for a week is looked at as
// often as any: nothing else would tell of its first job. Where events come, that
// job's own does.
func TestARepositoryAtRestIsComparedWhereNoEventTellsOfIt(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.ok(o.sim.FinishJob(o.queue(githubsim.JobSpec{Repository: "acme/resting"}), "success"))
	o.events() // lost, as all here but one
	o.reconcile()
	o.pass(8 * 24 * time.Hour)
	o.reconcile()
	o.queue(githubsim.JobSpec{Repository: "acme/resting"})
	o.reconcile()
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")

	o.ok(o.sim.FinishJob(o.sim.Jobs()[1].ID, "success"))
	o.events()
	o.pass(8 * 24 * time.Hour)
	o.queue(githubsim.JobSpec{Repository: "acme/busy"})
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	o.reconcile()
	asked := func() int {
		n := 0
		for _, e := range o.sim.Log() {
			if strings.Contains(e.Path, "acme/resting") {
				n++
			}
		}
		return n
	}
	before := asked()
	o.reconcile()
	if n := asked() - before; n != 0 {
		t.Errorf("%d requests for a repository at rest, while events come", n)
	}
	o.wantTruth()
	o.wantConfidence(fleet.ConfidenceKnown, "")
}

// Two replicas compare and sweep by themselves, once each time.
func TestReplicasCompareUntilTheyAreStopped(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.target.Pools = true
	for range 20 {
		o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	}
	other := &demand.Reconciler{Intake: o.intake, Targets: o.reconciler.Targets}
	stops := []func(){background(t, o.reconciler.Run), background(t, other.Run)}
	o.becomes(`SELECT count(*)::text FROM api.workflow_jobs WHERE target = 'acme' AND state = 'queued'`, "20")
	for _, stop := range stops {
		stop()
	}
	lists := 0
	for _, e := range o.sim.Log() {
		if e.Is("GET", "/repos/{owner}/{repo}/actions/runs") {
			lists++
		}
	}
	if lists != 2 {
		t.Errorf("%d lists of runs, want those of one part", lists)
	}
}

// Repositories that cannot be compared, whatever the reason, keep no other from
// being compared, part after part.
func TestRepositoriesThatFailKeepNoOtherFromItsTurn(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.sim.Intercept(func(r *http.Request) http.Handler {
		if !strings.Contains(r.URL.Path, "/acme/bad") {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	for i := range 4 {
		o.queue(githubsim.JobSpec{Repository: fmt.Sprint("acme/bad", i), Labels: []string{"linux"}})
	}
	o.queue(githubsim.JobSpec{Repository: "acme/good", Labels: []string{"linux"}})
	o.events() // lost
	for range 3 {
		o.reconcile()
	}
	o.wantConfidence(fleet.ConfidenceUnknown, "HTTP 502")
	if diff := cmp.Diff([]string{"acme/good"}, o.rows(`SELECT repository FROM api.workflow_jobs WHERE target = 'acme'`)); diff != "" {
		t.Errorf("repositories with workflow jobs (-want +got):\n%s", diff)
	}
}

// The configuration may write an organisation in another case than GitHub does,
// whose events and listings are of one repository all the same.
func TestARepositoryIsComparedOnceHoweverItsOwnerIsWritten(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.target.Scope = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "ACME"}
	o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d))
	}
	o.reconcile()
	o.wantTruth()
	lists := 0
	for _, e := range o.sim.Log() {
		if e.Is("GET", "/repos/{owner}/{repo}/actions/runs") {
			lists++
		}
	}
	if lists != 2 {
		t.Errorf("%d lists of runs, want one of each state", lists)
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
