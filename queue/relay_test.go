package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// table is the rules of the real outbox in memory: this package must not know
// Postgres.
type table struct {
	mu       sync.Mutex
	messages []fleet.OutboxMessage
	leases   map[string]time.Time
	away     error
	claims   int
	asked    map[string]time.Duration // the lease of the newest claim, by lane
	wake     chan struct{}
}

func newTable() *table { return &table{leases: map[string]time.Time{}, wake: make(chan struct{}, 1)} }

func (o *table) put(messages ...fleet.OutboxMessage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.messages = append(o.messages, messages...)
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *table) Wake() <-chan struct{} { return o.wake }

// laneOf is the lane of a message, as migrations/030_outbox_lanes.sql has it.
func laneOf(m fleet.OutboxMessage) string {
	for _, lane := range []string{"trigger", "provision", "event", "host"} {
		if strings.HasPrefix(m.Subject, "muster.v1."+lane+".") {
			return lane
		}
	}
	return "other"
}

func (o *table) Claim(_ context.Context, lane string, n int, lease time.Duration) ([]fleet.OutboxMessage, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.claims++
	if o.asked == nil {
		o.asked = map[string]time.Duration{}
	}
	o.asked[lane] = lease
	if o.away != nil {
		return nil, o.away
	}
	var claimed []fleet.OutboxMessage
	for _, m := range o.messages {
		if len(claimed) < n && laneOf(m) == lane && time.Now().After(o.leases[m.ID]) {
			o.leases[m.ID] = time.Now().Add(lease)
			claimed = append(claimed, m)
		}
	}
	return claimed, nil
}

func (o *table) Delete(_ context.Context, ids []string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away != nil {
		return o.away
	}
	gone := map[string]bool{}
	for _, id := range ids {
		gone[id] = true
	}
	var left []fleet.OutboxMessage
	for _, m := range o.messages {
		if !gone[m.ID] {
			left = append(left, m)
		}
	}
	o.messages = left
	return nil
}

func (o *table) do(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// left waits until so many messages are left.
func (o *table) left(t *testing.T, want int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for got := -1; got != want; {
		o.do(func() { got = len(o.messages) })
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are left, want %d", got, want)
		}
	}
}

// lines counts what is logged, by message.
type lines struct {
	slog.Handler
	mu    sync.Mutex
	count map[string]int
}

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count[r.Message]++
	return nil
}

func (l *lines) of(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count[message]
}

func newLines() *lines {
	return &lines{Handler: slog.NewTextHandler(&strings.Builder{}, nil), count: map[string]int{}}
}

func events(from, to int) []fleet.OutboxMessage {
	var messages []fleet.OutboxMessage
	for i := from; i < to; i++ {
		messages = append(messages, fleet.OutboxMessage{
			ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), Subject: queue.EventSubject("runner.online"),
			Headers: map[string]string{"Content-Type": "application/cloudevents+json"}, Body: []byte("{}"),
		})
	}
	return messages
}

func stored(t *testing.T, s *natsServer, stream string) uint64 {
	t.Helper()
	info, err := admin(t, s).Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return info.CachedInfo().State.Msgs
}

func TestTheRelayPublishesEverythingOnceAndEmptiesTheOutbox(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	outbox := newTable()
	outbox.put(events(0, 600)...)
	for range 3 { // replicas
		r := &queue.Relay{Log: quiet, Conn: c, Outbox: outbox}
		background(t, r.Run)
	}
	outbox.left(t, 0)
	outbox.put(events(600, 610)...)
	outbox.left(t, 0)
	if got := stored(t, s, "MUSTER_EVENT"); got != 610 {
		t.Errorf("%d events, want 610", got)
	}
	stream, err := admin(t, s).Stream(t.Context(), "MUSTER_EVENT")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), 610)
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Nats-Msg-Id") == "" || m.Header.Get("Content-Type") != "application/cloudevents+json" || string(m.Data) != "{}" {
		t.Errorf("got %+v", m)
	}
}

// A trigger whose relay was killed waits for its lease. What no stream guards from
// a repeat, or is published in batches, has time to be deleted.
func TestALeaseOfALaneIsAsLongAsItsMessagesNeed(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	outbox := newTable()
	background(t, (&queue.Relay{Log: quiet, Conn: ready(t, s), Outbox: outbox}).Run)
	eventually(t, func() bool {
		all := 0
		outbox.do(func() { all = len(outbox.asked) })
		return all == 5
	})
	outbox.do(func() {
		for lane, want := range map[string]time.Duration{
			"trigger": 5 * time.Second, "provision": 5 * time.Second,
			"event": 20 * time.Second, "host": 20 * time.Second, "other": 20 * time.Second,
		} {
			if got := outbox.asked[lane]; got != want {
				t.Errorf("the lease of lane %s is %v, want %v", lane, got, want)
			}
		}
	})
}

func TestWhatCannotBeDeletedIsPublishedAgainAndKeptOnce(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	log := newLines()
	outbox := &undeletable{table: newTable(), fail: 2}
	outbox.put(events(0, 3)...)
	r := &queue.Relay{Log: slog.New(log), Conn: c, Outbox: outbox}
	background(t, r.Run)
	outbox.left(t, 0)
	if got := stored(t, s, "MUSTER_EVENT"); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
	if got := log.of("outbox relay interrupted"); got != 1 {
		t.Errorf("the interruption is told %d times", got)
	}
}

// undeletable is a table whose first deletions fail; leases end at once.
type undeletable struct {
	*table
	fail int
}

func (o *undeletable) Delete(ctx context.Context, ids []string) error {
	if o.fail > 0 {
		o.fail--
		o.do(func() { o.leases = map[string]time.Time{} })
		return errors.New("connection reset")
	}
	return o.table.Delete(ctx, ids)
}

func TestWhileNATSIsAwayTheRelayClaimsNothing(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	s.stop(t)
	deadline := time.Now().Add(patience)
	for c.Ready() == nil && time.Now().Before(deadline) { // until the loss has been noticed
		runtime.Gosched()
	}
	log := newLines()
	outbox := newTable()
	outbox.put(events(0, 3)...)
	r := &queue.Relay{Log: slog.New(log), Conn: c, Outbox: outbox}
	background(t, r.Run)
	for log.of("outbox relay interrupted") == 0 && time.Now().Before(deadline) {
		outbox.put()
	}
	outbox.do(func() {
		if outbox.claims != 0 {
			t.Errorf("%d claims in vain", outbox.claims)
		}
	})
	s.start(t)
	outbox.left(t, 0) // long before a lease would have ended
	if got := log.of("outbox relay interrupted"); got != 1 {
		t.Errorf("the interruption is told %d times", got)
	}
	for log.of("outbox relay works again") == 0 && time.Now().Before(deadline) {
		outbox.put()
	}
	if got := log.of("outbox relay works again"); got != 1 {
		t.Errorf("the end of it is told %d times", got)
	}
}

func TestWhileTheOutboxIsAwayTheRelayWaits(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	log := newLines()
	outbox := newTable()
	outbox.away = errors.New("connection refused")
	outbox.put(events(0, 3)...)
	r := &queue.Relay{Log: slog.New(log), Conn: ready(t, s), Outbox: outbox}
	background(t, r.Run)
	deadline := time.Now().Add(patience)
	for claims := 0; claims < 15; { // by all lanes
		outbox.do(func() { claims = outbox.claims })
		if time.Now().After(deadline) {
			t.Fatalf("%d attempts", claims)
		}
	}
	outbox.do(func() { outbox.away = nil })
	outbox.left(t, 0)
	if got := log.of("outbox relay interrupted"); got != 1 {
		t.Errorf("the interruption is told %d times", got)
	}
}

func TestOneMessageThatCannotBePublishedDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	outbox := newTable()
	all := events(0, 4)
	all[1].Body = make([]byte, 2<<20) // more than the server takes
	all[2].Subject = "nobody.keeps.this"
	outbox.put(all...)
	r := &queue.Relay{Log: quiet, Conn: c, Outbox: outbox}
	background(t, r.Run)
	outbox.left(t, 2)
	if got := stored(t, s, "MUSTER_EVENT"); got != 2 {
		t.Errorf("%d events, want 2", got)
	}
}

func TestTheRelayMakesALostStreamAnew(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	if err := admin(t, s).DeleteStream(t.Context(), "MUSTER_EVENT"); err != nil {
		t.Fatal(err)
	}
	outbox := newTable()
	outbox.put(events(0, 1)...)
	r := &queue.Relay{Log: quiet, Conn: c, Outbox: outbox}
	background(t, r.Run)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	js := admin(t, s)
	for {
		_, err := js.Stream(ctx, "MUSTER_EVENT")
		if err == nil {
			break
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Fatal(err)
		}
	}
	outbox.do(func() { outbox.leases = map[string]time.Time{} })
	outbox.left(t, 0)
}

func TestARelayWithoutItsPartsIsRefused(t *testing.T) {
	t.Parallel()
	if err := (&queue.Relay{}).Run(t.Context()); err == nil {
		t.Error("Run() = nil")
	}
}

// More triggers than a relay takes at once wait for a stream that is full: what
// is for other streams and for hosts goes out all the same, and no trigger is
// lost.
func TestAFullStreamHoldsUpNoOtherLane(t *testing.T) {
	t.Parallel()
	s := startNATS(t, smallStore(16))
	c := ready(t, s)
	js := admin(t, s)
	fill(t, js)
	var triggers []fleet.OutboxMessage
	for i := range 1000 {
		triggers = append(triggers, fleet.OutboxMessage{
			ID: fmt.Sprintf("00000000-0000-4000-9000-%012d", i), Subject: queue.TriggerSubject(fleet.JobSync, "acme"), Body: []byte("{}"),
		})
	}
	log := newLines()
	outbox := newTable()
	outbox.put(triggers...)
	background(t, (&queue.Relay{Log: slog.New(log), Conn: c, Outbox: outbox}).Run)
	eventually(t, func() bool { return log.of("outbox relay interrupted") > 0 })
	heard := make(chan struct{}, 1)
	if _, err := client(t, s).Subscribe("muster.v1.host.build-01.release", func(*nats.Msg) { heard <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	if n := stored(t, s, "MUSTER_EVENT"); n != 0 {
		t.Fatalf("%d events before there are any", n)
	}
	outbox.put(events(0, 600)...)
	outbox.put(fleet.OutboxMessage{ID: "00000000-0000-4000-a000-000000000000", Subject: "muster.v1.host.build-01.release", Body: []byte("{}")})
	outbox.left(t, 1000)
	receive(t, heard)
	if n := stored(t, s, "MUSTER_EVENT"); n != 600 {
		t.Errorf("%d events, want 600", n)
	}

	// An operator gives the stream more space.
	cfg := streamConfig(t, js, "MUSTER_TRIGGER")
	before := stored(t, s, "MUSTER_TRIGGER")
	cfg.MaxBytes += 256 << 10
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	outbox.do(func() { outbox.leases = map[string]time.Time{} })
	outbox.left(t, 0)
	if n := stored(t, s, "MUSTER_TRIGGER") - before; n != 1000 {
		t.Errorf("%d triggers went out, want all 1000", n)
	}
}
