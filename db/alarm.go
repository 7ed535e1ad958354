package db

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Alarm counts the runners of a target that went dark since then, in one
// statement whose cost follows how many those are. Of is left to the caller, who
// knows how many runners there are.
//
// A runner that was offline when it was first seen has not gone dark. Of those
// that are gone, what counts was there before, was not long offline (that is how
// GitHub's own expiry ends, and a clearing up by hand), and was not made for one
// workflow job: such a runner is ephemeral, or where a server does not say so,
// vanishes at work or soon after. The event of that job has to name the very
// runner, since a runner that is not counted raises no alarm.
func (tx *Tx) Alarm(ctx context.Context, target string, since time.Time) (fleet.Alarm, error) {
	return alarm(ctx, tx.tx, target, since)
}

// Alarm is Tx.Alarm outside a transaction.
func (db *DB) Alarm(ctx context.Context, target string, since time.Time) (fleet.Alarm, error) {
	return alarm(ctx, db.pool, target, since)
}

const alarmQuery = `
	SELECT offline.n, missing.n, removed.n, least(offline.first, missing.first, removed.first)
	FROM (
		SELECT count(*) AS n, min(status_since) AS first
		FROM muster.runner
		WHERE target = $1 AND removed_at IS NULL AND status = 'offline' AND status_since > $2
			AND status_since > first_seen_at AND (missing_since IS NULL OR missing_since <= $2)
	) offline, (
		SELECT count(*) AS n, min(missing_since) AS first
		FROM muster.runner
		WHERE target = $1 AND missing_since > $2 AND removed_at IS NULL
	) missing, (
		SELECT count(*) AS n, min(r.removed_at) AS first
		FROM muster.runner r
		WHERE r.target = $1 AND r.removed_at > $2 AND r.removal_cause IN ('github', 'unknown')
			AND r.first_seen_at <= $2 AND (r.status <> 'offline' OR r.status_since > $2)
			AND r.ephemeral IS NOT TRUE AND NOT r.busy AND (r.last_busy_at IS NULL OR r.last_busy_at <= $2)
			AND NOT EXISTS (
				SELECT FROM muster.workflow_job j
				WHERE j.target = r.target AND j.runner_id = r.runner_id AND j.runner_name IN ('', r.name)
					AND j.changed_at > $2
			)
	) removed`

func alarm(ctx context.Context, q querier, target string, since time.Time) (fleet.Alarm, error) {
	a := fleet.Alarm{Since: since}
	var first *time.Time
	if err := q.QueryRow(ctx, alarmQuery, target, since).Scan(&a.Offline, &a.Missing, &a.Removed, &first); err != nil {
		return fleet.Alarm{}, fmt.Errorf("count the runners of %s that went dark: %w", target, translate(err))
	}
	a.First = utc(first)
	return a, nil
}
