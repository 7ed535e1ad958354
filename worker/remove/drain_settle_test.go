package remove_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/remove"
)

// interrupted leaves the intent of a process that died under an expired lease,
// after its host was drained or before.
func (w *drained) interrupted(id int64, drainedAt time.Time) {
	w.Helper()
	a := fleet.Action{
		ID: uuid.NewString(), DecisionID: uuid.NewString(), TriggerID: uuid.NewString(), Policy: "outdated", Target: "acme",
		RunnerID: id, Name: w.value(`SELECT name FROM api.runners WHERE runner_id = $1`, id), Kind: fleet.ActionDeleteRunner,
		Host: "r1", Release: true, State: fleet.ActionIntended, IntendedAt: w.clock(), DrainedAt: drainedAt,
	}
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.Intend(w.ctx, a, time.Minute, false); err != nil || drainedAt.IsZero() {
			return err
		}
		return tx.NoteDrained(w.ctx, a)
	}))
	w.expire()
}

// A process may die anywhere between the drain and the release. Nobody goes on
// deleting then; where the runner is gone, the host is released, once.
func TestADrainThatWasInterruptedIsSettled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		given func(w *drained, id int64)
		want  string // state and reason, and why the host is kept
		trail string
		told  int
	}{
		{"before the host had answered", func(w *drained, id int64) { w.interrupted(id, time.Time{}) }, "failed interrupted", "RN104E", 0},
		{"before the host had answered, and the runner has gone by itself", func(w *drained, id int64) {
			w.interrupted(id, time.Time{})
			w.ok(w.sim.Remove(acme, id))
		}, "gone interrupted", "RN102I", 0},
		{"between drain and deletion", func(w *drained, id int64) { w.interrupted(id, w.clock()) }, "failed interrupted", "RN104E", 0},
		{"between drain and deletion, and the runner works again", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Assign(acme, id))
		}, "spared busy", "RN103W", 0},
		{"between deletion and release", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
		}, "gone interrupted", "RN102I RN131I", 1},
		{"between deletion and release, as long ago as a drain lasts", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
			w.pass(fleet.DrainLife)
		}, "gone interrupted", "RN102I RN131I", 1},
		{"between deletion and release, long ago", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
			w.pass(fleet.DrainLife + time.Second)
		}, "gone interrupted drain_over", "RN102I RN132W", 0},
		{"between deletion and release, and the host has registered again", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
			w.exec(`UPDATE muster.runner SET host = 'r1' WHERE name = 'r2'`)
		}, "gone interrupted host_at_work", "RN102I RN132W", 0},
		{"between deletion and release, and the host is at work for somebody", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
			w.beat("r1", "something", "busy", 0)
		}, "gone interrupted host_at_work", "RN102I RN132W", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newDrained(t)
			id := w.online(2)[0]
			w.answers(idle, nil)
			tt.given(w, id)
			replicas := []*remove.Remover{w.remover, w.replica(w.open()), w.replica(w.open())}
			var g errgroup.Group
			for _, r := range replicas {
				g.Go(func() error { return r.Settle(w.ctx) })
			}
			w.ok(g.Wait())
			w.ok(w.remover.Settle(w.ctx)) // nothing is left to do
			w.want(tt.want, `SELECT concat_ws(' ', state, reason, (SELECT reason FROM api.audit WHERE code = 'RN132W')) FROM api.actions`)
			w.trail(tt.trail)
			w.relay(tt.told)
			if n := len(w.deletes(false)); n != 0 {
				t.Errorf("settling sent %d DELETEs", n)
			}
		})
	}
}

// The outcome cannot be recorded after the deletion, as if the process had died:
// whoever settles it releases the host.
func TestAReleaseSurvivesThatItsMakerCouldNotRecordTheOutcome(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	w.answers(idle, nil)
	broken := w.open()
	maker := w.replica(broken)
	maker.Hosts = w.conn
	w.sim.Intercept(func(r *http.Request) http.Handler {
		if r.Method == http.MethodDelete {
			broken.Close()
		}
		return nil
	})
	if res, err := maker.Remove(w.ctx, w.request(id)); err == nil {
		t.Fatalf("Remove = %s, want an error: it cannot record what it did", short(res))
	}
	w.want("intended", `SELECT state FROM api.actions`)
	w.relay(0)
	w.expire()
	w.ok(w.remover.Settle(w.ctx))
	w.trail("RN100I RN130I RN102I RN131I")
	w.relay(1)
}

// A drain that is recorded after somebody settled the intent is not followed by
// anything.
func TestADrainThatComesTooLateDeletesNobody(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	other := w.replica(w.open())
	w.answers(idle, func() {
		w.expire()
		if err := other.Settle(w.ctx); err != nil {
			t.Error(err)
		}
	})
	if res, err := w.remover.Remove(w.ctx, w.request(id)); err == nil {
		t.Errorf("Remove = %s, want an error", short(res))
	}
	w.trail("RN100I RN104E")
	if got := w.deletes(false); len(got) != 0 {
		t.Errorf("DELETEs of %v", got)
	}
	w.relay(0)
}
