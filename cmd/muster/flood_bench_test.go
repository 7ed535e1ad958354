package main

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/standalone"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker"
)

// floodSize is how many triggers of one target wait before another target's one.
const floodSize = 20_000

// BenchmarkFloodOfTriggers has an engine take in 20,000 triggers of a target whose
// run takes long, on a real Postgres and a real NATS. It reports how long another
// target's trigger, which comes last, takes to its run.
func BenchmarkFloodOfTriggers(b *testing.B) {
	server, err := standalone.StartNATS(b.Context(), standalone.NATSConfig{Listen: "127.0.0.1:0", StoreDir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Stop)
	conn, err := queue.Connect(b.Context(), queue.Config{URL: server.URL(), InProcess: server.Server(), Name: b.Name(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	if err := conn.EnsureStreams(b.Context()); err != nil {
		b.Fatal(err)
	}
	record, err := db.Open(b.Context(), dbtest.URL(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(record.Close)
	client, err := nats.Connect(server.URL())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)

	began := make(chan struct{}, 1)
	release := make(chan struct{})
	engine := &worker.Engine{
		Log: slog.New(slog.DiscardHandler), Conn: conn, Recorder: db.Runs{DB: record},
		Handlers: map[fleet.Job]worker.Handler{fleet.JobSync: heldUp{began, release}},
		Names:    func(fleet.Job) []string { return []string{"acme", "widgets"} },
	}
	var taken time.Duration
	rounds := 0
	for b.Loop() {
		b.StopTimer()
		for range floodSize {
			if err := client.Publish("muster.v1.trigger.sync.acme", nil); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := client.Request("muster.v1.trigger.sync.widgets", nil, time.Minute); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()

		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- engine.Run(ctx) }()
		<-began
		taken += time.Since(start)
		rounds++

		b.StopTimer()
		close(release)
		cancel()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(taken.Seconds()/float64(rounds), "s-to-other")
}

// heldUp is a job whose runs for acme take until the release.
type heldUp struct {
	began   chan<- struct{}
	release <-chan struct{}
}

func (h heldUp) Handle(ctx context.Context, t fleet.Trigger) (fleet.Counts, error) {
	if t.Name == "widgets" {
		h.began <- struct{}{}
		return nil, nil
	}
	select {
	case <-h.release:
	case <-ctx.Done():
	}
	return nil, nil
}
