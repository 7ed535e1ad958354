package main

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/clock"
	"github.com/muster-fleet/muster/scheduler"
)

// aheadTicks is a record of ticks whose clock is ahead by that much.
type aheadTicks struct {
	db.Ticks
	by atomic.Int64
}

func (t *aheadTicks) Now(ctx context.Context) (time.Time, error) {
	now, err := t.Ticks.Now(ctx)
	return now.Add(time.Duration(t.by.Load())), err
}

// A clock that was ten minutes ahead for a moment stops cron neither for the
// process that saw it nor for one that starts afterwards.
func TestCronGoesOnAfterAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	record, err := db.Open(t.Context(), dbtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer record.Close()
	schedule, err := scheduler.Parse(scheduler.Spec{
		Job: fleet.JobSync, Name: "acme", Cron: "* * * * * *", Overlap: "queue", Deadline: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ticks := &aheadTicks{Ticks: db.Ticks{DB: record}}
	// serve ticks until a tick has fired, which it returns.
	fired := make(chan struct{}, 10_000)
	serve := func(t *testing.T, while func()) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s := &scheduler.Scheduler{Log: slog.New(slog.DiscardHandler), Store: ticks,
			Observe: func(_ string, _ time.Duration, state fleet.TickState) {
				if state == fleet.TickFired {
					fired <- struct{}{}
				}
			}}
		changed := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func() []scheduler.Schedule { return []scheduler.Schedule{schedule} }, changed)
		}()
		select {
		case <-fired:
		case <-ctx.Done():
			t.Fatal("no tick fires")
		}
		if while != nil {
			while()
			changed <- struct{}{} // it looks at once
			for len(fired) > 0 {
				<-fired
			}
			select {
			case <-fired:
			case <-ctx.Done():
				t.Error("no tick fires any more")
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	var elapsed time.Duration
	watch := &clock.Watch{
		Log: slog.New(slog.DiscardHandler), Record: db.Clock{DB: record, Now: ticks.Now},
		Elapsed: func() time.Duration { return elapsed },
	}
	look := func() {
		t.Helper()
		for range 2 {
			if _, err := watch.Look(t.Context()); err != nil {
				t.Error(err)
			}
			elapsed += 5 * time.Second
		}
	}
	serve(t, func() { // ahead, and back in the same life
		ticks.by.Store(int64(10 * time.Minute))
		<-fired
		<-fired
		look()
		ticks.by.Store(0)
		look()
	})
	ticks.by.Store(int64(20 * time.Minute))
	serve(t, nil)
	look()
	ticks.by.Store(0)
	look()
	serve(t, nil) // in another life
}

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
