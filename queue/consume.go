package queue

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	defaultAckWait = 30 * time.Second
	// pullExpiry is how long the server keeps one wish for a message; it
	// breathes every pullHeartbeat meanwhile, and two missed breaths mean that
	// it has forgotten us.
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 5 * time.Second
	// idle is how long a worker waits before it looks whether its consumer is
	// still there: some servers keep one that looks alive and never delivers
	// (nats-server#5839, nats.go#1972).
	idle = time.Minute
	// ackTimeout bounds the wait for the server's word that it has taken an
	// acknowledgement.
	ackTimeout = 5 * time.Second
	// maxReason bounds what is said to the server about a terminated message.
	maxReason = 200
)

// Verdict is what becomes of a delivery. The zero Verdict is Retry(0): nothing
// is acknowledged by accident.
type Verdict struct {
	kind   verdict
	delay  time.Duration
	reason string
}

type verdict int

const (
	retry verdict = iota
	ack
	term
)

// Ack says that the message is dealt with.
func Ack() Verdict { return Verdict{kind: ack} }

// Retry asks for the message again after the delay, which is at least a
// millisecond: without one the server sends it back at once and forever.
func Retry(after time.Duration) Verdict { return Verdict{kind: retry, delay: after} }

// Term says that the message must never come again. The reason goes into the
// server's advisory.
func Term(reason string) Verdict { return Verdict{kind: term, reason: reason} }

// String is ack, retry or term.
func (v Verdict) String() string {
	switch v.kind {
	case ack:
		return "ack"
	case term:
		return "term"
	}
	return "retry"
}

// Delay is how long a Retry waits; zero for the others.
func (v Verdict) Delay() time.Duration { return v.delay }

// Consumer is a durable consumer of a stream: all replicas that name it share
// its messages.
type Consumer struct {
	Stream   string // empty: the trigger stream
	Durable  string
	Subjects []string      // without overlap
	Workers  int           // messages handled at once by this process; 0 is 1
	AckWait  time.Duration // after a crash the message comes again this much later; 0 is 30 s
}

func (c Consumer) config() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:        c.Durable,
		FilterSubjects: c.Subjects,
		DeliverPolicy:  jetstream.DeliverAllPolicy,
		AckPolicy:      jetstream.AckExplicitPolicy,
		ReplayPolicy:   jetstream.ReplayInstantPolicy,
		AckWait:        c.AckWait,
		// Attempts are counted in the run's row. A consumer that gives up
		// leaves the message where nobody sees it (nats-server#5564).
		MaxDeliver: -1,
		// A message that waits for its delay counts as pending: a limit would
		// let a few failing targets stop all the others.
		MaxAckPending: -1,
	}
}

// Consume hands each message to handle and does as its verdict says. It blocks
// until ctx ends, then takes nothing new, waits for the running handlers and
// returns nil. A handler's context does not end with ctx: how long it may go
// on is the caller's business. While a handler runs the server is told so
// every third of AckWait. Consume outlives restarts of the server and the loss
// of the consumer or the stream; an error means that it never began, or that
// the connection was closed under it.
func (c *Conn) Consume(ctx context.Context, consumer Consumer, handle func(context.Context, Message) Verdict) error {
	return c.ConsumeTogether(ctx, consumer, handle, nil)
}

// ConsumeTogether is Consume for a handler that is faster with many messages
// together than with each by itself. Where many wait, a worker takes up to 500 of
// them at once and hands them to together. It keeps them from other workers
// until they are settled: together settles what it can settle quickly, and gives
// back the rest before it begins something that takes long.
func (c *Conn) ConsumeTogether(ctx context.Context, consumer Consumer, handle func(context.Context, Message) Verdict, together func(context.Context, *Batch)) error {
	if consumer.Durable == "" || len(consumer.Subjects) == 0 {
		return errors.New("consume: a consumer wants a name and subjects")
	}
	if consumer.AckWait == 0 {
		consumer.AckWait = defaultAckWait
	}
	if consumer.Stream == "" {
		consumer.Stream = streamTrigger
	}
	intake := &intake{conn: c, consumer: consumer, handle: handle, together: together}
	// Each worker asks for messages when it is free. So nothing waits in a
	// buffer here while its time runs out and is then done twice (nats.go#1929).
	var workers sync.WaitGroup
	for range max(consumer.Workers, 1) {
		workers.Go(func() { intake.work(ctx) })
	}
	workers.Wait()
	if ctx.Err() == nil {
		return fmt.Errorf("consume %s: %w", consumer.Durable, nats.ErrConnectionClosed)
	}
	return nil
}

// intake is what the workers of one Consume share.
type intake struct {
	conn     *Conn
	consumer Consumer
	handle   func(context.Context, Message) Verdict
	together func(context.Context, *Batch) // nil: each message goes to handle
	state    changes
}

// work pulls and handles until ctx ends or the connection is closed for good.
func (in *intake) work(ctx context.Context) {
	var wait backoff
	for ctx.Err() == nil && !in.conn.nc.IsClosed() {
		err := in.session(ctx, &wait)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if in.state.failed() {
			in.conn.log.WarnContext(ctx, "consumer interrupted", "consumer", in.consumer.Durable, "err", err)
		}
		if !pause(ctx, wait.next()) {
			return
		}
	}
}

// session is one subscription of one worker: until ctx ends, until the
// connection has been lost and found, until nothing has come for a while, or
// until something is wrong with it.
func (in *intake) session(ctx context.Context, wait *backoff) error {
	waiting, wake := context.WithCancel(ctx)
	again := in.conn.nc.StatusChanged(nats.CONNECTED)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer wake()
	defer in.conn.nc.RemoveStatusListener(again)
	watch.Go(func() {
		select {
		case <-again:
			wake()
		case <-waiting.Done():
		}
	})

	born := in.conn.nc.Stats().Reconnects
	consumer, streamCreated, err := in.conn.ensureConsumer(ctx, in.consumer)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(1),
		jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return fmt.Errorf("pull from consumer %s: %w", in.consumer.Durable, translate(err))
	}
	defer in.leave(messages)
	if in.state.worked() {
		in.conn.log.InfoContext(ctx, "consumer works again", "consumer", in.consumer.Durable)
	}
	wait.reset()
	for {
		m, err := next(waiting, messages)
		switch {
		case m == nil && err == nil:
			return nil
		case err != nil:
			return fmt.Errorf("pull from consumer %s: %w", in.consumer.Durable, translate(err))
		}
		// Across a reconnect the stream may have become another one with the
		// same name; ids must not be made with the old one's time of birth.
		if now := in.conn.nc.Stats().Reconnects; now != born {
			if streamCreated, err = in.conn.streamCreated(ctx, in.consumer.Stream); err != nil {
				in.conn.giveBack(m)
				return err
			}
			born = now
		}
		taken := []jetstream.Msg{m}
		if in.together != nil && waitsBehind(m) {
			taken = in.takeTogether(consumer, m)
		}
		if ctx.Err() != nil || in.conn.nc.Stats().Reconnects != born {
			in.conn.giveBack(taken...)
			return nil
		}
		if len(taken) > 1 {
			in.deliverTogether(ctx, taken, streamCreated)
			continue
		}
		in.conn.deliver(ctx, in.consumer.AckWait, m, streamCreated, in.handle)
	}
}

// next waits for a message. Without one and without an error ctx has ended, or
// it is time to look after the consumer.
func next(ctx context.Context, messages jetstream.MessagesContext) (jetstream.Msg, error) {
	if ctx.Err() != nil {
		// Next would ask all the same, and what came of it would be lost with
		// the subscription, and wait for AckWait.
		return nil, nil
	}
	bounded, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	m, err := messages.Next(jetstream.NextContext(bounded))
	if bounded.Err() != nil && (err == nil || errors.Is(err, bounded.Err())) {
		return m, nil
	}
	return m, err
}

// leave ends the subscription and gives back what came meanwhile, so that
// somebody else need not wait for AckWait to have it.
func (in *intake) leave(messages jetstream.MessagesContext) {
	messages.Drain()
	for {
		m, err := messages.Next(jetstream.NextMaxWait(time.Second))
		if err != nil {
			return
		}
		in.conn.giveBack(m)
	}
}

func (c *Conn) giveBack(messages ...jetstream.Msg) {
	for _, m := range messages {
		_ = m.NakWithDelay(time.Millisecond) // where it is lost, AckWait brings the message back
	}
}

// deliver runs the handler on one message and settles it.
func (c *Conn) deliver(ctx context.Context, ackWait time.Duration, m jetstream.Msg, streamCreated time.Time, handle func(context.Context, Message) Verdict) {
	ctx = context.WithoutCancel(ctx)
	message, err := newMessage(m, streamCreated)
	if err != nil {
		c.noMetadata(ctx, m, err)
		return
	}
	verdict := func() Verdict {
		running, stop := context.WithCancel(ctx)
		var breath sync.WaitGroup
		breath.Go(func() { breathe(running, m, ackWait/3) })
		defer breath.Wait()
		defer stop()
		return handle(ctx, message)
	}()
	if err := settle(ctx, m, verdict); err != nil {
		// The message comes again, and its row says what became of it.
		c.log.WarnContext(ctx, "verdict did not reach nats", "subject", message.Subject,
			"trigger", message.TriggerID, "verdict", verdict.String(), "err", err)
	}
}

func (c *Conn) noMetadata(ctx context.Context, m jetstream.Msg, err error) {
	c.log.ErrorContext(ctx, "message without metadata", "subject", m.Subject(), "err", err)
}

// breathe tells the server every so often that the work goes on.
func breathe(ctx context.Context, m interface{ InProgress() error }, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = m.InProgress() // the next one may get through; if none does, the run's lease keeps others away
		}
	}
}

func settle(ctx context.Context, m jetstream.Msg, v Verdict) error {
	switch v.kind {
	case ack:
		ctx, cancel := context.WithTimeout(ctx, ackTimeout)
		defer cancel()
		return m.DoubleAck(ctx)
	case term:
		return m.TermWithReason(oneLine(v.reason))
	}
	// A bare Nak comes back at once, whatever the consumer's back-off says.
	return m.NakWithDelay(max(v.delay, time.Millisecond))
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ToValidUTF8(s, "")
}

// ensureConsumer finds or makes the consumer, and the stream if need be. The
// time is the stream's birth.
func (c *Conn) ensureConsumer(ctx context.Context, want Consumer) (jetstream.Consumer, time.Time, error) {
	fail := func(err error) (jetstream.Consumer, time.Time, error) {
		return nil, time.Time{}, fmt.Errorf("prepare consumer %s: %w", want.Durable, c.explain(err))
	}
	if !c.nc.IsConnected() {
		return fail(nats.ErrDisconnected)
	}
	created, err := c.streamCreated(ctx, want.Stream)
	if err != nil {
		return fail(err)
	}
	cfg := want.config()
	consumer, err := c.js.Consumer(ctx, want.Stream, want.Durable)
	if err == nil && agrees(consumer.CachedInfo().Config, cfg) {
		return consumer, created, nil
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fail(err)
	}
	if consumer, err = c.js.CreateOrUpdateConsumer(ctx, want.Stream, cfg); err != nil {
		return fail(err)
	}
	return consumer, created, nil
}

// agrees compares what this package sets; the server fills in the rest.
func agrees(is, want jetstream.ConsumerConfig) bool {
	subjects := is.FilterSubjects
	if is.FilterSubject != "" {
		subjects = []string{is.FilterSubject}
	}
	return reflect.DeepEqual(subjects, want.FilterSubjects) && is.AckWait == want.AckWait &&
		is.AckPolicy == want.AckPolicy && is.MaxDeliver == want.MaxDeliver && is.MaxAckPending == want.MaxAckPending
}

// streamCreated is when the stream was born; a missing one is made.
func (c *Conn) streamCreated(ctx context.Context, name string) (time.Time, error) {
	stream, err := c.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err := c.EnsureStreams(ctx); err != nil {
			return time.Time{}, err
		}
		stream, err = c.js.Stream(ctx, name)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("look at stream %s: %w", name, err)
	}
	return stream.CachedInfo().Created, nil
}
