package worker

import (
	"context"
	"errors"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Handler is a job. It may be called twice for one trigger, by another process
// too, and must then do no harm. The context ends after the engine's timeout,
// when somebody else has taken the run over, and some time after a stop. An
// error means that the trigger comes again after a growing pause; Permanent
// and RetryAfter say otherwise. The counts are recorded also with an error.
type Handler interface {
	Handle(ctx context.Context, t fleet.Trigger) (fleet.Counts, error)
}

// Recorder keeps the record of runs. Times are its own: it stamps StartedAt,
// FinishedAt and DiedAt with its clock. Every method is one transaction.
type Recorder interface {
	// Known reports of each trigger whether there is a run of its id, job and
	// name.
	Known(ctx context.Context, triggers ...fleet.Trigger) ([]bool, error)
	// Join records triggers that came together, and says of each what became of
	// it. Those of one job and name are joined to one of them, which may then be
	// begun.
	Join(ctx context.Context, triggers []fleet.Trigger) ([]fleet.Disposition, error)
	// Begin records that the run of the trigger begins, or says why it does
	// not. An expired lease is taken over, with Attempt counted up. While a run
	// of the same job and name is going, the trigger waits; while one waits,
	// others are joined to it.
	Begin(ctx context.Context, t fleet.Trigger, lease time.Duration) (fleet.Begun, error)
	// Extend renews the lease; fleet.ErrConflict says that the attempt is not
	// the newest any more.
	Extend(ctx context.Context, id string, attempt int, lease time.Duration) error
	// Finish records a run that is done, or failed and to be tried again. It
	// returns fleet.ErrConflict where another attempt has begun meanwhile; so
	// do GiveBack, Die and FanOut.
	Finish(ctx context.Context, run fleet.Run) error
	// GiveBack records a run that a stop of this process has interrupted: it
	// has failed, its lease is over and the attempt is counted down again.
	GiveBack(ctx context.Context, run fleet.Run) error
	// Die records a run that failed for good, its dead letter and the audit
	// event.
	Die(ctx context.Context, run fleet.Run, letter fleet.DeadLetter) error
	// Reject records messages that never became triggers, once per letter's ID,
	// each with its audit event.
	Reject(ctx context.Context, letters ...fleet.DeadLetter) error
	// FanOut records a run for all names as done, and one queued trigger for
	// each name, with the run as its parent, in the outbox.
	FanOut(ctx context.Context, run fleet.Run, names []string) error
}

type permanentError struct{ err error }

func (e permanentError) Error() string { return e.err.Error() }
func (e permanentError) Unwrap() error { return e.err }

// Permanent marks an error that no repetition mends: the trigger becomes a
// dead letter at once. Nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

type retryError struct {
	after time.Duration
	err   error
}

func (e retryError) Error() string { return e.err.Error() }
func (e retryError) Unwrap() error { return e.err }

// RetryAfter marks an error whose remedy has a known time, such as a rate
// limit: the trigger comes again after d instead of the engine's own pause.
// The attempt counts like any other. Nil stays nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return retryError{d, err}
}

func isPermanent(err error) bool {
	_, ok := errors.AsType[permanentError](err)
	return ok
}

// isLasting reports whether somebody has to do something before a repetition can
// succeed: GitHub refuses the credential, or does not know the scope. The trigger
// comes again all the same, as that may be done meanwhile.
func isLasting(err error) bool {
	return errors.Is(err, fleet.ErrUnauthorized) || errors.Is(err, fleet.ErrForbidden) || errors.Is(err, fleet.ErrNotFound)
}

// askedFor is the pause that the job asked for; false: none.
func askedFor(err error) (time.Duration, bool) {
	e, ok := errors.AsType[retryError](err)
	return e.after, ok
}
