package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker"
)

// patience bounds every wait of these tests; none is expected to last.
const patience = 30 * time.Second

// record is the rules of the real record in memory. Postgres cannot be had
// here: this package must not know it.
type record struct {
	mu      sync.Mutex
	runs    map[string]fleet.Run
	leases  map[string]time.Time
	letters []fleet.DeadLetter
	away    error // what every call answers while it is set
	extends int
	wrote   chan string // one word per change: begin, done, failed, given back, dead, rejected, fanned out
}

func newRecord() *record {
	return &record{runs: map[string]fleet.Run{}, leases: map[string]time.Time{}, wrote: make(chan string, 10000)}
}

func (r *record) Begin(_ context.Context, t fleet.Trigger, lease time.Duration) (fleet.Begun, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		r.wrote <- "begin refused"
		return fleet.Begun{}, r.away
	}
	run, known := r.runs[t.ID]
	if !known {
		run = fleet.Run{Trigger: t}
	}
	switch {
	case run.State == fleet.RunDone || run.State == fleet.RunDead:
		r.wrote <- "finished"
		return fleet.Begun{Disposition: fleet.DispositionFinished, Run: run}, nil
	case run.State == fleet.RunRunning && time.Now().Before(r.leases[t.ID]):
		r.wrote <- "elsewhere"
		return fleet.Begun{Disposition: fleet.DispositionElsewhere, Run: run, RetryAfter: time.Until(r.leases[t.ID])}, nil
	}
	run.State = fleet.RunRunning
	run.Attempt++
	r.runs[t.ID], r.leases[t.ID] = run, time.Now().Add(lease)
	r.wrote <- "begin"
	return fleet.Begun{Disposition: fleet.DispositionStarted, Run: run}, nil
}

func (r *record) Extend(_ context.Context, id string, attempt int, lease time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return r.away
	}
	if r.runs[id].Attempt != attempt {
		return fleet.ErrConflict
	}
	r.leases[id] = time.Now().Add(lease)
	r.extends++
	return nil
}

func (r *record) write(run fleet.Run, word string, more func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return r.away
	}
	if r.runs[run.Trigger.ID].Attempt != run.Attempt {
		return fmt.Errorf("run %s: %w", run.Trigger.ID, fleet.ErrConflict)
	}
	r.runs[run.Trigger.ID] = run
	if more != nil {
		more()
	}
	r.wrote <- word
	return nil
}

func (r *record) Finish(_ context.Context, run fleet.Run) error {
	return r.write(run, string(run.State), nil)
}

func (r *record) GiveBack(_ context.Context, run fleet.Run) error {
	return r.write(run, "given back", func() {
		run.Attempt--
		r.runs[run.Trigger.ID] = run
	})
}

func (r *record) Die(_ context.Context, run fleet.Run, letter fleet.DeadLetter) error {
	return r.write(run, "dead", func() { r.letters = append(r.letters, letter) })
}

func (r *record) Reject(_ context.Context, letter fleet.DeadLetter) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return r.away
	}
	r.letters = append(r.letters, letter)
	r.wrote <- "rejected"
	return nil
}

func (r *record) FanOut(_ context.Context, run fleet.Run, names []string) error {
	return r.write(run, "fanned out", func() {
		for _, name := range names {
			child := fleet.Trigger{ID: uuid.NewString(), Job: run.Trigger.Job, Name: name, Source: run.Trigger.Source, Parent: run.Trigger.ID}
			r.runs[child.ID] = fleet.Run{Trigger: child, State: fleet.RunQueued}
		}
	})
}

func (r *record) run(id string) fleet.Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.runs[id]
}

// the is the only run there is.
func (r *record) the(t *testing.T) fleet.Run {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.runs) != 1 {
		t.Fatalf("%d runs, want 1: %v", len(r.runs), r.runs)
	}
	for _, run := range r.runs {
		return run
	}
	panic("unreachable")
}

func (r *record) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *record) expect(t *testing.T, words ...string) {
	t.Helper()
	for _, want := range words {
		if got := receive(t, r.wrote); got != want {
			t.Fatalf("the record says %q, want %q", got, want)
		}
	}
}

// handler is a job made of a function.
type handler func(context.Context, fleet.Trigger) (fleet.Counts, error)

func (h handler) Handle(ctx context.Context, t fleet.Trigger) (fleet.Counts, error) { return h(ctx, t) }

// answers is a job whose attempts end with these errors, one after another,
// and well from then on.
func answers(errs ...error) handler {
	var mu sync.Mutex
	return func(context.Context, fleet.Trigger) (fleet.Counts, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(errs) == 0 {
			return fleet.Counts{"seen": 7}, nil
		}
		err := errs[0]
		errs = errs[1:]
		return nil, err
	}
}

type harness struct {
	record   *record
	conn     *queue.Conn
	nc       *nats.Conn
	js       jetstream.JetStream
	engine   *worker.Engine
	outcomes chan worker.Outcome
}

// start brings a server up; the engine is not running yet.
func start(t *testing.T, sync worker.Handler) *harness {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(patience) {
		t.Fatal("nats server does not come up")
	}
	log := slog.New(slog.DiscardHandler)
	conn, err := queue.Connect(t.Context(), queue.Config{URL: srv.ClientURL(), Name: t.Name(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if err := conn.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{record: newRecord(), conn: conn, nc: nc, js: js, outcomes: make(chan worker.Outcome, 10000)}
	h.engine = &worker.Engine{
		Log: log, Conn: conn, Recorder: h.record,
		Handlers: map[fleet.Job]worker.Handler{fleet.JobSync: sync, fleet.JobHousekeep: answers()},
		Names:    func(fleet.Job) []string { return []string{"acme", "octo"} },
		Observe:  func(o worker.Outcome) { h.outcomes <- o },
		// Pauses short enough to wait for, lease and limits as in earnest.
		BackoffBase: time.Millisecond, BackoffMax: 5 * time.Millisecond,
	}
	return h
}

// run starts the engine; stop ends its intake and waits for it.
func (h *harness) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.engine.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Error("engine does not stop")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func (h *harness) publish(t *testing.T, subject, body string) {
	t.Helper()
	if _, err := h.js.Publish(t.Context(), subject, []byte(body)); err != nil {
		t.Fatalf("publish %s: %v", subject, err)
	}
}

// outcome waits for the next outcome of the job consumers.
func (h *harness) outcome(t *testing.T) worker.Outcome {
	t.Helper()
	return receive(t, h.outcomes)
}

// settled waits until the consumer has nothing left to deliver or hear of.
func (h *harness) settled(t *testing.T, durable string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		consumer, err := h.js.Consumer(ctx, "MUSTER_TRIGGER", durable)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			continue
		}
		if err != nil {
			t.Fatalf("consumer %s: %v", durable, err)
		}
		if info := consumer.CachedInfo(); info.NumPending == 0 && info.NumAckPending == 0 {
			return
		}
	}
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}
