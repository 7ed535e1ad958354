package inventory_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/inventory"
)

// A runner may have another name than its host. Then the host's heartbeat says
// whose it is, and it may come when GitHub has nothing new to show any more.
func TestAHeartbeatTellsWhatCameOfALease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.syncer.Pools = func(string) []string { return []string{"linux"} }
	id := uuid.NewString()
	w.wantSync("complete +0 ~0 -0")
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		err := tx.AddLeases(w.ctx, []fleet.Lease{{
			RequestID: id, Pool: "linux", Target: "acme", Attempt: 1, RequestedAt: w.clock(), Deadline: w.clock().Add(10 * time.Minute),
		}})
		if err != nil {
			return err
		}
		return tx.ClaimLease(w.ctx, id, "build-01", w.clock())
	}))
	runner := w.create(1, githubsim.RunnerSpec{Name: "of-another-name-", Online: true})[0]
	w.wantSync("complete +1 ~0 -0")
	w.want("claimed", `SELECT state FROM api.leases`)
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		return tx.SaveHeartbeats(w.ctx, []fleet.Heartbeat{{Host: "build-01", At: w.clock(), Runners: []fleet.HostRunner{
			{Target: "acme", Name: "of-another-name-1", State: fleet.HostRunnerIdle},
		}}})
	}))
	w.wantNotModified(1)
	w.want("online "+itoa(int(runner)), `SELECT concat_ws(' ', state, runner_id) FROM api.leases`)
	w.want("linux", `SELECT pool FROM muster.runner`)
}

// A host that lists a runner which is not its own is found by the next complete
// sync, and no longer once a grant says that it may have it.
func TestASyncFindsRunnersThatStrangersClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(1, githubsim.RunnerSpec{Name: "build-0", Online: true})
	w.wantSync("complete +1 ~0 -0")
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		return tx.SaveHeartbeats(w.ctx, []fleet.Heartbeat{{Host: "build-01", At: w.clock(), Runners: []fleet.HostRunner{
			{Target: "acme", Name: "build-01", State: fleet.HostRunnerIdle},
		}}})
	}))
	const found = `SELECT coalesce(string_agg(concat_ws(' ', kind, subject, detail->>'claimed_by'), ', '), '') FROM api.findings`
	w.wantNotModified(1)
	w.want("claimed_runner build-01 build-01", found)
	target := w.syncer.Targets()["acme"]
	target.Hosts = fleet.HostNames{Names: []string{"build-01"}}
	w.syncer.Targets = func() map[string]inventory.Target { return map[string]inventory.Target{"acme": target} }
	w.wantNotModified(1)
	w.want("", found)
}
