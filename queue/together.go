package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/muster-fleet/muster/fleet"
)

// publishTogether puts messages into their one stream as one batch, of which the
// stream takes all or none (ADR-50 of NATS), and waits until the server has them,
// or for callTimeout, also where ctx ends. A server that syncs each write to its
// disk syncs a batch twice, and single messages once each.
func (c *Conn) publishTogether(ctx context.Context, messages []fleet.OutboxMessage) error {
	batch := make([]*nats.Msg, 0, len(messages))
	for _, m := range messages {
		batch = append(batch, outgoing(m))
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	_, err := jetstreamext.PublishMsgBatch(ctx, c.js, batch)
	if err != nil {
		return fmt.Errorf("publish %d messages together, the first to %s: %w", len(messages), messages[0].Subject, err)
	}
	return nil
}

// refusedTogether reports whether the server has certainly kept nothing of a
// batch, and may take its messages one by one. It refuses a batch with a message
// that it has already, or that is too large, and every batch where too many are
// on their way, or where an operator has turned batches off.
func refusedTogether(err error) bool {
	_, answered := errors.AsType[*jetstream.APIError](err)
	return answered || errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrNoResponders)
}

func ids(messages []fleet.OutboxMessage) []string {
	all := make([]string, 0, len(messages))
	for _, m := range messages {
		all = append(all, m.ID)
	}
	return all
}
