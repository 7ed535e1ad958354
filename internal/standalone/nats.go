package standalone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsMaxMemory bounds streams kept in memory, in bytes. muster's own are all
// on disk; without a bound the server reserves three quarters of the RAM.
const natsMaxMemory = 64 << 20

// natsUser is the one user of the server.
const natsUser = "muster"

// natsReady is how long a server that listens may take to accept the first
// client.
const natsReady = 10 * time.Second

// NATSConfig says where the NATS server of this process listens and keeps its
// streams.
type NATSConfig struct {
	Listen   string // host:port; port 0 takes a free one
	StoreDir string // made where it is missing; the password lies there too
	Log      *slog.Logger
}

// NATS is a running NATS server with JetStream inside this process.
type NATS struct {
	srv      *server.Server
	password string
	lock     *os.File
	once     sync.Once
}

// StartNATS starts the server and returns once it accepts clients; ctx bounds
// that alone. Clients log in with the user and the password of URL, which stay
// the same over restarts: without a login any user of the machine would get
// tokens. Every message is on disk before it is acknowledged: JetStream's
// own default syncs every two minutes (nats-server#7564).
func StartNATS(ctx context.Context, cfg NATSConfig) (*NATS, error) {
	fail := func(err error) (*NATS, error) {
		return nil, fmt.Errorf("start nats on %s: %w", cfg.Listen, err)
	}
	host, port, err := splitListen(cfg.Listen)
	if err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return fail(err)
	}
	// JetStream itself does not notice a second server on its files.
	lock, err := lockDir(cfg.StoreDir)
	if err != nil {
		return fail(err)
	}
	if _, err := awaitPort(ctx, cfg.Log, cfg.Listen, portPatience); err != nil {
		if errors.Is(err, errPortTaken) || errors.Is(err, errPortHeld) {
			err = addressAdvice(err)
		}
		return fail(errors.Join(err, lock.Close()))
	}
	password, err := natsPassword(cfg.StoreDir)
	if err != nil {
		return fail(errors.Join(err, lock.Close()))
	}
	n := &NATS{lock: lock, password: password}
	n.srv, err = server.NewServer(&server.Options{
		ServerName:         "muster",
		Host:               host,
		Port:               port,
		Username:           natsUser,
		Password:           password,
		JetStream:          true,
		StoreDir:           cfg.StoreDir,
		SyncAlways:         true,
		JetStreamMaxMemory: natsMaxMemory,
		NoSigs:             true,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start nats on %s: %w", cfg.Listen, err), lock.Close())
	}
	log := &natsLog{log: cfg.Log}
	n.srv.SetLoggerV2(log, false, false, false)
	// Start returns when the listener is open, or could not be opened.
	n.srv.Start()
	err = log.fatal()
	if err == nil {
		err = n.awaitReady(ctx)
	}
	if err != nil {
		n.Stop()
		if errors.Is(err, syscall.EADDRINUSE) {
			err = addressAdvice(errPortTaken) // since it was free
		}
		return fail(err)
	}
	cfg.Log.InfoContext(ctx, "nats started", "host", n.address(), "dir", cfg.StoreDir)
	return n, nil
}

// addressAdvice adds what else can be done where an address is not free.
func addressAdvice(err error) error {
	return fmt.Errorf("%w, set embedded.nats_listen to a free one, or set nats.url to use a server of yours", err)
}

func splitListen(listen string) (string, int, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("want HOST:PORT, as in 127.0.0.1:4222: %w", err)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	if p == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(p), nil
}

func (n *NATS) awaitReady(ctx context.Context) error {
	wait := natsReady
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !n.srv.ReadyForConnections(wait) {
		return fmt.Errorf("not ready after %s", wait)
	}
	return nil
}

// natsPassword is the password in dir, which is made where there is none.
func natsPassword(dir string) (string, error) {
	file := filepath.Join(dir, "password")
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if password := strings.TrimSpace(string(b)); password != "" {
		return password, nil
	}
	return newPassword(file)
}

// URL is what clients on this machine connect to. It holds the password.
func (n *NATS) URL() string {
	u := url.URL{Scheme: "nats", User: url.UserPassword(natsUser, n.password), Host: n.address()}
	return u.String()
}

// address is where clients on this machine find the server.
func (n *NATS) address() string {
	addr, ok := n.srv.Addr().(*net.TCPAddr)
	if !ok {
		return strings.TrimPrefix(n.srv.ClientURL(), "nats://")
	}
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1" // an address to listen on is not always one to dial
	}
	return net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// Server is for clients inside this process: it satisfies
// nats.InProcessConnProvider.
func (n *NATS) Server() *server.Server { return n.srv }

// Stop ends the server and waits until its files are closed. Clients should
// have drained before. It may be called more than once.
func (n *NATS) Stop() {
	n.once.Do(func() {
		n.srv.Shutdown()
		n.srv.WaitForShutdown()
		_ = n.lock.Close() // what the lock guards is closed
	})
}

// natsLog passes the server's own messages on. Fatalf of a server that is a
// program ends it; here it is remembered as the reason why Start gave up.
type natsLog struct {
	log *slog.Logger

	mu    sync.Mutex
	cause error
}

func (l *natsLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v...) }
func (l *natsLog) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v...) }
func (l *natsLog) Errorf(format string, v ...any)  { l.say(slog.LevelError, format, v...) }
func (l *natsLog) Debugf(format string, v ...any)  { l.say(slog.LevelDebug, format, v...) }
func (l *natsLog) Tracef(format string, v ...any)  { l.say(slog.LevelDebug, format, v...) }

func (l *natsLog) say(level slog.Level, format string, v ...any) {
	ctx := context.Background()
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "nats server", "reason", fmt.Sprintf(format, v...))
	}
}

func (l *natsLog) Fatalf(format string, v ...any) {
	cause := fmt.Errorf(format, v...)
	for _, arg := range v {
		if err, ok := arg.(error); ok {
			cause = err // the server formats it with %q, which loses it
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		l.cause = cause
	}
}

func (l *natsLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}
