package remove_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// working adds n runners to the record that are online; only the record knows
// them.
func (w *world) working(n int) []int64 {
	w.Helper()
	since := t0.Add(-240 * time.Hour)
	rows := make([]db.RunnerRow, n)
	ids := make([]int64, n)
	for i := range rows {
		ids[i] = int64(10_000 + i)
		rows[i] = db.RunnerRow{
			Runner:      fleet.Runner{ID: ids[i], Name: fmt.Sprintf("w%d", i), OS: "linux", Status: fleet.StatusOnline, Labels: []string{"linux"}},
			FirstSeenAt: since, SeenAt: since, StatusSince: since,
		}
	}
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.AddRunners(w.ctx, "acme", rows) }))
	return ids
}

// darken has the newest walk show these offline, from any goroutine.
func (w *world) darken(ids []int64) error {
	at := w.clock()
	return w.db.InTx(w.ctx, func(tx *db.Tx) error {
		rows, err := tx.RunnerRows(w.ctx, "acme", ids)
		if err != nil {
			return err
		}
		var changed []db.RunnerRow
		for _, row := range rows {
			row.Status, row.StatusSince, row.OfflineSince = fleet.StatusOffline, at, at
			changed = append(changed, row)
		}
		return tx.SaveRunners(w.ctx, "acme", at, changed)
	})
}

// A sync comes in the middle of a pass and shows much of the fleet dark: the
// deletion that is under way is the last, and the halt is one.
func TestBrakeStopsAPassHalfway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(10)
	working := w.working(90)
	deleted := 0
	defer w.sim.Before(func(r githubsim.Request) {
		if r.Method != http.MethodDelete {
			return
		}
		if deleted++; deleted == 3 {
			if err := w.darken(working[:30]); err != nil {
				t.Error(err)
			}
		}
	})()
	for _, id := range ids[:3] {
		w.remove("done", w.request(id))
	}
	if res := w.remove("halt brake", w.request(ids[3])); res.Halted !=
		"brake: 30 of 97 runners went dark since 2026-03-01T12:00:00Z (30 offline); at most 20%, which is 19, may within 15m" {
		t.Errorf("Halted = %q", res.Halted)
	}
	for _, id := range ids[4:] {
		if res := w.remove("halt halted", w.request(id)); res.Halted != "" {
			t.Errorf("halted again: %q", res.Halted)
		}
	}
	w.want("1 1", `
		SELECT concat_ws(' ', (SELECT count(*) FROM api.audit WHERE code = 'PL220W'),
			(SELECT count(*) FROM muster.outbox WHERE subject = 'muster.v1.event.policy.halted'))`)
	w.agree()
}

// The runner that was asked for is no longer due when the brake trips: it halts
// all the same, or the pass would go on to the next.
func TestBrakeHaltsAtARunnerThatIsNotDueAnyMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(10)
	w.ok(w.darken(w.working(90)[:30]))
	w.exec(`UPDATE muster.runner SET offline_from_us = 800000000000 WHERE runner_id = $1`, ids[0])
	if res := w.remove("keep not_matched", w.request(ids[0])); res.Halted == "" {
		t.Error("the policy was not halted")
	}
	w.remove("halt halted", w.request(ids[1]))
}

func TestReplicasHaltOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(40)
	working := w.working(160)
	var deleted, byThen atomic.Int64
	defer w.sim.Before(func(r githubsim.Request) {
		if r.Method == http.MethodDelete && deleted.Add(1) == 10 {
			if err := w.darken(working[:100]); err != nil {
				t.Error(err)
			}
			byThen.Store(deleted.Load())
		}
	})()
	var g errgroup.Group
	for i := range 2 {
		replica := w.replica(w.open())
		g.Go(func() error {
			for j := i; j < len(ids); j += 2 {
				if _, err := replica.Remove(w.ctx, w.request(ids[j])); err != nil {
					return err
				}
			}
			return nil
		})
	}
	w.ok(g.Wait())
	// The other replica may have decided on one more.
	if n := int64(len(w.deletes(true))); n < byThen.Load() || n > byThen.Load()+1 {
		t.Errorf("%d deletions, %d when it went dark", n, byThen.Load())
	}
	w.want("1 1 halted", `
		SELECT concat_ws(' ', (SELECT count(*) FROM api.audit WHERE code = 'PL220W'),
			(SELECT count(*) FROM muster.outbox WHERE subject = 'muster.v1.event.policy.halted'), (SELECT state FROM api.policies))`)
	w.agree()
}

// A person's deletion meets the brake as well, and only a person's word ends
// that.
func TestOperatorMeetsTheBrake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(10)
	working := w.working(90)
	w.ok(w.darken(working[:20]))
	w.remove("done", w.byHand(ids[0])) // a fifth is not more than a fifth
	w.ok(w.darken(working[20:30]))
	res := w.remove("halt brake", w.byHand(ids[1]))
	w.trail("RN100I RN101I PL220W RN105W")
	w.pass(time.Hour)
	w.synced()
	again := w.remove("halt halted", w.byHand(ids[1]))
	if said := again.Decision.Evidence["halt"]; res.Halted == "" || said != res.Halted {
		t.Errorf("halted because %q, and later because %q", res.Halted, said)
	}
	w.remove("done", w.request(ids[2])) // the policy did not run then
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		_, err := tx.Resume(w.ctx, "operator", "acme", "looked at", 0)
		return err
	}))
	w.remove("done", w.byHand(ids[1]))
	w.agreeOn(ids[0], ids[1], ids[2])
}

// agreeOn checks that these and no others are gone, each by one action.
func (w *world) agreeOn(ids ...int64) {
	w.Helper()
	w.want(fmt.Sprint(len(ids)), `SELECT count(*) FROM api.actions WHERE state = 'done' AND runner_id = ANY($1)`, ids)
	w.want(fmt.Sprint(len(ids)), `SELECT count(*) FROM api.actions`)
	if n := len(w.deletes(true)); n != len(ids) {
		w.Errorf("%d deletions, want %d", n, len(ids))
	}
}
