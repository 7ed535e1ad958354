package remove

import (
	"context"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/queue"
)

// reader is what facts are read with: the database, or a transaction that
// holds the policy's lock.
type reader interface {
	TargetState(ctx context.Context, target string) (fleet.TargetState, error)
	LiveRunners(ctx context.Context, target string) ([]fleet.Observed, error)
	Runner(ctx context.Context, target string, id int64) (fleet.Observed, error)
	Neighbours(ctx context.Context, r fleet.Observed) (fleet.Neighbours, error)
	GraceMarks(ctx context.Context, policy, target, sha string) (map[int64]time.Time, error)
	Acted(ctx context.Context, policy, target string, window, minute time.Time) (db.Acts, error)
	Alarm(ctx context.Context, target string, since time.Time) (fleet.Alarm, error)
}

// Gather reads what a policy decides on: all live runners of a target, or with
// a runner's id that one alone, removed or not. It writes nothing, so that
// plans and enforcement decide on the same facts.
func Gather(ctx context.Context, r reader, p *policies.Policy, target fleet.Target, runner int64, state fleet.PolicyState, now time.Time) (policies.Input, error) {
	in := policies.Input{State: state, Brake: target.Brake.OrDefault()}
	var err error
	if in.Target, err = r.TargetState(ctx, target.Name); err != nil {
		return in, err
	}
	if !in.Target.Same(target) {
		return in, db.NotSame(target, in.Target.Target)
	}
	if runner == 0 {
		in.Runners, err = r.LiveRunners(ctx, target.Name)
	} else {
		var one fleet.Observed
		one, err = r.Runner(ctx, target.Name, runner)
		in.Runners = []fleet.Observed{one}
	}
	if err != nil {
		return in, err
	}
	for i := range in.Runners {
		in.Runners[i].Vouch(target.Hosts)
	}
	if runner != 0 && p.LooksAround() {
		around, err := r.Neighbours(ctx, in.Runners[0])
		if err != nil {
			return in, err
		}
		in.Neighbours = map[int64]fleet.Neighbours{runner: around}
	}
	// A policy that was out of force for a while does not know how runners
	// fared meanwhile: grace begins anew, as time between syncs that lie too
	// far apart counts nothing either.
	if now.Sub(state.LastRunAt) <= in.Target.MaxObservationGap {
		if in.MatchedSince, err = r.GraceMarks(ctx, p.Name, target.Name, p.SHA256); err != nil {
			return in, err
		}
	}
	acts, err := r.Acted(ctx, p.Name, target.Name, now.Add(-p.Guards.Max.Window), now.Add(-time.Minute))
	if err != nil {
		return in, err
	}
	in.Acted, in.ActedLastMinute = acts.Counted, acts.LastMinute
	if runner == 0 {
		// Those that somebody is just deleting are among the runners here, and
		// would count twice: as acted on and as due.
		in.Acted -= acts.Open
	}
	if in.Alarm, err = r.Alarm(ctx, target.Name, alarmSince(in, now)); err != nil {
		return in, err
	}
	in.Alarm.Of = in.Target.Population + in.Alarm.Removed
	// The percentage is of the fleet before the policy began on it: else each
	// deletion would move the cap, and a pass could halt halfway.
	in.Target.Population += acts.Removed
	return in, nil
}

// alarmSince is from when on what goes dark counts: within the brake's window,
// or since the policy's last run where no complete sync led to one meanwhile, so
// that nothing falls between two; and never before an operator last looked. It
// is pure.
func alarmSince(in policies.Input, now time.Time) time.Time {
	since := now.Add(-in.Brake.Window)
	last := in.State.LastRunAt
	if last.Before(since) && now.Sub(last) <= in.Target.MaxObservationGap {
		since = last
	}
	if in.State.BrakeFrom.After(since) {
		since = in.State.BrakeFrom
	}
	return since
}

// halted is the data of the event policy.halted, with the keys of
// api.policies.
type halted struct {
	Policy string `json:"policy"`
	Target string `json:"target"`
	State  string `json:"state"`
	Reason string `json:"reason"`
}

// Halt keeps a policy from acting on a target until an operator resumes it:
// one audit event and one message, the first time only.
func Halt(ctx context.Context, tx *db.Tx, policy, target string, plan policies.Plan, triggerID string, now time.Time) error {
	reason := plan.Halt
	news, err := tx.Halt(ctx, policy, target, plan.HaltedBy, reason, now)
	if err != nil || !news {
		return err
	}
	err = tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditPolicyHalted, Actor: fleet.Actor{Type: fleet.ActorPolicy, Name: policy},
		Target: target, Policy: policy, TriggerID: triggerID, Reason: reason,
		Details: map[string]any{"halted_by": plan.HaltedBy},
	})
	if err != nil {
		return err
	}
	m, err := queue.Event("policy.halted", target, policy, now, halted{
		Policy: policy, Target: target, State: "halted", Reason: reason,
	})
	if err != nil {
		return err
	}
	return tx.Enqueue(ctx, m)
}
