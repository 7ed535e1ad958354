// Package remove is the only place that deletes a runner. Whatever wants one
// deleted (a policy, an operator, a pool that is too large) comes here and meets
// the same guards: the decision is taken again under a lock on fresh facts, the
// intent is committed before anything is tried, GitHub is asked for the runner
// once more, and the outcome is committed even while the process is being
// stopped. What a crash leaves open, Settle closes by asking GitHub.
//
// A runner that is online is drained first: its host has to say that no workflow
// job is on it, and that it will take none. Only then the last look follows, and
// the host is released with the outcome.
package remove

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// abandoned is when an intent on a target that no replica knows any more is
// given up, its outcome unknown.
const abandoned = time.Hour

// lease is how long an intent is its maker's alone. What its maker does about it
// takes less in all, so that nobody settles an intent that still acts.
const (
	lease   = 30 * time.Second
	attempt = 18 * time.Second // the host's answer, the last look and the DELETE
	reading = 5 * time.Second  // what became of a DELETE without a clear answer
	outcome = 5 * time.Second  // the recording
)

// Target is a target with the client for its credential.
type Target struct {
	fleet.Target
	GitHub deleter
}

// deleter is what removing a runner asks of GitHub.
type deleter interface {
	Runner(ctx context.Context, scope fleet.Scope, id int64) (fleet.Runner, error)
	RemoveRunner(ctx context.Context, scope fleet.Scope, id int64, confirm func(context.Context) error) error
	CanList(ctx context.Context, scope fleet.Scope) error
	AffordsRemoval(scope fleet.Scope, id int64) error
}

// host is the side of queue.Conn that drains hosts.
type host interface {
	Drain(ctx context.Context, r fleet.HostRequest) (busy bool, err error)
}

// Remover removes runners. All fields but Steady, Hosts and Observe are required. It is
// safe for concurrent use, in one process and in several on one database.
type Remover struct {
	Log     *slog.Logger
	DB      *db.DB
	Now     func(context.Context) (time.Time, error)
	Targets func() map[string]Target // by name, as configured now
	// Steady returns why the clock cannot be believed now; nil: it can. While it
	// cannot, nobody is removed. A nil Steady always believes it.
	Steady func(context.Context) error
	// Hosts is who asks hosts. Nil: whatever has to be drained is kept.
	Hosts host
	// Observe sees every action that was settled. Nil: nobody does.
	Observe func(fleet.Action)
}

// Request asks for the removal of one runner under one policy.
type Request struct {
	Policy    *policies.Policy
	Target    string
	RunnerID  int64
	TriggerID string      // UUID
	Actor     fleet.Actor // who is behind it, for the trail
	Reason    string      // an operator's words; empty for a policy
	// InForce reports whether the removal is still wanted: for a policy, whether
	// the configuration has it unchanged. It is asked right before the host is
	// asked, and right before the DELETE. Nil: the removal is always wanted.
	InForce func(context.Context) (bool, error)
}

// Result is what became of a request.
type Result struct {
	Decision fleet.Decision
	// Action is the intent with its outcome; its ID is empty where the guards
	// let no intent be made.
	Action fleet.Action
	// Halted is why the policy was halted by this request; empty: it was not.
	Halted string
	// Postponed is why the deletion is left to a later pass: GitHub's limits do
	// not leave room for it, or the clock cannot be believed. Empty: it is not.
	Postponed string
}

// Remove decides on the runner again, on fresh facts and under a lock, and
// removes it if the verdict is still act. An error means that the pass should
// stop: the database or GitHub is away, GitHub asks for a pause, or refuses
// the credential. What happened to this one runner is no error: see Result.
func (r *Remover) Remove(ctx context.Context, req Request) (Result, error) {
	target, ok := r.Targets()[req.Target]
	if !ok {
		return Result{}, fmt.Errorf("remove runner %s/%d: no target of that name is configured", req.Target, req.RunnerID)
	}
	// Ids mean other runners elsewhere: another replica may have been the first
	// to use this name, for another scope.
	if err := r.DB.CheckIdentity(ctx, target.Target); err != nil {
		return Result{}, fmt.Errorf("remove runner %s/%d: %w", req.Target, req.RunnerID, err)
	}
	began := time.Now()
	res, err := r.intend(ctx, target, req)
	if err != nil || res.Action.ID == "" {
		return res, err
	}
	a := &res.Action

	// The intent is out: it is settled whatever happens, and nothing is tried
	// once its lease could end.
	trying, cancel := context.WithDeadline(ctx, began.Add(attempt))
	stop := r.tryDrained(trying, target, req, a)
	cancel()
	if a.State == fleet.ActionIntended {
		return res, fmt.Errorf("remove runner %s/%d: what became of the deletion is not known yet: %w", a.Target, a.RunnerID, stop)
	}

	if err := r.settle(ctx, *a, req.Actor, stop); err != nil {
		return res, fmt.Errorf("record that runner %s/%d is %s: %w", a.Target, a.RunnerID, a.State, err)
	}
	return res, stop
}

// intend is the transaction before the act: decide, and if the verdict is act,
// commit decision, intent and audit event.
func (r *Remover) intend(ctx context.Context, target Target, req Request) (Result, error) {
	var res Result
	now, err := r.Now(ctx)
	if err != nil {
		return res, err
	}
	// Before the transaction: whoever asks the record for a second connection
	// while it holds one waits for ever where there is only one.
	unsteady := r.unsteady(ctx)
	err = r.DB.InTx(ctx, func(tx *db.Tx) error {
		res = Result{}
		p := req.Policy
		state, err := tx.LockPolicy(ctx, fleet.PolicyState{
			Policy: p.Name, Target: req.Target, SHA256: p.SHA256, Enforcement: p.Enforcement,
		})
		if err != nil {
			return err
		}
		// An intent of somebody else's is either still open after this, which
		// ends it here, or settled, which Gather sees. Were it decided on, its
		// own intent would count against the runner.
		if err := tx.LockRunner(ctx, req.Target, req.RunnerID); err != nil {
			return err
		}
		if err := tx.NoIntent(ctx, req.Target, req.RunnerID); err != nil {
			return err
		}
		in, err := Gather(ctx, tx, p, target.Target, req.RunnerID, state, now)
		if err != nil {
			return err
		}
		plan := policies.Decide(p, in, now)
		if res.Halted = plan.Halt; plan.Halt != "" {
			if err := Halt(ctx, tx, p.Name, req.Target, plan, req.TriggerID, now); err != nil {
				return err
			}
		}
		if len(plan.Decisions) == 0 {
			// It matched when the pass began and does not any more.
			res.Decision = fleet.Decision{Verdict: fleet.VerdictKeep, Reasons: []string{policies.ReasonNotMatched}}
			return nil
		}
		res.Decision = plan.Decisions[0]
		d := &res.Decision
		d.TriggerID = req.TriggerID
		if d.Verdict == fleet.VerdictAct {
			res.Postponed = r.postpone(target, req, d, unsteady)
		}
		if req.Reason != "" {
			d.Evidence["operator_reason"] = req.Reason
		}
		if err := store(ctx, tx, d); err != nil {
			return err
		}
		if d.Verdict != fleet.VerdictAct {
			return r.refused(ctx, tx, req, *d, now)
		}
		return r.commitIntent(ctx, tx, req, in, now, &res)
	})
	var identity *db.IdentityError
	if errors.Is(err, fleet.ErrConflict) && !errors.As(err, &identity) {
		// Somebody is at this very runner. That is no fault of the pass.
		return Result{Decision: fleet.Decision{Verdict: fleet.VerdictKeep, Reasons: []string{ReasonElsewhere}}}, nil
	}
	if err != nil {
		return Result{}, fmt.Errorf("decide on runner %s/%d: %w", req.Target, req.RunnerID, err)
	}
	return res, nil
}

// unsteady returns why the clock cannot be believed now; nil: it can.
func (r *Remover) unsteady(ctx context.Context) error {
	if r.Steady == nil {
		return nil
	}
	return r.Steady(ctx)
}

// postpone turns a decision to act into one to keep where the deletion has to be
// left to a later pass, and returns why; empty: it need not be. An intent that
// could not be carried out would only be noise in the trail.
func (r *Remover) postpone(target Target, req Request, d *fleet.Decision, unsteady error) string {
	reason := policies.ReasonBudget
	err := target.GitHub.AffordsRemoval(target.Scope, req.RunnerID)
	if err == nil {
		reason = policies.ReasonClock
		err = unsteady
	}
	if err == nil {
		return ""
	}
	d.Verdict, d.Reasons = fleet.VerdictKeep, []string{reason}
	d.Evidence[reason] = err.Error()
	return err.Error()
}

// store stores a decision to act, and any other if it differs from the last
// one. One that is not stored has no id.
func store(ctx context.Context, tx *db.Tx, d *fleet.Decision) error {
	if d.Verdict != fleet.VerdictAct {
		last, err := tx.LastDecisions(ctx, d.Policy, d.Target, d.RunnerID)
		if err != nil || last[d.RunnerID].Says(*d) {
			return err
		}
	}
	stored := []fleet.Decision{*d}
	if err := tx.SaveDecisions(ctx, stored); err != nil {
		return err
	}
	d.ID = stored[0].ID
	return nil
}

// ReasonElsewhere keeps a runner that another process is acting on.
const ReasonElsewhere = "elsewhere"

func (r *Remover) commitIntent(ctx context.Context, tx *db.Tx, req Request, in policies.Input, now time.Time, res *Result) error {
	d := res.Decision
	a := fleet.Action{
		ID: uuid.Must(uuid.NewV7()).String(), DecisionID: d.ID, TriggerID: req.TriggerID,
		Policy: d.Policy, Target: d.Target, RunnerID: d.RunnerID, Name: d.Name, Kind: fleet.ActionDeleteRunner,
		State: fleet.ActionIntended, IntendedAt: now,
	}
	if req.Policy.Drain {
		a.Host, a.Release = in.Runners[0].Machine(), req.Policy.Release
	}
	// What the caps let through is counted in them; what comes on top, an
	// operator has allowed.
	limit, capped := req.Policy.Guards.Max.Cap(in.Target.Population)
	beyond := capped && in.Acted >= limit
	if beyond {
		if err := tx.SpendAllowance(ctx, a.Policy, a.Target); err != nil {
			return err
		}
	}
	if err := tx.Intend(ctx, a, lease, beyond); err != nil {
		return err
	}
	event := auditOf(a, req.Actor, fleet.AuditDeleteIntended, now)
	event.Reason = cmp.Or(req.Reason, strings.Join(d.Reasons, ", "))
	event.Details["policy_sha256"] = d.PolicySHA256
	event.Details["evidence"] = d.Evidence
	if err := tx.Audit(ctx, event); err != nil {
		return err
	}
	res.Action = a
	return nil
}

// refused notes in the trail that an operator was refused; a policy's
// decisions are record enough.
func (r *Remover) refused(ctx context.Context, tx *db.Tx, req Request, d fleet.Decision, now time.Time) error {
	if req.Actor.Type != fleet.ActorCLI {
		return nil
	}
	return tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditDeleteRefused, Actor: req.Actor, Target: d.Target, RunnerID: d.RunnerID,
		RunnerName: d.Name, Policy: d.Policy, TriggerID: req.TriggerID, Reason: strings.Join(d.Reasons, ", "),
		Details: map[string]any{"decision_id": d.ID, "operator_reason": req.Reason},
	})
}

func auditOf(a fleet.Action, actor fleet.Actor, code fleet.AuditCode, at time.Time) fleet.AuditEvent {
	return fleet.AuditEvent{
		At: at, Code: code, Actor: actor, Target: a.Target, RunnerID: a.RunnerID, RunnerName: a.Name,
		Host: a.Host, Policy: a.Policy, TriggerID: a.TriggerID, Reason: a.Reason,
		Details: map[string]any{"action_id": a.ID, "decision_id": a.DecisionID},
	}
}
