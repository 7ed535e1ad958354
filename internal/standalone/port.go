package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"
)

// portPatience is how long a port may be held by somebody who does not listen
// on it. The default for Postgres lies among the ports that Linux gives to
// outgoing connections, most of which are short.
const portPatience = 5 * time.Second

var (
	// errPortTaken says that another program listens where a server should.
	errPortTaken = errors.New("another program listens there: stop it")
	// errPortHeld says that nobody listens there, and it is not free either.
	errPortHeld = errors.New("nothing listens there, but a connection of another program holds the port: try again, keep it from outgoing connections (net.ipv4.ip_local_reserved_ports on Linux)")
)

// awaitPort waits until an address, host:port, can be listened on, and returns
// the port, which it chooses where that is 0. Another program may take it
// before the server does, which then says so.
func awaitPort(ctx context.Context, log *slog.Logger, addr string, patience time.Duration) (int, error) {
	limit := time.Now().Add(patience)
	for told := false; ; {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			port := 0
			if bound, ok := l.Addr().(*net.TCPAddr); ok {
				port = bound.Port
			}
			return port, l.Close()
		}
		switch {
		case !errors.Is(err, syscall.EADDRINUSE):
			return 0, err
		case listens(ctx, addr):
			return 0, fmt.Errorf("%s: %w", addr, errPortTaken)
		case !time.Now().Before(limit):
			return 0, fmt.Errorf("%s: %w", addr, errPortHeld)
		case !told:
			told = true
			log.InfoContext(ctx, "waiting for a port", "host", addr, "reason", "a connection of another program holds it")
		}
		if _, err := poll(ctx, 10*pollEvery, func() bool { return false }); err != nil {
			return 0, err
		}
	}
}

// listens reports whether somebody takes connections at an address; one that
// does not answer is taken for somebody.
func listens(ctx context.Context, addr string) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return !errors.Is(err, syscall.ECONNREFUSED)
	}
	// A connection may come out where it went in, if it got this very port.
	itself := conn.LocalAddr().String() == conn.RemoteAddr().String()
	_ = conn.Close() // nothing was sent
	return !itself
}
