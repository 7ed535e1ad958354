package queue

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
)

// The streams of muster.
const (
	streamTrigger = "MUSTER_TRIGGER"
	streamEvent   = "MUSTER_EVENT"
	// streamProbe holds one message, which Probe writes anew each time.
	streamProbe = "MUSTER_PROBE"
	// StreamGitHub holds what webhook receivers of other people's have checked
	// and handed on.
	StreamGitHub = "MUSTER_GITHUB"
	// StreamProvision holds the requests for hosts, one message each.
	StreamProvision = "MUSTER_PROVISION"
)

// dedupeWindow is how long a stream knows a message id again. The run's row is
// what makes a repeat harmless; this only saves the delivery.
const dedupeWindow = 10 * time.Minute

// ErrUnsafe says that this NATS is one muster refuses to work on, however
// often it asks: it is too old, or it would keep tokens in a stream.
var ErrUnsafe = errors.New("refusing to use this nats")

// EnsureStreams makes the streams, or brings those that are there to what
// muster needs, leaving every other setting of theirs alone. It makes one
// attempt, whose result is also what Ready tells from then on. An error that is
// fleet.ErrUnavailable may pass by itself; others want a person.
func (c *Conn) EnsureStreams(ctx context.Context) error {
	err := c.ensureStreams(ctx)
	if err != nil {
		err = fmt.Errorf("prepare streams: %w", err)
	}
	c.streams.Store(&streamCheck{err})
	if err != nil {
		return fmt.Errorf("nats at %s: %w", c.where, err)
	}
	return nil
}

func (c *Conn) ensureStreams(ctx context.Context) error {
	if err := c.checkServer(ctx); err != nil {
		return err
	}
	for shrink := 0; ; shrink++ {
		err := c.ensureAll(ctx, shrink)
		if err == nil || !lacksRoom(err) {
			return err
		}
		if shrink == maxShrink {
			return fmt.Errorf("%w: the store has no room for muster's streams: give it %s, by max_file_store of the server or by the limits of muster's account: %w",
				err, inMiB(wantedStore()), fleet.ErrUnavailable)
		}
	}
}

// ensureAll makes all streams or brings them up to date.
func (c *Conn) ensureAll(ctx context.Context, shrink int) error {
	for _, s := range streams {
		if err := c.ensureStream(ctx, s, shrink); err != nil {
			return err
		}
	}
	return nil
}

// checkServer refuses a server that muster cannot work on.
func (c *Conn) checkServer(ctx context.Context) error {
	if !c.nc.IsConnected() {
		return fmt.Errorf("not connected: %s: %w", c.lastError(), fleet.ErrUnavailable)
	}
	if err := c.checkVersion(); err != nil {
		return err
	}
	return c.lookForCaptures(ctx)
}

// Examine looks at the server and its streams as EnsureStreams does, and
// changes nothing. It returns what can be told of them where all is well. An
// error that is fleet.ErrNotFound says that a stream is not there yet.
func (c *Conn) Examine(ctx context.Context) (string, error) {
	if err := c.checkServer(ctx); err != nil {
		return "", fmt.Errorf("nats at %s: %w", c.where, err)
	}
	var names []string
	for _, s := range streams {
		stream, err := c.js.Stream(ctx, s.name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return "", fmt.Errorf("nats at %s: stream %s: %w", c.where, s.name, fleet.ErrNotFound)
		}
		if err != nil {
			return "", fmt.Errorf("nats at %s: look at stream %s: %w", c.where, s.name, c.explain(err))
		}
		if is := stream.CachedInfo().Config; !reflect.DeepEqual(is, c.settled(s, is, s.reserved(is.MaxBytes))) {
			return "", fmt.Errorf("nats at %s: stream %s has other settings than muster needs", c.where, s.name)
		}
		names = append(names, s.name)
	}
	return fmt.Sprintf("nats-server %s at %s, streams %s", c.nc.ConnectedServerVersion(), c.where, strings.Join(names, ", ")), nil
}

// streams are those that muster needs, and what it needs of each.
var streams = []stream{
	{
		name: streamTrigger, maxMessage: MaxBody, maxBytes: 384 << 20, refuses: true, configure: func(cfg *jetstream.StreamConfig) {
			cfg.Description = "what makes muster's jobs run"
			cfg.Subjects = []string{fleet.TriggerPrefix + ">"}
			cfg.MaxAge = 24 * time.Hour
			// Redelivery from the stream is what replays a trigger after a crash:
			// nobody may take messages out before their time.
			cfg.DenyDelete, cfg.DenyPurge = true, true
		},
	},
	{
		name: StreamGitHub, maxMessage: 1 << 20, maxBytes: 256 << 20, configure: func(cfg *jetstream.StreamConfig) {
			cfg.Description = "events of GitHub, from webhook receivers that have checked their signatures"
			cfg.Subjects = []string{githubPrefix + ">"}
			cfg.MaxAge = 72 * time.Hour // as long as github.com could send them again
			cfg.DenyDelete, cfg.DenyPurge = true, true
		},
	},
	{
		name: StreamProvision, maxMessage: 64 << 10, maxBytes: 64 << 20, refuses: true, configure: func(cfg *jetstream.StreamConfig) {
			cfg.Description = "hosts that muster wants, one message each"
			cfg.Subjects = []string{provisionPrefix + ">"}
			// Far longer than a host has to boot: who comes late reads the deadline.
			cfg.MaxAge = 24 * time.Hour
			// Each is one host: nobody may take a request out but by its consumer.
			cfg.DenyDelete, cfg.DenyPurge = true, true
		},
	},
	{
		name: streamEvent, maxMessage: 256 << 10, maxBytes: 256 << 20, configure: func(cfg *jetstream.StreamConfig) {
			cfg.Description = "what muster tells of the fleet, as CloudEvents"
			cfg.Subjects = []string{eventPrefix + ">"}
			cfg.MaxAge = 72 * time.Hour
			cfg.AllowAtomicPublish = true // the relay publishes many events together
		},
	},
	{
		name: streamProbe, maxMessage: 1 << 10, maxBytes: 1 << 20, configure: func(cfg *jetstream.StreamConfig) {
			cfg.Description = "proves every few seconds that this server takes messages"
			cfg.Subjects = []string{probeSubject}
			cfg.MaxMsgs = 1
			cfg.MaxAge = time.Hour
		},
	},
}

// stream is a stream that muster needs.
type stream struct {
	name       string
	maxMessage int32 // the largest message with its headers, in bytes
	// maxBytes is how much of the store the stream reserves, in bytes, where the
	// store has room for all streams.
	maxBytes int64
	// refuses says that a full stream refuses what is new. Otherwise the oldest
	// messages go: muster has read them long before.
	refuses   bool
	configure func(*jetstream.StreamConfig)
}

// settled returns a configuration with what muster needs in it, and maxBytes as
// the size. A size that an operator has set stays; one that muster chose when the
// store had less or more room does not.
func (c *Conn) settled(s stream, cfg jetstream.StreamConfig, maxBytes int64) jetstream.StreamConfig {
	s.configure(&cfg)
	// Limits, not WorkQueue: a WorkQueue forgets the ids of acknowledged
	// messages when the server restarts (nats-server#3272).
	cfg.Retention = jetstream.LimitsPolicy
	cfg.Storage = jetstream.FileStorage
	cfg.Duplicates = dedupeWindow
	cfg.Replicas = c.replicas
	if cfg.MaxMsgSize <= 0 || cfg.MaxMsgSize > s.maxMessage {
		cfg.MaxMsgSize = s.maxMessage
	}
	if cfg.MaxBytes <= 0 || s.isOurSize(cfg.MaxBytes) {
		cfg.MaxBytes = maxBytes
	}
	cfg.Discard = jetstream.DiscardOld
	if s.refuses {
		cfg.Discard = jetstream.DiscardNew
	}
	return cfg
}

// awaitStream gives a stream that another replica is making at this moment. The
// server knows its name first, and the stream itself a moment later.
func (c *Conn) awaitStream(ctx context.Context, name string) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		stream, err := c.js.Stream(ctx, name)
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return stream, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ensureStream makes a stream or brings it up to date. It takes 1/2^shrink of the
// space it would like to have.
func (c *Conn) ensureStream(ctx context.Context, want stream, shrink int) error {
	name, maxBytes := want.name, want.maxBytes>>shrink
	stream, err := c.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		cfg := c.settled(want, jetstream.StreamConfig{Name: name}, maxBytes)
		// Several replicas may do this at once: the same configuration twice
		// is no error, and another size than theirs is mended below.
		_, err = c.js.CreateStream(ctx, cfg)
		if err == nil {
			return nil
		}
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("create stream %s: %w", name, c.explain(err))
		}
		stream, err = c.awaitStream(ctx, name)
	}
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", name, c.explain(err))
	}
	is := stream.CachedInfo().Config
	better := c.settled(want, is, maxBytes)
	if reflect.DeepEqual(is, better) {
		return nil
	}
	if _, err := c.js.UpdateStream(ctx, better); err != nil {
		return fmt.Errorf("update stream %s: %w", name, c.explain(err))
	}
	return nil
}

// oldest is the first server that cannot be talked into taking one user for
// another: CVE-2026-33223 and CVE-2026-33248 are mended in it.
var oldest = [3]int{2, 12, 6}

func (c *Conn) checkVersion() error {
	version := c.nc.ConnectedServerVersion()
	if !atLeast(version, oldest) {
		return fmt.Errorf("nats at %s: nats-server %s lets one host pass for another (CVE-2026-33223, CVE-2026-33248); update it to %d.%d.%d or later: %w",
			c.where, version, oldest[0], oldest[1], oldest[2], ErrUnsafe)
	}
	return nil
}

// atLeast compares dotted versions; what follows a dash is ignored, and what
// cannot be read is older than everything.
func atLeast(version string, least [3]int) bool {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "-")
	parts := strings.Split(version, ".")
	if len(parts) != len(least) {
		return false
	}
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil || n < least[i] {
			return false
		}
		if n > least[i] {
			return true
		}
	}
	return true
}
