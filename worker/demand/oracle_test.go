package demand_test

import (
	"context"
	"fmt"
	"io"
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
