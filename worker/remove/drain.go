package remove

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// answering is how long a host may take to answer a drain.
const answering = 5 * time.Second

// Reasons why a host whose runner is gone is not released.
const (
	ReasonHostAtWork = "host_at_work" // it has other runners, or says that one of them is at work
	ReasonDrainOver  = "drain_over"   // it may have taken up work again since it was drained
)

// tryDrained is try, once the host of a runner that is to be drained has said
// that no workflow job is on it. Whatever it says but that, and silence too,
// spares the runner.
func (r *Remover) tryDrained(ctx context.Context, target Target, req Request, a *fleet.Action) error {
	if req.Policy.Drain {
		if drained, err := r.drain(ctx, target, req, a); !drained || err != nil {
			return err
		}
	}
	return r.try(ctx, target, req, a)
}

// drain asks the host, and reports whether the runner may go. That it may is
// recorded before anything follows from it, so that whoever settles the intent
// knows whether a host waits for its release.
func (r *Remover) drain(ctx context.Context, target Target, req Request, a *fleet.Action) (drained bool, err error) {
	err = r.confirm(ctx, target, req, *a)
	var unconfirmed *unconfirmedError
	if errors.As(err, &unconfirmed) {
		return false, unconfirmed.settle(a)
	}
	if err != nil {
		return false, err
	}
	if r.Hosts == nil {
		a.State, a.Reason = fleet.ActionSpared, ReasonHostSilent
		return false, nil
	}
	asking, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	busy, err := r.Hosts.Drain(asking, hostRequest(*a))
	switch {
	case ctx.Err() != nil:
		a.State, a.Reason = fleet.ActionFailed, ReasonInterrupted
		return false, ctx.Err()
	case errors.Is(err, queue.ErrUnclear):
		a.State, a.Reason = fleet.ActionSpared, ReasonHostUnclear
	case err != nil:
		a.State, a.Reason = fleet.ActionSpared, ReasonHostSilent
	case busy:
		a.State, a.Reason = fleet.ActionSpared, ReasonHostBusy
	}
	if err != nil {
		r.Log.WarnContext(ctx, "host gave no answer to a drain, runner kept", "host", a.Host, "target", a.Target,
			"runner", a.RunnerID, "name", a.Name, "policy", a.Policy, "err", err)
	}
	if a.State != fleet.ActionIntended {
		return false, nil
	}
	if err := r.noteDrained(ctx, req, a); err != nil {
		a.State, a.Reason = fleet.ActionFailed, ReasonInterrupted
		return false, fmt.Errorf("record that host %s is drained: %w", a.Host, err)
	}
	return true, nil
}

func (r *Remover) noteDrained(ctx context.Context, req Request, a *fleet.Action) error {
	now, err := r.Now(ctx)
	if err != nil {
		return err
	}
	a.DrainedAt = now
	return r.DB.InTx(ctx, func(tx *db.Tx) error {
		if err := tx.NoteDrained(ctx, *a); err != nil {
			return err
		}
		return tx.Audit(ctx, hostEvent(*a, req.Actor, fleet.AuditHostDrained, "", now))
	})
}

// release has the host told whose runner is gone, unless it may be at work
// again: for others, or because its release comes too late.
func release(ctx context.Context, tx *db.Tx, a fleet.Action, actor fleet.Actor, now time.Time) error {
	if !a.Release || a.DrainedAt.IsZero() {
		return nil
	}
	atWork, err := tx.HostAtWork(ctx, a, now)
	if err != nil {
		return err
	}
	switch {
	case atWork:
		return tx.Audit(ctx, hostEvent(a, actor, fleet.AuditHostKept, ReasonHostAtWork, now))
	case now.Sub(a.DrainedAt).Abs() > fleet.DrainLife:
		return tx.Audit(ctx, hostEvent(a, actor, fleet.AuditHostKept, ReasonDrainOver, now))
	}
	m, err := queue.Release(hostRequest(a))
	if err != nil {
		return err
	}
	if err := tx.Enqueue(ctx, m); err != nil {
		return err
	}
	return tx.Audit(ctx, hostEvent(a, actor, fleet.AuditHostReleased, "", now))
}

func hostRequest(a fleet.Action) fleet.HostRequest {
	return fleet.HostRequest{Host: a.Host, Runner: a.Name, Reason: a.Policy, DecisionID: a.DecisionID}
}

func hostEvent(a fleet.Action, actor fleet.Actor, code fleet.AuditCode, reason string, at time.Time) fleet.AuditEvent {
	e := auditOf(a, actor, code, at)
	e.Reason = reason
	return e
}
