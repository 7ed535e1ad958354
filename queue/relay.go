package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// relayBatch is how many messages of a lane are on their way at once. A server
	// takes at most 1,000 as one batch (ADR-50 of NATS).
	relayBatch = 500
	// relayLease is how long a claimed message is left alone by other relays.
	// It is longer than a batch takes to be published together, refused,
	// published one by one and deleted, each of which callTimeout bounds. A
	// message waits as long where its relay dies.
	relayLease = 4 * callTimeout
	// urgentLease is the lease in lanes whose messages somebody waits for. They
	// are published one by one, which callTimeout bounds. Where it ends too early,
	// another relay publishes the message again, and its stream drops the repeat.
	urgentLease = callTimeout
	// relayPoll finds what another process put in, or a dead one left behind.
	relayPoll = time.Second
)

// lanes are the parts of the outbox that a relay empties side by side: one for
// each stream that muster publishes to, one for hosts, and one for the rest. So
// a stream that takes nothing holds up no other.
var lanes = []string{"trigger", "provision", laneEvent, "host", "other"}

// leaseOf is how long messages of a lane are left alone by other relays. No stream
// stands before hosts, which would hear a repeat.
func leaseOf(lane string) time.Duration {
	switch lane {
	case "trigger", "provision":
		return urgentLease
	}
	return relayLease
}

// laneEvent is the lane whose messages are published together. All of them go
// to one stream.
const laneEvent = "event"

// outbox is where messages wait, in lanes. Claim hands out up to n messages of a
// lane and keeps them from others until the lease ends; a message that is not
// deleted by then is handed out again.
type outbox interface {
	Claim(ctx context.Context, lane string, n int, lease time.Duration) ([]fleet.OutboxMessage, error)
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

	state laneStates
}

// Run blocks until ctx ends, and returns nil then. Any number of relays may
// run on one outbox. While NATS, one of its streams or Postgres takes nothing,
// the lanes concerned wait, longer each time up to 10 s, and say so once.
func (r *Relay) Run(ctx context.Context) error {
	if r.Log == nil || r.Conn == nil || r.Outbox == nil {
		return errors.New("relay: Log, Conn and Outbox are needed")
	}
	var running sync.WaitGroup
	wakes := make([]chan struct{}, len(lanes))
	for i, lane := range lanes {
		wakes[i] = make(chan struct{}, 1)
		running.Go(func() { r.empty(ctx, lane, wakes[i]) })
	}
	r.wakeAll(ctx, wakes)
	running.Wait()
	return nil
}

// wakeAll passes each wake of the outbox on to every lane, until ctx ends.
func (r *Relay) wakeAll(ctx context.Context, wakes []chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.Outbox.Wake():
		}
		for _, wake := range wakes {
			select {
			case wake <- struct{}{}:
			default: // the lane has been woken and has not looked yet
			}
		}
	}
}

// empty publishes what comes into a lane, until ctx ends.
func (r *Relay) empty(ctx context.Context, lane string, wake <-chan struct{}) {
	var wait backoff
	for {
		n, err := r.pass(ctx, lane)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if r.state.failed(lane, err) {
				r.Log.WarnContext(ctx, "outbox relay interrupted", "lane", lane, "err", err)
			}
			if !pause(ctx, wait.next()) {
				return
			}
			continue
		}
		if r.state.worked(lane) {
			r.Log.InfoContext(ctx, "outbox relay works again", "lane", lane)
		}
		wait.reset()
		if n == relayBatch {
			continue // there is more
		}
		poll := time.NewTimer(relayPoll)
		select {
		case <-ctx.Done():
			poll.Stop()
			return
		case <-wake:
			poll.Stop()
		case <-poll.C:
		}
	}
}

// laneStates turns the results of lanes into few lines of log: a fault that
// several lanes have in common is told once. The zero value is ready.
type laneStates struct {
	mu     sync.Mutex
	faults map[string]string // by lane
}

// failed reports whether a lane's failure is new, and no other lane has failed
// in the same way.
func (l *laneStates) failed(lane string, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, known := l.faults[lane]
	tell := !known && !l.common(lane, err.Error())
	if l.faults == nil {
		l.faults = map[string]string{}
	}
	l.faults[lane] = err.Error()
	return tell
}

// worked reports whether a lane's success ends its failure, and no other lane
// still fails in the same way.
func (l *laneStates) worked(lane string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	fault, known := l.faults[lane]
	delete(l.faults, lane)
	return known && !l.common(lane, fault)
}

func (l *laneStates) common(lane, fault string) bool {
	for other, has := range l.faults {
		if other != lane && has == fault {
			return true
		}
	}
	return false
}

// pass publishes one batch of a lane and returns how many messages it had
// claimed.
func (r *Relay) pass(ctx context.Context, lane string) (int, error) {
	// Claimed in vain, messages would wait for their lease to end after NATS
	// is back.
	if !r.Conn.nc.IsConnected() {
		return 0, r.Conn.unavailable()
	}
	claim, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	messages, err := r.Outbox.Claim(claim, lane, relayBatch, leaseOf(lane))
	if err != nil || len(messages) == 0 {
		return 0, err
	}
	published, err := r.publish(ctx, lane, messages)
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

// publish sends all messages of a lane, and returns the ids of those that the
// server has, and the first error.
func (r *Relay) publish(ctx context.Context, lane string, messages []fleet.OutboxMessage) ([]string, error) {
	if lane == laneEvent && len(messages) > 1 {
		err := r.Conn.publishTogether(ctx, messages)
		if err == nil {
			return ids(messages), nil
		}
		if !refusedTogether(err) {
			return nil, err
		}
	}
	return r.publishEach(messages)
}

// publishEach sends each message by itself and waits for all acknowledgements, or
// for callTimeout.
func (r *Relay) publishEach(messages []fleet.OutboxMessage) ([]string, error) {
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
