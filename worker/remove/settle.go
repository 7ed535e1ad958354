package remove

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/queue"
)

// auditCode is the event of each outcome.
var auditCode = map[fleet.ActionState]fleet.AuditCode{
	fleet.ActionDone:   fleet.AuditDeleteDone,
	fleet.ActionGone:   fleet.AuditDeleteGone,
	fleet.ActionSpared: fleet.AuditDeleteSpared,
	fleet.ActionFailed: fleet.AuditDeleteFailed,
}

// settle is the transaction after the act. It runs on a context that outlives
// a shutdown: what was done must be said. stop is why GitHub refused, if it
// did.
func (r *Remover) settle(ctx context.Context, a fleet.Action, actor fleet.Actor, stop error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcome)
	defer cancel()
	now, err := r.Now(ctx)
	if err != nil {
		return err
	}
	a.SettledAt = now
	err = r.DB.InTx(ctx, func(tx *db.Tx) error {
		// The target before the runner, as syncs lock them.
		if stop != nil && (refusesCredential(stop) || a.Reason == ReasonInvisible) {
			what := db.RefusedList
			if errors.Is(stop, fleet.ErrForbidden) && a.Reason != ReasonInvisible {
				what = db.RefusedAct
			}
			if err := tx.RefuseCredential(ctx, a.Target, what, stop.Error(), now); err != nil {
				return err
			}
		}
		if a.State == fleet.ActionDone {
			if err := tx.CredentialAnswered(ctx, a.Target, db.AnsweredDelete, a.IntendedAt, now); err != nil {
				return err
			}
		}
		if err := tx.LockRunner(ctx, a.Target, a.RunnerID); err != nil {
			return err
		}
		if err := tx.Settle(ctx, a); err != nil {
			return err
		}
		event := auditOf(a, actor, auditCode[a.State], now)
		if a.State == fleet.ActionDone {
			if event.Reason, err = tx.Wanted(ctx, a); err != nil {
				return err
			}
		}
		if err := tx.Audit(ctx, event); err != nil {
			return err
		}
		if a.State != fleet.ActionDone && a.State != fleet.ActionGone {
			return nil
		}
		if err := markRemoved(ctx, tx, a, now); err != nil {
			return err
		}
		return release(ctx, tx, a, actor, now)
	})
	if err != nil {
		return err
	}
	if r.Observe != nil {
		r.Observe(a)
	}
	r.Log.InfoContext(ctx, "deletion settled", "target", a.Target, "runner", a.RunnerID, "name", a.Name,
		"policy", a.Policy, "trigger", a.TriggerID, "outcome", string(a.State), "reason", a.Reason)
	return nil
}

// removed is the data of the event runner.removed: what every transition has,
// with the keys of api.runner_history, and why and by which action, as
// api.runners and api.actions have it.
type removed struct {
	Target       string             `json:"target"`
	RunnerID     int64              `json:"runner_id"`
	Name         string             `json:"name"`
	At           time.Time          `json:"at"`
	Change       fleet.Change       `json:"change"`
	Before       map[string]any     `json:"before"`
	After        map[string]any     `json:"after"`
	SyncID       *string            `json:"sync_id"`
	RemovedAt    time.Time          `json:"removed_at"`
	RemovalCause fleet.RemovalCause `json:"removal_cause"`
	ActionID     string             `json:"action_id"`
	Policy       string             `json:"policy"`
}

// causeOf is why a runner is no longer registered. One that was gone at the
// last look, or that an interrupted process may or may not have deleted, may be
// anybody's doing. It is pure.
func causeOf(a fleet.Action) fleet.RemovalCause {
	switch {
	case a.State == fleet.ActionGone && a.Reason != ReasonUnanswered:
		return fleet.CauseUnknown
	case a.Policy == policies.OperatorName:
		return fleet.CauseOperator
	case a.Policy == policies.ScaleDownName:
		return fleet.CauseScaleDown
	}
	return fleet.CausePolicy
}

func markRemoved(ctx context.Context, tx *db.Tx, a fleet.Action, now time.Time) error {
	cause := causeOf(a)
	if cause == fleet.CauseUnknown && a.Reason != ReasonInterrupted {
		// Somebody else was first, and may have left a trace.
		evidence, err := tx.Removals(ctx, a.Target, []int64{a.RunnerID}, now)
		if err != nil {
			return err
		}
		cause = fleet.CauseOfRemoval(evidence[a.RunnerID])
	}
	news, err := tx.MarkRemoved(ctx, a.Target, a.RunnerID, cause, now)
	if err != nil || !news {
		return err
	}
	m, err := queue.Event("runner.removed", a.Target, strconv.FormatInt(a.RunnerID, 10), now, removed{
		Target: a.Target, RunnerID: a.RunnerID, Name: a.Name, At: now, Change: fleet.ChangeRemoved,
		RemovedAt: now, RemovalCause: cause,
		ActionID: a.ID, Policy: a.Policy,
	})
	if err != nil {
		return err
	}
	return tx.Enqueue(ctx, m)
}

// Settle closes intents whose maker is gone: those whose lease has ended.
// GitHub says what became of the runner. Where it does not answer, the intent
// stays open for the next time. Every replica calls it at its start and every
// 15 s.
func (r *Remover) Settle(ctx context.Context) error {
	var claimed []fleet.Action
	err := r.DB.InTx(ctx, func(tx *db.Tx) error {
		var err error
		claimed, err = tx.ClaimIntents(ctx, 20, lease)
		return err
	})
	if err != nil {
		return fmt.Errorf("settle open intents: %w", err)
	}
	var faults []error
	began := time.Now()
	for _, a := range claimed {
		if time.Since(began) > attempt || ctx.Err() != nil {
			break // the leases of the rest are about to end
		}
		err := r.settleOld(ctx, a)
		var identity *db.IdentityError
		slow := errors.Is(err, fleet.ErrConflict) && !errors.As(err, &identity) // its maker was, and not gone
		if err != nil && !slow {
			faults = append(faults, fmt.Errorf("settle the intent on runner %s/%d: %w", a.Target, a.RunnerID, err))
		}
	}
	return errors.Join(faults...)
}

func (r *Remover) settleOld(ctx context.Context, a fleet.Action) error {
	target, ok := r.Targets()[a.Target]
	if !ok {
		now, err := r.Now(ctx)
		if err != nil || now.Sub(a.IntendedAt) < abandoned {
			return err // another replica may know the target
		}
		a.State, a.Reason = fleet.ActionFailed, ReasonNoTarget
		return r.settle(ctx, a, fleet.System, nil)
	}
	if err := r.DB.CheckIdentity(ctx, target.Target); err != nil {
		return err
	}
	live, err := target.GitHub.Runner(ctx, target.Scope, a.RunnerID)
	switch {
	case errors.Is(err, fleet.ErrNotFound):
		if err := target.GitHub.CanList(ctx, target.Scope); err != nil {
			return err
		}
		a.State, a.Reason, a.HTTPStatus = fleet.ActionGone, ReasonInterrupted, http.StatusNotFound
	case err != nil:
		return err
	default:
		a.State, a.Reason, a.HTTPStatus = fleet.ActionFailed, ReasonInterrupted, http.StatusOK
		if against := objection(live, a); against != "" {
			a.State, a.Reason = fleet.ActionSpared, against
		}
	}
	return r.settle(ctx, a, fleet.System, nil)
}
