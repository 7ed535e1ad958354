package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

// probeRoom is the space that a stream must have left for what muster itself
// publishes, in bytes: a trigger or a request for a host is smaller.
const probeRoom = 4 << 10

// Probe publishes one message, waits until the server has it on disk, and looks
// at the space of each stream. It returns one error for each part that does not
// take messages, which names the part; none means that muster can work. A full
// stream that drops its oldest messages takes new ones, so it is no fault.
func (c *Conn) Probe(ctx context.Context) []error {
	if err := c.Reached(); err != nil {
		return []error{err}
	}
	if _, err := c.js.PublishMsg(ctx, nats.NewMsg(probeSubject)); err != nil {
		return []error{fmt.Errorf("nats at %s: no message can be published: %w", c.where, c.explain(err))}
	}
	var faults []error
	for _, s := range streams {
		use, err := c.use(ctx, s)
		if err == nil && use.full() {
			err = fmt.Errorf("stream %s is full (%s of %s) and refuses messages until its oldest are %s old: find out who fills it, or raise its max_bytes: %w",
				s.name, inMiB(use.bytes), inMiB(use.limit), use.maxAge, fleet.ErrUnavailable)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("nats at %s: %w", c.where, err))
		}
	}
	return faults
}

// use is the space that a stream takes and may take, in bytes.
type use struct {
	bytes, limit int64
	refuses      bool
	maxAge       string
}

// full reports whether the stream refuses messages of muster's own size.
func (u use) full() bool { return u.refuses && u.limit > 0 && u.bytes+probeRoom > u.limit }

func (c *Conn) use(ctx context.Context, s stream) (use, error) {
	found, err := c.js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return use{}, fmt.Errorf("stream %s is gone: %w", s.name, fleet.ErrNotFound)
	}
	if err != nil {
		return use{}, fmt.Errorf("look at stream %s: %w", s.name, c.explain(err))
	}
	info := found.CachedInfo()
	return use{
		bytes: int64(info.State.Bytes), limit: info.Config.MaxBytes,
		refuses: info.Config.Discard == jetstream.DiscardNew, maxAge: info.Config.MaxAge.String(),
	}, nil
}
