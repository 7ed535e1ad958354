package queue_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

func admin(t *testing.T, s *natsServer) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(client(t, s), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func streamConfig(t *testing.T, js jetstream.JetStream, name string) jetstream.StreamConfig {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatalf("stream %s: %v", name, err)
	}
	return stream.CachedInfo().Config
}

type streamShape struct {
	Subjects               []string
	MaxAge, Duplicates     time.Duration
	Retention              jetstream.RetentionPolicy
	Storage                jetstream.StorageType
	DenyDelete, DenyPurge  bool
	Replicas, MaxConsumers int
}

func shape(c jetstream.StreamConfig) streamShape {
	return streamShape{c.Subjects, c.MaxAge, c.Duplicates, c.Retention, c.Storage, c.DenyDelete, c.DenyPurge, c.Replicas, c.MaxConsumers}
}

func TestEnsureStreamsMakesThemOnceForAllReplicas(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	var g errgroup.Group
	for range 4 {
		c := connect(t, s)
		g.Go(func() error { return c.EnsureStreams(t.Context()) })
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("EnsureStreams: %v", err)
	}
	js := admin(t, s)
	want := map[string]streamShape{
		"MUSTER_TRIGGER":   {[]string{"muster.v1.trigger.>"}, 24 * time.Hour, 10 * time.Minute, jetstream.LimitsPolicy, jetstream.FileStorage, true, true, 1, -1},
		"MUSTER_GITHUB":    {[]string{"muster.v1.github.>"}, 72 * time.Hour, 10 * time.Minute, jetstream.LimitsPolicy, jetstream.FileStorage, true, true, 1, -1},
		"MUSTER_PROVISION": {[]string{"muster.v1.provision.>"}, 24 * time.Hour, 10 * time.Minute, jetstream.LimitsPolicy, jetstream.FileStorage, true, true, 1, -1},
		"MUSTER_EVENT":     {[]string{"muster.v1.event.>"}, 72 * time.Hour, 10 * time.Minute, jetstream.LimitsPolicy, jetstream.FileStorage, false, false, 1, -1},
	}
	for name, want := range want {
		if diff := cmp.Diff(want, shape(streamConfig(t, js, name))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestEnsureStreamsMendsWhatItNeedsAndLeavesTheRest(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := admin(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "MUSTER_EVENT", Subjects: []string{"muster.v1.event.old"}, MaxAge: time.Hour, MaxMsgs: 12345, Duplicates: time.Minute,
	}); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s)
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Fatalf("EnsureStreams: %v", err)
	}
	got := streamConfig(t, js, "MUSTER_EVENT")
	if got.MaxMsgs != 12345 || got.MaxAge != 72*time.Hour || got.Subjects[0] != "muster.v1.event.>" || got.Duplicates != 10*time.Minute {
		t.Errorf("got %+v", got)
	}
}

func TestAStreamThatWouldKeepTokensIsRefused(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"muster.v1.token.>", "muster.v1.token.build-01.issue", "muster.v1.>", "_INBOX_host.>", "_INBOX_host.build-01.*", "_INBOX.>", "_INBOX.x"} {
		s := startNATS(t, nil)
		if _, err := admin(t, s).CreateStream(t.Context(), jetstream.StreamConfig{Name: "CURIOUS", Subjects: []string{subject}, NoAck: true}); err != nil {
			t.Fatal(err)
		}
		c := connect(t, s)
		err := c.EnsureStreams(t.Context())
		if !errors.Is(err, queue.ErrUnsafe) || !strings.Contains(err.Error(), "stream CURIOUS captures") {
			t.Errorf("a stream on %s: EnsureStreams() = %v", subject, err)
		}
		if err := c.Ready(); !errors.Is(err, queue.ErrUnsafe) {
			t.Errorf("a stream on %s: Ready() = %v", subject, err)
		}
	}
}

func TestAStreamThatIsMadeLaterIsFoundAtTheNextConnect(t *testing.T) {
	t.Parallel()
	s := startNATS(t, inProcess)
	c := ready(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Guard(ctx) }()
	// until waits for what the guard finds.
	until := func(what string, satisfies func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !satisfies(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: Safe() = %v, Ready() = %v", what, c.Safe(t.Context()), c.Ready())
			}
			runtime.Gosched()
		}
	}
	if err := c.Safe(t.Context()); err != nil {
		t.Errorf("Safe() = %v", err)
	}
	js := admin(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "CURIOUS", Subjects: []string{"muster.v1.token.>"}, NoAck: true}); err != nil {
		t.Fatal(err)
	}
	s.stop(t)
	until("while the server is away", func() bool { return c.Ready() != nil })
	s.start(t)
	until("with the stream", func() bool {
		return errors.Is(c.Safe(t.Context()), queue.ErrUnsafe) && errors.Is(c.Ready(), queue.ErrUnsafe)
	})
	// What is known to be unsafe does not become safe by not being looked at.
	blind, stop := context.WithCancel(t.Context())
	stop()
	if err := c.EnsureStreams(blind); err == nil {
		t.Error("EnsureStreams under a context that has ended works")
	}
	if !errors.Is(c.Safe(t.Context()), queue.ErrUnsafe) {
		t.Errorf("after a look that saw nothing: Safe() = %v", c.Safe(t.Context()))
	}
	if err := admin(t, s).DeleteStream(t.Context(), "CURIOUS"); err != nil {
		t.Fatal(err)
	}
	until("without the stream", func() bool { return c.Safe(t.Context()) == nil && c.Ready() == nil })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Guard() = %v", err)
	}
}

func TestPermissionsThatDoNotSufficeAreNamed(t *testing.T) {
	t.Parallel()
	s := startNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "muster", Password: "muster", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.CREATE.>"}},
		}}}
	})
	c, err := queue.Connect(t.Context(), queue.Config{URL: "nats://muster:muster@" + s.inside.Addr().String(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	brief, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err = c.EnsureStreams(brief)
	if !errors.Is(err, fleet.ErrForbidden) || !strings.Contains(err.Error(), `Publish to "$JS.API.STREAM.CREATE.MUSTER_TRIGGER"`) {
		t.Errorf("EnsureStreams() = %v", err)
	}
}

// Examine sees what EnsureStreams would mend, and mends nothing.
func TestExamineChangesNothing(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := connect(t, s)
	if found, err := c.Examine(t.Context()); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "MUSTER_TRIGGER") {
		t.Errorf("Examine before there are streams = %q, %v", found, err)
	}
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := c.Examine(t.Context())
	if err != nil || !strings.HasSuffix(found, "streams MUSTER_TRIGGER, MUSTER_GITHUB, MUSTER_PROVISION, MUSTER_EVENT, MUSTER_PROBE") || !strings.HasPrefix(found, "nats-server 2.") {
		t.Errorf("Examine = %q, %v", found, err)
	}
	js := admin(t, s)
	changed := streamConfig(t, js, "MUSTER_EVENT")
	changed.MaxAge = time.Hour
	if _, err := js.UpdateStream(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Examine(t.Context()); err == nil || !strings.Contains(err.Error(), "MUSTER_EVENT has other settings") {
		t.Errorf("Examine of a stream that was changed: %v", err)
	}
	if got := streamConfig(t, js, "MUSTER_EVENT").MaxAge; got != time.Hour {
		t.Errorf("Examine changed the stream: %s", got)
	}
}
