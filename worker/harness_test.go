package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker"
)

// patience bounds every wait of these tests; none is expected to last.
const patience = 30 * time.Second

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
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
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

// consumer waits until what the server tells of the consumer is as wanted.
func (h *harness) consumer(t *testing.T, durable string, satisfies func(*jetstream.ConsumerInfo) bool) {
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
		if satisfies(consumer.CachedInfo()) {
			return
		}
	}
}

// settled waits until the consumer has nothing left to deliver or hear of.
func (h *harness) settled(t *testing.T, durable string) {
	t.Helper()
	h.consumer(t, durable, func(info *jetstream.ConsumerInfo) bool { return info.NumPending == 0 && info.NumAckPending == 0 })
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
