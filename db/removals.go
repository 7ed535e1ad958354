package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// removalQuery reads what is known about why runners are gone. $3 is when one
// was found gone whose row does not say so yet. Each witness is looked up by an
// index for each runner, of which there are as many as went. A workflow job that has
// the runner's id and another's name is another's: see witnesses. Names have to be
// the very same here: a runner that went for a known reason raises no alarm.
const removalQuery = `
	SELECT r.runner_id, r.name, coalesce(r.ephemeral, false), r.status = 'offline', gone.at, seen.at,
		CASE WHEN r.status = 'online' THEN seen.at ELSE coalesce(r.last_online_at, r.first_seen_at) END,
		CASE WHEN r.busy THEN seen.at ELSE r.last_busy_at END,
		coalesce(open.workflow_job_id, 0), open.began_at, open.heard_at, done.at, left_with.issued_at, left_with.expires_at, stopped.at,
		coalesce(t.capabilities->>'server_version', '')
	FROM muster.runner r
	JOIN muster.target t ON t.name = r.target
	CROSS JOIN LATERAL (
		SELECT coalesce(r.removed_at, $3) AS at
	) gone
	CROSS JOIN LATERAL (
		SELECT CASE WHEN r.removed_at IS NULL AND r.missing_since IS NULL
			THEN greatest(r.seen_at, t.last_complete_sync_at) ELSE r.seen_at END AS at
	) seen
	LEFT JOIN LATERAL (
		SELECT workflow_job_id, least(coalesce(started_at, changed_at), changed_at) AS began_at, changed_at AS heard_at
		FROM muster.workflow_job
		WHERE target = r.target AND runner_id = r.runner_id AND runner_id <> 0 AND runner_name IN ('', r.name)
			AND state = 'in_progress'
		ORDER BY changed_at DESC
		LIMIT 1
	) open ON true
	LEFT JOIN LATERAL (
		SELECT max(completed_at) AS at
		FROM muster.workflow_job
		WHERE target = r.target AND runner_id = r.runner_id AND runner_id <> 0 AND runner_name IN ('', r.name)
			AND state = 'completed'
	) done ON true
	LEFT JOIN LATERAL (
		SELECT issued_at, expires_at
		FROM muster.token
		WHERE host = coalesce(r.host, lower(r.name)) AND target = r.target AND kind = 'removal' AND outcome = 'issued'
			AND issued_at <= gone.at
		ORDER BY requested_at DESC
		LIMIT 1
	) left_with ON true
	LEFT JOIN LATERAL (
		SELECT max(at) AS at
		FROM muster.host_runner
		WHERE target = r.target AND name = r.name AND state = 'stopped' AND host = coalesce(r.host, host)
	) stopped ON true`

func scanRemoval(row pgx.CollectableRow) (fleet.Removal, error) {
	var r fleet.Removal
	var busy, began, heard, done, token, until, stopped *time.Time
	err := row.Scan(&r.RunnerID, &r.Name, &r.Ephemeral, &r.Offline, &r.At, &r.LastSeenAt, &r.LastThereAt, &busy,
		&r.Work.OpenJob, &began, &heard, &done, &token, &until, &stopped, &r.ServerVersion)
	r.At, r.LastSeenAt, r.LastThereAt, r.LastBusyAt = r.At.UTC(), r.LastSeenAt.UTC(), r.LastThereAt.UTC(), utc(busy)
	r.Work.OpenSince, r.Work.HeardAt, r.Work.LastDoneAt = utc(began), utc(heard), utc(done)
	r.TokenAt, r.TokenUntil, r.StoppedAt = utc(token), utc(until), utc(stopped)
	return r, err
}

// Removals reads what is known about why runners are gone, by id, in one
// statement. at is when those were found gone whose rows do not say so yet.
func (tx *Tx) Removals(ctx context.Context, target string, ids []int64, at time.Time) (map[int64]fleet.Removal, error) {
	rows, err := tx.tx.Query(ctx, removalQuery+`
		WHERE r.target = $1 AND r.runner_id = ANY($2)`, target, ids, at)
	var all []fleet.Removal
	if err == nil {
		all, err = pgx.CollectRows(rows, scanRemoval)
	}
	if err != nil {
		return nil, fmt.Errorf("read why %d runners of %s are gone: %w", len(ids), target, translate(err))
	}
	byID := make(map[int64]fleet.Removal, len(all))
	for _, r := range all {
		byID[r.RunnerID] = r
	}
	return byID, nil
}

// LockUnexplained reports whether an ephemeral runner is gone and nobody knows
// why. It waits for a sync that is just about to find that out, and keeps
// others from it until the transaction ends.
func (tx *Tx) LockUnexplained(ctx context.Context, target string, id int64) (bool, error) {
	var unexplained bool
	// Whether it is unexplained is no condition here: only a row that is found
	// is waited for.
	err := tx.tx.QueryRow(ctx, `
		SELECT coalesce(removal_cause = 'unknown', false)
		FROM muster.runner
		WHERE target = $1 AND runner_id = $2 AND ephemeral
		FOR UPDATE`, target, id).Scan(&unexplained)
	if err = translate(err); err != nil && !isNotFound(err) {
		return false, fmt.Errorf("read why runner %s/%d is gone: %w", target, id, err)
	}
	return unexplained, nil
}

// ExplainRemoval gives the removal of a runner that nobody could explain its
// cause.
func (tx *Tx) ExplainRemoval(ctx context.Context, target string, id int64, cause fleet.RemovalCause) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.runner
		SET removal_cause = $3
		WHERE target = $1 AND runner_id = $2 AND removal_cause = 'unknown'`, target, id, string(cause))
	if err != nil {
		return fmt.Errorf("store why runner %s/%d is gone: %w", target, id, translate(err))
	}
	return nil
}
