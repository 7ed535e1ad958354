// Package enforce applies policies to the inventory of a target: it decides,
// stores what is new about the decisions, and hands those that say act to
// worker/remove. Plan is the same up to the act, and writes nothing.
package enforce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/remove"
)

// Enforcer is the enforce job. All fields but Observe are required. It is safe
// for concurrent use.
type Enforcer struct {
	Log      *slog.Logger
	DB       *db.DB
	Now      func(context.Context) (time.Time, error)
	Policies func() []*policies.Policy // as configured now
	Remover  *remove.Remover
	// Observe sees what a policy made of a target. Nil: nobody does.
	Observe func(policy, target string, counts fleet.Counts)
}

// Handle runs all policies that cover the target that the trigger names. One
// policy's fault does not keep the others from running; what GitHub asks of
// its callers does.
func (e *Enforcer) Handle(ctx context.Context, trigger fleet.Trigger) (fleet.Counts, error) {
	total := fleet.Counts{}
	var faults []error
	var runners fleetRead
	for _, p := range Covering(e.Policies(), trigger.Name) {
		counts, err := e.run(ctx, p, &runners, trigger)
		for key, n := range counts {
			total[key] += n
		}
		if e.Observe != nil && counts != nil {
			e.Observe(p.Name, trigger.Name, counts)
		}
		if err == nil {
			continue
		}
		faults = append(faults, fmt.Errorf("policy %s on %s: %w", p.Name, trigger.Name, err))
		var identity *db.IdentityError
		if errors.As(err, &identity) {
			return total, worker.Permanent(errors.Join(faults...))
		}
		if pause, asked := pauseOf(err); asked {
			return total, worker.RetryAfter(pause, errors.Join(faults...))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return total, errors.Join(faults...)
}

// Covering are the policies that have something to say about a target.
func Covering(all []*policies.Policy, target string) []*policies.Policy {
	return slices.DeleteFunc(slices.Clone(all), func(p *policies.Policy) bool {
		return p.Enforcement == fleet.EnforcementDisabled || !p.Covers(target)
	})
}

func pauseOf(err error) (time.Duration, bool) {
	var refused *github.Error
	if errors.As(err, &refused) && refused.Wait > 0 {
		return refused.Wait, true
	}
	return 0, false
}

func (e *Enforcer) run(ctx context.Context, p *policies.Policy, runners *fleetRead, trigger fleet.Trigger) (fleet.Counts, error) {
	plan, err := e.decide(ctx, p, runners, trigger)
	if errors.Is(err, fleet.ErrNotFound) {
		// Never synced: nothing is known, so nothing can be due.
		e.Log.InfoContext(ctx, "no inventory yet, policy not run", "target", trigger.Name, "policy", p.Name, "trigger", trigger.ID)
		return fleet.Counts{fleet.CountNoInventory: 1}, nil
	}
	if err != nil {
		return nil, err
	}
	counts := maps.Clone(plan.Counts)
	if plan.Halt != "" && acts(p) {
		e.Log.WarnContext(ctx, "policy halted until muster policy resume", "policy", p.Name, "target", trigger.Name,
			"trigger", trigger.ID, "reason", plan.Halt)
	}
	if !acts(p) {
		return counts, nil
	}
	for _, d := range plan.Decisions {
		if d.Verdict != fleet.VerdictAct {
			continue
		}
		if err := ctx.Err(); err != nil {
			return counts, err
		}
		if !e.inForce(p) {
			e.Log.InfoContext(ctx, "policy changed in the middle of a pass, pass ended", "policy", p.Name,
				"target", trigger.Name, "trigger", trigger.ID)
			return counts, nil
		}
		runners.forget() // whatever comes of it
		res, err := e.Remover.Remove(ctx, remove.Request{
			Policy: p, Target: trigger.Name, RunnerID: d.RunnerID, TriggerID: trigger.ID,
			Actor:   fleet.Actor{Type: fleet.ActorPolicy, Name: p.Name},
			InForce: func(context.Context) (bool, error) { return e.inForce(p), nil },
		})
		if res.Action.ID != "" {
			counts[string(res.Action.State)]++
		}
		if err != nil {
			return counts, err
		}
		if res.Halted != "" {
			// Others have used up what this pass counted on.
			e.Log.WarnContext(ctx, "policy halted until muster policy resume", "policy", p.Name, "target", trigger.Name,
				"trigger", trigger.ID, "reason", res.Halted)
			return counts, nil
		}
		if res.Postponed != "" {
			e.Log.InfoContext(ctx, "deletions have to wait, the rest of the pass is left to the next", "policy", p.Name,
				"target", trigger.Name, "trigger", trigger.ID, "reason", res.Postponed)
			counts["reason_"+res.Decision.Reasons[0]]++
			return counts, nil
		}
	}
	return counts, nil
}

// inForce reports whether the configuration still has this very policy: an
// operator who turns one off means at once.
func (e *Enforcer) inForce(p *policies.Policy) bool {
	return slices.ContainsFunc(e.Policies(), func(now *policies.Policy) bool {
		return now.Name == p.Name && now.SHA256 == p.SHA256 && now.Enforcement == p.Enforcement
	})
}

// acts reports whether a policy's decisions are carried out.
func acts(p *policies.Policy) bool {
	return p.Enforcement == fleet.EnforcementEnforce && p.Action == fleet.ActionDeleteRunner
}

// decide evaluates a policy and stores what is new, all in one transaction.
func (e *Enforcer) decide(ctx context.Context, p *policies.Policy, runners *fleetRead, trigger fleet.Trigger) (policies.Plan, error) {
	now, err := e.Now(ctx)
	if err != nil {
		return policies.Plan{}, err
	}
	target, ok := e.Remover.Targets()[trigger.Name]
	if !ok {
		return policies.Plan{}, errors.New("no target of that name is configured")
	}
	var plan policies.Plan
	err = e.DB.InTx(ctx, func(tx *db.Tx) error {
		state, err := tx.LockPolicy(ctx, fleet.PolicyState{
			Policy: p.Name, Target: trigger.Name, SHA256: p.SHA256, Enforcement: p.Enforcement,
		})
		if err != nil {
			return err
		}
		in, err := remove.Gather(ctx, turn{tx, runners}, p, target.Target, 0, state, now)
		if err != nil {
			return err
		}
		plan = policies.Decide(p, in, now)
		if err := tx.SaveGraceMarks(ctx, p.Name, trigger.Name, p.SHA256, plan.Marks); err != nil {
			return err
		}
		last, err := tx.LastDecisions(ctx, p.Name, trigger.Name, 0)
		if err != nil {
			return err
		}
		fresh := news(p, plan.Decisions, last, in, trigger.ID, now)
		if err := tx.SaveDecisions(ctx, fresh); err != nil {
			return err
		}
		if plan.Halt != "" && acts(p) {
			if err := remove.Halt(ctx, tx, p.Name, trigger.Name, plan, trigger.ID, now); err != nil {
				return err
			}
		}
		return tx.NotePolicyRun(ctx, fleet.PolicyState{
			Policy: p.Name, Target: trigger.Name, SHA256: p.SHA256, Enforcement: p.Enforcement, LastRunAt: now,
		})
	})
	return plan, err
}

// news are the decisions to store: those that differ from the last one stored,
// and a keep for each runner that had one and is not matched any more. Those
// that will be acted on are stored by worker/remove, with the evidence of that
// moment. It is pure.
func news(p *policies.Policy, decisions []fleet.Decision, last map[int64]db.LastDecision, in policies.Input, triggerID string, now time.Time) []fleet.Decision {
	var fresh []fleet.Decision
	decided := make(map[int64]bool, len(decisions))
	for _, d := range decisions {
		decided[d.RunnerID] = true
		if d.Verdict == fleet.VerdictAct && acts(p) {
			continue
		}
		d.TriggerID = triggerID
		if !last[d.RunnerID].Says(d) {
			fresh = append(fresh, d)
		}
	}
	for i := range in.Runners {
		r := &in.Runners[i]
		if _, had := last[r.ID]; !had || decided[r.ID] {
			continue
		}
		d := notMatched(p, in.Target.Name, r, now)
		d.TriggerID = triggerID
		if !last[d.RunnerID].Says(d) {
			fresh = append(fresh, d)
		}
	}
	return fresh
}

// notMatched is the decision on a runner that the policy does not match, which
// policies.Decide leaves to whoever wants one. It is pure.
func notMatched(p *policies.Policy, target string, r *fleet.Observed, now time.Time) fleet.Decision {
	return fleet.Decision{
		At: now, Policy: p.Name, PolicySHA256: p.SHA256, Enforcement: p.Enforcement,
		Target: target, RunnerID: r.ID, Name: r.Name, Verdict: fleet.VerdictKeep, Action: p.Action,
		Reasons:  []string{policies.ReasonNotMatched},
		Evidence: fleet.Evidence{"status": string(r.Status), "busy": r.Busy},
	}
}
