package scale

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// carryOut is how long a decision to shrink is carried out: less than the time
// to the next one, which knows more.
const carryOut = 45 * time.Second

// shrink gives up as many hosts of a pool as a decision says, those first that
// have had no work for longest, and counts what became of each. One that is
// spared is made good by the next, as far as there are idle ones.
// It returns what became of the decision.
func (s *Scaler) shrink(ctx context.Context, pool *policies.Pool, all []*policies.Pool, d fleet.SizeDecision, trigger fleet.Trigger, counts fleet.Counts) (became, error) {
	idle, err := givable(ctx, s.DB, pool, all, s.hosts(pool.Target), d.At)
	if err != nil {
		return became{}, err
	}
	var is became
	began := time.Now()
	for _, r := range idle {
		if is.left == d.Change || time.Since(began) > carryOut {
			return is, nil
		}
		stands, err := s.stands(ctx, pool, d)
		if err != nil || !stands {
			return is, err
		}
		res, err := s.Remover.Remove(ctx, remove.Request{
			Policy: policies.ScaleDown(pool), Target: pool.Target, RunnerID: r.ID, TriggerID: trigger.ID,
			Actor:   fleet.Actor{Type: fleet.ActorPolicy, Name: policies.ScaleDownName},
			InForce: func(ctx context.Context) (bool, error) { return s.stands(ctx, pool, d) },
		})
		if res.Action.ID != "" {
			counts[string(res.Action.State)]++
		}
		if mayBeGone(res.Action) {
			is.left++
		}
		if err != nil {
			return is, err
		}
		if why := res.Halted + res.Postponed; why != "" {
			s.Log.WarnContext(ctx, "pool keeps hosts that are too many", "pool", pool.Name, "target", pool.Target,
				"trigger", trigger.ID, "policy", policies.ScaleDownName, "reason", why)
			is.why = why
			return is, nil
		}
	}
	return is, nil
}

// became is what became of a decision to shrink.
type became struct {
	left int
	why  string // why the others stay; empty: not told
}

func (b became) words() string {
	words := fmt.Sprintf("%d have left", b.left)
	switch b.left {
	case 0:
		words = "none has left"
	case 1:
		words = "1 has left"
	}
	if b.why != "" {
		words += ", the others stay: " + b.why
	}
	return words
}

// hosts are those that may register runners of a target.
func (s *Scaler) hosts(target string) fleet.HostNames { return s.Remover.Targets()[target].Hosts }

// ofPool are the runners whose home is the pool, those of other pools being
// known. It is pure.
func ofPool(runners []fleet.Observed, pool *policies.Pool, all []*policies.Pool) []fleet.Observed {
	homes := homesOf(pool.Target, of(all, pool.Target))
	var own []fleet.Observed
	for _, r := range runners {
		if homes.of(r.Pool, r.Labels) == pool.Name {
			own = append(own, r)
		}
	}
	return own
}

// stands reports whether a decision to shrink is still what is wanted: nobody
// has decided since that more hosts are, and the pool is configured as it was.
func (s *Scaler) stands(ctx context.Context, pool *policies.Pool, d fleet.SizeDecision) (bool, error) {
	if named(s.Pools(), pool.Name) != pool {
		return false, nil // read anew, whether or not it is another: the next decision will tell
	}
	newest, err := s.DB.PoolState(ctx, pool.Name)
	if err != nil {
		return false, fmt.Errorf("look whether pool %s is still too large: %w", pool.Name, err)
	}
	return newest.Decision.Desired <= d.Desired && newest.Decision.Direction != fleet.SizeUp, nil
}

// mayBeGone reports whether a runner has to be counted as given up. It is pure.
func mayBeGone(a fleet.Action) bool {
	switch a.State {
	case fleet.ActionDone, fleet.ActionGone, fleet.ActionIntended:
		return true
	case fleet.ActionFailed:
		return a.Reason == remove.ReasonInterrupted
	}
	return false
}
