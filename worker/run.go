package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// Why a handler's context ended before its time.
var (
	errStopped   = errors.New("interrupted: muster is stopping")
	errTakenOver = errors.New("another process has taken this run over")
	errLeaseLost = errors.New("the lease ran out while it could not be renewed")
	errTimeout   = errors.New("took too long")
)

// end is how a delivery came out.
type end struct {
	result  Result
	verdict queue.Verdict
	err     error
	trigger fleet.Trigger
	counts  fleet.Counts
}

// deliver handles one message, logs it once and observes it.
func (e *Engine) deliver(work context.Context, m queue.Message) queue.Verdict {
	began := time.Now()
	how, run := e.open(work, m)
	if run != nil {
		how = run()
	}
	e.tell(work, m, began, how)
	return how.verdict
}

// tell logs a delivery and observes it.
func (e *Engine) tell(work context.Context, m queue.Message, began time.Time, how end) {
	lag := began.Sub(m.At)
	took := time.Since(began)
	e.Observe(Outcome{Job: how.trigger.Job, Name: how.trigger.Name, Result: how.result, Lag: lag, Took: took})

	level := slog.LevelInfo
	switch how.result {
	case ResultFailed, ResultRejected, ResultLost, ResultUnrecorded:
		level = slog.LevelWarn
	case ResultDead:
		level = slog.LevelError
	case ResultRepeat, ResultJoined, ResultElsewhere:
		level = slog.LevelDebug
	}
	id := how.trigger.ID
	if id == "" {
		id = m.TriggerID // it never became a trigger
	}
	args := []any{"subject", fleet.CleanText(m.Subject, maxSubject), "trigger", id, "delivery", m.Delivered,
		"result", how.result, "verdict", how.verdict.String(), "took", took}
	if len(how.counts) > 0 {
		args = append(args, "counts", how.counts)
	}
	if d := how.verdict.Delay(); d > 0 {
		args = append(args, "again_in", d)
	}
	if how.err != nil {
		args = append(args, "err", how.err)
	}
	e.Log.Log(work, level, "trigger handled", args...)
}

// open takes a message from the queue to its end, or to a run that has begun and
// takes long. It returns the run then, and no end.
func (e *Engine) open(work context.Context, m queue.Message) (end, func() end) {
	t, fault := e.parse(m)
	ours, err := e.ours(work, m, t)
	if err != nil {
		return e.unrecorded(t, m.Delivered, fmt.Errorf("look for the run it claims: %w", err)), nil
	}
	if ours {
		m.TriggerID, t.ID = m.Claimed, m.Claimed
	}
	if fault != nil && !ours {
		return e.reject(work, m, fault), nil
	}
	var begun fleet.Begun
	asked := time.Now()
	err = e.record(work, func(ctx context.Context) error {
		var err error
		begun, err = e.Recorder.Begin(ctx, t, e.Lease)
		return err
	})
	if err != nil {
		return e.unrecorded(t, m.Delivered, fmt.Errorf("begin run: %w", err)), nil
	}
	switch begun.Disposition {
	case fleet.DispositionFinished:
		return end{result: ResultRepeat, verdict: queue.Ack(), trigger: t}, nil
	case fleet.DispositionJoined:
		return end{result: ResultJoined, verdict: queue.Ack(), trigger: t}, nil
	case fleet.DispositionElsewhere:
		after := begun.RetryAfter
		if after <= 0 {
			after = e.Lease
		}
		return end{result: ResultElsewhere, verdict: queue.Retry(after), trigger: t}, nil
	case fleet.DispositionStarted:
	default:
		return e.unrecorded(t, m.Delivered, fmt.Errorf("begin run: the record says %q, which means nothing here", begun.Disposition)), nil
	}
	run := begun.Run
	if fault != nil {
		// The outbox published it, so there is a run to be buried with it: a
		// target, say, that has left the configuration since.
		how := e.die(work, m, run, fault)
		how.trigger.Name = ""
		return how, nil
	}
	if run.Attempt > e.MaxAttempts {
		// The attempts before took their process with them.
		return e.die(work, m, run, fmt.Errorf("given up: %d attempts began and the last never said how it ended", run.Attempt-1)), nil
	}
	if run.Trigger.Name == fleet.All && run.Trigger.Job.Named() {
		return e.fanOut(work, m, run), nil
	}
	return end{}, func() end {
		e.going.begin(run.Trigger)
		counts, err := e.attempt(work, run, asked.Add(e.Lease))
		e.going.end(run.Trigger)
		run.Counts = counts
		return e.conclude(work, m, run, err)
	}
}

// ours reports whether the record has the run that the message claims to be of.
// Ids stand in the record and in logs: by the id alone anybody could take another
// job's run.
func (e *Engine) ours(work context.Context, m queue.Message, t fleet.Trigger) (bool, error) {
	if !mayClaim(m, t) {
		return false, nil
	}
	known, err := e.known(work, claimed(m, t))
	if err != nil {
		return false, err
	}
	return known[0], nil
}

// mayClaim reports whether the message claims to be of a run.
func mayClaim(m queue.Message, t fleet.Trigger) bool {
	return m.Claimed != "" && t.Job != "" && t.Name != ""
}

// claimed is the trigger with the id that its message claims.
func claimed(m queue.Message, t fleet.Trigger) fleet.Trigger {
	t.ID = m.Claimed
	return t
}

// known reports of each trigger whether the record has its run.
func (e *Engine) known(work context.Context, triggers ...fleet.Trigger) ([]bool, error) {
	var known []bool
	err := e.record(work, func(ctx context.Context) error {
		var err error
		known, err = e.Recorder.Known(ctx, triggers...)
		return err
	})
	return known, err
}

// attempt calls the handler under timeout and lease.
func (e *Engine) attempt(work context.Context, run fleet.Run, leaseUntil time.Time) (fleet.Counts, error) {
	ctx, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, e.Timeout, errTimeout)
	defer stop()

	// The lease is kept while the handler winds up after a cancellation too.
	keeping, ended := context.WithCancel(context.WithoutCancel(ctx))
	var keeper sync.WaitGroup
	keeper.Go(func() { e.keep(keeping, run, leaseUntil, cancel) })
	defer keeper.Wait()
	defer ended()

	counts, err := e.call(ctx, run)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		// "context canceled" says nothing; why it was canceled does.
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return counts, fmt.Errorf("%w: %w", cause, err)
		}
		return counts, fmt.Errorf("%w: %w", err, cause)
	}
	return counts, err
}

// call is the handler with its panics turned into errors.
func (e *Engine) call(ctx context.Context, run fleet.Run) (counts fleet.Counts, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.Log.ErrorContext(ctx, "job panicked", "trigger", run.Trigger.ID, "subject", run.Trigger.Subject(), "err", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return e.Handlers[run.Trigger.Job].Handle(ctx, run.Trigger)
}

// keep renews the lease until ctx ends. Where it cannot before the lease runs
// out, or another attempt has begun, the handler is told to stop.
func (e *Engine) keep(ctx context.Context, run fleet.Run, until time.Time, cancel context.CancelCauseFunc) {
	for {
		wait := time.NewTimer(min(e.Lease/3, time.Until(until)))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		if !time.Now().Before(until) {
			cancel(errLeaseLost)
			return
		}
		asked := time.Now()
		bounded, stop := context.WithDeadline(ctx, minTime(until, asked.Add(recordTimeout)))
		err := e.Recorder.Extend(bounded, run.Trigger.ID, run.Attempt, e.Lease)
		stop()
		switch {
		case err == nil:
			until = asked.Add(e.Lease)
		case errors.Is(err, fleet.ErrConflict):
			cancel(errTakenOver)
			return
		}
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// conclude records how an attempt came out and decides what becomes of the
// message.
func (e *Engine) conclude(work context.Context, m queue.Message, run fleet.Run, err error) end {
	switch {
	case err == nil:
		run.State = fleet.RunDone
		return e.finish(work, m, run, e.Recorder.Finish, end{result: ResultDone, verdict: queue.Ack()})
	case errors.Is(err, errTakenOver):
		// No verdict that would end the message: the other attempt may fail.
		return end{result: ResultLost, verdict: queue.Retry(e.Lease), err: err, trigger: run.Trigger}
	case errors.Is(err, errStopped):
		run.State, run.Error = fleet.RunFailed, fleet.CleanText(err.Error(), maxError)
		return e.finish(work, m, run, e.Recorder.GiveBack, end{result: ResultInterrupted, verdict: queue.Retry(0), err: err})
	case isPermanent(err) || run.Attempt >= e.MaxAttempts:
		return e.die(work, m, run, err)
	}
	run.State, run.Error = fleet.RunFailed, fleet.CleanText(err.Error(), maxError)
	run.Lasting = isLasting(err)
	after, asked := askedFor(err)
	if !asked {
		after = fullJitter(run.Attempt, e.BackoffBase, e.BackoffMax)
	}
	return e.finish(work, m, run, e.Recorder.Finish, end{result: ResultFailed, verdict: queue.Retry(after), err: err})
}

func (e *Engine) die(work context.Context, m queue.Message, run fleet.Run, err error) end {
	run.State, run.Error = fleet.RunDead, fleet.CleanText(err.Error(), maxError)
	dead := letter(m, err)
	dead.TriggerID, dead.Attempts = run.Trigger.ID, run.Attempt
	return e.finish(work, m, run, func(ctx context.Context, run fleet.Run) error {
		return e.Recorder.Die(ctx, run, dead)
	}, end{result: ResultDead, verdict: queue.Term(run.Error), err: err})
}

func (e *Engine) fanOut(work context.Context, m queue.Message, run fleet.Run) end {
	names := e.Names(run.Trigger.Job)
	run.State, run.Counts = fleet.RunDone, fleet.Counts{"triggers": int64(len(names))}
	return e.finish(work, m, run, func(ctx context.Context, run fleet.Run) error {
		return e.Recorder.FanOut(ctx, run, names)
	}, end{result: ResultDone, verdict: queue.Ack()})
}

// finish writes the record; how is what follows where that works.
func (e *Engine) finish(work context.Context, m queue.Message, run fleet.Run, write func(context.Context, fleet.Run) error, how end) end {
	how.trigger, how.counts = run.Trigger, run.Counts
	err := e.record(work, func(ctx context.Context) error { return write(ctx, run) })
	switch {
	case err == nil:
		return how
	case errors.Is(err, fleet.ErrConflict):
		return end{result: ResultLost, verdict: queue.Retry(e.Lease), err: errors.Join(errTakenOver, how.err), trigger: run.Trigger}
	}
	// The lease runs out and the run is taken over: work twice, which does no
	// harm, rather than work unrecorded.
	return e.unrecorded(run.Trigger, m.Delivered, errors.Join(fmt.Errorf("record run as %s: %w", run.State, err), how.err))
}

func (e *Engine) reject(work context.Context, m queue.Message, fault error) end {
	rejected := letter(m, fault)
	err := e.record(work, func(ctx context.Context) error { return e.Recorder.Reject(ctx, rejected) })
	if err != nil {
		return e.notRejected(m, fault, err)
	}
	return end{result: ResultRejected, verdict: queue.Term(rejected.Error), err: fault}
}

func (e *Engine) notRejected(m queue.Message, fault, err error) end {
	return e.unrecorded(fleet.Trigger{}, m.Delivered, errors.Join(fmt.Errorf("record rejected message: %w", err), fault))
}

// unrecorded sends the message round again without spending an attempt.
func (e *Engine) unrecorded(t fleet.Trigger, delivered int, err error) end {
	// At least a second: jitter alone would now and then ask at once.
	pause := e.BackoffBase + fullJitter(delivered, e.BackoffBase, recorderBackoffMax)
	return end{result: ResultUnrecorded, verdict: queue.Retry(pause), err: err, trigger: t}
}

// record writes also where the work was cancelled: what happened has happened.
func (e *Engine) record(ctx context.Context, write func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return write(ctx)
}

// fullJitter is anything up to base·2^(attempt-1), at most limit: failures of
// many targets at once do not come back at once.
func fullJitter(attempt int, base, limit time.Duration) time.Duration {
	ceiling := base
	for range attempt - 1 {
		if ceiling >= limit/2 {
			ceiling = limit
			break
		}
		ceiling *= 2
	}
	return rand.N(min(ceiling, limit) + 1)
}
