package policies

import (
	"cmp"
	"fmt"
	"maps"
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
	// Neighbours tells for each of Runners, by id, of the other live runners of
	// the target. nil: Runners are all live ones, so that it can be counted.
	// Only a policy that LooksAround needs it.
	Neighbours map[int64]fleet.Neighbours
	// MatchedSince has the stored grace marks: since when each runner has matched
	// without a break. A runner that is absent has matched since now. A mark that
	// is earlier than the runner went offline counts from then on (issue 10).
	MatchedSince map[int64]time.Time
	// Acted counts the intents of this policy on this target within
	// Guards.Max.Window, without those that an allowance paid for;
	// ActedLastMinute all of them within the last minute.
	Acted, ActedLastMinute int
	// Brake is the target's, Alarm what it minds.
	Brake fleet.Brake
	Alarm fleet.Alarm
	// State tells of a halt and of the allowance that is left.
	State fleet.PolicyState
}

// Plan is what a policy makes of a target at one moment.
type Plan struct {
	// Decisions has one for each runner that matched or could not be
	// evaluated, by runner id. Their ids and triggers are for the caller.
	Decisions []fleet.Decision
	// Marks are the grace marks to store: for each runner that matches, by id,
	// since when its grace runs. All other runners lose theirs.
	Marks  map[int64]time.Time
	Counts fleet.Counts
	// Halt says with its numbers why the policy halts now, and HaltedBy is the
	// reason of the decisions that it halts; empty where it does not, or is
	// halted already.
	Halt, HaltedBy string
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
	plan.Marks = map[int64]time.Time{}
	d := &decider{policy: p, in: in, now: now, plan: &plan}
	if p.LooksAround() && in.Neighbours == nil {
		d.in.Neighbours = neighbours(in.Runners)
	}
	d.vars.target = viewOf(in.Target)
	d.common, d.stamps = d.shared(), map[time.Time]any{}
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
	reasons := fleet.Counts{}
	for i := range plan.Decisions {
		decision := &plan.Decisions[i]
		plan.Counts[string(decision.Verdict)]++
		for _, reason := range decision.Reasons {
			reasons[reason]++
		}
	}
	for reason, n := range reasons {
		plan.Counts["reason_"+reason] = n
	}
	return plan
}

type decider struct {
	policy *Policy
	in     Input
	now    time.Time
	plan   *Plan
	vars   activation
	common fleet.Evidence    // of all decisions
	stamps map[time.Time]any // times as evidence has them
	due    []candidate       // what no guard keeps; decided by limit
}

// candidate is a decision that is still open.
type candidate struct {
	decision int // index in the plan
	runner   *fleet.Observed
}

// runner decides on one runner, up to the limits that candidates share.
func (d *decider) runner(r *fleet.Observed) {
	d.plan.Counts[CountEvaluated]++
	d.vars.observe(r, d.in.Neighbours[r.ID].Newer, d.now)
	if match := d.policy.match; match != nil {
		answer, err := no, oversized(r)
		if err == nil {
			answer, _, err = evaluate(match.program, &d.vars)
		}
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
	d.plan.Marks[r.ID] = d.matchedSince(r)

	exempt, said := d.exemptions()
	reasons := append(exempt, d.guards(r)...)
	switch {
	case len(reasons) > 0:
		evidence := d.evidence(r, d.common)
		maps.Copy(evidence, said)
		d.decide(r, fleet.VerdictKeep, reasons, evidence)
	case d.policy.Action == fleet.ActionDeleteRunner:
		d.due = append(d.due, candidate{len(d.plan.Decisions), r})
		d.decide(r, fleet.VerdictAct, []string{ReasonMatched}, nil) // limit has the evidence
	default:
		d.decide(r, fleet.VerdictAct, []string{ReasonMatched, ReasonReport}, d.evidence(r, d.common))
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
// true would swallow the error of another, and the other way round. It gives
// the reasons to keep the runner, and their evidence.
func (d *decider) exemptions() ([]string, fleet.Evidence) {
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
	evidence := fleet.Evidence{}
	if names != nil {
		reasons = append(reasons, ReasonExempt)
		evidence["exempt"] = strings.Join(names, ", ")
	}
	if errs != nil {
		reasons = append(reasons, ReasonExemptError)
		evidence["exempt_error"] = strings.Join(errs, "; ")
	}
	return reasons, evidence
}

// limit decides on the candidates: nobody while the policy is halted, where the
// target goes dark, within a freeze, or where more are due than max allows; then
// those that have been offline longest, or of those to be drained idle longest, as
// many as the rate lets through. The
// brake halts a policy of which nobody is due as well: those that went dark will
// be due one day, and nothing will show then that they did so at once.
func (d *decider) limit() {
	dark := d.policy.Action == fleet.ActionDeleteRunner && d.in.Brake.Trips(d.in.Alarm)
	if dark && !d.in.State.Halted {
		d.plan.Halt, d.plan.HaltedBy = d.darkness(), ReasonBrake
	}
	g := d.policy.Guards
	thaw, frozen := g.frozen(d.now)
	limit, capped := g.Max.Cap(d.in.Target.Population)
	allowed := max(limit-d.in.Acted, 0) + d.in.State.Allowance
	e := maps.Clone(d.common)
	e["due"], e["rate_per_minute"], e["acted_last_minute"] = len(d.due), g.Rate, d.in.ActedLastMinute
	if capped {
		e["max_count"], e["max_percent"], e["min_population"] = g.Max.Count, g.Max.Percent, g.Max.MinPopulation
		e["max_window_seconds"], e["acted_in_window"] = seconds(g.Max.Window), d.in.Acted
		e["allowance"], e["allowed"] = d.in.State.Allowance, allowed
	}
	if frozen {
		putTime(e, "freeze_until", thaw)
	}
	if d.in.Alarm.Newly() > 0 {
		maps.Copy(e, d.alarm())
	}
	if because := d.in.State.Reason; d.in.State.Halted && because != "" {
		e["halt"] = because
	} else if d.plan.Halt != "" {
		e["halt"] = d.plan.Halt
	}
	for _, c := range d.due {
		d.plan.Decisions[c.decision].Evidence = d.evidence(c.runner, e)
	}
	switch {
	case d.in.State.Halted:
		d.close(fleet.VerdictHalt, ReasonHalted, d.due)
		return
	case dark:
		d.close(fleet.VerdictHalt, ReasonBrake, d.due)
		return
	case frozen:
		d.close(fleet.VerdictKeep, ReasonFreeze, d.due)
		return
	case capped && len(d.due) > allowed:
		d.plan.Halt, d.plan.HaltedBy = d.overMax(allowed), ReasonOverMax
		d.close(fleet.VerdictHalt, ReasonOverMax, d.due)
		return
	case g.Rate == 0:
		return
	}
	slices.SortFunc(d.due, func(a, b candidate) int {
		if d.policy.Drain {
			return byIdleness(a.runner, b.runner, d.now)
		}
		return cmp.Or(cmp.Compare(b.runner.OfflineFor, a.runner.OfflineFor), cmp.Compare(a.runner.ID, b.runner.ID))
	})
	room := min(max(g.Rate-d.in.ActedLastMinute, 0), len(d.due))
	d.close(fleet.VerdictKeep, ReasonRate, d.due[room:])
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
	share := fmt.Sprintf("%s, under %d no percentage", counted(fmt.Sprint(population), "live runner", "live runners"), limit.MinPopulation)
	part := limit.Percent * population / 100
	if population >= limit.MinPopulation {
		share = fmt.Sprintf("%d%% of %d = %d", limit.Percent, population, part)
	}
	text := fmt.Sprintf("%s due, %d allowed in %s (count %d, %s, %d acted so far", counted(fmt.Sprint(len(d.due)), "runner is", "runners are"), allowed, short(limit.Window), limit.Count, share, d.in.Acted)
	if d.in.State.Allowance > 0 {
		text += fmt.Sprintf(", %d by allowance", d.in.State.Allowance)
	}
	text += ")"
	if population >= limit.MinPopulation && part == 0 {
		text += fmt.Sprintf(": %d%% of %d is less than one runner, so the policy can act on nobody here", limit.Percent, population)
	}
	return text
}
