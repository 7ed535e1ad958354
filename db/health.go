package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Health is what the record says of the service as a whole. Ages are by
// Postgres's clock.
type Health struct {
	Server      string // version of Postgres
	Replicas    int    // muster serve processes that are alive
	DeadLetters int
	Waiting     int           // messages in the outbox
	OldestWait  time.Duration // of the oldest of them
	OpenIntents int           // deletions without an outcome
	OldestOpen  time.Duration // of the oldest of them
}

// Health reads it in one statement.
func (db *DB) Health(ctx context.Context) (Health, error) {
	var h Health
	err := db.pool.QueryRow(ctx, `
		SELECT current_setting('server_version'),
			(SELECT count(*) FROM muster.replica WHERE seen_at > clock_timestamp() - $1::interval), (SELECT count(*) FROM muster.dead_letter),
			o.n, o.age, a.n, a.age
		FROM (
			SELECT count(*) AS n, coalesce(clock_timestamp() - min(created_at), '0') AS age FROM muster.outbox
			WHERE created_at <= clock_timestamp()
		) o, (
			SELECT count(*) AS n, coalesce(clock_timestamp() - min(intended_at), '0') AS age
			FROM muster.action
			WHERE state = 'intended'
		) a`, replicaLife).Scan(&h.Server, &h.Replicas, &h.DeadLetters, &h.Waiting, &h.OldestWait, &h.OpenIntents, &h.OldestOpen)
	if err != nil {
		return Health{}, fmt.Errorf("read the state of the service: %w", translate(err))
	}
	return h, nil
}

// ScheduleState is how far a schedule has come.
type ScheduleState struct {
	Schedule string // JOB/NAME
	// After is its newest tick or, where that is later, the moment from which
	// its ticks count.
	After    time.Time
	Lateness time.Duration // of the newest tick that was fired; 0: none was
	Missed   int           // ticks in the day before
}

// ScheduleStates reads all schedules that were ever served, by name.
func (db *DB) ScheduleStates(ctx context.Context) ([]ScheduleState, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT s.schedule, greatest(least(s.anchored_at, clock_timestamp()), newest.tick_at), coalesce(fired.late, '0'),
			(
				SELECT count(*)
				FROM muster.tick t
				WHERE t.schedule = s.schedule AND t.state = 'missed' AND t.tick_at > clock_timestamp() - interval '1 day'
			)
		FROM muster.schedule s
		LEFT JOIN LATERAL (
			SELECT max(tick_at) AS tick_at FROM muster.tick t WHERE t.schedule = s.schedule AND tick_at <= clock_timestamp()
		) newest ON true
		LEFT JOIN LATERAL (
			SELECT fired_at - tick_at AS late
			FROM muster.tick t
			WHERE t.schedule = s.schedule AND t.state = 'fired'
			ORDER BY tick_at DESC
			LIMIT 1
		) fired ON true
		ORDER BY s.schedule`)
	if err == nil {
		var all []ScheduleState
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ScheduleState]); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read schedules: %w", translate(err))
}

// TargetHealth is what the record says of a target.
type TargetHealth struct {
	fleet.TargetState
	// FaultOf is what GitHub refused where CredentialFault is set.
	FaultOf      Refusal
	Capabilities fleet.Capabilities
	LastError    string // of the newest sync that counted; empty: there was none
	// Unreadable counts the items of the newest listing that could not be read
	// in full, and UnreadableItems names the first of them.
	Unreadable      int
	UnreadableItems []string
	LastActAt       time.Time // when GitHub last deleted a runner or gave a token; zero: never
}

// TargetHealth reads all targets that were ever used, by name.
func (db *DB) TargetHealth(ctx context.Context) (map[string]TargetHealth, error) {
	states, err := db.TargetStates(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]TargetHealth, len(states))
	for _, s := range states {
		all[s.Name] = TargetHealth{TargetState: s}
	}
	rows, err := db.pool.Query(ctx, `
		SELECT t.name, coalesce(t.credential_fault_of, ''), t.capabilities, coalesce(newest.error, ''),
			coalesce(newest.unreadable, 0), coalesce(newest.unreadable_items, '{}'),
			greatest(
				(SELECT max(settled_at) FROM muster.action a WHERE a.target = t.name AND a.state = 'done'),
				(SELECT max(issued_at) FROM muster.token k WHERE k.target = t.name AND k.outcome = 'issued'))
		FROM muster.target t
		LEFT JOIN LATERAL (
			SELECT error, unreadable, unreadable_items FROM muster.sync s WHERE s.target = t.name AND s.outcome = t.last_outcome ORDER BY started_at DESC LIMIT 1
		) newest ON true`)
	if err != nil {
		return nil, fmt.Errorf("read targets: %w", translate(err))
	}
	var name, of, last string
	var can capabilities
	var act *time.Time
	var unreadable int
	var items []string
	_, err = pgx.ForEachRow(rows, []any{&name, &of, &can, &last, &unreadable, &items, &act}, func() error {
		h := all[name]
		h.FaultOf, h.Capabilities, h.LastError, h.LastActAt = Refusal(of), can.read(), last, utc(act)
		h.Unreadable = unreadable
		if unreadable > 0 {
			h.UnreadableItems = items
		}
		all[name] = h
		can, items = capabilities{}, nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read targets: %w", translate(err))
	}
	return all, nil
}
