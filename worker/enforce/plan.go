package enforce

import (
	"context"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// Preview is what a policy would make of a target now.
type Preview struct {
	Policy *policies.Policy
	Target string
	Input  policies.Input
	Plan   policies.Plan
}

// Plan evaluates a policy on a target as enforcement would, on the same facts
// and through the same decision, and writes nothing. fleet.ErrNotFound says
// that the target was never synced.
func Plan(ctx context.Context, d *db.DB, p *policies.Policy, target string, now time.Time) (Preview, error) {
	state, err := d.PolicyState(ctx, p.Name, target)
	if err != nil {
		return Preview{}, err
	}
	in, err := remove.Gather(ctx, d, p, target, 0, state, now)
	if err != nil {
		return Preview{}, err
	}
	return Preview{Policy: p, Target: target, Input: in, Plan: policies.Decide(p, in, now)}, nil
}

// Halted reports whether the preview acts on nobody because the policy is, or
// would now be, halted.
func (p Preview) Halted() bool {
	return p.Plan.Halt != "" || p.Input.State.Halted && p.Plan.Counts[string(fleet.VerdictHalt)] > 0
}
