package queue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/queue"
)

// publishMany publishes so many triggers, each with its number as body.
func publishMany(t *testing.T, s *natsServer, n int) {
	t.Helper()
	nc := client(t, s)
	for i := range n {
		if err := nc.Publish("muster.v1.trigger.sync.acme", []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	// They are in the stream before anybody asks for them.
	eventually(t, func() bool { return stored(t, s, "MUSTER_TRIGGER") == uint64(n) })
}

// together consumes with one worker. Single messages are acknowledged.
func together(t *testing.T, c *queue.Conn, consumer queue.Consumer, handle func(*queue.Batch)) <-chan queue.Message {
	t.Helper()
	consumer.Workers = 1
	single := make(chan queue.Message, 1000)
	background(t, func(ctx context.Context) error {
		one := func(_ context.Context, m queue.Message) queue.Verdict {
			single <- m
			return queue.Ack()
		}
		return c.ConsumeTogether(ctx, consumer, one, func(_ context.Context, b *queue.Batch) { handle(b) })
	})
	return single
}

func TestWhatWaitsIsTakenTogetherAndSettledByVerdict(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	publishMany(t, s, 60)
	sizes := make(chan int, 100)
	ids := make(map[string]int)
	single := together(t, c, syncConsumer, func(b *queue.Batch) {
		sizes <- len(b.Messages)
		for i, m := range b.Messages {
			ids[m.TriggerID]++
			switch i {
			case 3:
				b.Settle(t.Context(), queue.Retry(time.Millisecond), i)
			case 4:
				b.Settle(t.Context(), queue.Term("poison"), i)
				b.Settle(t.Context(), queue.Retry(0), i) // is ignored
			case 5: // is never settled
			default:
				b.Settle(t.Context(), queue.Ack(), i)
			}
		}
	})
	if n := receive(t, sizes); n != 60 {
		t.Fatalf("%d messages were taken together, want all 60", n)
	}
	again := map[string]bool{}
	for range 2 {
		m := receive(t, single)
		if m.Delivered != 2 || ids[m.TriggerID] != 1 {
			t.Errorf("message %s comes alone: %+v", m.Body, m)
		}
		again[string(m.Body)] = true
	}
	if !again["3"] || !again["5"] {
		t.Errorf("messages %v came again, want 3 and 5", again)
	}
	settled(t, admin(t, s), syncConsumer.Durable)
	if len(sizes) != 0 || len(single) != 0 {
		t.Errorf("%d more batches and %d more messages came", len(sizes), len(single))
	}
}

func TestManyAreAcknowledgedAtOnce(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	publishMany(t, s, 1200)
	sizes := make(chan int, 100)
	single := together(t, c, syncConsumer, func(b *queue.Batch) {
		sizes <- len(b.Messages)
		all := make([]int, len(b.Messages))
		for i := range all {
			all[i] = i
		}
		b.Settle(t.Context(), queue.Ack(), all...)
	})
	for _, want := range []int{500, 500, 200} {
		if n := receive(t, sizes); n != want {
			t.Errorf("%d messages were taken together, want %d", n, want)
		}
	}
	settled(t, admin(t, s), syncConsumer.Durable)
	if len(sizes) != 0 || len(single) != 0 {
		t.Errorf("%d more batches and %d single messages came", len(sizes), len(single))
	}
}

// Few messages go to whoever is free: one worker must not keep them from others.
func TestFewAreTakenOneByOne(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	publishMany(t, s, 12)
	single := together(t, c, syncConsumer, func(b *queue.Batch) {
		t.Errorf("%d messages were taken together", len(b.Messages))
	})
	for i := range 12 {
		if m := receive(t, single); string(m.Body) != fmt.Sprint(i) {
			t.Errorf("message %s, want %d", m.Body, i)
		}
	}
}

// Before a handler begins something long it gives the others back, and keeps the
// one alive that it works on.
func TestWhatIsGivenBackComesAtOnceAndWhatIsKeptStays(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	publishMany(t, s, 30)
	acks, err := client(t, s).SubscribeSync("$JS.ACK.MUSTER_TRIGGER.>")
	if err != nil {
		t.Fatal(err)
	}
	consumer := syncConsumer
	consumer.AckWait = 1500 * time.Millisecond
	held, release := make(chan struct{}), make(chan struct{})
	batches := 0
	first := together(t, c, consumer, func(b *queue.Batch) {
		batches++
		b.GiveBack(7)
		close(held)
		<-release
		b.Settle(t.Context(), queue.Ack(), 7)
	})
	receive(t, held)
	js := admin(t, s)
	second := consume(t, c, consumer) // another replica
	bodies := map[string]bool{}
	for range 29 {
		m := receive(t, second)
		bodies[string(m.Body)] = true
	}
	if len(bodies) != 29 || bodies["7"] {
		t.Errorf("%d messages were given back: %v", len(bodies), bodies)
	}
	for alive := 0; alive < 4; { // longer than AckWait
		m, err := acks.NextMsg(patience)
		if err != nil {
			t.Fatalf("the one that is kept is not kept alive: %v", err)
		}
		if string(m.Data) == "+WPI" {
			alive++
		}
	}
	wait(t, js, consumer.Durable, func(info *jetstream.ConsumerInfo) bool { return info.NumAckPending == 1 })
	close(release)
	settled(t, js, consumer.Durable)
	if batches != 1 || len(first) != 0 || len(second) != 0 {
		t.Errorf("%d batches, and %d messages more", batches, len(first)+len(second))
	}
}
