package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

// private are subjects that no stream may keep: requests for tokens, and the
// answers that carry them.
var private = []string{tokenPrefix + ">", "_INBOX_host.>", "_INBOX.>"}

const (
	// guardEvery is how often the streams are looked at although nothing says
	// that one has changed.
	guardEvery = time.Minute
	// guardAgain is when to look again where the last look found a fault.
	guardAgain = 5 * time.Second
)

// Guard looks at server and streams again, as EnsureStreams does, after each
// reconnect and every minute, and every 5 s while something is wrong. When the
// server says that a stream was made or changed, Guard looks at once whether it
// captures tokens. It blocks until ctx ends, and returns nil then. Ready and
// Safe tell what it finds.
func (c *Conn) Guard(ctx context.Context) error {
	again := c.nc.StatusChanged(nats.CONNECTED)
	defer c.nc.RemoveStatusListener(again)
	var state changes
	every := guardEvery
	for {
		wait := time.NewTimer(every)
		look := c.guard
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-c.watch.changed:
			wait.Stop()
			look = c.lookAgain
		case <-again:
			wait.Stop()
		case <-wait.C:
		}
		if err := look(ctx); err != nil {
			every = guardAgain
			if state.failed() && ctx.Err() == nil {
				c.log.ErrorContext(ctx, "nats is not as it has to be", "host", c.where, "err", err)
			}
			continue
		}
		every = guardEvery
		if state.worked() {
			c.log.InfoContext(ctx, "nats is as it has to be again", "host", c.where)
		}
	}
}

func (c *Conn) guard(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.EnsureStreams(ctx)
}

// lookAgain looks for streams that capture tokens, and returns what the newest
// look at all streams found where there are none.
func (c *Conn) lookAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := c.lookForCaptures(ctx); err != nil {
		return fmt.Errorf("nats at %s: %w", c.where, err)
	}
	return c.streams.Load().err
}

// Safe returns nil where a token may go over this NATS now: it is connected, the
// server is new enough, and no stream captures tokens. Where a stream may have
// changed since the last look, or the connection is a new one, Safe looks first.
// An ErrUnsafe says that somebody could read along; any other error, that it is
// not known.
func (c *Conn) Safe(ctx context.Context) error {
	if err := c.Reached(); err != nil {
		return err
	}
	if err := c.checkVersion(); err != nil {
		return err
	}
	known, err := c.watch.verdict(c.nc.Stats().Reconnects)
	if !known {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err = c.lookForCaptures(ctx)
	}
	if err != nil {
		return fmt.Errorf("nats at %s: %w", c.where, err)
	}
	return nil
}

// Captures tells of streams that captured tokens: each once, when it is found.
// There is one receiver.
func (c *Conn) Captures() <-chan Capture { return c.watch.found }

// lookForCaptures refuses a NATS where a stream keeps what is published on a
// private subject: a token must rest nowhere.
func (c *Conn) lookForCaptures(ctx context.Context) error {
	look := c.watch.begin(c.nc.Stats().Reconnects)
	defer look.end()
	var captures []Capture
	for _, subject := range private {
		names := c.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
		for name := range names.Name() {
			captures = append(captures, Capture{Stream: name, Subject: subject})
		}
		if err := names.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
			return fmt.Errorf("look for streams that capture %s: %w", subject, c.explain(err))
		}
	}
	for i := range captures {
		captures[i].For = look.exposure(c.age(ctx, captures[i].Stream))
	}
	return look.done(captures)
}

// age returns what the server's clock says, and when the stream was made by it.
// Where the stream cannot be looked at, both are zero.
func (c *Conn) age(ctx context.Context, name string) streamAge {
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return streamAge{name: name}
	}
	info := stream.CachedInfo()
	return streamAge{name: name, now: info.TimeStamp, created: info.Created}
}

// followStreams has the server tell of each stream that is made or changed. Where
// its permissions do not allow that, Safe looks every second instead.
func (c *Conn) followStreams() error {
	_, err := c.nc.Subscribe(advisories, func(m *nats.Msg) { c.watch.heard(m.Subject, m.Data) })
	if err != nil {
		return fmt.Errorf("listen for changes of streams: %w", err)
	}
	return nil
}

// WithoutAdvisories returns an error where the server's permissions do not let
// muster hear of streams that are made or changed.
func (c *Conn) WithoutAdvisories() error {
	if c.watch.hears() {
		return nil
	}
	return fmt.Errorf("nats at %s: the server's permissions do not let muster subscribe to %s: a stream that captures tokens is found up to a second late; see docs/tokens.md: %w",
		c.where, advisories, fleet.ErrForbidden)
}
