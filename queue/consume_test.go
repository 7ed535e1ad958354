package queue_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

var syncConsumer = queue.Consumer{Durable: "muster-sync", Subjects: []string{"muster.v1.trigger.sync.*"}, Workers: 2}

// consume collects what arrives; each message gets the next verdict, and Ack
// once they are used up.
func consume(t *testing.T, c *queue.Conn, consumer queue.Consumer, verdicts ...queue.Verdict) <-chan queue.Message {
	t.Helper()
	got := make(chan queue.Message, 1000)
	var n atomic.Int64
	background(t, func(ctx context.Context) error {
		return c.Consume(ctx, consumer, func(_ context.Context, m queue.Message) queue.Verdict {
			got <- m
			if i := int(n.Add(1)); i <= len(verdicts) {
				return verdicts[i-1]
			}
			return queue.Ack()
		})
	})
	return got
}

func TestAnEmptyMessageFromAnybodyIsATrigger(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	got := consume(t, c, syncConsumer)
	if err := client(t, s).Publish("muster.v1.trigger.sync.acme", nil); err != nil {
		t.Fatal(err)
	}
	m := receive(t, got)
	if m.Subject != "muster.v1.trigger.sync.acme" || len(m.Body) != 0 || m.Source != fleet.SourceNATS || m.Claimed != "" || m.Delivered != 1 || m.At.IsZero() {
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
	got := consume(t, c, syncConsumer, queue.Retry(time.Millisecond), queue.Retry(0), queue.Term("poison\nof two lines"))
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
	settled(t, admin(t, s), syncConsumer.Durable)
}

func TestConsumeOutlivesARestartAndTheLossOfConsumerAndStream(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	got := consume(t, c, syncConsumer)
	ids := map[string]string{}
	// check sends one message after what the name says has happened.
	check := func(name string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		publish(ctx, t, s, "muster.v1.trigger.sync.acme")
		m := receive(t, got)
		// What was acknowledged before may come again, and is known then.
		for ids[m.TriggerID] != "" {
			m = receive(t, got)
		}
		ids[m.TriggerID] = name
	}
	check("the start")
	s.restart(t)
	check("a restart")
	js := admin(t, s)
	if err := js.DeleteConsumer(t.Context(), "MUSTER_TRIGGER", syncConsumer.Durable); err != nil {
		t.Fatal(err)
	}
	check("the loss of the consumer")
	if err := js.DeleteStream(t.Context(), "MUSTER_TRIGGER"); err != nil {
		t.Fatal(err)
	}
	check("the loss of the stream") // sequence 1 again, and yet another trigger
	s.restartEmpty(t)
	check("the loss of all files")
	if err := c.Ready(); err != nil {
		t.Errorf("Ready() = %v", err)
	}
}

// publish goes on until a stream has taken one message.
func publish(ctx context.Context, t *testing.T, s *natsServer, subject string) {
	t.Helper()
	js := admin(t, s)
	for {
		_, err := js.Publish(ctx, subject, nil)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("publish %s: %v", subject, err)
		}
	}
}

func TestConsumeWaitsForAServerThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	s.stop(t)
	c, err := queue.Connect(t.Context(), queue.Config{URL: s.ClientURL(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	got := consume(t, c, syncConsumer)
	s.start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	publish(ctx, t, s, "muster.v1.trigger.sync.acme")
	receive(t, got)
}

func TestALongHandlerKeepsItsMessage(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	nc := client(t, s)
	// What the consumer tells the server passes by here: +WPI is "I am at it".
	acks, err := nc.SubscribeSync("$JS.ACK.MUSTER_TRIGGER.>")
	if err != nil {
		t.Fatal(err)
	}
	said := func() string {
		t.Helper()
		m, err := acks.NextMsg(patience)
		if err != nil {
			t.Fatalf("the consumer says nothing: %v", err)
		}
		if string(m.Data) == "+ACK" && m.Reply == "" {
			t.Error("the acknowledgement asks for no confirmation")
		}
		return string(m.Data)
	}
	consumer := syncConsumer
	consumer.AckWait = 1500 * time.Millisecond
	deliveries, release := make(chan int, 10), make(chan struct{})
	background(t, func(ctx context.Context) error {
		return c.Consume(ctx, consumer, func(_ context.Context, m queue.Message) queue.Verdict {
			deliveries <- m.Delivered
			<-release
			return queue.Ack()
		})
	})
	if err := nc.Publish("muster.v1.trigger.sync.acme", nil); err != nil {
		t.Fatal(err)
	}
	for range 4 { // longer than AckWait
		if got := said(); got != "+WPI" {
			t.Errorf("the consumer says %q", got)
		}
	}
	close(release)
	for got := said(); got != "+ACK"; got = said() {
		if got != "+WPI" {
			t.Errorf("the consumer says %q", got)
		}
	}
	if got := receive(t, deliveries); got != 1 || len(deliveries) != 0 {
		t.Errorf("delivery %d, and %d more", got, len(deliveries))
	}
}

func TestWorkersBoundWhatRunsAtOnceAndNothingIsTakenAhead(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	nc := client(t, s)
	began, release := make(chan struct{}, 10), make(chan struct{})
	background(t, func(ctx context.Context) error {
		return c.Consume(ctx, syncConsumer, func(context.Context, queue.Message) queue.Verdict {
			began <- struct{}{}
			<-release
			return queue.Ack()
		})
	})
	for range 5 {
		if err := nc.Publish("muster.v1.trigger.sync.acme", nil); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, began)
	receive(t, began)
	// The server still has the other three, for whoever is free.
	wait(t, admin(t, s), syncConsumer.Durable, func(info *jetstream.ConsumerInfo) bool {
		return info.NumPending == 3 && info.NumAckPending == 2 && info.NumWaiting == 0
	})
	close(release)
	for range 3 {
		receive(t, began)
	}
	settled(t, admin(t, s), syncConsumer.Durable)
}

func TestStoppingConsumeWaitsForTheRunningHandlerAndTakesNothingNew(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	nc, js := client(t, s), admin(t, s)
	began, release, stopped := make(chan struct{}, 10), make(chan struct{}), make(chan struct{})
	stopping := make(chan struct{})
	stop := background(t, func(ctx context.Context) error {
		defer close(stopped)
		context.AfterFunc(ctx, func() { close(stopping) })
		return c.Consume(ctx, syncConsumer, func(ctx context.Context, _ queue.Message) queue.Verdict {
			began <- struct{}{}
			<-release
			if ctx.Err() != nil {
				t.Error("the handler's context ended with the consumer's")
			}
			return queue.Ack()
		})
	})
	if err := nc.Publish("muster.v1.trigger.sync.acme", nil); err != nil {
		t.Fatal(err)
	}
	receive(t, began)
	go func() { _ = stop() }() // its error is the cleanup's to report
	receive(t, stopping)
	wait(t, js, syncConsumer.Durable, func(info *jetstream.ConsumerInfo) bool { return info.NumWaiting == 0 })
	if err := nc.Publish("muster.v1.trigger.sync.octo", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-stopped:
		t.Error("stopped with a handler running")
	default:
	}
	close(release)
	receive(t, stopped)
	wait(t, js, syncConsumer.Durable, func(info *jetstream.ConsumerInfo) bool { return info.NumPending == 1 && info.NumAckPending == 0 })
	if len(began) != 0 {
		t.Error("a new message was taken")
	}
}

func TestConsumeEndsWithItsConnectionAndRefusesAConsumerWithoutAName(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c, err := queue.Connect(t.Context(), queue.Config{URL: s.ClientURL(), Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	handle := func(context.Context, queue.Message) queue.Verdict { return queue.Ack() }
	if err := c.Consume(t.Context(), queue.Consumer{Durable: "x"}, handle); err == nil {
		t.Error("a consumer of nothing is accepted")
	}
	if err := c.Consume(t.Context(), queue.Consumer{Subjects: []string{"muster.v1.trigger.>"}}, handle); err == nil {
		t.Error("a consumer without a name is accepted")
	}
	done := make(chan error, 1)
	go func() { done <- c.Consume(context.Background(), syncConsumer, handle) }()
	wait(t, admin(t, s), syncConsumer.Durable, func(info *jetstream.ConsumerInfo) bool { return info.NumWaiting > 0 })
	c.Close()
	if err := receive(t, done); err == nil {
		t.Error("Consume() = nil on a closed connection")
	}
}

func TestAConsumerOfAnotherShapeIsBroughtIntoOurs(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c, js := ready(t, s), admin(t, s)
	if _, err := js.CreateConsumer(t.Context(), "MUSTER_TRIGGER", jetstream.ConsumerConfig{
		Durable: syncConsumer.Durable, FilterSubject: "muster.v1.trigger.old.*", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 3, MaxAckPending: 1,
	}); err != nil {
		t.Fatal(err)
	}
	consume(t, c, syncConsumer)
	wait(t, js, syncConsumer.Durable, func(info *jetstream.ConsumerInfo) bool {
		is := info.Config
		return slices.Equal(is.FilterSubjects, syncConsumer.Subjects) && is.MaxDeliver == -1 && is.MaxAckPending == -1 && is.AckWait == 30*time.Second
	})
}

// settled waits until the consumer has nothing left to deliver or to hear of.
func settled(t *testing.T, js jetstream.JetStream, durable string) {
	t.Helper()
	wait(t, js, durable, func(info *jetstream.ConsumerInfo) bool { return info.NumPending == 0 && info.NumAckPending == 0 })
}

// wait asks the server about the consumer until the answer is as wanted.
func wait(t *testing.T, js jetstream.JetStream, durable string, wanted func(*jetstream.ConsumerInfo) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last any
	for {
		consumer, err := js.Consumer(ctx, "MUSTER_TRIGGER", durable)
		switch {
		case err == nil && wanted(consumer.CachedInfo()):
			return
		case err == nil:
			last = consumer.CachedInfo()
		case !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound):
			t.Fatalf("consumer %s: %v; last seen as %+v", durable, err, last)
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
