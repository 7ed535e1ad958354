package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker"
)

// blocking is a job that says when it begins and ends when it is told to, or
// when its context does.
func blocking() (handler, <-chan struct{}, chan<- error) {
	began, end := make(chan struct{}, 10), make(chan error, 10)
	return func(ctx context.Context, _ fleet.Trigger) (fleet.Counts, error) {
		began <- struct{}{}
		select {
		case err := <-end:
			return nil, err
		case <-ctx.Done():
			return nil, fleet.ErrUnavailable // as an adapter would say it
		}
	}, began, end
}

func TestAStopLetsWhatRunsFinish(t *testing.T) {
	t.Parallel()
	job, began, end := blocking()
	h := start(t, job)
	h.engine.Grace = time.Hour
	stop := h.run(t)
	h.publish(t, syncAcme, "")
	receive(t, began)
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	// Nobody asks for messages any more: the intake has stopped.
	h.consumer(t, "muster-sync", func(info *jetstream.ConsumerInfo) bool { return info.NumWaiting == 0 })
	h.publish(t, "muster.v1.trigger.sync.octo", "")
	select {
	case <-stopped:
		t.Error("stopped before the job was done")
	default:
	}
	end <- nil
	receive(t, stopped)
	h.record.expect(t, "begin", "done")
	h.consumer(t, "muster-sync", func(info *jetstream.ConsumerInfo) bool { return info.NumPending == 1 && info.NumAckPending == 0 })
}

// told is what the engine logs from here on, one message a line.
func (h *harness) told() *lines {
	l := &lines{}
	h.engine.Log = slog.New(slog.NewTextHandler(l, nil))
	return l
}

// lines is a text that several may write.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestAStopSaysWhatItStillFinishes(t *testing.T) {
	t.Parallel()
	job, began, end := blocking()
	h := start(t, job)
	h.engine.Grace = time.Hour
	log := h.told()
	stop := h.run(t)
	h.publish(t, syncAcme, "")
	receive(t, began)
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	const first = `msg="stopping: no new triggers are taken, what runs may finish" running="[sync acme]" for=1h0m0s`
	deadline := time.Now().Add(patience)
	for !strings.Contains(log.String(), first) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say %s: %s", first, log)
		}
	}
	end <- nil
	receive(t, stopped)
	if !strings.Contains(log.String(), `msg="stopping: all that ran has finished"`) {
		t.Errorf("the log does not say how the stop ended: %s", log)
	}
}

func TestAStopSaysWhatItInterrupts(t *testing.T) {
	t.Parallel()
	job, began, _ := blocking()
	h := start(t, job)
	h.engine.Grace = time.Millisecond
	log := h.told()
	stop := h.run(t)
	h.publish(t, syncAcme, "")
	receive(t, began)
	stop()
	const second = `level=WARN msg="stopping: what still runs is interrupted, and comes again" running="[sync acme]"`
	if !strings.Contains(log.String(), second) {
		t.Errorf("the log does not say %s: %s", second, log)
	}
}

func TestAStopInterruptsWhatTakesTooLongWithoutSpendingAnAttempt(t *testing.T) {
	t.Parallel()
	job, began, end := blocking()
	h := start(t, job)
	h.engine.Grace, h.engine.MaxAttempts = time.Millisecond, 1
	stop := h.run(t)
	h.publish(t, syncAcme, "")
	receive(t, began)
	stop()
	h.record.expect(t, "begin", "given back")
	run := h.record.the(t)
	if run.Attempt != 0 || run.State != fleet.RunFailed || !strings.Contains(run.Error, "muster is stopping") {
		t.Errorf("run %+v", run)
	}
	if o := h.outcome(t); o.Result != worker.ResultInterrupted {
		t.Errorf("outcome %+v", o)
	}
	// The next process takes it up at once, with its only attempt unspent.
	h.engine.Grace = time.Hour
	h.run(t)
	receive(t, began)
	end <- nil
	h.record.expect(t, "begin", "done")
}

func TestARunIsKeptWhileItLastsAndCancelledWhenItIsTakenOver(t *testing.T) {
	t.Parallel()
	job, began, _ := blocking()
	h := start(t, job)
	h.engine.Lease = 3 * time.Second
	h.run(t)
	h.publish(t, syncAcme, "")
	receive(t, began)
	id := h.record.the(t).Trigger.ID
	receive(t, h.record.extended)
	h.record.change(func() {
		run := h.record.runs[id]
		run.Attempt++
		h.record.runs[id], h.record.leases[id] = run, time.Now().Add(time.Hour)
	})
	if o := h.outcome(t); o.Result != worker.ResultLost {
		t.Errorf("outcome %+v", o)
	}
	h.record.expect(t, "begin")
	if run := h.record.run(id); run.State != fleet.RunRunning || run.Attempt != 2 {
		t.Errorf("the other attempt's record was touched: %+v", run)
	}
}

func TestALeaseThatCannotBeRenewedEndsTheRun(t *testing.T) {
	t.Parallel()
	job, began, end := blocking()
	h := start(t, job)
	h.engine.Lease = 3 * time.Second
	h.run(t)
	h.publish(t, syncAcme, "")
	receive(t, began)
	h.record.change(func() { h.record.away = errors.New("connection refused") })
	if o := h.outcome(t); o.Result != worker.ResultUnrecorded {
		t.Errorf("outcome %+v", o)
	}
	h.record.change(func() { h.record.away = nil })
	receive(t, began)
	end <- nil
	h.record.until(t, "done")
	if run := h.record.the(t); run.Attempt != 2 {
		t.Errorf("run %+v", run)
	}
}

func TestAnAttemptThatTakesTooLongFails(t *testing.T) {
	t.Parallel()
	job, _, _ := blocking()
	h := start(t, job)
	h.engine.Timeout, h.engine.MaxAttempts = time.Millisecond, 1
	h.run(t)
	h.publish(t, syncAcme, "")
	h.record.expect(t, "begin", "dead")
	if run := h.record.the(t); !strings.Contains(run.Error, "took too long") {
		t.Errorf("run %+v", run)
	}
}

func TestWhileTheRecordIsAwayTriggersWaitAndSpendNothing(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	h.engine.MaxAttempts = 1
	h.record.away = errors.New("connection refused")
	h.run(t)
	h.publish(t, syncAcme, "")
	h.record.expect(t, "begin refused", "begin refused", "begin refused")
	h.record.change(func() { h.record.away = nil })
	h.record.until(t, "begin")
	h.record.expect(t, "done")
	if run := h.record.the(t); run.Attempt != 1 {
		t.Errorf("run %+v", run)
	}
	h.settled(t, "muster-sync")
}

func TestAResultThatCannotBeRecordedIsWorkedForAgain(t *testing.T) {
	t.Parallel()
	h := start(t, nil)
	h.engine.Lease = 200 * time.Millisecond
	calls := make(chan struct{}, 10)
	h.engine.Handlers[fleet.JobSync] = handler(func(context.Context, fleet.Trigger) (fleet.Counts, error) {
		first := len(calls) == 0
		calls <- struct{}{}
		if first {
			h.record.change(func() { h.record.away = errors.New("connection refused") })
		}
		return nil, nil
	})
	h.run(t)
	h.publish(t, syncAcme, "")
	if o := h.outcome(t); o.Result != worker.ResultUnrecorded {
		t.Errorf("outcome %+v", o)
	}
	h.record.change(func() { h.record.away = nil })
	h.record.until(t, "done")
	if len(calls) != 2 {
		t.Errorf("%d attempts", len(calls))
	}
}

func TestARejectionThatCannotBeRecordedComesAgain(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	h.record.away = errors.New("connection refused")
	h.run(t)
	h.publish(t, "muster.v1.trigger.scrub.acme", "")
	if o := h.outcome(t); o.Result != worker.ResultUnrecorded {
		t.Errorf("outcome %+v", o)
	}
	h.record.change(func() { h.record.away = nil })
	h.record.expect(t, "rejected")
}
