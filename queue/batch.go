package queue

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxBatch is how many messages a worker takes together.
	maxBatch = 500
	// backlog is how many messages must wait behind one for a worker to take
	// them together with it. Fewer go one by one, each to the next free worker
	// of any replica.
	backlog = 16
)

// Batch is messages that a worker has taken together. What the handler has not
// settled when it returns comes again at once.
type Batch struct {
	Messages []Message

	conn *Conn
	mu   sync.Mutex
	raw  []jetstream.Msg // of the message with the same index; nil: it is settled
}

// newBatch leaves out what has no metadata, which is no message of a stream.
func (c *Conn) newBatch(ctx context.Context, raw []jetstream.Msg, streamCreated time.Time) *Batch {
	b := &Batch{conn: c}
	for _, m := range raw {
		message, err := newMessage(m, streamCreated)
		if err != nil {
			c.noMetadata(ctx, m, err)
			continue
		}
		b.Messages = append(b.Messages, message)
		b.raw = append(b.raw, m)
	}
	return b
}

// Settle does with the messages of these indexes as the verdict says. Each
// message is settled once: a second verdict is ignored. Of many acknowledgements
// the server confirms the last: one that is lost before it brings its message
// back, whose row says what became of it.
func (b *Batch) Settle(ctx context.Context, v Verdict, indexes ...int) {
	messages := b.take(indexes)
	ctx = context.WithoutCancel(ctx)
	for n, m := range messages {
		var err error
		if v.kind == ack && n < len(messages)-1 {
			err = m.Ack()
		} else {
			err = settle(ctx, m, v)
		}
		if err != nil {
			b.conn.log.WarnContext(ctx, "verdict did not reach nats", "subject", m.Subject(), "verdict", v.String(), "err", err)
		}
	}
}

// take removes messages from those that are to be settled.
func (b *Batch) take(indexes []int) []jetstream.Msg {
	b.mu.Lock()
	defer b.mu.Unlock()
	var messages []jetstream.Msg
	for _, i := range indexes {
		if b.raw[i] == nil {
			continue
		}
		messages = append(messages, b.raw[i])
		b.raw[i] = nil
	}
	return messages
}

// GiveBack lets the messages that are not settled yet come again at once, to
// whoever is free, but for the one of the index.
func (b *Batch) GiveBack(except int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range b.raw {
		if m == nil || i == except {
			continue
		}
		b.conn.giveBack(m)
		b.raw[i] = nil
	}
}

// InProgress tells the server that the messages which are not settled yet are
// being worked on.
func (b *Batch) InProgress() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.raw {
		if m != nil {
			_ = m.InProgress() // as in breathe
		}
	}
	return nil
}

// takeTogether takes what waits behind a message, up to maxBatch, without waiting
// for more to come.
func (in *intake) takeTogether(consumer jetstream.Consumer, first jetstream.Msg) []jetstream.Msg {
	messages := []jetstream.Msg{first}
	fetched, err := consumer.FetchNoWait(maxBatch - 1)
	if err != nil {
		return messages // the subscription of the session finds out what is wrong
	}
	for m := range fetched.Messages() {
		messages = append(messages, m)
	}
	return messages
}

// waitsBehind reports whether many messages wait behind one.
func waitsBehind(m jetstream.Msg) bool {
	meta, err := m.Metadata()
	return err == nil && meta.NumPending >= backlog
}

// deliverTogether runs the handler on messages that were taken together.
func (in *intake) deliverTogether(ctx context.Context, raw []jetstream.Msg, streamCreated time.Time) {
	ctx = context.WithoutCancel(ctx)
	b := in.conn.newBatch(ctx, raw, streamCreated)
	running, stop := context.WithCancel(ctx)
	var breath sync.WaitGroup
	breath.Go(func() { breathe(running, b, in.consumer.AckWait/3) })
	in.together(ctx, b)
	stop()
	breath.Wait()
	b.GiveBack(-1)
}
