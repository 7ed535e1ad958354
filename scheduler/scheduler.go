package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// maxSleep bounds what a step of the clock or a suspended machine can
	// delay.
	maxSleep = 15 * time.Second
	// minSleep keeps two clocks that differ a little from making it spin.
	minSleep = 5 * time.Millisecond
	// stepTimeout bounds one round over all schedules.
	stepTimeout = 30 * time.Second
	retryBase   = 500 * time.Millisecond
)

// Store is the record of ticks.
type Store interface {
	// Now is the store's clock: the only one that counts, so that replicas
	// cannot disagree about it.
	Now(ctx context.Context) (time.Time, error)
	// Anchor registers the schedule and returns the time after which its ticks
	// count: its last recorded tick, or when this spec was first seen, whichever
	// is later. A changed spec is anchored anew, at the store's now. The anchor
	// is never later than the store's now: what was recorded while the clock was
	// ahead stops nothing.
	Anchor(ctx context.Context, schedule, specSHA256 string) (time.Time, error)
	// Fire records the tick and, in the same transaction, queues the run and
	// puts its trigger into the outbox. With skipIfRunning a tick whose run
	// before is not over is recorded as skipped instead. The tick comes back
	// as recorded; false says that it had been recorded before, by another
	// replica, and nothing was done.
	Fire(ctx context.Context, tick fleet.Tick, trigger fleet.Trigger, skipIfRunning bool) (fleet.Tick, bool, error)
	// Miss records ticks as missed, with one audit event for those that were
	// not recorded before.
	Miss(ctx context.Context, ticks []fleet.Tick) error
}

// Scheduler fires what is due. Any number of replicas may run on one store.
type Scheduler struct {
	Log   *slog.Logger
	Store Store
	// Observe is told of each tick that this replica fired or skipped, and how
	// late; nil: nobody is.
	Observe func(schedule string, lateness time.Duration, state fleet.TickState)
}

// Run fires the schedules until ctx ends, and returns nil then. It asks for
// the current set in each round; a receive from changed says that the set is
// another one, and is optional. While the store is away it waits and says so
// once.
func (s *Scheduler) Run(ctx context.Context, schedules func() []Schedule, changed <-chan struct{}) error {
	if s.Log == nil || s.Store == nil || schedules == nil {
		return errors.New("scheduler: Log, Store and schedules are needed")
	}
	r := round{scheduler: s, known: map[string]cursor{}}
	failing := false
	retry := retryBase
	for {
		sleep, err := r.step(ctx, schedules())
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if !failing {
				s.Log.WarnContext(ctx, "scheduler interrupted", "err", err)
			}
			sleep = retry/2 + rand.N(retry/2)
			retry = min(2*retry, maxSleep)
		} else {
			if failing {
				s.Log.InfoContext(ctx, "scheduler works again")
			}
			retry = retryBase
		}
		failing = err != nil
		timer := time.NewTimer(sleep)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// cursor is how far this process has come with a schedule.
type cursor struct {
	sha256 string
	after  time.Time
}

// round is what Run remembers between rounds. Ticks are unique in the store,
// so nothing is fired twice where the memory lags behind it.
type round struct {
	scheduler *Scheduler
	known     map[string]cursor
}

// step fires what is due now and returns how long nothing will be.
func (r *round) step(ctx context.Context, schedules []Schedule) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	now, err := r.scheduler.Store.Now(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	read := time.Now()
	r.forget(schedules)
	next := now.Add(maxSleep)
	var faults []error
	for _, schedule := range schedules {
		at, err := r.advance(ctx, schedule, now)
		if err != nil {
			faults = append(faults, fmt.Errorf("schedule %s: %w", schedule.ID(), err))
			continue // one bad schedule must not stop the others
		}
		if at.Before(next) {
			next = at
		}
	}
	return max(next.Sub(now)-time.Since(read), minSleep), errors.Join(faults...)
}

// forget drops schedules that are gone: should one come back, the store knows
// when it was last fired.
func (r *round) forget(schedules []Schedule) {
	current := make(map[string]bool, len(schedules))
	for _, schedule := range schedules {
		current[schedule.ID()] = true
	}
	for id := range r.known {
		if !current[id] {
			delete(r.known, id)
		}
	}
}

// advance deals with one schedule's due ticks and returns when the next one
// comes.
func (r *round) advance(ctx context.Context, schedule Schedule, now time.Time) (time.Time, error) {
	at, known := r.known[schedule.ID()]
	// A cursor that is later than now was set while the clock was ahead.
	if !known || at.sha256 != schedule.SHA256() || at.after.After(now) {
		after, err := r.scheduler.Store.Anchor(ctx, schedule.ID(), schedule.SHA256())
		if err != nil {
			return time.Time{}, fmt.Errorf("anchor: %w", err)
		}
		at = cursor{schedule.SHA256(), after}
		r.known[schedule.ID()] = at
	}
	for {
		decisions, more := due(schedule, at.after, now)
		if err := r.scheduler.carryOut(ctx, schedule, decisions, now); err != nil {
			return time.Time{}, err
		}
		if n := len(decisions); n > 0 {
			at.after = decisions[n-1].tick
			r.known[schedule.ID()] = at
		}
		if !more {
			return schedule.fireAt(schedule.Next(at.after)), nil
		}
	}
}

// carryOut records the decisions: first what was missed, so that the newest
// row of the schedule tells of its newest tick at any time.
func (s *Scheduler) carryOut(ctx context.Context, schedule Schedule, decisions []decision, now time.Time) error {
	var missed []fleet.Tick
	for _, d := range decisions {
		if !d.fire {
			missed = append(missed, fleet.Tick{Schedule: schedule.ID(), At: d.tick, State: fleet.TickMissed})
		}
	}
	if len(missed) > 0 {
		if err := s.Store.Miss(ctx, missed); err != nil {
			return fmt.Errorf("record %d missed ticks: %w", len(missed), err)
		}
		s.Log.WarnContext(ctx, "ticks missed", "schedule", schedule.ID(), "count", len(missed),
			"first", missed[0].At, "last", missed[len(missed)-1].At)
	}
	for _, d := range decisions {
		if !d.fire {
			continue
		}
		// Not made from the tick: a tick that was recorded while the clock was
		// ahead comes again, and wants a run of its own.
		trigger := fleet.Trigger{
			ID: uuid.NewString(), Job: schedule.spec.Job, Name: schedule.spec.Name, Source: fleet.SourceCron,
		}
		tick := fleet.Tick{Schedule: schedule.ID(), At: d.tick, State: fleet.TickFired, TriggerID: trigger.ID}
		recorded, won, err := s.Store.Fire(ctx, tick, trigger, schedule.spec.Overlap == overlapSkip)
		if err != nil {
			return fmt.Errorf("fire tick %s: %w", d.tick.Format(time.RFC3339), err)
		}
		if won && s.Observe != nil {
			s.Observe(schedule.ID(), now.Sub(schedule.fireAt(d.tick)), recorded.State)
		}
	}
	return nil
}
