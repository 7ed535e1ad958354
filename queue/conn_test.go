package queue_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

var quiet = slog.New(slog.DiscardHandler)

func TestConnectRefusesWhatCanNeverWork(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		cfg  queue.Config
		want string
	}{
		{"no log", queue.Config{URL: "nats://h:1"}, "Log is needed"},
		{"no url", queue.Config{Log: quiet}, "no url"},
		{"another scheme", queue.Config{URL: "http://user:secret@h:1", Log: quiet}, `connect to nats at http://user:xxxxx@h:1: scheme "http"`},
		{"no host", queue.Config{URL: "nats:///x", Log: quiet}, "no host"},
		{"no url at all", queue.Config{URL: "nats://user:secret@%zz", Log: quiet}, "cannot be read"},
		{"no credentials", queue.Config{URL: "nats://h:1", CredsFile: filepath.Join(t.TempDir(), "none.creds"), Log: quiet}, "credentials: open"},
		{"bad inbox", queue.Config{URL: "nats://h:1", InboxPrefix: "_INBOX.>", Log: quiet}, "invalid custom prefix"},
	}
	for _, tt := range tests {
		c, err := queue.Connect(t.Context(), tt.cfg)
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := queue.Connect(ended, queue.Config{URL: "nats://h:1", Log: quiet}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestConnectWaitsForAServerThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	url := s.ClientURL()
	s.stop(t)
	c, err := queue.Connect(t.Context(), queue.Config{URL: url, Name: t.Name(), Log: quiet})
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	t.Cleanup(c.Close)
	if err := c.Ready(); !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "not connected") {
		t.Errorf("Ready() = %v", err)
	}
	if err := c.EnsureStreams(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("EnsureStreams() = %v", err)
	}
	if err := c.Publish(t.Context(), fleet.OutboxMessage{ID: "1", Subject: "muster.v1.event.x"}); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Publish() = %v", err)
	}
	s.start(t)
	for deadline := time.Now().Add(patience); ; {
		err := c.EnsureStreams(t.Context())
		if err == nil {
			break
		}
		if !errors.Is(err, fleet.ErrUnavailable) || time.Now().After(deadline) {
			t.Fatalf("EnsureStreams: %v", err)
		}
	}
	if err := c.Ready(); err != nil {
		t.Errorf("Ready() = %v", err)
	}
}

func TestReadyWantsTheStreams(t *testing.T) {
	t.Parallel()
	c := connect(t, startNATS(t, nil))
	if err := c.Ready(); err == nil || !strings.Contains(err.Error(), "streams have not been looked at") {
		t.Errorf("before: Ready() = %v", err)
	}
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(); err != nil {
		t.Errorf("after: Ready() = %v", err)
	}
}

func TestJetStreamSwitchedOffIsSaid(t *testing.T) {
	t.Parallel()
	c := connect(t, startNATS(t, func(o *server.Options) { o.JetStream = false }))
	err := c.EnsureStreams(t.Context())
	if err == nil || !strings.Contains(err.Error(), "jetstream is off") && !strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("EnsureStreams() = %v", err)
	}
	if c.Ready() == nil {
		t.Error("Ready() = nil")
	}
}

func TestAServerInThisProcessNeedsNoAddress(t *testing.T) {
	t.Parallel()
	s := startNATS(t, func(o *server.Options) { o.DontListen = true })
	c, err := queue.Connect(t.Context(), queue.Config{InProcess: s.inside, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Errorf("EnsureStreams: %v", err)
	}
}

// An old server is played on the wire: INFO, then PONG to every PING.
func oldServer(t *testing.T, version string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = fmt.Fprintf(conn, "INFO {\"server_id\":\"X\",\"version\":%q,\"max_payload\":1048576,\"headers\":true}\r\n", version)
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if lines.Text() == "PING" {
						_, _ = fmt.Fprint(conn, "PONG\r\n")
					}
				}
			}()
		}
	}()
	return "nats://" + l.Addr().String()
}

func TestServersThatMistakeHostsAreRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		version string
		refused bool
	}{
		{"2.12.5", true}, {"2.11.99", true}, {"1.99.99", true}, {"2.12", true}, {"dev", true}, {"", true},
		{"2.12.6", false}, {"2.12.6-RC.1", false}, {"2.13.0", false}, {"3.0.0", false},
	}
	for _, tt := range tests {
		c, err := queue.Connect(t.Context(), queue.Config{URL: oldServer(t, tt.version), Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		err = c.Ready() // a server that passes is asked for its streams next, which have not been looked at
		if refused := errors.Is(err, queue.ErrUnsafe); refused != tt.refused {
			t.Errorf("server %q: Ready() = %v, want refused = %v", tt.version, err, tt.refused)
		}
		if tt.refused {
			if err := c.EnsureStreams(t.Context()); !errors.Is(err, queue.ErrUnsafe) || !strings.Contains(err.Error(), "CVE-2026-33223") {
				t.Errorf("server %q: EnsureStreams() = %v", tt.version, err)
			}
		}
	}
}

func TestCloseEndsADeadConnectionToo(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c, err := queue.Connect(t.Context(), queue.Config{URL: s.ClientURL(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	s.stop(t)
	began := time.Now()
	c.Close()
	if took := time.Since(began); took > patience {
		t.Errorf("Close took %v", took)
	}
	if err := c.Ready(); err == nil {
		t.Error("closed and ready")
	}
}
