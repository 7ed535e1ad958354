package db_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// disposition begins a run and checks what becomes of that.
func (w *world) disposition(t fleet.Trigger, want fleet.Disposition) fleet.Begun {
	w.Helper()
	begun := w.begin(t, time.Minute)
	if begun.Disposition != want {
		w.Errorf("Begin of %s = %+v, want %s", t.ID, begun, want)
	}
	return begun
}

func (w *world) end(run fleet.Run, state fleet.RunState) {
	w.Helper()
	run.State = state
	if err := (db.Runs{DB: w.db}).Finish(w.ctx, run); err != nil {
		w.Fatal(err)
	}
}

// joined checks which trigger another one is done with.
func (w *world) joined(t, to fleet.Trigger) {
	w.Helper()
	w.want("joined "+to.ID, `SELECT state || ' ' || joined_to FROM api.runs WHERE trigger_id = $1`, t.ID)
	run, err := w.db.Run(w.ctx, t.ID)
	if err != nil || run.State != fleet.RunJoined || run.JoinedTo != to.ID || run.FinishedAt.IsZero() {
		w.Errorf("Run = %+v, %v", run, err)
	}
	w.disposition(t, fleet.DispositionFinished) // its message may come again
}

func TestTriggersThatWaitAreDoneWithOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	going, next, third, fourth := trigger(), trigger(), trigger(), trigger()
	run := w.started(going, time.Minute, 1)

	// It began to look before the next one came, which is not done with it.
	if begun := w.disposition(next, fleet.DispositionElsewhere); begun.RetryAfter <= 0 || begun.RetryAfter > time.Second {
		t.Errorf("a trigger that waits is to come again after %v", begun.RetryAfter)
	}
	w.want("0", `SELECT count(*) FROM api.runs WHERE trigger_id = $1`, next.ID)
	w.disposition(next, fleet.DispositionElsewhere)

	// Further ones are done with the one that waits.
	w.disposition(third, fleet.DispositionJoined)
	w.joined(third, next)
	w.disposition(fourth, fleet.DispositionJoined)
	w.joined(fourth, next)

	// Other jobs and names have nothing to do with it.
	widgets, enforce := trigger(), trigger()
	widgets.Name, enforce.Job = "widgets", fleet.JobEnforce
	w.started(widgets, time.Minute, 1)
	w.started(enforce, time.Minute, 1)

	w.end(run, fleet.RunDone)
	begun := w.started(next, time.Minute, 1)
	w.joined(third, next)
	// A trigger that comes now came after the run began to look.
	fifth := trigger()
	w.disposition(fifth, fleet.DispositionElsewhere)
	w.end(begun, fleet.RunDone)
	w.started(fifth, time.Minute, 1)
}

func TestARunThatBeginsIsDoneForAllThatWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tick, part, other := trigger(), trigger(), trigger()
	other.Name = "widgets"
	for _, tr := range []fleet.Trigger{tick, part, other} {
		w.tx(func(tx *db.Tx) error { return tx.Queue(w.ctx, tr) })
	}
	asked := trigger()
	w.started(asked, time.Minute, 1)
	w.joined(tick, asked)
	w.joined(part, asked)
	w.want("queued", `SELECT state FROM muster.run WHERE trigger_id = $1`, other.ID)
}

func TestARunWhoseProcessIsGoneHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone, next := trigger(), trigger()
	w.started(gone, time.Minute, 1)
	w.disposition(next, fleet.DispositionElsewhere)
	w.exec(`UPDATE muster.run SET lease_until = clock_timestamp() - interval '1 s' WHERE trigger_id = $1`, gone.ID)
	w.started(next, time.Minute, 1)
}

// A second attempt looks anew, so that what came since the first is done with it.
func TestAnotherAttemptIsDoneForWhatCameSince(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	failing, next := trigger(), trigger()
	run := w.started(failing, time.Minute, 1)
	w.disposition(next, fleet.DispositionElsewhere)
	run.Error = "GitHub is away"
	w.end(run, fleet.RunFailed)
	w.started(failing, time.Minute, 2)
	w.joined(next, failing)
}

// Whatever the order in which replicas take them up, no trigger is lost and
// none is done with a run that began before it came.
func TestEightReplicasTakeUpOneName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	going := trigger()
	run := w.started(going, time.Hour, 1)
	triggers := make([]fleet.Trigger, 64)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range triggers {
		triggers[i] = trigger()
		g.Go(func() error {
			_, err := db.Runs{DB: w.db}.Begin(w.ctx, triggers[i], time.Minute)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.want("0", `SELECT count(*) FROM muster.run WHERE joined_to = $1`, going.ID)
	w.want("64", `SELECT count(*) FROM muster.run WHERE state IN ('queued', 'joined')`)
	w.end(run, fleet.RunDone)
	var oldest fleet.Trigger
	for _, tr := range triggers {
		if w.value(`SELECT trigger_id = $1 FROM muster.run WHERE state = 'queued' ORDER BY queued_at LIMIT 1`, tr.ID) == "true" {
			oldest = tr
		}
	}
	w.started(oldest, time.Minute, 1)
	w.want("63", `SELECT count(*) FROM api.runs WHERE state = 'joined'`)
}

// Triggers of one job and name that begin at the same moment do not run side by
// side: one runs, and the others wait or are joined.
func TestTriggersThatBeginAtOnceRunOneByOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for round := range 10 {
		var started atomic.Int64
		var beginning errgroup.Group
		name := fmt.Sprint("acme-", round)
		for range 8 {
			beginning.Go(func() error {
				tr := trigger()
				tr.Name = name
				begun, err := db.Runs{DB: w.db}.Begin(w.ctx, tr, time.Minute)
				if begun.Disposition == fleet.DispositionStarted {
					started.Add(1)
				}
				return err
			})
		}
		err := beginning.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if n := started.Load(); n != 1 {
			t.Errorf("round %d: %d of 8 run at once, want 1", round, n)
		}
	}
}
