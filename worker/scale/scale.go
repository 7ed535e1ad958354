// Package scale sizes pools: it counts what a pool has and what workflow jobs
// want of it, has package policies decide, and asks for the hosts that are
// missing, one message and one lease each. Plan is the same up to the asking,
// and writes nothing.
//
// A decision to shrink is stored and told, and then carried out one host after
// the other through worker/remove, which asks each host first and decides on
// each runner once more.
package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/remove"
)

// Scaler is the scale job. All fields are required. It is safe for concurrent
// use, by any number of replicas.
type Scaler struct {
	Log   *slog.Logger
	DB    *db.DB
	Now   func(context.Context) (time.Time, error) // Postgres's clock, shared by all replicas
	Pools func() []*policies.Pool                  // as configured now
	// Remover is who takes hosts away.
	Remover *remove.Remover
}

// Handle decides on the pool that the trigger names and asks for hosts, and does
// the same for all other pools of the target whose triggers wait: see round.
// Where there are too many hosts it takes some away after that.
func (s *Scaler) Handle(ctx context.Context, trigger fleet.Trigger) (fleet.Counts, error) {
	all := s.Pools()
	pool := named(all, trigger.Name)
	if pool == nil {
		return nil, worker.Permanent(fmt.Errorf("scale %s: no pool of that name is configured", trigger.Name))
	}
	now, err := s.Now(ctx)
	if err != nil {
		return nil, err
	}
	r := round{target: pool.Target, hosts: s.hosts(pool.Target), all: all, now: now}
	err = s.DB.InTx(ctx, func(tx *db.Tx) error { return r.run(ctx, tx, pool, trigger) })
	if errors.Is(err, fleet.ErrNotFound) {
		// Never synced: what is there already is not known, and would be asked
		// for again.
		s.Log.InfoContext(ctx, "no inventory yet, pool not decided on", "pool", pool.Name, "target", pool.Target, "trigger", trigger.ID)
		return fleet.Counts{fleet.CountNoInventory: 1}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("scale pool %s: %w", pool.Name, err)
	}
	for _, d := range r.decided {
		s.log(ctx, d)
	}
	own := r.decided[0]
	counts := own.counts()
	if own.state.Decision.Direction == fleet.SizeDown {
		became, err := s.shrink(ctx, pool, all, own.state.Decision, trigger, counts)
		if err != nil {
			return counts, fmt.Errorf("give up hosts of pool %s: %w", pool.Name, err)
		}
		if err := s.DB.TellPool(ctx, pool.Name, own.state.Decision.At, became.words()); err != nil {
			return counts, err
		}
	}
	return counts, nil
}

func (s *Scaler) log(ctx context.Context, d decided) {
	at := []any{"pool", d.pool.Name, "target", d.pool.Target, "trigger", d.trigger.ID}
	if d.expired > 0 {
		s.Log.WarnContext(ctx, "hosts asked for did not come online", append(at, "leases", d.expired, "in_a_row", d.state.Supply.Expired)...)
	}
	if is := d.state.Decision; is.Direction != fleet.SizeHold {
		s.Log.InfoContext(ctx, "pool decided on", append(at, "direction", is.Direction, "hosts", is.Change, "reason", d.state.Reason)...)
	}
}

// findingKinds are the kinds of findings that sizing finds.
var findingKinds = []fleet.FindingKind{fleet.FindingUnlabelledJob, fleet.FindingUnservedJob, fleet.FindingMislabelledHost}

func named(all []*policies.Pool, name string) *policies.Pool {
	for _, p := range all {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Of are the names of the pools of a target, in the order of their names.
func Of(all []*policies.Pool, target string) []string {
	var names []string
	for _, p := range all {
		if p.Target == target {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// decide is the decision on a pool with what it rests on. It is pure.
func decide(pool *policies.Pool, f facts, before db.PoolState, now time.Time) db.PoolState {
	if before.Target != pool.Target {
		before = db.PoolState{} // never decided on, or of other hosts and jobs
	}
	d := pool.Size(f.supply, f.demand, before.Decision.Memory, now)
	groups := f.groups
	if len(groups) == 0 {
		groups = before.Groups
	}
	return db.PoolState{
		Pool: pool.Name, Target: pool.Target, Labels: pool.Labels, Groups: groups, Carried: f.carried, Decision: d, Supply: f.supply, Demand: f.demand,
		Reason: strings.Join(policies.TellSize(d), "; "),
	}
}
