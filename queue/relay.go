package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// relayBatch is how many messages are on their way at once.
	relayBatch = 256
	// relayLease is how long a claimed message is left alone by other relays.
	// It has to be longer than a batch takes to be published and deleted, which
	// callTimeout bounds twice, and is what a message waits whose relay dies.
	relayLease = 15 * time.Second
	// relayPoll finds what another process put in, or a dead one left behind.
	relayPoll = time.Second
)

// outbox is where messages wait. Claim hands out up to n of them, oldest
// first, and keeps them from others until the lease ends; a message that is
// not deleted by then is handed out again.
type outbox interface {
	Claim(ctx context.Context, n int, lease time.Duration) ([]fleet.OutboxMessage, error)
	Delete(ctx context.Context, ids []string) error
	Wake() <-chan struct{}
}

// Relay publishes what transactions have left in the outbox, at least once
// each and in no order: to streams, and to hosts, which no stream stands
// before.
type Relay struct {
	Log    *slog.Logger
	Conn   *Conn
	Outbox outbox
}

// Run blocks until ctx ends, and returns nil then. Any number of relays may
// run on one outbox. While NATS or Postgres is away it waits, longer each
// time up to 10 s, and says so once.
func (r *Relay) Run(ctx context.Context) error {
	if r.Log == nil || r.Conn == nil || r.Outbox == nil {
		return errors.New("relay: Log, Conn and Outbox are needed")
	}
	var state changes
	var wait backoff
	for {
		n, err := r.pass(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if state.failed() {
				r.Log.WarnContext(ctx, "outbox relay interrupted", "err", err)
			}
			if !pause(ctx, wait.next()) {
				return nil
			}
			continue
		}
		if state.worked() {
			r.Log.InfoContext(ctx, "outbox relay works again")
		}
		wait.reset()
		if n == relayBatch {
			continue // there is more
		}
		poll := time.NewTimer(relayPoll)
		select {
		case <-ctx.Done():
			poll.Stop()
			return nil
		case <-r.Outbox.Wake():
			poll.Stop()
		case <-poll.C:
		}
	}
}

// pass publishes one batch and returns how many messages it had claimed.
func (r *Relay) pass(ctx context.Context) (int, error) {
	// Claimed in vain, messages would wait for their lease to end after NATS
	// is back.
	if !r.Conn.nc.IsConnected() {
		return 0, r.Conn.unavailable()
	}
	claim, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	messages, err := r.Outbox.Claim(claim, relayBatch, relayLease)
	if err != nil || len(messages) == 0 {
		return 0, err
	}
	published, err := r.publish(messages)
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		// Somebody took the stream away, or the server its files.
		if made := r.Conn.EnsureStreams(ctx); made != nil {
			err = made
		}
	}
	if len(published) > 0 {
		// They are out: deleting them now saves sending them twice, also
		// where the stop has begun.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		if err := r.Outbox.Delete(ctx, published); err != nil {
			return len(messages), err
		}
	}
	return len(messages), err
}

// publish sends all messages and waits for each one's acknowledgement, or for
// callTimeout. It returns the ids of those the server has, and the first error.
func (r *Relay) publish(messages []fleet.OutboxMessage) ([]string, error) {
	published, first := r.Conn.tellHosts(messages)
	note := func(m fleet.OutboxMessage, err error) {
		if first == nil {
			first = fmt.Errorf("publish %s to %s: %w", m.ID, m.Subject, err)
		}
	}
	futures := make([]jetstream.PubAckFuture, len(messages))
	for i, m := range messages {
		if toHost(m) {
			continue
		}
		var err error
		if futures[i], err = r.Conn.js.PublishMsgAsync(outgoing(m)); err != nil {
			note(m, err)
		}
	}
	for i, m := range messages {
		if futures[i] == nil {
			continue
		}
		select {
		case <-futures[i].Ok():
			published = append(published, m.ID)
		case err := <-futures[i].Err():
			note(m, err)
		}
	}
	return published, first
}
