package queue_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

var syncConsumer = queue.Consumer{Durable: "muster-sync", Subjects: []string{"muster.v1.trigger.sync.*"}, Workers: 2}

// consume collects what arrives; each message gets the next verdict, and Ack
// once they are used up.
func consume(t *testing.T, c *queue.Conn, consumer queue.Consumer, verdicts ...queue.Verdict) (<-chan queue.Message, func() error) {
	t.Helper()
	got := make(chan queue.Message, 1000)
	var n atomic.Int64
	stop := background(t, func(ctx context.Context) error {
		return c.Consume(ctx, consumer, func(_ context.Context, m queue.Message) queue.Verdict {
			got <- m
			if i := int(n.Add(1)); i <= len(verdicts) {
				return verdicts[i-1]
			}
			return queue.Ack()
		})
	})
	return got, stop
}

func TestAnEmptyMessageFromAnybodyIsATrigger(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	got, _ := consume(t, c, syncConsumer)
	if err := client(t, s).Publish("muster.v1.trigger.sync.acme", nil); err != nil {
		t.Fatal(err)
	}
	m := receive(t, got)
	if m.Subject != "muster.v1.trigger.sync.acme" || len(m.Body) != 0 || m.Source != fleet.SourceNATS || m.FromOutbox || m.Delivered != 1 || m.At.IsZero() {
		t.Errorf("got %+v", m)
	}
	if _, err := uuid.Parse(m.TriggerID); err != nil {
		t.Errorf("trigger id %q: %v", m.TriggerID, err)
	}
}

func TestRetryComesBackWithTheSameIDAndTermNever(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	got, _ := consume(t, c, syncConsumer, queue.Retry(time.Millisecond), queue.Retry(0), queue.Term("poison\nof two lines"))
	nc := client(t, s)
	if err := nc.Publish("muster.v1.trigger.sync.acme", nil); err != nil {
		t.Fatal(err)
	}
	first, second, third := receive(t, got), receive(t, got), receive(t, got)
	if first.TriggerID != second.TriggerID || second.TriggerID != third.TriggerID {
		t.Errorf("trigger ids %s, %s, %s: want one", first.TriggerID, second.TriggerID, third.TriggerID)
	}
	if third.Delivered != 3 {
		t.Errorf("third delivery says %d", third.Delivered)
	}
	// The next message is the next to come: the terminated one has not.
	if err := nc.Publish("muster.v1.trigger.sync.other", nil); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, got); m.Subject != "muster.v1.trigger.sync.other" || m.TriggerID == first.TriggerID {
		t.Errorf("got %+v", m)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	settled(t, js, syncConsumer.Durable)
}

// settled waits until the consumer has nothing left to deliver or to hear of.
func settled(t *testing.T, js jetstream.JetStream, durable string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		consumer, err := js.Consumer(ctx, "MUSTER_TRIGGER", durable)
		if err != nil {
			t.Fatalf("consumer %s: %v", durable, err)
		}
		if info := consumer.CachedInfo(); info.NumPending == 0 && info.NumAckPending == 0 {
			return
		}
	}
}

func publishWithID(t *testing.T, nc *nats.Conn, subject, msgID string, more nats.Header) {
	t.Helper()
	m := nats.NewMsg(subject)
	m.Header = nats.Header{nats.MsgIdHdr: {msgID}}
	for k, v := range more {
		m.Header[k] = v
	}
	if err := nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
}
