package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Acts are intents of a policy on a target, counted.
type Acts struct {
	// Counted used up the policy's caps within its window: all whose DELETE
	// went out or may have, without those that an operator allowed beyond.
	Counted int
	Open    int // how many of those are not settled yet
	// Removed made the target's population smaller within the window.
	Removed    int
	LastMinute int // whatever became of them
}

// Acted counts what a policy did to a target since the beginning of its window
// and since a minute ago.
func (tx *Tx) Acted(ctx context.Context, policy, target string, window, minute time.Time) (Acts, error) {
	return acted(ctx, tx.tx, policy, target, window, minute)
}

// Acted is Tx.Acted outside a transaction.
func (db *DB) Acted(ctx context.Context, policy, target string, window, minute time.Time) (Acts, error) {
	return acted(ctx, db.pool, policy, target, window, minute)
}

func acted(ctx context.Context, q querier, policy, target string, window, minute time.Time) (Acts, error) {
	var n Acts
	err := q.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE intended_at > $3 AND NOT allowed
				AND (state IN ('intended', 'done', 'gone') OR state = 'failed' AND reason = 'interrupted')),
			count(*) FILTER (WHERE intended_at > $3 AND NOT allowed AND state = 'intended'),
			count(*) FILTER (WHERE intended_at > $3 AND state IN ('done', 'gone')),
			count(*) FILTER (WHERE intended_at > $4)
		FROM muster.action
		WHERE policy = $1 AND target = $2 AND intended_at > least($3::timestamptz, $4::timestamptz)`,
		policy, target, window, minute).Scan(&n.Counted, &n.Open, &n.Removed, &n.LastMinute)
	if err != nil {
		return Acts{}, fmt.Errorf("count the acts of policy %s on %s: %w", policy, target, translate(err))
	}
	return n, nil
}

// NoIntent is nil where nobody is acting on a runner, and else
// fleet.ErrConflict. It holds for as long as the runner is locked.
func (tx *Tx) NoIntent(ctx context.Context, target string, id int64) error {
	var open bool
	err := tx.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM muster.action WHERE target = $1 AND runner_id = $2 AND state = 'intended')`, target, id).Scan(&open)
	if err == nil && open {
		err = fleet.ErrConflict
	}
	if err != nil {
		return fmt.Errorf("look for an intent on runner %s/%d: %w", target, id, translate(err))
	}
	return nil
}

// Intend stores an intent that is its maker's alone for so long by Postgres's
// clock, since processes may differ about the time. fleet.ErrConflict says that
// somebody is acting on the runner already.
func (tx *Tx) Intend(ctx context.Context, a fleet.Action, lease time.Duration, allowed bool) error {
	tag, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.action (action_id, decision_id, trigger_id, policy, target, runner_id, name, action,
			host, release, state, allowed, intended_at, lease_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $12, $13, 'intended', $9, $10, clock_timestamp() + $11::interval)
		ON CONFLICT (target, runner_id) WHERE state = 'intended' DO NOTHING`,
		a.ID, a.DecisionID, a.TriggerID, a.Policy, a.Target, a.RunnerID, a.Name, string(a.Kind),
		allowed, a.IntendedAt, lease, orNull(a.Host), a.Release)
	if err != nil {
		return fmt.Errorf("store the intent on runner %s/%d: %w", a.Target, a.RunnerID, translate(err))
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("store the intent on runner %s/%d: another one is open: %w", a.Target, a.RunnerID, fleet.ErrConflict)
	}
	return nil
}

// NoteDrained stores that the host of an open intent's runner said that no
// workflow job is on it. fleet.ErrConflict says that the intent is not its
// maker's any more.
func (tx *Tx) NoteDrained(ctx context.Context, a fleet.Action) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.action
		SET drained_at = $2
		WHERE action_id = $1 AND state = 'intended' AND lease_until > clock_timestamp()`, a.ID, a.DrainedAt)
	if err == nil && tag.RowsAffected() == 0 {
		err = fleet.ErrConflict
	}
	if err != nil {
		return fmt.Errorf("note that host %s is drained for action %s: %w", a.Host, a.ID, translate(err))
	}
	return nil
}

// HostAtWork reports whether a host has a registered runner beside the one of
// the action, on whatever target, or says that one of its runners is at work.
func (tx *Tx) HostAtWork(ctx context.Context, a fleet.Action, now time.Time) (bool, error) {
	var atWork bool
	err := tx.tx.QueryRow(ctx, `
		SELECT EXISTS (
			SELECT FROM muster.runner r
			WHERE r.removed_at IS NULL AND (r.target, r.runner_id) <> ($2, $3)
				AND (r.host = $1 OR EXISTS (
					SELECT FROM muster.host_runner s WHERE s.host = $1 AND s.target = r.target AND lower(s.name) = lower(r.name)))
		) OR EXISTS (
			SELECT FROM muster.host_runner s
			JOIN muster.host h ON h.host = s.host
			WHERE s.host = $1 AND s.state = 'busy' AND h.last_heartbeat_at > $4
		)`, a.Host, a.Target, a.RunnerID, now.Add(-fleet.HeartbeatLife)).Scan(&atWork)
	if err != nil {
		return false, fmt.Errorf("look for other runners on host %s: %w", a.Host, translate(err))
	}
	return atWork, nil
}

// Settle stores the outcome of an intent. fleet.ErrConflict says that somebody
// settled it before; that GitHub confirmed a deletion wins over somebody's
// finding that it had failed.
func (tx *Tx) Settle(ctx context.Context, a fleet.Action) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.action
		SET state = $2, reason = $3, http_status = $4, settled_at = $5
		WHERE action_id = $1 AND (state = 'intended' OR state = 'failed' AND $2 IN ('done', 'gone'))`,
		a.ID, string(a.State), a.Reason, orNull(a.HTTPStatus), a.SettledAt)
	if err != nil {
		return fmt.Errorf("settle action %s: %w", a.ID, translate(err))
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("settle action %s: it is settled: %w", a.ID, fleet.ErrConflict)
	}
	return nil
}

// Wanted is why an action was decided on: an operator's words, or the codes of
// the decision.
func (tx *Tx) Wanted(ctx context.Context, a fleet.Action) (string, error) {
	var why string
	err := tx.tx.QueryRow(ctx, `
		SELECT coalesce(nullif(evidence->>'operator_reason', ''), array_to_string(reasons, ', '))
		FROM muster.decision
		WHERE decision_id = $1`, a.DecisionID).Scan(&why)
	if err != nil {
		return "", fmt.Errorf("read decision %s of action %s: %w", a.DecisionID, a.ID, translate(err))
	}
	return why, nil
}

// ClaimIntents takes up to n open intents whose lease has ended, under a new
// lease, so that one process at a time settles each.
func (tx *Tx) ClaimIntents(ctx context.Context, n int, lease time.Duration) ([]fleet.Action, error) {
	rows, err := tx.tx.Query(ctx, `
		UPDATE muster.action a
		SET lease_until = clock_timestamp() + $2::interval
		FROM (
			SELECT action_id
			FROM muster.action
			WHERE state = 'intended' AND lease_until < clock_timestamp()
			ORDER BY intended_at
			LIMIT $1
			FOR UPDATE SKIP LOCKED
		) due
		WHERE a.action_id = due.action_id
		RETURNING a.action_id::text, a.decision_id::text, a.trigger_id::text, a.policy, a.target, a.runner_id,
			a.name, a.action, a.intended_at, coalesce(a.host, ''), a.drained_at, a.release`, n, lease)
	if err == nil {
		var claimed []fleet.Action
		claimed, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (fleet.Action, error) {
			a := fleet.Action{State: fleet.ActionIntended}
			var drained *time.Time
			err := row.Scan(&a.ID, &a.DecisionID, &a.TriggerID, &a.Policy, &a.Target, &a.RunnerID,
				&a.Name, &a.Kind, &a.IntendedAt, &a.Host, &drained, &a.Release)
			a.IntendedAt, a.DrainedAt = a.IntendedAt.UTC(), utc(drained)
			return a, err
		})
		if err == nil {
			return claimed, nil
		}
	}
	return nil, fmt.Errorf("claim open intents: %w", translate(err))
}
