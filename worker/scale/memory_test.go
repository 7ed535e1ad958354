package scale_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// A pool that is decided on by one process after another, each of which knows
// nothing, is decided on as by one that remembers all: windows, cool-downs and
// steps are in the record.
func TestReplicasDecideAsOneThatRemembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) {
		p.Cooldown = fleet.PoolCooldown{Up: 90 * time.Second, Down: 5 * time.Minute}
		p.Step = fleet.PoolStep{Up: fleet.Portion{Count: 3}, Down: fleet.Portion{Count: 2}}
	}))
	pool := w.pools[0]
	w.sync(everybody)
	var memory fleet.SizeMemory
	rng := rand.New(rand.NewPCG(7, 7))
	directions := map[fleet.SizeDirection]int{}
	for step := range 60 {
		w.pass(time.Duration(10+rng.IntN(80)) * time.Second)
		if rng.IntN(4) == 0 {
			w.exec(`UPDATE muster.workflow_job SET state = 'completed'`)
		}
		if step%20 < 10 {
			w.queue(rng.IntN(4), "linux")
		}
		w.claim()
		w.sync(everybody)
		w.givable()
		w.tx(func(tx *db.Tx) error { // demand is known, as of now
			if _, _, err := tx.ClaimReconciliation(w.ctx, "acme", w.clock(), w.clock()); err != nil {
				return err
			}
			return tx.SaveReconciliation(w.ctx, "acme", db.Reconciliation{AsOf: w.clock()}, w.clock())
		})
		w.scaler = w.replica() // the process before is gone
		w.scale()
		w.scaler.DB.Close()

		got, err := w.db.PoolState(w.ctx, "linux")
		w.ok(err)
		want := pool.Size(got.Supply, got.Demand, memory, w.clock())
		memory = want.Memory
		got.Decision.Evidence, want.Evidence = nil, nil // whose numbers JSON changes the type of
		want.NextAt = time.Time{}                       // a trigger keeps it
		if diff := cmp.Diff(want, got.Decision); diff != "" {
			t.Fatalf("step %d (-one that remembers +replicas):\n%s", step, diff)
		}
		directions[got.Decision.Direction]++
		if got.Decision.Direction == fleet.SizeDown { // somebody takes them away
			w.exec(`UPDATE muster.runner SET removed_at = '2026-03-01', removal_cause = 'scale_down'
				WHERE runner_id IN (SELECT runner_id FROM muster.runner WHERE removed_at IS NULL ORDER BY runner_id LIMIT 2)`)
		}
	}
	if directions[fleet.SizeUp] < 3 || directions[fleet.SizeDown] < 3 || directions[fleet.SizeHold] < 3 {
		t.Errorf("decisions by direction: %v, want some of each", directions)
	}
}

// The hosts, the groups and the misfortunes of a pool are of its target: in
// another one it begins anew.
func TestAPoolThatMovesToAnotherTargetBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	w.sync(everybody)
	w.queue(3, "linux")
	w.scale()
	w.pass(10 * time.Minute)
	w.sync(nobody)
	w.scale()
	w.want("expired 1 3", leases)
	w.exec(`UPDATE muster.pool SET groups = '{7}', carried = '{gpu,linux,self-hosted}'`)

	w.tx(func(tx *db.Tx) error {
		return tx.EnsureTarget(w.ctx, fleet.Target{
			Name: "widgets", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "widgets"}, APIURL: "https://ghes.example.com/api/v3", MaxObservationGap: time.Hour,
		}, w.clock())
	})
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, w.clock())
	w.exec(`INSERT INTO muster.runner_group (target, group_id, name, visibility, public, selected) VALUES ('widgets', '7', '', 'selected', false, '{}')`)
	w.exec(`UPDATE muster.workflow_job SET target = 'widgets'`)
	w.queue(1, "linux")
	w.exec(`UPDATE muster.workflow_job SET target = 'widgets', labels = '{gpu}' WHERE target = 'acme'`)
	moved, wrong := policies.NewPool(linux(func(p *fleet.Pool) { p.Target = "widgets" }))
	if wrong != nil {
		t.Fatal(wrong)
	}
	w.pools[0] = moved
	for range 2 {
		w.scale()
		w.want("expired 1 3, requested 1 3", leases)
		w.want("widgets 3 3 0", `SELECT concat_ws(' ', target, desired, queued, leases_expired) FROM api.pools`)
	}
}

// What a pool asked for that is called otherwise now, or is gone, runs out as all
// requests do.
func TestRequestsOfAPoolThatIsGoneRunOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil), pool("gpu", nil))
	w.sync(everybody)
	w.queue(2, "linux")
	w.scale()
	w.pools = w.pools[1:]
	w.pass(9 * time.Minute)
	w.sync(nobody)
	w.decide("gpu")
	w.want("requested 1 2", leases)
	w.pass(time.Minute)
	w.sync(nobody)
	w.decide("gpu")
	w.want("expired 1 2", leases)
	w.want("0", `SELECT count(*) FROM api.audit WHERE code = 'SC802W'`)
}
