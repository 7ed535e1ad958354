package remove_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/github/githubsim"
)

// race lets two replicas ask for the removal of all runners, one from either
// end, until a removal is halted or nothing is left.
func (w *world) race(ids []int64) {
	w.Helper()
	backwards := slices.Clone(ids)
	slices.Reverse(backwards)
	var g errgroup.Group
	for i, order := range [][]int64{ids, backwards} {
		replica := w.replica(w.open())
		g.Go(func() error {
			for _, id := range order {
				if _, err := replica.Remove(w.ctx, w.request(id)); err != nil {
					return fmt.Errorf("replica %d: %w", i, err)
				}
			}
			return nil
		})
	}
	w.ok(g.Wait())
}

func TestReplicasShareTheCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = loadPolicy(t, 10, "1000/m")
	w.race(w.fleet(100))
	if got := w.deletes(false); len(got) != 10 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 10 {
		t.Errorf("DELETEs of %v, want 10 runners once each", got)
	}
	w.agree()
	w.want("halted", `SELECT state FROM api.policies`)
	w.want("1 1 10", `
		SELECT concat_ws(' ', (SELECT count(*) FROM api.audit WHERE code = 'PL220W' AND policy = 'reap' AND target = 'acme' AND reason LIKE '1 runner is due, 0 allowed%'),
			(SELECT count(*) FROM muster.outbox WHERE subject = 'muster.v1.event.policy.halted'
				AND convert_from(body, 'UTF8')::jsonb->'data'->>'state' = 'halted' AND convert_from(body, 'UTF8')::jsonb->>'subject' = 'reap'),
			(SELECT count(*) FROM api.decisions WHERE verdict = 'act'))`)
}

func TestReplicasShareTheRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = loadPolicy(t, 50, "5/m")
	ids := w.fleet(20)
	for want := 5; want <= 15; want += 5 {
		w.race(ids)
		if got := len(w.deletes(false)); got != want {
			t.Errorf("%d DELETEs, want %d", got, want)
		}
		w.pass(time.Minute)
		w.synced()
	}
	w.agree()
	w.want("0", `SELECT count(*) FROM api.audit WHERE code = 'PL220W'`)
}

func TestReplicasAtOneRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(5)[0]
	var g errgroup.Group
	for range 6 {
		replica := w.replica(w.open())
		g.Go(func() error {
			_, err := replica.Remove(w.ctx, w.request(id))
			return err
		})
	}
	w.ok(g.Wait())
	if got := w.deletes(false); !slices.Equal(got, []int64{id}) {
		t.Errorf("DELETEs of %v, want one of %d", got, id)
	}
	w.agree()
}

// The last runner that the cap allows is being deleted: whoever comes for it as
// well leaves it, and nobody is over the limit.
func TestOwnIntentDoesNotCountAgainstARunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = loadPolicy(t, 1, "1000/m")
	id := w.fleet(5)[0]
	beside := ""
	defer w.sim.Before(func(r githubsim.Request) {
		if r.Method == http.MethodDelete {
			res, err := w.replica(w.db).Remove(w.ctx, w.request(id))
			beside = fmt.Sprint(short(res), " ", err)
		}
	})()
	w.remove("done", w.request(id))
	if beside != "keep elsewhere <nil>" {
		t.Errorf("Remove beside another = %s", beside)
	}
	w.agree()
	w.want("active", `SELECT state FROM api.policies`)
}

func (w *world) resume(allow int) {
	w.Helper()
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		targets, err := tx.Resume(w.ctx, "reap", "acme", "looked at", allow)
		if len(targets) != 1 {
			w.Errorf("Resume reopened %v", targets)
		}
		return err
	}))
}

func TestAllowanceIsSpentOnceAndCountsInNoWindow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = loadPolicy(t, 3, "1000/m")
	ids := w.fleet(20)
	next := 0
	take := func(want string) {
		t.Helper()
		w.remove(want, w.request(ids[next]))
		if want == "done" {
			next++
		}
	}
	for range 3 {
		take("done")
	}
	take("halt over_max")
	take("halt halted")
	w.resume(2)
	take("done")
	take("done")
	take("halt over_max") // back to the cap
	w.want("f f f t t", `SELECT string_agg(left(allowed::text, 1), ' ' ORDER BY intended_at, action_id) FROM muster.action`)
	w.resume(0)
	take("halt over_max")

	// Half of the window's acts are too old to count now; those that were
	// allowed never did.
	w.pass(time.Hour)
	w.synced()
	w.resume(0)
	for range 3 {
		take("done")
	}
	take("halt over_max")
	w.want("4", `SELECT count(*) FROM api.audit WHERE code = 'PL220W'`)
	w.agree()
}

func TestSparedRunnersUseUpNoCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = loadPolicy(t, 2, "1000/m")
	ids := w.fleet(10)
	w.pass(time.Second)
	for _, id := range ids[:4] {
		w.ok(w.sim.Connect(acme, id))
		w.remove("spared online", w.request(id))
	}
	w.pass(time.Second)
	w.remove("keep spared", w.request(ids[0])) // no listing since
	w.ok(w.sim.Remove(acme, ids[4]))
	w.remove("gone", w.request(ids[4]))
	w.remove("done", w.request(ids[5]))
	w.remove("halt over_max", w.request(ids[6]))
}

// The percentage is of the fleet as it was before the policy began on it.
func TestPercentageDoesNotMoveWithEachDeletion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy.Guards.Max.Percent = 10
	ids := w.fleet(50)
	for _, id := range ids[:5] {
		w.remove("done", w.request(id))
	}
	w.remove("halt over_max", w.request(ids[5]))
}

func TestGuardsHoldAtTheLastMoment(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(w *world)
		want   string
	}{
		{"stale", func(w *world) { w.pass(11 * time.Minute) }, "keep inventory_stale"},
		{"partial", func(w *world) { w.exec(`UPDATE muster.target SET last_outcome = 'partial'`) }, "keep inventory_incomplete"},
		{"suspect", func(w *world) { w.exec(`UPDATE muster.target SET suspect = 'shrunk'`) }, "keep inventory_suspect"},
		{"credential", func(w *world) { w.exec(`UPDATE muster.target SET credential_fault = '401'`) }, "keep credential"},
		{"missing", func(w *world) { w.exec(`UPDATE muster.runner SET missing_since = $1`, w.clock()) }, "keep missing"},
		{"one listing", func(w *world) { w.exec(`UPDATE muster.runner SET offline_from_sync = 1000`) }, "keep witness_listings"},
		{"listings at once", func(w *world) {
			w.exec(`UPDATE muster.runner SET offline_from_at = $1::timestamptz - interval '1 m'`, w.clock())
		}, "keep witness_apart"},
		{"removed", func(w *world) {
			w.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'unknown'`, w.clock())
		}, "keep not_matched"},
		{"not matched any more", func(w *world) { w.exec(`UPDATE muster.runner SET offline_from_us = 800000000000`) }, "keep not_matched"},
		{"matched for too short", func(w *world) { w.policy.Guards.Grace = time.Minute }, "keep grace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ids := w.fleet(2)
			tt.change(w)
			for range 2 { // a repetition is no news
				w.remove(tt.want, w.request(ids[0]))
			}
			stored := "1"
			if tt.want == "keep not_matched" {
				stored = "0"
			}
			w.want(stored, `SELECT count(*) FROM api.decisions`)
			w.trail("") // the decision is record enough
			if n := len(w.sim.Log()); n != len(ids) {
				t.Errorf("GitHub was asked: %d events", n)
			}
		})
	}
}

func TestOperatorMeetsTheSameGuards(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(w *world)
		want   string
	}{
		{"online", func(w *world) { w.exec(`UPDATE muster.runner SET status = 'online'`) }, "keep online"},
		{"busy", func(w *world) { w.exec(`UPDATE muster.runner SET busy = true`) }, "keep busy"},
		{"stale", func(w *world) { w.pass(11 * time.Minute) }, "keep inventory_stale"},
		{"partial", func(w *world) { w.exec(`UPDATE muster.target SET last_outcome = 'failed'`) }, "keep inventory_incomplete"},
		{"removed", func(w *world) {
			w.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'unknown'`, w.clock())
		}, "keep removed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			tt.change(w)
			for range 2 {
				w.remove(tt.want, w.byHand(id))
			}
			w.trail("RN105W RN105W")
			w.want("cli alice operator scrapped", `
				SELECT DISTINCT concat_ws(' ', actor_type, actor, policy, payload->'details'->>'operator_reason') FROM api.audit WHERE code = 'RN105W'`)
			w.want("true", `SELECT bool_and(a.reason = array_to_string(d.reasons, ', '))::text
				FROM api.audit a JOIN api.decisions d ON d.decision_id::text = a.payload->'details'->>'decision_id' WHERE a.code = 'RN105W'`)
			w.want("1 true", `SELECT concat_ws(' ', count(*), bool_and(policy_sha256 IS NULL)::text) FROM api.decisions WHERE policy = 'operator'`)
			if n := len(w.deletes(false)); n != 0 {
				t.Errorf("%d DELETEs", n)
			}
		})
	}
}

func TestOperatorNeedsNoGraceAndNoCap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(15)
	w.exec(`UPDATE muster.runner SET offline_from_sync = 1000, offline_from_at = $1, offline_from_us = (SELECT observed_us FROM muster.target)`, w.clock())
	for _, id := range ids[:10] {
		w.remove("done", w.byHand(id))
	}
	w.remove("keep rate", w.byHand(ids[10]))
	w.want("scrapped", `SELECT DISTINCT reason FROM api.audit WHERE code IN ('RN100I', 'RN101I')`)
	w.want("scrapped", `SELECT DISTINCT evidence->>'operator_reason' FROM api.decisions WHERE verdict = 'act'`)
	w.want("operator", `SELECT DISTINCT removal_cause FROM api.runners WHERE removed_at IS NOT NULL`)
	w.pass(time.Minute)
	w.synced()
	w.ok(w.sim.Connect(acme, ids[10]))
	w.remove("spared online", w.byHand(ids[10]))
}
