package remove

import (
	"context"
	"fmt"
	"strings"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// unconfirmedError says that an intent must not be carried out any more. Its
// cause is nil where the runner is spared, and else what kept muster from
// finding out.
type unconfirmedError struct {
	reasons []string
	cause   error
}

func (e *unconfirmedError) Error() string {
	if e.cause != nil {
		return e.cause.Error()
	}
	return "the runner is spared: " + strings.Join(e.reasons, ", ")
}

func (e *unconfirmedError) Unwrap() error { return e.cause }

// settle writes into the action that nothing was done. It returns why the pass
// should stop, or nil where the runner alone is spared.
func (e *unconfirmedError) settle(a *fleet.Action) error {
	a.State, a.Reason = fleet.ActionSpared, strings.Join(e.reasons, ", ")
	if e.cause != nil {
		a.State, a.Reason = fleet.ActionFailed, ReasonInterrupted
	}
	return e.cause
}

// confirm decides once more, on fresh facts, whether an intent may be carried
// out: the host may be asked, or the DELETE be sent. Between the decision and
// the DELETE lie the host's answer, the last look and the wait for GitHub's
// limits, which together may last as long as attempt. In that time an operator
// may have placed a hold, turned the policy off or halted it, a freeze may have
// begun, and an event may have told of a workflow job. The error is nil or an
// *unconfirmedError.
func (r *Remover) confirm(ctx context.Context, target Target, req Request, a fleet.Action) error {
	reasons, err := r.against(ctx, target, req, a)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return &unconfirmedError{cause: fmt.Errorf("confirm the intent on runner %s/%d: %w", a.Target, a.RunnerID, err)}
	}
	if len(reasons) > 0 {
		return &unconfirmedError{reasons: reasons}
	}
	return nil
}

// against are the reasons not to carry an intent out; none: it stands.
func (r *Remover) against(ctx context.Context, target Target, req Request, a fleet.Action) ([]string, error) {
	configured, ok := r.Targets()[a.Target]
	if !ok || configured.Scope != target.Scope || configured.APIURL != target.APIURL {
		return []string{ReasonNoTarget}, nil
	}
	if req.InForce != nil {
		wanted, err := req.InForce(ctx)
		if err != nil {
			return nil, err
		}
		if !wanted {
			return []string{ReasonNotInForce}, nil
		}
	}
	unsteady := r.unsteady(ctx)
	if unsteady != nil {
		return []string{policies.ReasonClock}, nil
	}
	now, err := r.Now(ctx)
	if err != nil {
		return nil, err
	}
	state, err := r.DB.PolicyState(ctx, a.Policy, a.Target)
	if err != nil {
		return nil, err
	}
	in, err := Gather(ctx, r.DB, req.Policy, configured.Target, a.RunnerID, state, now)
	if err != nil {
		return nil, err
	}
	plan := policies.Decide(req.Policy, counted(in, a), now)
	switch {
	case len(plan.Decisions) == 0:
		return []string{policies.ReasonNotMatched}, nil
	case plan.Decisions[0].Verdict != fleet.VerdictAct:
		return plan.Decisions[0].Reasons, nil
	}
	return nil, nil
}

// counted is the input for a runner that the intent itself is counted for. The
// intent has its place under the caps and the rate, so that neither is asked
// again: the rate has no act, and an allowance of one passes every cap. A runner whose host was drained may have stopped for that, so that it
// counts as online. It is pure.
func counted(in policies.Input, a fleet.Action) policies.Input {
	in.ActedLastMinute = 0
	in.State.Allowance = 1
	if !a.DrainedAt.IsZero() {
		in.Runners[0].Status = fleet.StatusOnline
	}
	return in
}
