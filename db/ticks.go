package db

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Ticks records the due moments of schedules: the store of the scheduler.
type Ticks struct{ DB *DB }

// Now is Postgres's clock, so that replicas with other clocks agree on what is
// due.
func (t Ticks) Now(ctx context.Context) (time.Time, error) { return t.DB.Now(ctx) }

// Anchor registers a schedule, or takes note that its text has changed, and
// returns the moment after which its ticks are due: that of its newest tick or
// of its registration, whichever is later. What is later than Postgres's now was
// recorded while the clock was ahead, and is no anchor.
func (t Ticks) Anchor(ctx context.Context, schedule, sha256 string) (time.Time, error) {
	var after time.Time
	err := t.DB.InTx(ctx, func(tx *Tx) error {
		_, err := tx.tx.Exec(ctx, `
			INSERT INTO muster.schedule (schedule, sha256, anchored_at)
			VALUES ($1, $2, clock_timestamp())
			ON CONFLICT (schedule) DO UPDATE
			SET sha256 = excluded.sha256, anchored_at = excluded.anchored_at
			WHERE muster.schedule.sha256 <> excluded.sha256 OR muster.schedule.anchored_at > clock_timestamp()`, schedule, sha256)
		if err != nil {
			return err
		}
		return tx.tx.QueryRow(ctx, `
			SELECT greatest(s.anchored_at, (
				SELECT max(tick_at) FROM muster.tick k WHERE k.schedule = s.schedule AND tick_at <= clock_timestamp()))
			FROM muster.schedule s
			WHERE s.schedule = $1`, schedule).Scan(&after)
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("anchor schedule %s: %w", schedule, err)
	}
	return after.UTC(), nil
}

// Fire records a tick and, for the one that was first, queues its trigger in
// the same transaction. With skipIfRunning the tick is skipped where a run of
// the same job and name is still going, and takes the place of those of other
// ticks that have failed and wait to be tried again. It returns the tick as recorded by
// this call, with Postgres's time of firing, and whether this call was first.
func (t Ticks) Fire(ctx context.Context, tick fleet.Tick, trigger fleet.Trigger, skipIfRunning bool) (fleet.Tick, bool, error) {
	won := false
	recorded := tick
	err := t.DB.InTx(ctx, func(tx *Tx) error {
		won, recorded = false, tick
		state, triggerID := fleet.TickFired, &trigger.ID
		if skipIfRunning {
			var running bool
			err := tx.tx.QueryRow(ctx, `
				SELECT EXISTS (
					SELECT FROM muster.run
					WHERE job = $1 AND name = $2 AND (
						state = 'running' AND lease_until > clock_timestamp()
						OR state = 'queued' AND queued_at > clock_timestamp() - interval '1 hour'))`,
				string(trigger.Job), trigger.Name).Scan(&running)
			if err != nil {
				return err
			}
			if running {
				state, triggerID = fleet.TickSkipped, nil
			}
		}
		var fired *time.Time
		err := translate(tx.tx.QueryRow(ctx, `
			INSERT INTO muster.tick (schedule, tick_at, state, fired_at, trigger_id)
			VALUES ($1, $2, $3, CASE WHEN $3 = 'fired' THEN clock_timestamp() END, $4)
			ON CONFLICT (schedule, tick_at) DO NOTHING
			RETURNING fired_at`,
			tick.Schedule, tick.At, string(state), triggerID).Scan(&fired))
		if isNotFound(err) {
			return nil // recorded before
		}
		if err != nil {
			return err
		}
		won = true
		recorded.State, recorded.FiredAt, recorded.TriggerID = state, utc(fired), ""
		if state != fleet.TickFired {
			return nil
		}
		recorded.TriggerID = trigger.ID
		if skipIfRunning {
			if err := tx.supersede(ctx, trigger); err != nil {
				return err
			}
		}
		return tx.Queue(ctx, trigger)
	})
	if err != nil {
		return tick, false, fmt.Errorf("fire tick %s@%s: %w", tick.Schedule, tick.At.Format(time.RFC3339), err)
	}
	return recorded, won, nil
}

// supersede finishes the runs of ticks that wait to be tried again: the trigger
// does the same, and at once. So an outage ends with the next tick and not with
// the pause of a run that has failed often, nor with a dead letter for each.
func (tx *Tx) supersede(ctx context.Context, by fleet.Trigger) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.run
		SET state = 'done', finished_at = clock_timestamp(), lease_until = NULL,
			error = 'superseded by trigger ' || $3 || ', after: ' || coalesce(error, 'nothing said')
		WHERE job = $1 AND name = $2 AND state = 'failed' AND source = 'cron'`, string(by.Job), by.Name, by.ID)
	if err != nil {
		return fmt.Errorf("supersede failed runs of %s: %w", by.Subject(), translate(err))
	}
	return nil
}

// Miss records ticks that nobody fired in time, and those that are news in the
// audit trail, one event per schedule.
func (t Ticks) Miss(ctx context.Context, ticks []fleet.Tick) error {
	if len(ticks) == 0 {
		return nil
	}
	err := t.DB.InTx(ctx, func(tx *Tx) error {
		news := map[string][]time.Time{}
		var order []string
		for _, tick := range ticks {
			tag, err := tx.tx.Exec(ctx, `
				INSERT INTO muster.tick (schedule, tick_at, state)
				VALUES ($1, $2, 'missed')
				ON CONFLICT (schedule, tick_at) DO NOTHING`, tick.Schedule, tick.At)
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 1 {
				if news[tick.Schedule] == nil {
					order = append(order, tick.Schedule)
				}
				news[tick.Schedule] = append(news[tick.Schedule], tick.At)
			}
		}
		for _, schedule := range order {
			at := news[schedule]
			err := tx.Audit(ctx, fleet.AuditEvent{
				Code: fleet.AuditTickMissed, Actor: fleet.System, Reason: "deadline passed",
				Details: map[string]any{
					"schedule": schedule, "ticks": len(at),
					"tick_at": at[0].UTC().Format(time.RFC3339), "last_tick_at": at[len(at)-1].UTC().Format(time.RFC3339),
				},
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record %d missed ticks: %w", len(ticks), err)
	}
	return nil
}
