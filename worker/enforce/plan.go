package enforce

import (
	"cmp"
	"context"
	"slices"
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
	Plan   policies.Plan
	// Decisions are those of the plan and a keep for each runner that the
	// policy does not match: first whom it would act on, then whom it halts
	// at, then whom it keeps, and in the end whom it does not match; by name
	// within each.
	Decisions  []fleet.Decision
	NotMatched int               // how many of Decisions that is
	State      fleet.PolicyState // as it was before
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
	return preview(p, target, in, policies.Decide(p, in, now), now), nil
}

// preview completes a plan with the runners that it does not speak of. It is
// pure.
func preview(p *policies.Policy, target string, in policies.Input, plan policies.Plan, now time.Time) Preview {
	v := Preview{Policy: p, Target: target, Plan: plan, Decisions: slices.Clone(plan.Decisions), State: in.State}
	order := map[fleet.Verdict]int{fleet.VerdictAct: 0, fleet.VerdictHalt: 1, fleet.VerdictKeep: 2}
	slices.SortStableFunc(v.Decisions, func(x, y fleet.Decision) int {
		return cmp.Or(cmp.Compare(order[x.Verdict], order[y.Verdict]), cmp.Compare(x.Name, y.Name))
	})
	decided := make(map[int64]bool, len(plan.Decisions))
	for _, d := range plan.Decisions {
		decided[d.RunnerID] = true
	}
	var rest []fleet.Decision
	for i := range in.Runners {
		if r := &in.Runners[i]; !decided[r.ID] {
			rest = append(rest, fleet.Decision{
				At: now, Policy: p.Name, PolicySHA256: p.SHA256, Enforcement: p.Enforcement,
				Target: target, RunnerID: r.ID, Name: r.Name, Verdict: fleet.VerdictKeep, Action: p.Action,
				Reasons:  []string{policies.ReasonNotMatched},
				Evidence: fleet.Evidence{"status": string(r.Status), "busy": r.Busy},
			})
		}
	}
	slices.SortStableFunc(rest, func(x, y fleet.Decision) int { return cmp.Compare(x.Name, y.Name) })
	v.NotMatched = len(rest)
	v.Decisions = append(v.Decisions, rest...)
	return v
}
