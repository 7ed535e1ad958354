package db_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

const (
	ready    = fleet.DispositionReady
	joined   = fleet.DispositionJoined
	finished = fleet.DispositionFinished
)

// joins takes triggers in together and checks what becomes of each.
func (w *world) joins(triggers []fleet.Trigger, want ...fleet.Disposition) {
	w.Helper()
	got, err := db.Runs{DB: w.db}.Join(w.ctx, triggers)
	if err != nil {
		w.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("Join (-want +got):\n%s", diff)
	}
}

// queuedAt gives a queued trigger its age.
func (w *world) queuedAt(t fleet.Trigger, age time.Duration) {
	w.Helper()
	w.exec(`UPDATE muster.run SET queued_at = clock_timestamp() - $2::interval WHERE trigger_id = $1`, t.ID, age)
}

func TestTriggersThatComeTogetherAreJoinedByJobAndName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second, third := trigger(), trigger(), trigger()
	second.Source, second.Reason = fleet.SourceCLI, "a reason of its own"
	widgets, enforce := trigger(), trigger()
	widgets.Name, enforce.Job = "widgets", fleet.JobEnforce

	w.joins([]fleet.Trigger{first, second, widgets, third, enforce, second}, ready, joined, ready, joined, ready, joined)
	w.want("cli a reason of its own", `SELECT source || ' ' || reason FROM muster.run WHERE trigger_id = $1`, second.ID)
	w.joined(second, first)
	w.joined(third, first)
	w.want("3", `SELECT count(*) FROM muster.run WHERE state = 'queued' AND attempt = 0 AND joined_to IS NULL AND finished_at IS NULL`)

	// Their messages come again.
	w.joins([]fleet.Trigger{third, first, second}, finished, ready, finished)
	w.end(w.started(first, time.Minute, 1), fleet.RunDone)
	w.joins([]fleet.Trigger{first, second}, finished, finished)
}

// A trigger of the outbox has a row before its message comes.
func TestQueuedTriggersAreJoinedToTheOldestOfThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	young, old, fresh, absent := trigger(), trigger(), trigger(), trigger()
	for _, tr := range []fleet.Trigger{young, old, absent} {
		w.tx(func(tx *db.Tx) error { return tx.Queue(w.ctx, tr) })
	}
	w.queuedAt(old, 2*time.Minute)
	w.queuedAt(absent, time.Hour)
	w.joins([]fleet.Trigger{fresh, young, old}, joined, joined, ready)
	w.joined(fresh, old)
	w.joined(young, old)
	w.want("queued", `SELECT state FROM muster.run WHERE trigger_id = $1`, absent.ID)
}

// A run began to look before they came. It is begun again after a failure, which
// Begin decides.
func TestNothingIsJoinedToARunThatHasBegun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	going, failing, first, second := trigger(), trigger(), trigger(), trigger()
	w.started(going, time.Minute, 1)
	failing.Name = "widgets"
	w.end(w.started(failing, time.Minute, 1), fleet.RunFailed)
	afterFailure := trigger()
	afterFailure.Name = "widgets"
	w.joins([]fleet.Trigger{going, failing, first, second, afterFailure}, ready, ready, ready, joined, ready)
	w.joined(second, first)
	w.disposition(first, fleet.DispositionElsewhere)
}

// Somebody who has a hand on a row keeps it, and holds up nobody.
func TestJoiningWaitsForNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held, first, second := trigger(), trigger(), trigger()
	w.tx(func(tx *db.Tx) error { return tx.Queue(w.ctx, held) })
	lock := connect(t, w.url)
	mustExec(t, lock, `BEGIN`)
	mustExec(t, lock, `SELECT FROM muster.run FOR UPDATE`)
	w.joins([]fleet.Trigger{first, second}, ready, joined)
	w.want("queued", `SELECT state FROM muster.run WHERE trigger_id = $1`, held.ID)
}

// Whatever replicas take in at once, each trigger is begun, queued, or joined to one
// that was still to begin, and none is lost.
func TestReplicasJoinTheSameTriggersAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	triggers := make([]fleet.Trigger, 60)
	for i := range triggers {
		triggers[i] = trigger()
		if i%2 == 0 {
			triggers[i].Name = "widgets"
		}
	}
	runs := db.Runs{DB: w.db}
	var g errgroup.Group
	for i := range 6 {
		g.Go(func() error {
			taken := triggers[i*8 : i*8+20] // overlaps with what the next ones take
			all, err := runs.Join(w.ctx, taken)
			if err != nil {
				return err
			}
			for n, disposition := range all {
				if disposition != ready {
					continue
				}
				_, err := runs.Begin(w.ctx, taken[n], time.Hour)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.want("60", `SELECT count(*) FROM muster.run WHERE state IN ('queued', 'joined', 'running')`)
	w.want("0", `SELECT count(*) FROM muster.run r WHERE state = 'joined' AND NOT EXISTS (
		SELECT FROM muster.run f WHERE f.trigger_id = r.joined_to AND f.job = r.job AND f.name = r.name)`)
	// The way from each trigger to those that it is joined to has an end.
	w.want("60", `WITH RECURSIVE way AS (
			SELECT trigger_id AS began, trigger_id, state, joined_to FROM muster.run
			UNION
			SELECT w.began, r.trigger_id, r.state, r.joined_to FROM way w JOIN muster.run r ON r.trigger_id = w.joined_to)
		SELECT count(DISTINCT began) FROM way WHERE state IN ('queued', 'running')`)
}
