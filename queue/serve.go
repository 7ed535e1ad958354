package queue

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// queuedPerWorker is how many requests may wait for each worker: enough for a
// burst, few enough that a request is answered or refused within a second or
// two.
const queuedPerWorker = 4

// Service is a subject that is answered. All processes of a Group share its
// requests.
type Service struct {
	Subject string
	Group   string
	Workers int // requests handled at once; 0 is 1
	// Key tells whose request it is. Each key has a line of its own before the
	// workers, and is served in turn with the others. Nil: all are one key's.
	Key func(Request) string
	// PerKey is how many requests of one key are handled at once. A quarter of
	// those that may wait may be of one key. 0: one key may have everything.
	PerKey int
	// Overflow answers what comes when the line of its key is full, or when all
	// lines together are and its key has the longest. It is called from one
	// goroutine and must be quick.
	Overflow func(Request)
	// Ready is called once the server knows that requests are answered here.
	// Nil: nobody waits for that.
	Ready func()
}

// Request is something that wants an answer.
type Request struct {
	Subject string
	Reply   string // where the answer is wanted; whether it may go there is for the handler to say
	Body    []byte

	conn *Conn
}

// Respond sends the answer.
func (r Request) Respond(body []byte, headers map[string]string) error {
	if r.Reply == "" {
		return fmt.Errorf("answer request on %s: it names no place for the answer", r.Subject)
	}
	msg := nats.NewMsg(r.Reply)
	msg.Data = body
	for k, v := range headers {
		msg.Header.Set(k, v)
	}
	if err := r.conn.nc.PublishMsg(msg); err != nil {
		return fmt.Errorf("answer request on %s: %w", r.Subject, r.conn.explain(err))
	}
	return nil
}

// Serve answers requests of core NATS until ctx ends; what has arrived by then
// is still handled, and Serve returns once it is. A handler's context does not
// end with ctx. A handler that panics costs its request and is logged. Serve
// stays subscribed while the server is away; an error means that it could not
// subscribe, or that the connection was closed under it.
//
// It is a plain subscription and not nats.go's micro, which stops a service
// for good when a subscription of its connection is once too slow.
func (c *Conn) Serve(ctx context.Context, s Service, handle func(context.Context, Request)) error {
	if s.Overflow == nil {
		return fmt.Errorf("serve %s: nothing to do with what is too much", s.Subject)
	}
	workers := max(s.Workers, 1)
	room := workers * queuedPerWorker
	perKey, perKeyLine := s.PerKey, room/4
	if perKey <= 0 {
		perKey, perKeyLine = workers, room
	}
	key := s.Key
	if key == nil {
		key = func(Request) string { return "" }
	}
	waiting := newFairQueue(workers, perKey, perKeyLine, room)
	sub, err := c.nc.QueueSubscribe(s.Subject, s.Group, func(m *nats.Msg) {
		r := Request{Subject: m.Subject, Reply: m.Reply, Body: m.Data, conn: c}
		if turnedAway, full := waiting.push(key(r), r); full {
			s.Overflow(turnedAway)
		}
	})
	if err != nil {
		return fmt.Errorf("serve %s: %w", s.Subject, c.explain(err))
	}
	// Closed when the last message that had arrived has been through the
	// callback above.
	drained := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(drained) })

	detached := context.WithoutCancel(ctx)
	var pool sync.WaitGroup
	for range workers {
		pool.Go(func() { c.answerAll(detached, waiting, handle) })
	}
	if s.Ready != nil {
		// Without an answer the server is away, and will know when it is back.
		_ = c.nc.FlushTimeout(dialTimeout)
		s.Ready()
	}
	select {
	case <-ctx.Done():
		c.leave(ctx, sub, drained)
	case <-c.closed:
	}
	waiting.close()
	pool.Wait()
	if ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", s.Subject, nats.ErrConnectionClosed)
	}
	return nil
}

// leave ends a subscription once all that had arrived is through it.
func (c *Conn) leave(ctx context.Context, sub *nats.Subscription, drained <-chan struct{}) {
	if !c.nc.IsConnected() || sub.Drain() != nil {
		_ = sub.Unsubscribe() // fails only where it is over already
		return
	}
	select {
	case <-drained:
	case <-c.closed:
	case <-time.After(drainTimeout):
		c.log.WarnContext(ctx, "subscription not drained in time", "subject", sub.Subject, "took", drainTimeout)
	}
}

// answerAll works until the queue is closed and empty.
func (c *Conn) answerAll(ctx context.Context, waiting *fairQueue, handle func(context.Context, Request)) {
	for {
		key, r, ok := waiting.pop()
		if !ok {
			return
		}
		c.answer(ctx, r, handle)
		waiting.done(key)
	}
}

// answer keeps one bad request from ending the process.
func (c *Conn) answer(ctx context.Context, r Request, handle func(context.Context, Request)) {
	defer func() {
		if p := recover(); p != nil {
			c.log.ErrorContext(ctx, "request handler panicked", "subject", r.Subject, "err", p, "stack", string(debug.Stack()))
		}
	}()
	handle(ctx, r)
}
