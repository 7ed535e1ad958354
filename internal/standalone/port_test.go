package standalone

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hold takes a port of 127.0.0.1 as an outgoing connection does, without
// listening on it, until let is called.
func hold(t *testing.T) (port int, let func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	let = sync.OnceFunc(func() {
		if err := syscall.Close(fd); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(let)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return addr.(*syscall.SockaddrInet4).Port, let
}

// onWaiting logs to nobody, and calls do when somebody waits for a port.
type onWaiting struct {
	slog.Handler
	do func()
}

func (h onWaiting) Enabled(context.Context, slog.Level) bool { return true }

func (h onWaiting) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "waiting for a port" {
		h.do()
	}
	return nil
}

// A port that is held for a moment is waited for.
func TestServersWaitForAPortThatNobodyListensOn(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(port int, log *slog.Logger) (string, error){
		"postgres": func(port int, log *slog.Logger) (string, error) {
			pg, err := StartPostgres(t.Context(), PostgresConfig{DataDir: t.TempDir(), Fast: true, Port: port, Log: log})
			if err != nil {
				return "", err
			}
			return hostOf(pg.URL()), pg.Stop(t.Context())
		},
		"nats": func(port int, log *slog.Logger) (string, error) {
			n, err := StartNATS(t.Context(), NATSConfig{Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), StoreDir: t.TempDir(), Log: log})
			if err != nil {
				return "", err
			}
			defer n.Stop()
			return hostOf(n.URL()), nil
		},
	} {
		port, let := hold(t)
		waited := false
		addr, err := start(port, slog.New(onWaiting{slog.DiscardHandler, func() { waited = true; let() }}))
		if want := net.JoinHostPort("127.0.0.1", strconv.Itoa(port)); err != nil || addr != want || !waited {
			t.Errorf("%s: at %q, %v, waited %v, want it at %s after a wait", name, addr, err, waited, want)
		}
	}
}

func TestAPortThatIsNotLetGo(t *testing.T) {
	t.Parallel()
	port, _ := hold(t)
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	_, err := awaitPort(t.Context(), quiet(), addr, 0)
	oneLine(t, err, addr, "nothing listens there", "ip_local_reserved_ports")

	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(onWaiting{slog.DiscardHandler, cancel})
	if _, err := awaitPort(ctx, log, addr, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("awaitPort = %v, want context.Canceled", err)
	}
}

// Whoever listens stays: that is said at once.
func TestAPortThatIsListenedOn(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	log := slog.New(onWaiting{slog.DiscardHandler, func() { t.Error("waits for a listener to go away") }})
	if _, err := awaitPort(t.Context(), log, l.Addr().String(), time.Hour); !errors.Is(err, errPortTaken) {
		t.Errorf("awaitPort = %v, want %v", err, errPortTaken)
	}
}
