package remove

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// Reasons of actions that were spared, failed, or settled later.
const (
	ReasonBusy        = "busy"         // GitHub says it runs a workflow job
	ReasonOnline      = "online"       // it came back
	ReasonRenamed     = "renamed"      // the id shows another name than was decided on
	ReasonInterrupted = "interrupted"  // the process stopped between intent and outcome
	ReasonRateLimited = "rate_limited" // GitHub asked for a pause
	ReasonCredential  = "credential"   // GitHub refuses the credential
	ReasonUnanswered  = "unanswered"   // GitHub did not answer, or not in a believable way
	ReasonInvisible   = "scope_not_visible"
	ReasonNoTarget    = "target_not_configured"
	ReasonHostBusy    = "host_busy"    // the host says, or said lately, that a workflow job is on it
	ReasonHostSilent  = "host_silent"  // the host did not answer in time
	ReasonHostUnclear = "host_unclear" // its answer could not be read
	ReasonNotInForce  = "not_in_force" // what asked for the removal was changed or turned off meanwhile
)

// try asks GitHub for the runner, deletes it if nothing speaks against it, and
// writes what happened into the action, which stays intended where that cannot
// be told. It returns why the pass should stop, or nil.
func (r *Remover) try(ctx context.Context, target Target, req Request, a *fleet.Action) error {
	live, err := target.GitHub.Runner(ctx, target.Scope, a.RunnerID)
	if err != nil {
		return r.unread(ctx, target, a, err)
	}
	if against := objection(live, *a); against != "" {
		a.State, a.Reason, a.HTTPStatus = fleet.ActionSpared, against, http.StatusOK
		return nil
	}
	err = target.GitHub.RemoveRunner(ctx, target.Scope, a.RunnerID, func(ctx context.Context) error {
		return r.confirm(ctx, target, req, *a)
	})
	a.HTTPStatus = status(err)
	var unconfirmed *unconfirmedError
	switch {
	case errors.As(err, &unconfirmed):
		return unconfirmed.settle(a)
	case err == nil:
		a.State, a.HTTPStatus = fleet.ActionDone, http.StatusNoContent
	case errors.Is(err, fleet.ErrBusy):
		a.State, a.Reason = fleet.ActionSpared, ReasonBusy
	case errors.Is(err, fleet.ErrRateLimited), errors.Is(err, fleet.ErrUnauthorized), errors.Is(err, fleet.ErrForbidden):
		return r.stopped(a, err)
	default:
		// No answer, or the 500 that old servers give for a busy runner, or a
		// 404, which is also what a credential gets that may look and not
		// delete: the deletion may have happened. GitHub knows.
		return r.reread(ctx, target, a)
	}
	return nil
}

// objection is why a runner that GitHub shows must not be deleted; empty: it
// may be. One whose host was asked may be online, and may have gone offline for
// being drained. It is pure.
func objection(live fleet.Runner, a fleet.Action) string {
	switch {
	case live.Busy:
		return ReasonBusy
	case live.Status != fleet.StatusOffline && a.Host == "":
		return ReasonOnline
	case live.Name != a.Name:
		return ReasonRenamed
	}
	return ""
}

// unread deals with a runner that GitHub would not show.
func (r *Remover) unread(ctx context.Context, target Target, a *fleet.Action, err error) error {
	a.HTTPStatus = status(err)
	if !errors.Is(err, fleet.ErrNotFound) {
		stop := r.stopped(a, err)
		if onlyHere(err) {
			return nil
		}
		return stop
	}
	// A 404 is also what a credential gets that lost its right to see: the
	// runner is gone only if the scope can be listed.
	if err := target.GitHub.CanList(ctx, target.Scope); err != nil {
		stop := r.stopped(a, err)
		if errors.Is(err, fleet.ErrNotFound) {
			a.Reason = ReasonInvisible
		}
		return stop
	}
	a.State = fleet.ActionGone
	return nil
}

// reread settles a deletion whose answer proved nothing, also while muster is
// being stopped. Where GitHub does not say now either, or shows the runner as
// before, the intent stays open: a deletion that timed out may happen yet, and
// Settle will find out.
func (r *Remover) reread(ctx context.Context, target Target, a *fleet.Action) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reading)
	defer cancel()
	live, err := target.GitHub.Runner(ctx, target.Scope, a.RunnerID)
	if errors.Is(err, fleet.ErrNotFound) {
		if err = target.GitHub.CanList(ctx, target.Scope); err == nil {
			if a.State = fleet.ActionGone; a.HTTPStatus != http.StatusNotFound {
				a.Reason, a.HTTPStatus = ReasonUnanswered, http.StatusNotFound
			}
			return nil
		}
	}
	if err != nil {
		return err
	}
	if against := objection(live, *a); against != "" {
		a.State, a.Reason = fleet.ActionSpared, against
		return nil
	}
	if a.HTTPStatus == http.StatusNotFound {
		// It may look and may not delete: GitHub hides that behind a 404.
		a.State, a.Reason = fleet.ActionFailed, ReasonCredential
		return fmt.Errorf("GitHub shows runner %s/%d and answers 404 to its deletion: %w", a.Target, a.RunnerID, fleet.ErrForbidden)
	}
	// GitHub may still be at it. Going on would delete more than is counted.
	return fmt.Errorf("GitHub has not deleted runner %s/%d yet: %w", a.Target, a.RunnerID, fleet.ErrUnavailable)
}

// stopped writes an error of GitHub's into the action and returns it.
func (r *Remover) stopped(a *fleet.Action, err error) error {
	a.State, a.HTTPStatus = fleet.ActionFailed, status(err)
	switch {
	case errors.Is(err, fleet.ErrRateLimited):
		a.Reason = ReasonRateLimited
	case refusesCredential(err):
		a.Reason = ReasonCredential
	case errors.Is(err, context.Canceled):
		a.Reason = ReasonInterrupted
	default:
		a.Reason = ReasonUnanswered
	}
	return err
}

// onlyHere reports whether an error may be about this one runner: GitHub
// answered, and neither asked for a pause nor refused the credential nor said
// that it is away. One runner that cannot be read must not save all others; a
// credential that cannot be had, by a request of its own, concerns them all.
func onlyHere(err error) bool {
	var answer *github.Error
	if !errors.As(err, &answer) || answer.RunnerID == 0 {
		return false
	}
	switch answer.Status {
	case 0, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return !errors.Is(err, fleet.ErrRateLimited) && !refusesCredential(err)
}

func refusesCredential(err error) bool {
	return errors.Is(err, fleet.ErrUnauthorized) || errors.Is(err, fleet.ErrForbidden)
}

// status is that of GitHub's answer behind an error; 0 where none came.
func status(err error) int {
	var answer *github.Error
	if errors.As(err, &answer) {
		return answer.Status
	}
	return 0
}
