package enforce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// Explanation is one runner's story, and what policies make of it now.
type Explanation struct {
	Now    time.Time
	Runner fleet.Observed
	Target fleet.TargetState
	Story  []db.StoryRow // oldest first
	More   bool          // there was more before
	// Deletion is the newest that was tried; nil: none was.
	Deletion *db.Deletion
	// Opinions has one for each policy that covers the target; none of a
	// runner that is no longer registered.
	Opinions []Opinion
}

// Opinion is what one policy makes of a runner now.
type Opinion struct {
	Policy   *policies.Policy
	State    fleet.PolicyState // as it is
	Halt     string            // why it would halt; empty: it would not
	Decision fleet.Decision    // a keep for the reason not_matched where the plan has none
	Readings []policies.Reading
}

// mostStory is how much of a runner's story is told: what fits on a page.
const mostStory = 40

// Explain tells a runner's story. The opinions are those of enforcement: each
// policy decides on all runners of the target, since its limits are about them
// all. fleet.ErrNotFound says that there is no such runner.
func Explain(ctx context.Context, d *Reader, all []*policies.Policy, target fleet.Target, id int64, now time.Time) (Explanation, error) {
	x := Explanation{Now: now}
	var err error
	if x.Runner, err = d.Runner(ctx, target.Name, id); err != nil {
		return x, err
	}
	x.Runner.Vouch(target.Hosts)
	if x.Target, err = d.TargetState(ctx, target.Name); err != nil {
		return x, err
	}
	if x.Story, x.More, err = d.Story(ctx, target.Name, id, mostStory); err != nil {
		return x, err
	}
	deletion, err := d.Deletion(ctx, target.Name, id)
	if err == nil {
		x.Deletion = &deletion
	} else if !errors.Is(err, fleet.ErrNotFound) {
		return x, err
	}
	if !x.Runner.RemovedAt.IsZero() {
		return x, nil
	}
	for _, p := range Covering(all, target.Name) {
		o, err := opinion(ctx, d, p, target, x.Runner, now)
		if err != nil {
			return x, err
		}
		x.Opinions = append(x.Opinions, o)
	}
	return x, nil
}

func opinion(ctx context.Context, d *Reader, p *policies.Policy, target fleet.Target, r fleet.Observed, now time.Time) (Opinion, error) {
	o := Opinion{Policy: p}
	var err error
	if o.State, err = d.PolicyState(ctx, p.Name, target.Name); err != nil {
		return o, err
	}
	in, err := remove.Gather(ctx, d, p, target, 0, o.State, now)
	if err != nil {
		return o, err
	}
	plan := policies.Decide(p, in, now)
	o.Halt = plan.Halt
	// The one that was decided on, and not the one read before: a sync may have
	// come between.
	if i := slices.IndexFunc(in.Runners, func(o fleet.Observed) bool { return o.ID == r.ID }); i >= 0 {
		r = in.Runners[i]
	}
	var newer int
	if p.LooksAround() {
		around, err := d.Neighbours(ctx, r)
		if err != nil {
			return o, err
		}
		newer = around.Newer
	}
	o.Readings = p.Read(&r, newer, in.Target, now)
	if i := slices.IndexFunc(plan.Decisions, func(d fleet.Decision) bool { return d.RunnerID == r.ID }); i >= 0 {
		o.Decision = plan.Decisions[i]
	} else {
		o.Decision = notMatched(p, target.Name, &r, now)
	}
	return o, nil
}

// InShort says in a few sentences why the runner is gone, or what would
// have to happen for it to be deleted. It is pure.
func (x Explanation) InShort() string {
	r := &x.Runner
	if !r.RemovedAt.IsZero() {
		return x.whyGone()
	}
	if x.Deletion != nil && x.Deletion.Action.State == fleet.ActionIntended {
		return fmt.Sprintf("Its deletion by %s is under way, since %s.", x.Deletion.Action.Policy, stamp(x.Deletion.Action.IntendedAt))
	}
	var lines []string
	deleting := 0
	for _, o := range x.Opinions {
		if o.Policy.Action != fleet.ActionDeleteRunner {
			continue
		}
		deleting++
		if line := o.inShort(); line != "" {
			lines = append(lines, line)
		}
	}
	switch {
	case len(lines) > 0:
		return strings.Join(lines, "\n")
	case deleting == 0:
		return "It stays: no policy here deletes runners."
	}
	lines = []string{"It stays: no policy that deletes runners matches it."}
	for _, o := range x.Opinions {
		if o.Policy.Action == fleet.ActionDeleteRunner {
			lines = append(lines, o.lacks())
		}
	}
	return strings.Join(lines, "\n")
}

// lacks is what keeps the policy's match from holding.
func (o Opinion) lacks() string {
	var clauses []string
	for _, r := range o.Readings {
		for _, c := range r.Clauses {
			if r.Name == "" && c.Decides {
				clauses = append(clauses, fmt.Sprintf("%s (%s)", c.Text, strings.Join(c.Known, ", ")))
			}
		}
	}
	return fmt.Sprintf("For %s to match, this has to hold: %s.", o.Policy.Name, strings.Join(clauses, "; "))
}

// inShort is empty where the policy does not match the runner.
func (o Opinion) inShort() string {
	d, name := o.Decision, o.Policy.Name
	switch {
	case slices.Equal(d.Reasons, []string{policies.ReasonNotMatched}):
		return ""
	case d.Verdict == fleet.VerdictAct && acts(o.Policy):
		if o.Policy.Drain {
			return fmt.Sprintf("%s asks its host %v in its next run, and deletes it if no workflow job is on it and the last look does not speak against it.", name, d.Evidence["host"])
		}
		return fmt.Sprintf("%s deletes it in its next run, unless the last look speaks against it.", name)
	case d.Verdict == fleet.VerdictAct:
		return fmt.Sprintf("%s would delete it, and only records so: its enforcement is %s.", name, o.Policy.Enforcement)
	case d.Verdict == fleet.VerdictHalt && o.State.Halted:
		return fmt.Sprintf("%s would delete it, and is halted: %s.", name, o.State.Reason)
	case d.Verdict == fleet.VerdictHalt:
		return fmt.Sprintf("%s would delete it, and would halt instead: %s.", name, o.Halt)
	}
	var says, needs []string
	for _, reason := range d.Reasons {
		w := policies.InWords(reason, d.Evidence)
		says = append(says, w.Says)
		if w.Needs != "" {
			needs = append(needs, w.Needs)
		}
	}
	line := fmt.Sprintf("%s keeps it: %s.", name, strings.Join(says, "; "))
	if len(needs) > 0 {
		line += fmt.Sprintf(" For it to be deleted %s.", strings.Join(needs, ", and "))
	}
	return line
}

// whyGone is why the runner is no longer registered.
func (x Explanation) whyGone() string {
	r := &x.Runner
	at := stamp(r.RemovedAt)
	switch r.RemovalCause {
	case fleet.CausePolicy, fleet.CauseOperator, fleet.CauseScaleDown:
		if x.Deletion == nil {
			return fmt.Sprintf("It was deleted by muster (%s) at %s; the record of that has been cleared away.", r.RemovalCause, at)
		}
		d := x.Deletion
		line := fmt.Sprintf("It was deleted at %s by policy %s", at, d.Action.Policy)
		if r.RemovalCause == fleet.CauseOperator {
			line = fmt.Sprintf("It was deleted at %s by an operator", at)
			if why, ok := d.Decision.Evidence["operator_reason"].(string); ok {
				line += ": " + why
			}
		} else if r.RemovalCause == fleet.CauseScaleDown {
			line = fmt.Sprintf("It was deleted at %s because its pool had more hosts than it needs", at)
		} else if host, ok := d.Decision.Evidence["host"].(string); ok {
			line += ", after its host " + host + " had said that no workflow job was on it"
		} else if long, ok := d.Decision.Evidence["offline_for"].(string); ok {
			line += ", offline for " + long + " as observed"
		}
		return line + fmt.Sprintf(". The run was %s.", d.Action.TriggerID)
	case fleet.CauseEphemeral:
		return fmt.Sprintf("It had its one workflow job and left, as ephemeral runners do; found gone at %s.", at)
	case fleet.CauseHost:
		return fmt.Sprintf("Its host took it away; found gone at %s.", at)
	case fleet.CauseGitHub:
		return fmt.Sprintf("GitHub removed it, as it does with runners that have not connected for so long; found gone at %s.", at)
	}
	return fmt.Sprintf("It was found gone at %s, and nothing tells why: muster did not delete it, its host did not say, and no workflow job accounts for it.", at)
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }
