package queue_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/queue"
)

// patience bounds every wait of these tests; none is expected to last.
const patience = 30 * time.Second

// natsServer is a server that a test may stop and start again.
type natsServer struct {
	inside *server.Server // nil where the server is in a box
	opts   *server.Options
	box    *natsBox // nil where the server is in this process
}

// inProcess changes nothing; it is for tests that look into the server.
func inProcess(*server.Options) {}

func startNATS(t testing.TB, change func(*server.Options)) *natsServer {
	t.Helper()
	port, err := dbtest.FreePort()
	if err != nil {
		t.Fatalf("nats server: %v", err)
	}
	s := &natsServer{opts: &server.Options{
		Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 1 << 30,
	}}
	switch {
	case change != nil:
		change(s.opts)
	case natsImage != "":
		s.box = newNATSBox(t)
		t.Cleanup(func() { s.box.remove(t) })
		s.box.start(t)
		return s
	}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *natsServer) start(t testing.TB) {
	t.Helper()
	if s.box != nil {
		s.box.start(t)
		return
	}
	srv, err := server.NewServer(s.opts)
	if err != nil {
		t.Fatalf("nats server: %v", err)
	}
	s.inside = srv
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("nats server does not come up")
	}
}

func (s *natsServer) stop(t testing.TB) {
	t.Helper()
	if s.box != nil {
		s.box.stop(t)
		return
	}
	s.inside.Shutdown()
	s.inside.WaitForShutdown()
}

func (s *natsServer) ClientURL() string {
	if s.box != nil {
		return s.box.url()
	}
	return s.inside.ClientURL()
}

// restart keeps the address, so that clients find the server again.
func (s *natsServer) restart(t testing.TB) {
	t.Helper()
	s.stop(t)
	s.start(t)
}

// restartEmpty is restart with the loss of all files.
func (s *natsServer) restartEmpty(t testing.TB) {
	t.Helper()
	if s.box != nil {
		s.box.remove(t)
		s.box.start(t)
		return
	}
	s.opts.StoreDir = t.TempDir()
	s.restart(t)
}

func connect(t testing.TB, s *natsServer) *queue.Conn {
	t.Helper()
	c, err := queue.Connect(t.Context(), queue.Config{URL: s.ClientURL(), Name: t.Name(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// ready is connect with the streams made.
func ready(t testing.TB, s *natsServer) *queue.Conn {
	t.Helper()
	c := connect(t, s)
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Fatalf("EnsureStreams: %v", err)
	}
	return c
}

// client is a plain connection of somebody else's program.
func client(t testing.TB, s *natsServer) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// background runs f until the test ends or the returned stop is called, which
// waits for it and returns its error.
func background(t testing.TB, f func(context.Context) error) func() error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("does not stop")
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("background: %v", err)
		}
	})
	return stop
}

// receive takes the next value, or fails the test.
func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}
