package demand_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/demand"
)

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
