package scale

import (
	"context"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// Preview is what would be decided on a pool now.
type Preview struct {
	State    db.PoolState
	Last     db.PoolState // the newest decision that was stored
	Findings []fleet.Finding
}

// Plan decides as Handle does, on the same facts, and writes nothing. hosts are
// those that may register runners of the target.
// fleet.ErrNotFound says that the target was never synced.
func Plan(ctx context.Context, store *db.DB, pool *policies.Pool, all []*policies.Pool, hosts fleet.HostNames, now time.Time) (Preview, error) {
	last, err := store.PoolState(ctx, pool.Name)
	if err != nil {
		return Preview{}, err
	}
	pools := of(all, pool.Target)
	in, err := read(ctx, store, pool.Target, []string{pool.Name}, pools, now)
	if err != nil {
		return Preview{}, err
	}
	weighed, findings := weigh(pool.Target, pools, in)
	state, err := giveUp(ctx, store, decide(pool, weighed[pool.Name], last, now), pool, all, hosts, last.Decision.Memory)
	if err != nil {
		return Preview{}, err
	}
	return Preview{State: state, Last: last, Findings: findings}, nil
}
