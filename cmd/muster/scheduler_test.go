package main

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/scheduler"
)

// Three replicas tick every second on one record. However long this machine
// takes, each tick is fired by one of them, and none is left out.
func TestReplicasFireEachTickOnce(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t)
	every, err := scheduler.Parse(scheduler.Spec{
		Job: fleet.JobSync, Name: "acme", Cron: "* * * * * *", Overlap: "queue", Deadline: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	const enough = 4
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	observed := 0
	var g errgroup.Group
	for range 3 {
		replica, err := db.Open(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer replica.Close()
		s := &scheduler.Scheduler{
			Log: slog.New(slog.DiscardHandler), Store: db.Ticks{DB: replica},
			Observe: func(string, time.Duration, fleet.TickState) {
				mu.Lock()
				defer mu.Unlock()
				if observed++; observed >= enough {
					cancel()
				}
			},
		}
		g.Go(func() error {
			return s.Run(ctx, func() []scheduler.Schedule { return []scheduler.Schedule{every} }, nil)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if observed < enough {
		t.Fatalf("%d ticks in a minute", observed)
	}
	record, err := db.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer record.Close()
	found, err := record.ReadAPI(t.Context(), `
		SELECT
			(SELECT count(*) FROM api.ticks WHERE state <> 'fired' OR fired_at < tick_at) AS not_fired,
			(SELECT count(*) FROM api.ticks k FULL JOIN muster.run r USING (trigger_id)
				WHERE k.tick_at IS NULL OR r.state IS NULL) AS without_run,
			(SELECT count(*) FROM muster.run r FULL JOIN muster.outbox o ON o.id = r.trigger_id
				WHERE o.id IS NULL OR r.state IS NULL) AS without_message,
			(SELECT extract(epoch FROM max(tick_at) - min(tick_at))::integer + 1 - count(*) FROM api.ticks) AS left_out`)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range found.Rows[0] {
		if n != "0" {
			t.Errorf("%s: %s, want 0", found.Columns[i], n)
		}
	}
}
