package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

const (
	dialTimeout   = 2 * time.Second
	reconnectWait = time.Second
	// callTimeout bounds one call of the JetStream API and one wait for an
	// acknowledgement.
	callTimeout = 5 * time.Second
	// drainTimeout is how long Close lets go out what is still on its way.
	drainTimeout = 5 * time.Second
)

// Config says which NATS to speak to, and as whom.
type Config struct {
	URL       string // nats://HOST:PORT, several with commas between
	CredsFile string // absent: none
	Name      string // of this connection, as the server lists it
	Replicas  int    // of the streams; 0 is 1
	// InProcess connects to a server in this process. Nil: the URL is dialled.
	InProcess nats.InProcessConnProvider
	// InboxPrefix is where answers to this connection's own requests arrive;
	// empty: _INBOX.
	InboxPrefix string
	Log         *slog.Logger
}

// Conn is a connection to NATS that never gives up: it reconnects until Close,
// and nothing published while it is away is kept for later. It is safe for
// concurrent use.
type Conn struct {
	log      *slog.Logger
	nc       *nats.Conn
	js       jetstream.JetStream
	where    string // the URL without its password
	replicas int
	closed   chan struct{}

	streams atomic.Pointer[streamCheck]
	watch   *watch
	// denied is the newest permission violation, deaf the newest that keeps a
	// subscription from hearing anything; nil: none since the last connect.
	denied, deaf atomic.Pointer[violation]
}

// violation is the server's word that its permissions do not allow something.
type violation struct {
	text string
	at   time.Time
}

// streamCheck is the result of the newest look at the streams; a nil err says
// that they are as they should be.
type streamCheck struct{ err error }

// Connect prepares a connection and tries it once. Where no server answers it
// returns all the same and goes on trying until Close; Ready tells. An error
// means that no amount of trying would help: a URL that is none, a credentials
// file that cannot be read.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	if cfg.Log == nil {
		return nil, errors.New("connect to nats: Log is needed")
	}
	where, err := cleanURL(cfg)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connect to nats at %s: %w", where, err)
	}
	c := &Conn{log: cfg.Log, where: where, replicas: max(cfg.Replicas, 1), closed: make(chan struct{}), watch: newWatch()}
	c.streams.Store(&streamCheck{errors.New("the streams have not been looked at yet")})

	options := []nats.Option{
		nats.Name(cfg.Name),
		nats.Timeout(dialTimeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		// A buffer would take messages that may never leave (nats.go#1169);
		// what must not be lost waits in the outbox.
		nats.ReconnectBufSize(-1),
		// Else the second refusal of a credential ends the connection for
		// good, and a mended one is never tried.
		nats.IgnoreAuthErrorAbort(),
		nats.PermissionErrOnSubscribe(true),
		nats.DrainTimeout(drainTimeout),
		nats.ConnectHandler(func(nc *nats.Conn) { c.connected(nc, "nats connected") }),
		nats.ReconnectHandler(func(nc *nats.Conn) { c.connected(nc, "nats connected again") }),
		nats.DisconnectErrHandler(c.disconnected),
		nats.ErrorHandler(c.asyncError),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
	if cfg.InProcess != nil {
		options = append(options, nats.InProcessServer(cfg.InProcess))
	}
	if cfg.InboxPrefix != "" {
		options = append(options, nats.CustomInboxPrefix(cfg.InboxPrefix))
	}
	if cfg.CredsFile != "" {
		// nats.go opens the file at each connect and takes a missing one for a
		// server that is away.
		f, err := os.Open(cfg.CredsFile)
		if err != nil {
			return nil, fmt.Errorf("connect to nats at %s: credentials: %w", where, err)
		}
		_ = f.Close() // nothing was written
		options = append(options, nats.UserCredentials(cfg.CredsFile))
	}
	if c.nc, err = nats.Connect(cfg.URL, options...); err != nil {
		return nil, fmt.Errorf("connect to nats at %s: %w", where, err)
	}
	if c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncMaxPending(len(lanes)*relayBatch), jetstream.WithPublishAsyncTimeout(callTimeout)); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("connect to nats at %s: jetstream: %w", where, err)
	}
	if err := c.followStreams(); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("connect to nats at %s: %w", where, err)
	}
	if !c.nc.IsConnected() {
		c.log.WarnContext(ctx, "nats not reachable yet", "host", where, "err", c.lastError())
	}
	return c, nil
}

// cleanURL checks the URL and returns it fit for messages.
func cleanURL(cfg Config) (string, error) {
	if cfg.InProcess != nil {
		return "this process", nil
	}
	if cfg.URL == "" {
		return "", errors.New("connect to nats: no url; want nats://HOST:PORT")
	}
	var clean []string
	for _, part := range strings.Split(cfg.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil {
			// url.Error repeats the input, password and all.
			return "", errors.New("connect to nats: the url cannot be read; want nats://HOST:PORT")
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return "", fmt.Errorf("connect to nats at %s: scheme %q; want nats, tls, ws or wss", u.Redacted(), u.Scheme)
		}
		if u.Host == "" {
			return "", fmt.Errorf("connect to nats at %s: no host; want %s://HOST:PORT", u.Redacted(), u.Scheme)
		}
		clean = append(clean, u.Redacted())
	}
	return strings.Join(clean, ","), nil
}

// Close lets running subscriptions and publishes finish, for at most 5 s, and
// ends the connection for good.
func (c *Conn) Close() {
	if err := c.nc.Drain(); err != nil {
		c.nc.Close() // not connected: there is nothing to drain
	}
	select {
	case <-c.closed:
	case <-time.After(drainTimeout + time.Second):
		c.nc.Close()
		<-c.closed
	}
}

// Ready returns nil when the connection is up, the server new enough and the
// streams there, else what is wrong. It asks nobody, so it is cheap.
func (c *Conn) Ready() error {
	if err := c.Reached(); err != nil {
		return err
	}
	if err := c.checkVersion(); err != nil {
		return err
	}
	if err := c.streams.Load().err; err != nil {
		return fmt.Errorf("nats at %s: %w", c.where, err)
	}
	if err := c.watch.newest(); err != nil {
		return fmt.Errorf("nats at %s: %w", c.where, err)
	}
	if v := c.deaf.Load(); v != nil {
		return fmt.Errorf("nats at %s: %s: the server's permissions do not let muster listen there", c.where, v.text)
	}
	return nil
}

// Reached returns nil while the connection is up.
func (c *Conn) Reached() error {
	if !c.nc.IsConnected() {
		return c.unavailable()
	}
	return nil
}

func (c *Conn) unavailable() error {
	return fmt.Errorf("nats at %s: not connected: %s: %w", c.where, c.lastError(), fleet.ErrUnavailable)
}

func (c *Conn) lastError() string {
	if err := c.nc.LastError(); err != nil {
		return err.Error()
	}
	return "no server answers"
}

func (c *Conn) connected(nc *nats.Conn, message string) {
	c.denied.Store(nil)
	c.deaf.Store(nil)
	c.watch.connected()
	c.log.Info(message, "host", nc.ConnectedUrlRedacted(), "version", nc.ConnectedServerVersion())
}

func (c *Conn) disconnected(_ *nats.Conn, err error) {
	if err != nil { // nil: it was we who closed
		c.log.Warn("nats connection lost", "host", c.where, "err", err)
	}
}

func (c *Conn) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		v := &violation{text: strings.TrimPrefix(err.Error(), "nats: "), at: time.Now()}
		if strings.Contains(v.text, advisories) {
			c.watch.refused()
			c.log.Warn("nats does not tell of streams that are made or changed; see docs/tokens.md", "host", c.where, "err", err)
			return
		}
		c.denied.Store(v)
		if strings.Contains(v.text, "Subscription") {
			c.deaf.Store(v)
		}
		c.log.Error("nats permissions refuse something muster needs", "host", c.where, "err", err)
		return
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	c.log.Warn("nats reports a fault", "host", c.where, "subject", subject, "err", err)
}
