package queue_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// relayed has a relay publish messages and returns what the stream of events has
// then.
func relayed(t *testing.T, s *natsServer, messages []fleet.OutboxMessage) []*jetstream.RawStreamMsg {
	t.Helper()
	outbox := newTable()
	outbox.put(messages...)
	background(t, (&queue.Relay{Log: quiet, Conn: connect(t, s), Outbox: outbox}).Run)
	outbox.left(t, 0)
	stream, err := admin(t, s).Stream(t.Context(), "MUSTER_EVENT")
	if err != nil {
		t.Fatal(err)
	}
	var found []*jetstream.RawStreamMsg
	for sequence := uint64(1); sequence <= stream.CachedInfo().State.LastSeq; sequence++ {
		m, err := stream.GetMsg(t.Context(), sequence)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, m)
	}
	return found
}

// batches counts the batches in which messages were published. Messages that were
// published alone are in none.
func batches(messages []*jetstream.RawStreamMsg) int {
	found := map[string]bool{}
	for _, m := range messages {
		id := m.Header.Get("Nats-Batch-Id")
		if id != "" {
			found[id] = true
		}
	}
	return len(found)
}

// Events that wait together go out together: the server then syncs its disk for
// all of them, and not for each.
func TestEventsGoOutTogether(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	ready(t, s)
	found := relayed(t, s, events(0, 400))
	if len(found) != 400 || batches(found) != 1 {
		t.Fatalf("%d events in %d batches, want 400 in 1", len(found), batches(found))
	}
	for i, m := range found {
		if want := events(i, i+1)[0].ID; m.Header.Get("Nats-Msg-Id") != want {
			t.Fatalf("event %d has id %s, want %s: the order has changed", i, m.Header.Get("Nats-Msg-Id"), want)
		}
	}
}

// A batch with an event that the stream has already is refused as a whole. The
// others go out one by one, and that one is not kept twice.
func TestAnEventThatIsThereAlreadyHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	all := events(0, 10)
	if err := c.Publish(t.Context(), all[7]); err != nil {
		t.Fatal(err)
	}
	found := relayed(t, s, all)
	seen := map[string]int{}
	for _, m := range found {
		seen[m.Header.Get("Nats-Msg-Id")]++
	}
	if len(found) != 10 || len(seen) != 10 {
		t.Errorf("%d events, %d distinct, want 10 of each: %v", len(found), len(seen), seen)
	}
}

// An operator may turn batches off, and a server of an older muster has them off.
func TestWhereBatchesAreOffEventsGoOutOneByOne(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	ready(t, s)
	stream, err := admin(t, s).Stream(t.Context(), "MUSTER_EVENT")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.AllowAtomicPublish = false
	if _, err := admin(t, s).UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	found := relayed(t, s, events(0, 20))
	if len(found) != 20 || batches(found) != 0 {
		t.Errorf("%d events in %d batches, want 20 in none", len(found), batches(found))
	}
}

// Streams that an older muster made take batches from then on.
func TestTheStreamOfEventsIsMadeToTakeBatches(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	stream, err := admin(t, s).Stream(t.Context(), "MUSTER_EVENT")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.AllowAtomicPublish = false
	if _, err := admin(t, s).UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := c.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := relayed(t, s, events(0, 20)); batches(found) != 1 {
		t.Errorf("%d batches, want 1", batches(found))
	}
}
