package policies

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Input is what a decision rests on besides the policy and the time.
type Input struct {
	Target fleet.TargetState
	// Runners are those to decide on: all live ones of the target, or just one
	// that is looked at again. Shares count Target.Population, never these.
	Runners []fleet.Observed
	// MatchedSince tells since when each runner has matched without a break.
	// One that is absent has matched since now.
	MatchedSince map[int64]time.Time
	// Acted counts the intents of this policy on this target within
	// Guards.Max.Window, without those that an allowance paid for;
	// ActedLastMinute all of them within the last minute.
	Acted, ActedLastMinute int
	// State tells of a halt and of the allowance that is left.
	State fleet.PolicyState
}

// Plan is what a policy makes of a target at one moment.
type Plan struct {
	// Decisions has one for each runner that matched or could not be
	// evaluated, by runner id. Their ids and triggers are for the caller.
	Decisions []fleet.Decision
	// Matched are the runners for which match is true, by id: they keep their
	// grace marks, all others lose theirs.
	Matched []int64
	Counts  fleet.Counts
	// Halt says with its numbers why the policy halts now; empty where it does
	// not, or is halted already.
	Halt string
}

// Decide applies a policy to runners as they are known at now. It is pure, and
// the order of the runners does not matter. A policy that is disabled or does
// not cover the target decides nothing. enforcement: audit changes nothing
// here: it is for the caller not to act.
func Decide(p *Policy, in Input, now time.Time) Plan {
	plan := Plan{Counts: fleet.Counts{}}
	if p.Enforcement == fleet.EnforcementDisabled || !p.Covers(in.Target.Name) {
		return plan
	}
	d := &decider{policy: p, in: in, now: now, plan: &plan}
	d.vars.target = targetView{Name: in.Target.Name}
	if in.Target.Scope != (fleet.Scope{}) {
		d.vars.target.Scope = in.Target.Scope.String()
	}
	for _, key := range []string{CountEvaluated, CountMatched, CountUnknown, CountErrors, CountAct, CountKeep, CountHalt} {
		plan.Counts[key] = 0
	}

	order := make([]int, len(in.Runners))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(in.Runners[a].ID, in.Runners[b].ID) })
	for _, i := range order {
		d.runner(&in.Runners[i])
	}
	d.limit()
	for i := range plan.Decisions {
		decision := &plan.Decisions[i]
		plan.Counts[string(decision.Verdict)]++
		for _, reason := range decision.Reasons {
			plan.Counts["reason_"+reason]++
		}
	}
	return plan
}

type decider struct {
	policy *Policy
	in     Input
	now    time.Time
	plan   *Plan
	vars   activation
	due    []candidate // what no guard keeps; decided by limit
}

// candidate is a decision that is still open.
type candidate struct {
	decision   int // index in the plan
	offlineFor time.Duration
	id         int64
}

// runner decides on one runner, up to the limits that candidates share.
func (d *decider) runner(r *fleet.Observed) {
	d.plan.Counts[CountEvaluated]++
	d.vars.observe(r, d.now)
	if match := d.policy.match; match != nil {
		answer, _, err := evaluate(match.program, &d.vars)
		switch {
		case err != nil:
			d.plan.Counts[CountErrors]++
			d.decide(r, fleet.VerdictKeep, []string{ReasonMatchError}, fleet.Evidence{
				"status": string(r.Status), "busy": r.Busy, "error": err.Error(),
			})
			return
		case answer == unknown:
			d.plan.Counts[CountUnknown]++
			return
		case answer == no:
			return
		}
	}
	d.plan.Counts[CountMatched]++
	d.plan.Matched = append(d.plan.Matched, r.ID)

	evidence := d.evidence(r)
	reasons := append(d.exemptions(evidence), d.guards(r)...)
	switch {
	case len(reasons) > 0:
		d.decide(r, fleet.VerdictKeep, reasons, evidence)
	case d.policy.Action == fleet.ActionDeleteRunner:
		d.due = append(d.due, candidate{len(d.plan.Decisions), r.OfflineFor, r.ID})
		d.decide(r, fleet.VerdictAct, []string{ReasonMatched}, evidence)
	default:
		d.decide(r, fleet.VerdictAct, []string{ReasonMatched, ReasonReport}, evidence)
	}
}

func (d *decider) decide(r *fleet.Observed, v fleet.Verdict, reasons []string, evidence fleet.Evidence) {
	d.plan.Decisions = append(d.plan.Decisions, fleet.Decision{
		At:           d.now,
		Policy:       d.policy.Name,
		PolicySHA256: d.policy.SHA256,
		Enforcement:  d.policy.Enforcement,
		Target:       d.in.Target.Name,
		RunnerID:     r.ID,
		Name:         r.Name,
		Verdict:      v,
		Action:       d.policy.Action,
		Reasons:      reasons,
		Evidence:     evidence,
	})
}

// exemptions evaluates each exemption by itself: joined by ||, one that is
// true would swallow the error of another, and the other way round.
func (d *decider) exemptions(evidence fleet.Evidence) []string {
	var names, errs []string
	for _, x := range d.policy.exempt {
		answer, what, err := evaluate(x.program, &d.vars)
		switch {
		case err != nil:
			d.plan.Counts[CountErrors]++
			errs = append(errs, x.name+": "+err.Error())
		case answer == unknown:
			errs = append(errs, x.name+": rests on "+what+", which is unknown")
		case answer == yes:
			names = append(names, x.name)
		}
	}
	var reasons []string
	if names != nil {
		reasons = append(reasons, ReasonExempt)
		evidence["exempt"] = strings.Join(names, ", ")
	}
	if errs != nil {
		reasons = append(reasons, ReasonExemptError)
		evidence["exempt_error"] = strings.Join(errs, "; ")
	}
	return reasons
}

// limit decides on the candidates: nobody while the policy is halted or more
// are due than max allows; then those that have been offline longest, as many
// as the rate lets through.
func (d *decider) limit() {
	if len(d.due) == 0 {
		return
	}
	g := d.policy.Guards
	limit, capped := g.Max.Cap(d.in.Target.Population)
	allowed := max(limit-d.in.Acted, 0) + d.in.State.Allowance
	for _, c := range d.due {
		e := d.plan.Decisions[c.decision].Evidence
		e["due"] = len(d.due)
		e["rate_per_minute"], e["acted_last_minute"] = g.Rate, d.in.ActedLastMinute
		if capped {
			e["max_count"], e["max_percent"], e["min_population"] = g.Max.Count, g.Max.Percent, g.Max.MinPopulation
			e["max_window_seconds"], e["acted_in_window"] = seconds(g.Max.Window), d.in.Acted
			e["allowance"], e["allowed"] = d.in.State.Allowance, allowed
		}
	}
	switch {
	case d.in.State.Halted:
		d.close(fleet.VerdictHalt, ReasonHalted, d.due)
		return
	case capped && len(d.due) > allowed:
		d.plan.Halt = d.overMax(allowed)
		d.close(fleet.VerdictHalt, ReasonOverMax, d.due)
		return
	case g.Rate == 0:
		return
	}
	slices.SortFunc(d.due, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.offlineFor, a.offlineFor), cmp.Compare(a.id, b.id))
	})
	room := max(g.Rate-d.in.ActedLastMinute, 0)
	if room < len(d.due) {
		d.close(fleet.VerdictKeep, ReasonRate, d.due[room:])
	}
}

func (d *decider) close(v fleet.Verdict, reason string, candidates []candidate) {
	for _, c := range candidates {
		d.plan.Decisions[c.decision].Verdict = v
		d.plan.Decisions[c.decision].Reasons = []string{reason}
	}
}

// overMax puts a halt in words.
func (d *decider) overMax(allowed int) string {
	limit, population := d.policy.Guards.Max, d.in.Target.Population
	are := "runners are"
	if len(d.due) == 1 {
		are = "runner is"
	}
	share := fmt.Sprintf("%d live runners, under %d no percentage", population, limit.MinPopulation)
	part := limit.Percent * population / 100
	if population >= limit.MinPopulation {
		share = fmt.Sprintf("%d%% of %d = %d", limit.Percent, population, part)
	}
	text := fmt.Sprintf("%d %s due, %d allowed in %s (count %d, %s, %d acted so far", len(d.due), are, allowed, short(limit.Window), limit.Count, share, d.in.Acted)
	if d.in.State.Allowance > 0 {
		text += fmt.Sprintf(", %d by allowance", d.in.State.Allowance)
	}
	text += ")"
	if population >= limit.MinPopulation && part == 0 {
		text += fmt.Sprintf(": %d%% of %d is less than one runner, so the policy can act on nobody here", limit.Percent, population)
	}
	return text
}
