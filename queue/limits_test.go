package queue_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// bounds are the limits of a stream.
type bounds struct {
	MaxMsgSize int32
	MaxBytes   int64
	Discard    jetstream.DiscardPolicy
}

func boundsOf(c jetstream.StreamConfig) bounds { return bounds{c.MaxMsgSize, c.MaxBytes, c.Discard} }

// smallStore gives the server a store of so many MiB.
func smallStore(mib int64) func(*server.Options) {
	return func(o *server.Options) { o.JetStreamMaxStore = mib << 20 }
}

func TestEveryStreamHasItsPartOfTheStore(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	tests := []struct {
		store int64 // MiB
		want  map[string]bounds
	}{
		{1024, map[string]bounds{
			"MUSTER_TRIGGER":   {16 << 10, 384 * mib, jetstream.DiscardNew},
			"MUSTER_GITHUB":    {mib, 256 * mib, jetstream.DiscardOld},
			"MUSTER_PROVISION": {64 << 10, 64 * mib, jetstream.DiscardNew},
			"MUSTER_EVENT":     {256 << 10, 256 * mib, jetstream.DiscardOld},
			"MUSTER_PROBE":     {1 << 10, mib, jetstream.DiscardOld},
		}},
		{16, map[string]bounds{
			"MUSTER_TRIGGER":   {16 << 10, 6 * mib, jetstream.DiscardNew},
			"MUSTER_GITHUB":    {mib, 4 * mib, jetstream.DiscardOld},
			"MUSTER_PROVISION": {64 << 10, mib, jetstream.DiscardNew},
			"MUSTER_EVENT":     {256 << 10, 4 * mib, jetstream.DiscardOld},
			"MUSTER_PROBE":     {1 << 10, mib / 64, jetstream.DiscardOld},
		}},
	}
	for _, tt := range tests {
		s := startNATS(t, smallStore(tt.store))
		c := connect(t, s)
		for range 2 { // the second time changes nothing
			if err := c.EnsureStreams(t.Context()); err != nil {
				t.Fatalf("a store of %d MiB: %v", tt.store, err)
			}
		}
		if _, err := c.Examine(t.Context()); err != nil {
			t.Errorf("a store of %d MiB: Examine: %v", tt.store, err)
		}
		js := admin(t, s)
		for name, want := range tt.want {
			if diff := cmp.Diff(want, boundsOf(streamConfig(t, js, name))); diff != "" {
				t.Errorf("a store of %d MiB: %s (-want +got):\n%s", tt.store, name, diff)
			}
		}
	}
}

func TestAStoreThatIsTooSmallIsSaid(t *testing.T) {
	t.Parallel()
	c := connect(t, startNATS(t, smallStore(4)))
	err := c.EnsureStreams(t.Context())
	if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "the store has no room for muster's streams: give it 961 MiB") {
		t.Errorf("EnsureStreams() = %v", err)
	}
}

func TestStreamsOfBeforeAreGivenTheirLimits(t *testing.T) {
	t.Parallel()
	s := startNATS(t, smallStore(1024))
	js := admin(t, s)
	for _, cfg := range []jetstream.StreamConfig{
		{Name: "MUSTER_TRIGGER", Subjects: []string{"muster.v1.trigger.>"}},
		{Name: "MUSTER_EVENT", Subjects: []string{"muster.v1.event.>"}, MaxBytes: 12345678, MaxMsgSize: 2048},
	} {
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.Publish(t.Context(), "muster.v1.trigger.sync.acme", make([]byte, 900<<10)); err != nil {
		t.Fatal(err)
	}
	if err := connect(t, s).EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bounds{
		"MUSTER_TRIGGER": {16 << 10, 384 << 20, jetstream.DiscardNew},
		"MUSTER_EVENT":   {2048, 12345678, jetstream.DiscardOld}, // as an operator set them
	} {
		if diff := cmp.Diff(want, boundsOf(streamConfig(t, js, name))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if n := stored(t, s, "MUSTER_TRIGGER"); n != 1 {
		t.Errorf("%d messages are left, want the 1 that was there", n)
	}
}

// Streams that were made in a small store take what they would like to have once
// the store has room, and what they hold stays. Where it has none, they are as
// they were.
func TestStreamsThatShrankGrowBack(t *testing.T) {
	t.Parallel()
	s := startNATS(t, smallStore(1024))
	js := admin(t, s)
	size := func(name string) int64 { return streamConfig(t, js, name).MaxBytes >> 20 }
	taken := jetstream.StreamConfig{Name: "OTHERS", Subjects: []string{"others"}, MaxBytes: 800 << 20}
	if _, err := js.CreateStream(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := connect(t, s).EnsureStreams(t.Context()); err != nil {
			t.Fatal(err)
		}
		if is := size("MUSTER_TRIGGER"); is != 384>>3 {
			t.Fatalf("%d MiB of triggers beside a stream of 800 MiB, want %d", is, 384>>3)
		}
	}
	if _, err := js.Publish(t.Context(), "muster.v1.trigger.sync.acme", nil); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), taken.Name); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s)
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"MUSTER_TRIGGER": 384, "MUSTER_EVENT": 256, "MUSTER_GITHUB": 256, "MUSTER_PROVISION": 64} {
		if is := size(name); is != want {
			t.Errorf("%s has %d MiB once there is room, want %d", name, is, want)
		}
	}
	if n := stored(t, s, "MUSTER_TRIGGER"); n != 1 {
		t.Errorf("%d messages are left, want the 1 that was there", n)
	}
	if _, err := c.Examine(t.Context()); err != nil {
		t.Errorf("Examine: %v", err)
	}
}

// fill publishes triggers, large ones and then small ones, until the stream
// refuses both, and returns how many it took.
func fill(t *testing.T, js jetstream.JetStream) int {
	t.Helper()
	accepted := 0
	for _, body := range [][]byte{make([]byte, 15<<10), nil} {
		_, err := js.Publish(t.Context(), "muster.v1.trigger.sync.acme", body)
		for ; err == nil && accepted < 100000; accepted++ {
			_, err = js.Publish(t.Context(), "muster.v1.trigger.sync.acme", body)
		}
		if err == nil || !strings.Contains(err.Error(), "maximum bytes exceeded") {
			t.Fatalf("the flood ended with %v", err)
		}
	}
	return accepted
}

func TestAFullTriggerStreamLosesNothingAndStopsNoOther(t *testing.T) {
	t.Parallel()
	s := startNATS(t, smallStore(16))
	c := ready(t, s)
	if faults := c.Probe(t.Context()); len(faults) > 0 {
		t.Fatalf("Probe() = %v before the stream is full", faults)
	}
	js := admin(t, s)
	accepted := fill(t, js)

	stream, err := js.Stream(t.Context(), "MUSTER_TRIGGER")
	if err != nil {
		t.Fatal(err)
	}
	if state := stream.CachedInfo().State; state.FirstSeq != 1 || state.Msgs != uint64(accepted) {
		t.Errorf("the stream holds %d messages from %d, want all %d from 1", state.Msgs, state.FirstSeq, accepted)
	}
	faults := c.Probe(t.Context())
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), "stream MUSTER_TRIGGER is full (6 MiB of 6 MiB) and refuses messages") {
		t.Errorf("Probe() = %v, want one fault that names MUSTER_TRIGGER", faults)
	}
	for _, subject := range []string{"muster.v1.event.runner.online", "muster.v1.provision.gpu", "muster.v1.github.ping"} {
		if err := c.Publish(t.Context(), fleet.OutboxMessage{ID: uuid.NewString(), Subject: subject}); err != nil {
			t.Errorf("publish to %s: %v", subject, err)
		}
	}
	_, err = c.PublishTrigger(t.Context(), fleet.JobSync, "acme", "")
	if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "the stream is full") {
		t.Errorf("PublishTrigger() = %v, want unavailable: full", err)
	}
}

func TestOtherPeoplesStreamsThatFillTheStoreAreFound(t *testing.T) {
	t.Parallel()
	s := startNATS(t, smallStore(16))
	c := ready(t, s)
	js := admin(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "GREEDY", Subjects: []string{"greedy"}}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := js.Publish(t.Context(), "greedy", make([]byte, 900<<10)); err != nil {
			break
		}
	}
	faults := c.Probe(t.Context())
	if len(faults) == 0 || !strings.Contains(faults[0].Error(), "no message can be published") {
		t.Errorf("Probe() = %v, want that no message can be published", faults)
	}
}

func TestProbeNamesAStreamThatIsGone(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	js := admin(t, s)
	for range 3 {
		if faults := c.Probe(t.Context()); len(faults) > 0 {
			t.Fatalf("Probe() = %v", faults)
		}
	}
	if n := stored(t, s, "MUSTER_PROBE"); n != 1 {
		t.Errorf("%d probes are kept, want the newest", n)
	}
	if err := js.DeleteStream(t.Context(), "MUSTER_PROVISION"); err != nil {
		t.Fatal(err)
	}
	if faults := c.Probe(t.Context()); len(faults) != 1 || !strings.Contains(faults[0].Error(), "stream MUSTER_PROVISION is gone") {
		t.Errorf("Probe() = %v, want that MUSTER_PROVISION is gone", faults)
	}
	s.stop(t)
	eventually(t, func() bool { return c.Reached() != nil })
	if faults := c.Probe(t.Context()); len(faults) != 1 || !errors.Is(faults[0], fleet.ErrUnavailable) {
		t.Errorf("Probe() without a server = %v", faults)
	}
}

func TestATriggerIsNotLargerThan16KiB(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	if err := c.Publish(t.Context(), fleet.OutboxMessage{
		ID: uuid.NewString(), Subject: queue.TriggerSubject(fleet.JobSync, "acme"), Body: make([]byte, 16<<10+1),
	}); err == nil || !strings.Contains(err.Error(), "larger than its stream takes") {
		t.Errorf("a body of 16 KiB and a byte: %v", err)
	}
	if n := stored(t, s, "MUSTER_TRIGGER"); n != 0 {
		t.Errorf("%d messages are in the stream, want none", n)
	}
}

// eventually waits for what another goroutine brings about.
func eventually(t testing.TB, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}
