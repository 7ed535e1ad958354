package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

// MaxBody is the largest body of a trigger or a request, in bytes.
const MaxBody = 16 << 10

// Publish puts the message into its stream under its id and waits until the
// server has it. A repeat within 10 minutes is dropped by the server.
func (c *Conn) Publish(ctx context.Context, m fleet.OutboxMessage) error {
	if _, err := c.js.PublishMsg(ctx, outgoing(m)); err != nil {
		return fmt.Errorf("publish %s to %s: %w", m.ID, m.Subject, c.explain(err))
	}
	return nil
}

func outgoing(m fleet.OutboxMessage) *nats.Msg {
	msg := nats.NewMsg(m.Subject)
	for k, v := range m.Headers {
		msg.Header.Set(k, v)
	}
	msg.Header.Set(nats.MsgIdHdr, m.ID)
	msg.Data = m.Body
	return msg
}

// PublishTrigger is the command line's way to make a job run. It returns the
// id under which the run will be recorded.
func (c *Conn) PublishTrigger(ctx context.Context, job fleet.Job, name, reason string) (string, error) {
	subject := TriggerSubject(job, name)
	if !fleet.ValidName(name) { // fleet.All is one too
		return "", fmt.Errorf("publish trigger %s: %q is neither a name nor %q", subject, name, fleet.All)
	}
	msg := nats.NewMsg(subject)
	msgID := uuid.NewString()
	msg.Header.Set(nats.MsgIdHdr, msgID)
	msg.Header.Set(headerSource, string(fleet.SourceCLI))
	if reason != "" {
		body, err := json.Marshal(map[string]string{"reason": reason})
		if err != nil {
			return "", fmt.Errorf("publish trigger %s: %w", subject, err)
		}
		msg.Data = body
	}
	if len(msg.Data) > MaxBody {
		return "", fmt.Errorf("publish trigger %s: the reason is too long: %d bytes, want at most %d", subject, len(msg.Data), MaxBody)
	}
	ack, err := c.js.PublishMsg(ctx, msg)
	if err != nil {
		return "", fmt.Errorf("publish trigger %s: %w", subject, c.explain(err))
	}
	at, err := c.storedAt(ctx, ack.Sequence)
	if err != nil {
		return "", fmt.Errorf("trigger %s was published, but its id is not known: %w", subject, c.explain(err))
	}
	return idFromMsgID(subject, msgID, at), nil
}

// storedAt is when the stream took the message in: its own clock would put a
// message of midnight on the other day.
func (c *Conn) storedAt(ctx context.Context, sequence uint64) (time.Time, error) {
	stream, err := c.js.Stream(ctx, streamTrigger)
	if err != nil {
		return time.Time{}, err
	}
	raw, err := stream.GetMsg(ctx, sequence)
	if err != nil {
		return time.Time{}, err
	}
	return raw.Time, nil
}

// Request asks on the subject and returns body and headers of the answer.
// Without a deadline on ctx it waits 5 s.
func (c *Conn) Request(ctx context.Context, subject string, body []byte) ([]byte, map[string]string, error) {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	answer, err := c.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, nil, fmt.Errorf("request on %s: %w", subject, c.explain(err))
	}
	headers := make(map[string]string, len(answer.Header))
	for k := range answer.Header {
		headers[k] = answer.Header.Get(k)
	}
	return answer.Data, headers, nil
}

// explain is translate with what the connection knows besides. The server
// reports a missing permission apart from the call that wanted it, which only
// times out; then the violation is the reason worth telling.
func (c *Conn) explain(err error) error {
	if v := c.denied.Load(); v != nil && timedOut(err) && time.Since(v.at) < 2*callTimeout {
		return fmt.Errorf("%s: %w", v.text, fleet.ErrForbidden)
	}
	if err := c.Reached(); err != nil {
		return err
	}
	return translate(err)
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}

// translate gives errors of NATS the meaning that callers act on.
func translate(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("nobody listens there; is muster serve running? %w", fleet.ErrUnavailable)
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("no stream takes it; has muster serve run on this nats? %w", fleet.ErrUnavailable)
	case timedOut(err),
		errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded),
		errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("jetstream is off there; turn it on in the server's configuration, and for muster's account: %w", err)
	}
	if isFull(err) {
		return fmt.Errorf("the stream is full, or the store of the server: %w: %w", fleet.ErrUnavailable, err)
	}
	if hasCode(err, errMessageTooLarge) {
		return fmt.Errorf("the message is larger than its stream takes: %w", err)
	}
	// A server that starts, or looks for a leader, says 503 for a while.
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.Code == 503 {
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	return err
}
