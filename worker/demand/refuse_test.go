package demand_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/demand"
)

// refused are what was refused and is not made good, as the record has it.
func (w *world) refused() []string {
	w.Helper()
	all, err := w.db.Refusals(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	lines := []string{}
	for _, name := range []string{"acme", "dark", "octo", "widgets"} {
		if r, there := all[name]; there {
			lines = append(lines, fmt.Sprint(name, " ", r.Deliveries))
		}
	}
	return lines
}

func TestWhatIsRefusedIsMadeGoodWhenItComesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := delivery("d1", "workflow_job", body(41, fleet.WorkflowJobInProgress), "hook-canary-acme")
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{"nothing", func() {}, []string{}},
		{"an event that tells nothing", func() {
			w.intake.Refuse(t.Context(), fleet.Delivery{ID: "p", Event: "push"}, []string{"acme"}, "too many at once")
		}, []string{}},
		{"a signed delivery", func() { w.intake.Refuse(t.Context(), d, []string{"acme", "widgets"}, "too many at once") }, []string{"acme 1", "widgets 1"}},
		{"the same once more", func() { w.intake.Refuse(t.Context(), d, []string{"acme"}, "too many at once") }, []string{"acme 1", "widgets 1"}},
		{"another", func() {
			w.intake.Refuse(t.Context(), fleet.Delivery{ID: "d2", Event: "workflow_job"}, []string{"acme"}, "too many at once")
		}, []string{"acme 2", "widgets 1"}},
		{"delivered again", func() {
			if err := w.intake.Receive(t.Context(), d); err != nil {
				t.Error(err)
			}
		}, []string{"acme 1"}},
		{"refused after it was taken in", func() { w.intake.Refuse(t.Context(), d, []string{"acme", "widgets"}, "too late") }, []string{"acme 1"}},
		{"nobody knows whose", func() {
			w.intake.Refuse(t.Context(), fleet.Delivery{Event: "workflow_job"}, nil, "too many at once")
		}, []string{"acme 2", "octo 1", "widgets 1"}},
	}
	for _, step := range steps {
		step.do()
		if diff := cmp.Diff(step.want, w.refused()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

// What is signed and cannot be read may have told of a job all the same.
func TestASignedEventThatCannotBeReadCountsAsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n, text := range []string{`{"action":"in_progress"`, `{"action":"in_progress","workflow_job":{"id":-1}}`} {
		err := w.intake.Receive(t.Context(), delivery(fmt.Sprint("d", n), "workflow_job", text, "hook-canary-octo"))
		if !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("Receive = %v, want fleet.ErrMalformed", err)
		}
	}
	if err := w.intake.Receive(t.Context(), delivery("d3", "workflow_job", "{}", "nobody's")); !errors.Is(err, fleet.ErrUnauthorized) {
		t.Errorf("Receive = %v, want fleet.ErrUnauthorized", err)
	}
	if diff := cmp.Diff([]string{"octo 2"}, w.refused()); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

// A delivery that comes while Postgres is away is noted as soon as it is back.
func TestWhatIsRefusedWhilePostgresIsAwayIsRecordedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := w.intake.Now
	w.intake.Now = func(context.Context) (time.Time, error) { return time.Time{}, fleet.ErrUnavailable }
	text := `{"action":"in_progress","workflow_job":{"id":41,"runner_id":3},"enterprise":{"slug":"octo"}}`
	d := delivery("d1", "workflow_job", text, "hook-canary-octo")
	if err := w.intake.Receive(t.Context(), d); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Receive = %v, want fleet.ErrUnavailable", err)
	}
	if diff := cmp.Diff(map[string]int{"octo": 1}, w.intake.Refusals.Pending()); diff != "" {
		t.Errorf("pending (-want +got):\n%s", diff)
	}
	w.intake.Now = now
	stop := background(t, w.intake.Run)
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(w.refused()) == 0 {
		select {
		case <-deadline:
			t.Fatal("what was refused is not recorded")
		case <-tick.C:
		}
	}
	stop()
	if diff := cmp.Diff([]string{"octo 1"}, w.refused()); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

// A flood of refusals is bounded: beyond a thousand they count as one.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	r := &demand.Refusals{}
	for n := range 5000 {
		r.Add([]string{"acme"}, fmt.Sprint(n), "too many at once")
	}
	if got := r.Pending()["acme"]; got != 1001 {
		t.Errorf("%d are kept, want 1001", got)
	}
}

// A comparison makes good what was refused, in all repositories and from after the
// refusal on, whether the target has pools or not.
func TestAComparisonMakesGoodWhatWasRefused(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{Repository: "acme/widgets", Labels: []string{"linux"}})
	o.reconcile()
	o.queue(githubsim.JobSpec{Repository: "acme/gadgets", Labels: []string{"linux"}}) // of which no event is taken
	for _, d := range o.events() {
		o.intake.Refuse(t.Context(), d, []string{"acme"}, "too many at once")
	}
	if diff := cmp.Diff([]string{"acme 2"}, o.refused()); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	r, err := o.db.Reconciliation(t.Context(), "acme")
	o.ok(err)
	if !r.Refused.Stands(o.clock()) {
		t.Errorf("%+v: nothing was refused", r)
	}
	o.reconcile()
	o.wantTruth()
	if diff := cmp.Diff([]string{}, o.refused()); diff != "" {
		t.Errorf("after a comparison (-want +got):\n%s", diff)
	}
}

// A comparison that fails leaves refusals as they are.
func TestAFailedComparisonMakesNothingGood(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.queue(githubsim.JobSpec{Repository: "acme/widgets", Labels: []string{"linux"}})
	o.reconcile()
	o.intake.Refuse(t.Context(), fleet.Delivery{ID: "d1", Event: "workflow_job"}, []string{"acme"}, "too many at once")
	var away atomic.Bool
	away.Store(true)
	o.sim.Intercept(func(r *http.Request) http.Handler {
		if !away.Load() || !strings.Contains(r.URL.Path, "/actions/runs") {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	o.reconcile()
	if diff := cmp.Diff([]string{"acme 1"}, o.refused()); diff != "" {
		t.Errorf("after a comparison that failed (-want +got):\n%s", diff)
	}
	away.Store(false)
	o.reconcile()
	if diff := cmp.Diff([]string{}, o.refused()); diff != "" {
		t.Errorf("after one that did not (-want +got):\n%s", diff)
	}
}
