package db_test

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

const hourly = "sync/acme"

func (w *world) fire(at time.Time, skip bool) (fleet.Tick, fleet.Trigger, bool) {
	w.Helper()
	tr := trigger()
	tr.Source, tr.Reason = fleet.SourceCron, ""
	tick := fleet.Tick{Schedule: hourly, At: at, State: fleet.TickFired, TriggerID: tr.ID}
	recorded, won, err := db.Ticks{DB: w.db}.Fire(w.ctx, tick, tr, skip)
	if err != nil {
		w.Fatal(err)
	}
	return recorded, tr, won
}

func TestEightFireOneTick(t *testing.T) {
	t.Parallel()
	for _, skip := range []bool{false, true} {
		w := newWorld(t)
		var wins, skips int
		var mu sync.Mutex
		var g errgroup.Group
		for range 8 {
			g.Go(func() error {
				tr := trigger()
				tick, won, err := db.Ticks{DB: w.db}.Fire(w.ctx, fleet.Tick{Schedule: hourly, At: t0}, tr, skip)
				mu.Lock()
				defer mu.Unlock()
				if won {
					wins++
				}
				if won && tick.State != fleet.TickFired {
					skips++
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if wins != 1 || skips != 0 {
			t.Errorf("%d won, %d of them skipped, want 1 and 0", wins, skips)
		}
		w.want("1 1 1", `
			SELECT concat_ws(' ', (SELECT count(*) FROM muster.tick), (SELECT count(*) FROM muster.run), (SELECT count(*) FROM muster.outbox))`)
		w.want("true", `
			SELECT k.trigger_id = r.trigger_id AND o.id = r.trigger_id AND o.subject = 'muster.v1.trigger.sync.acme'
			FROM muster.tick k, muster.run r, muster.outbox o`)
	}
}

func TestFiredTickTellsWhen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tick, tr, won := w.fire(t0, false)
	if !won || tick.State != fleet.TickFired || tick.TriggerID != tr.ID || tick.FiredAt.Before(t0) {
		t.Errorf("Fire = %+v, %v", tick, won)
	}
	w.want("true", `SELECT fired_at = $1 AND fired_at > clock_timestamp() - interval '1 hour' FROM api.ticks`, tick.FiredAt)
	if _, _, won := w.fire(t0, false); won {
		t.Error("a tick fired twice")
	}
}

func TestTickIsSkippedWhileTheRunBeforeGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := db.Runs{DB: w.db}
	states := func(want string) {
		t.Helper()
		w.want(want, `SELECT string_agg(state, ' ' ORDER BY tick_at) FROM api.ticks`)
	}
	_, tr, _ := w.fire(t0, true)
	if tick, _, won := w.fire(t0.Add(time.Hour), true); !won || tick.State != fleet.TickSkipped || tick.TriggerID != "" || !tick.FiredAt.IsZero() {
		t.Errorf("Fire while the run is queued = %+v, %v, want skipped", tick, won)
	}
	run := w.started(tr, time.Hour, 1)
	w.fire(t0.Add(2*time.Hour), true)
	states("fired skipped skipped")

	w.fire(t0.Add(3*time.Hour), false) // overlap: queue
	states("fired skipped skipped fired")
	w.exec(`DELETE FROM muster.run WHERE trigger_id <> $1`, tr.ID)

	// Another job, or another name, is another matter.
	other := trigger()
	other.Name = "widgets"
	if _, won, err := (db.Ticks{DB: w.db}).Fire(w.ctx, fleet.Tick{Schedule: "sync/widgets", At: t0}, other, true); err != nil || !won {
		t.Errorf("Fire of another name = %v, %v", won, err)
	}
	w.want("fired", `SELECT state FROM api.ticks WHERE schedule = 'sync/widgets'`)

	// A process that died does not hold up the schedule for ever.
	w.exec(`UPDATE muster.run SET lease_until = clock_timestamp() - interval '1 s' WHERE trigger_id = $1`, tr.ID)
	if tick, _, _ := w.fire(t0.Add(4*time.Hour), true); tick.State != fleet.TickFired {
		t.Errorf("Fire after the lease = %+v, want fired", tick)
	}
	w.exec(`UPDATE muster.run SET queued_at = queued_at - interval '2 hours'`)
	if tick, _, _ := w.fire(t0.Add(5*time.Hour), true); tick.State != fleet.TickFired {
		t.Errorf("Fire behind a trigger that was lost = %+v, want fired", tick)
	}
	run.State = fleet.RunDone
	if err := runs.Finish(w.ctx, run); err != nil {
		t.Fatal(err)
	}
	w.want("3", `SELECT count(*) FROM api.ticks WHERE fired_at IS NULL OR trigger_id IS NULL OR state = 'fired' AND schedule <> $1`, hourly)
}

func TestTickTakesThePlaceOfARunThatFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fail := func(tr fleet.Trigger) {
		t.Helper()
		run := w.started(tr, time.Minute, 1)
		run.State, run.Error = fleet.RunFailed, "GitHub is away"
		if err := (db.Runs{DB: w.db}).Finish(w.ctx, run); err != nil {
			t.Fatal(err)
		}
	}
	_, old, _ := w.fire(t0, true)
	fail(old)
	asked := trigger() // by a person, who wants to hear how it ends
	fail(asked)
	widgets := trigger()
	widgets.Name, widgets.Source = "widgets", fleet.SourceCron
	fail(widgets)
	other := trigger()
	other.Job, other.Source = fleet.JobEnforce, fleet.SourceCron
	fail(other)

	w.fire(t0.Add(time.Hour), false) // overlap: queue
	w.want("failed", `SELECT state FROM muster.run WHERE trigger_id = $1`, old.ID)
	w.exec(`DELETE FROM muster.run WHERE state = 'queued'`)

	tick, next, won := w.fire(t0.Add(2*time.Hour), true)
	if !won || tick.State != fleet.TickFired {
		t.Errorf("Fire while a run waits to be tried again = %+v, %v, want fired", tick, won)
	}
	w.want("done superseded by trigger "+next.ID+", after: GitHub is away", `
		SELECT state || ' ' || error FROM muster.run WHERE trigger_id = $1`, old.ID)
	if b := w.begin(old, time.Minute); b.Disposition != fleet.DispositionFinished {
		t.Errorf("Begin of what was superseded = %+v", b)
	}
	w.want("3", `SELECT count(*) FROM muster.run WHERE state = 'failed'`)
	w.started(next, time.Minute, 1)
}

func TestMissedTicksAreNotedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ticks := db.Ticks{DB: w.db}
	w.fire(t0, false)
	missed := []fleet.Tick{
		{Schedule: hourly, At: t0}, // another replica was there after all
		{Schedule: hourly, At: t0.Add(time.Hour)},
		{Schedule: hourly, At: t0.Add(2 * time.Hour)},
		{Schedule: "enforce/acme", At: t0},
	}
	for range 2 {
		if err := ticks.Miss(w.ctx, missed); err != nil {
			t.Fatal(err)
		}
	}
	if err := ticks.Miss(w.ctx, nil); err != nil {
		t.Error(err)
	}
	w.want("enforce/acme missed, sync/acme fired, sync/acme missed, sync/acme missed", `
		SELECT string_agg(schedule || ' ' || state, ', ' ORDER BY schedule, tick_at) FROM api.ticks`)
	w.want("enforce/acme 1 2026-03-01T12:00:00Z 2026-03-01T12:00:00Z, sync/acme 2 2026-03-01T13:00:00Z 2026-03-01T14:00:00Z", `
		SELECT string_agg(concat_ws(' ', d->>'schedule', d->>'ticks', d->>'tick_at', d->>'last_tick_at'), ', ' ORDER BY d->>'schedule')
		FROM (SELECT payload->'details' AS d FROM api.audit WHERE code = 'CR401W' AND outcome = 'noted') x`)
}

func TestAnchor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	anchor := func(sha string) time.Time {
		t.Helper()
		at, err := db.Ticks{DB: w.db}.Anchor(w.ctx, hourly, sha)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	first := anchor("one")
	w.want("true", `SELECT $1::timestamptz BETWEEN clock_timestamp() - interval '1 hour' AND clock_timestamp()`, first)
	if again := anchor("one"); !again.Equal(first) {
		t.Errorf("the same text was anchored at %v, then at %v", first, again)
	}
	w.fire(first.Add(-time.Hour), false)
	if again := anchor("one"); !again.Equal(first) {
		t.Errorf("a tick before the anchor moved it to %v", again)
	}
	w.exec(`UPDATE muster.schedule SET anchored_at = anchored_at - interval '2 hours'`)
	newest := first.Add(-time.Hour)
	w.fire(newest, false)
	if again := anchor("one"); !again.Equal(newest) {
		t.Errorf("ticks are due after %v, want after the newest one, %v", again, newest)
	}
	w.exec(`DELETE FROM muster.tick`)
	if changed := anchor("two"); !changed.After(first) {
		t.Errorf("a changed text was anchored at %v, want a later time than %v", changed, first)
	}
}

func TestAnchorOfEightIsOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := make([]time.Time, 8)
	var g errgroup.Group
	for i := range at {
		g.Go(func() error {
			var err error
			at[i], err = db.Ticks{DB: w.db}.Anchor(w.ctx, hourly, "one")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, a := range at {
		if !a.Equal(at[0]) {
			t.Errorf("anchors %v differ", at)
			break
		}
	}
}
