package main

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/standalone"
	"github.com/muster-fleet/muster/queue"
)

// largeOutbox is how many events wait when the benchmark's trigger comes.
const largeOutbox = 300_000

// BenchmarkLargeOutbox has a relay drain an outbox of 300,000 events, on a real
// Postgres and a real NATS, and queues a trigger behind all of them. It reports
// how long the trigger takes to its stream, and how many rows go out in a second.
func BenchmarkLargeOutbox(b *testing.B) {
	nats, err := standalone.StartNATS(b.Context(), standalone.NATSConfig{Listen: "127.0.0.1:0", StoreDir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nats.Stop)
	conn, err := queue.Connect(b.Context(), queue.Config{URL: nats.URL(), InProcess: nats.Server(), Name: b.Name(), Log: slog.New(slog.DiscardHandler)})
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
	var trigger, drained time.Duration
	rounds := 0
	for b.Loop() {
		b.StopTimer()
		fill(b, record)
		b.StartTimer()
		first, all := drain(b, record, conn)
		trigger, drained = trigger+first, drained+all
		rounds++
	}
	b.ReportMetric(trigger.Seconds()/float64(rounds), "s-to-trigger")
	b.ReportMetric(float64(rounds*largeOutbox)/drained.Seconds(), "rows/s")
}

// fill puts the events into the outbox.
func fill(b *testing.B, record *db.DB) {
	b.Helper()
	event := fleet.OutboxMessage{Subject: queue.EventSubject("runner.online"), Body: []byte(`{"data":"a runner that came online, told in some three hundred bytes"}`)}
	for at := 0; at < largeOutbox; at += 50_000 {
		messages := make([]fleet.OutboxMessage, 50_000)
		for i := range messages {
			messages[i] = event
		}
		err := record.InTx(b.Context(), func(tx *db.Tx) error { return tx.Enqueue(b.Context(), messages...) })
		if err != nil {
			b.Fatal(err)
		}
	}
}

// drain has a relay empty the outbox and returns when a trigger that was queued
// last, and when everything, was out.
func drain(b *testing.B, record *db.DB, conn *queue.Conn) (trigger, all time.Duration) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	began := time.Now()
	err := record.InTx(ctx, func(tx *db.Tx) error {
		return tx.Queue(ctx, fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCron})
	})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	relay := &queue.Relay{Log: slog.New(slog.DiscardHandler), Conn: conn, Outbox: db.Outbox{DB: record}}
	go func() { done <- relay.Run(ctx) }()
	left := func(lane string) string {
		found, err := record.ReadAPI(ctx, `SELECT count(*) FROM (SELECT FROM muster.outbox WHERE lane = '`+lane+`' LIMIT 1) x`)
		if err != nil {
			b.Fatal(err)
		}
		return found.Rows[0][0]
	}
	for left("trigger") != "0" {
		time.Sleep(10 * time.Millisecond)
	}
	trigger = time.Since(began)
	for left("event") != "0" {
		time.Sleep(100 * time.Millisecond)
	}
	all = time.Since(began)
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return trigger, all
}
