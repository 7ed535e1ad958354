package enforce

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// Preview is what a policy would make of a target now.
type Preview struct {
	Policy     *policies.Policy
	Target     string
	Plan       policies.Plan
	NotMatched int               // runners that the plan does not speak of
	State      fleet.PolicyState // as it was before

	in   policies.Input
	now  time.Time
	rest []int // the runners that the plan does not speak of, by name
}

// Plan evaluates a policy on a target as enforcement would, on the same facts
// and through the same decision, and writes nothing. fleet.ErrNotFound says
// that no sync of the target has ever come to anything.
func Plan(ctx context.Context, d *Reader, p *policies.Policy, target fleet.Target, now time.Time) (Preview, error) {
	state, err := d.PolicyState(ctx, p.Name, target.Name)
	if err != nil {
		return Preview{}, err
	}
	in, err := remove.Gather(ctx, d, p, target, 0, state, now)
	if err != nil {
		return Preview{}, err
	}
	if in.Target.LastCompleteSyncAt.IsZero() && len(in.Runners) == 0 {
		return Preview{}, fmt.Errorf("plan %s on %s: no sync was complete yet: %w", p.Name, target.Name, fleet.ErrNotFound)
	}
	return preview(p, target.Name, in, policies.Decide(p, in, now), now), nil
}

// preview completes a plan with the runners that it does not speak of. It is
// pure.
func preview(p *policies.Policy, target string, in policies.Input, plan policies.Plan, now time.Time) Preview {
	v := Preview{Policy: p, Target: target, Plan: plan, State: in.State, in: in, now: now}
	v.Plan.Decisions = slices.Clone(plan.Decisions)
	order := map[fleet.Verdict]int{fleet.VerdictAct: 0, fleet.VerdictHalt: 1, fleet.VerdictKeep: 2}
	slices.SortStableFunc(v.Plan.Decisions, func(x, y fleet.Decision) int {
		return cmp.Or(cmp.Compare(order[x.Verdict], order[y.Verdict]), cmp.Compare(x.Name, y.Name))
	})
	decided := make(map[int64]bool, len(plan.Decisions))
	for _, d := range plan.Decisions {
		decided[d.RunnerID] = true
	}
	for i := range in.Runners {
		if !decided[in.Runners[i].ID] {
			v.rest = append(v.rest, i)
		}
	}
	slices.SortStableFunc(v.rest, func(x, y int) int { return cmp.Compare(in.Runners[x].Name, in.Runners[y].Name) })
	v.NotMatched = len(v.rest)
	return v
}

// Decisions are those of the plan and a keep for each runner that the policy
// does not match: first whom it would act on, then whom it halts at, then whom
// it keeps, and in the end whom it does not match; by name within each.
func (v Preview) Decisions() iter.Seq[fleet.Decision] {
	return func(yield func(fleet.Decision) bool) {
		for _, d := range v.Plan.Decisions {
			if !yield(d) {
				return
			}
		}
		for _, i := range v.rest {
			if !yield(notMatched(v.Policy, v.Target, &v.in.Runners[i], v.now)) {
				return
			}
		}
	}
}

// Group are the runners of a preview that have a verdict for the same reasons.
type Group struct {
	Verdict  fleet.Verdict
	Reasons  []string
	Count    int
	Examples []string // names of the first few
}

// mostExamples bounds the examples of a group.
const mostExamples = 5

// Groups sums a preview up, in the order of Decisions, larger groups first
// within each verdict, whom the policy does not match last.
func (v Preview) Groups() []Group {
	var groups []Group
	at := map[string]int{}
	for d := range v.Decisions() {
		key := string(d.Verdict) + " " + strings.Join(d.Reasons, ",")
		i, known := at[key]
		if !known {
			i = len(groups)
			at[key] = i
			groups = append(groups, Group{Verdict: d.Verdict, Reasons: d.Reasons})
		}
		g := &groups[i]
		if g.Count++; len(g.Examples) < mostExamples {
			g.Examples = append(g.Examples, d.Name)
		}
	}
	last := func(g Group) int {
		return map[bool]int{true: 1}[slices.Equal(g.Reasons, []string{policies.ReasonNotMatched})]
	}
	order := map[fleet.Verdict]int{fleet.VerdictAct: 0, fleet.VerdictHalt: 1, fleet.VerdictKeep: 2}
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(order[a.Verdict], order[b.Verdict]), cmp.Compare(b.Count, a.Count))
	})
	return groups
}

// Limit is how far a policy is from one of its limits.
type Limit struct {
	Name string
	Says string
	Near bool // four fifths are used up, or more, or it holds now
}

// Limits are those that a deletion of the policy may run into. A report has
// none.
func (v Preview) Limits() []Limit {
	if v.Policy.Action != fleet.ActionDeleteRunner {
		return nil
	}
	g, in := v.Policy.Guards, &v.in
	due, fewest := 0, -1
	for _, d := range v.Plan.Decisions {
		if isDue(d) {
			due++
		}
		if n, ok := d.Evidence["survivors"].(int); ok && (fewest < 0 || n < fewest) {
			fewest = n
		}
	}
	var limits []Limit
	if most, capped := g.Max.Cap(in.Target.Population); capped {
		says := fmt.Sprintf("%d of %d in %s used, %d due now", in.Acted, most, g.Max.WindowText(), due)
		if in.State.Allowance > 0 {
			says += fmt.Sprintf(", %d more by allowance", in.State.Allowance)
		}
		limits = append(limits, Limit{"max", says, 5*(in.Acted+due) >= 4*(most+in.State.Allowance) && in.Acted+due > 0})
	}
	if g.Rate > 0 {
		limits = append(limits, Limit{"rate", fmt.Sprintf("%d of %d in the last minute used, %d due now", in.ActedLastMinute, g.Rate, due),
			5*(in.ActedLastMinute+due) >= 4*g.Rate})
	}
	if g.MinSurvivors > 0 && fewest >= 0 {
		limits = append(limits, Limit{"min_survivors", fmt.Sprintf("%d online where fewest are beside one that matches, %d must remain", fewest, g.MinSurvivors),
			fewest <= g.MinSurvivors})
	}
	if dark := in.Alarm.Newly(); dark > 0 {
		b := in.Brake.OrDefault()
		most := max(b.Min-1, b.Percent*in.Alarm.Of/100)
		limits = append(limits, Limit{"brake", fmt.Sprintf("%d of %d runners went dark lately, %d may", dark, in.Alarm.Of, most), 5*dark >= 4*most})
	}
	return limits
}

// isDue reports whether no guard keeps the runner, and only limits that it
// shares with others can.
func isDue(d fleet.Decision) bool {
	if d.Verdict != fleet.VerdictKeep {
		return true
	}
	return slices.Equal(d.Reasons, []string{policies.ReasonRate}) || slices.Equal(d.Reasons, []string{policies.ReasonFreeze})
}
