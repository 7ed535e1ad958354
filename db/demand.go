package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// AddDelivery notes that a delivery has been folded in for a target, under the
// name that the target has now, and that it is not refused any more. It reports
// whether that is news; a repeat that runs at the same time waits for the end of
// the other transaction.
func (tx *Tx) AddDelivery(ctx context.Context, target, id string, at time.Time) (bool, error) {
	tag, err := tx.tx.Exec(ctx, `
		WITH made_good AS (
			DELETE FROM muster.refused_delivery WHERE target = muster.current_target($1) AND delivery_id = $2
		)
		INSERT INTO muster.delivery (target, delivery_id, at)
		VALUES (muster.current_target($1), $2, $3)
		ON CONFLICT DO NOTHING`, target, id, at)
	if err != nil {
		return false, fmt.Errorf("note delivery %s for %s: %w", id, target, translate(err))
	}
	return tag.RowsAffected() == 1, nil
}

// AddWorkflowJob stores a workflow job that nobody has told of before, as of
// at. Where somebody has, it changes nothing, and returns false with what is
// known, locked until the transaction ends.
func (tx *Tx) AddWorkflowJob(ctx context.Context, j fleet.WorkflowJob, at time.Time) (fleet.WorkflowJob, bool, error) {
	tag, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state,
			runner_id, runner_name, queued_at, started_at, completed_at, conclusion, runners, changed_at)
		VALUES (muster.current_target($1), $2, $3, $4, $5, coalesce($6::text[], '{}'), $7, $8, $9, $10, $11, $12, $13, $14, $15)
		ON CONFLICT DO NOTHING`, append(workflowJobValues(j), at)...)
	if err != nil {
		return j, false, fmt.Errorf("store workflow job %d of %s: %w", j.ID, j.Target, translate(err))
	}
	if tag.RowsAffected() == 1 {
		return j, true, nil
	}
	known := fleet.WorkflowJob{Target: j.Target, ID: j.ID}
	err = scanWorkflowJob(tx.tx.QueryRow(ctx, `
		SELECT `+workflowJobColumns+`
		FROM muster.workflow_job
		WHERE target = muster.current_target($1) AND workflow_job_id = $2
		FOR UPDATE`, j.Target, j.ID), &known)
	if isNotFound(translate(err)) {
		return tx.AddWorkflowJob(ctx, j, at) // it was forgotten in between
	}
	if err != nil {
		return j, false, fmt.Errorf("read workflow job %d of %s: %w", j.ID, j.Target, translate(err))
	}
	return known, false, nil
}

const workflowJobColumns = `run_id, run_attempt, repository, labels, state, runner_id, runner_name, queued_at, started_at,
	completed_at, conclusion, runners`

// scanWorkflowJob reads workflowJobColumns into a job, and what stands before
// them.
func scanWorkflowJob(row pgx.Row, j *fleet.WorkflowJob, before ...any) error {
	var queued, started, completed *time.Time
	err := row.Scan(append(before, &j.RunID, &j.RunAttempt, &j.Repository, &j.Labels, &j.State,
		&j.RunnerID, &j.RunnerName, &queued, &started, &completed, &j.Conclusion, &j.Runners)...)
	j.QueuedAt, j.StartedAt, j.CompletedAt = utc(queued), utc(started), utc(completed)
	if len(j.Runners) == 0 {
		j.Runners = nil
	}
	return err
}

// SaveWorkflowJob stores what is known of a workflow job now, as of at.
func (tx *Tx) SaveWorkflowJob(ctx context.Context, j fleet.WorkflowJob, at time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.workflow_job
		SET run_id = $3, run_attempt = $4, repository = $5, labels = coalesce($6::text[], '{}'), state = $7,
			runner_id = $8, runner_name = $9, queued_at = $10, started_at = $11, completed_at = $12, conclusion = $13,
			runners = $14, changed_at = $15
		WHERE target = muster.current_target($1) AND workflow_job_id = $2`, append(workflowJobValues(j), at)...)
	if err != nil {
		return fmt.Errorf("store workflow job %d of %s: %w", j.ID, j.Target, translate(err))
	}
	return nil
}

// ForgetWorkflowJob drops a workflow job, unless something was told of it
// meanwhile by which it does not wait any more, and reports whether it did.
func (tx *Tx) ForgetWorkflowJob(ctx context.Context, target string, id int64) (bool, error) {
	tag, err := tx.tx.Exec(ctx, `
		DELETE FROM muster.workflow_job
		WHERE target = muster.current_target($1) AND workflow_job_id = $2 AND state IN ('waiting', 'queued')`, target, id)
	if err != nil {
		return false, fmt.Errorf("forget workflow job %d of %s: %w", id, target, translate(err))
	}
	return tag.RowsAffected() == 1, nil
}

func workflowJobValues(j fleet.WorkflowJob) []any {
	runners := j.Runners
	if runners == nil {
		runners = []fleet.JobRunner{}
	}
	return []any{j.Target, j.ID, j.RunID, j.RunAttempt, j.Repository, j.Labels, string(j.State), j.RunnerID, j.RunnerName,
		orNull(j.QueuedAt), orNull(j.StartedAt), orNull(j.CompletedAt), j.Conclusion, runners}
}

// SaveHeartbeats stores heartbeats, however many, in three statements. One
// that arrived before what is known of its host changes nothing. No two may be
// of one host.
func (tx *Tx) SaveHeartbeats(ctx context.Context, beats []fleet.Heartbeat) error {
	if len(beats) == 0 {
		return nil
	}
	var hosts []string
	var at []time.Time
	for _, b := range beats {
		hosts, at = append(hosts, b.Host), append(at, b.At)
	}
	// In one order, so that replicas do not lock each other out.
	rows, err := tx.tx.Query(ctx, `
		INSERT INTO muster.host (host, last_heartbeat_at)
		SELECT host, at
		FROM unnest($1::text[], $2::timestamptz[]) AS heard (host, at)
		ORDER BY host
		ON CONFLICT (host) DO UPDATE SET last_heartbeat_at = excluded.last_heartbeat_at
			WHERE muster.host.last_heartbeat_at < excluded.last_heartbeat_at
		RETURNING host`, hosts, at)
	var newest []string
	if err == nil {
		newest, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return fmt.Errorf("store heartbeats: %w", translate(err))
	}
	return tx.saveHostRunners(ctx, beats, newest)
}

// saveHostRunners makes the runners of the hosts those of their heartbeats, under
// the names that their targets have now. Where a heartbeat names a target twice, by
// its former name and by the one of now, busy counts.
func (tx *Tx) saveHostRunners(ctx context.Context, beats []fleet.Heartbeat, of []string) error {
	news := make(map[string]bool, len(of))
	for _, host := range of {
		news[host] = true
	}
	var host, target, name, state []string
	var at []time.Time
	for _, b := range beats {
		if !news[b.Host] {
			continue
		}
		for _, r := range b.Runners {
			host, target, name = append(host, b.Host), append(target, r.Target), append(name, r.Name)
			state, at = append(state, string(r.State)), append(at, b.At)
		}
	}
	_, err := tx.tx.Exec(ctx, `
		DELETE FROM muster.host_runner r
		WHERE r.host = ANY($1) AND NOT EXISTS (
			SELECT FROM unnest($2::text[], $3::text[], $4::text[]) AS listed (host, target, name)
			WHERE listed.host = r.host AND muster.current_target(listed.target) = r.target AND listed.name = r.name)`,
		of, host, target, name)
	if err == nil {
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO muster.host_runner (host, target, name, state, at)
			SELECT DISTINCT ON (host, current, name) host, muster.current_target(target) AS current, name, state, at
			FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) AS listed (host, target, name, state, at)
			ORDER BY host, current, name, state -- busy, idle, stopped
			ON CONFLICT (host, target, name) DO UPDATE SET state = excluded.state, at = excluded.at
				WHERE muster.host_runner.state <> excluded.state`, host, target, name, state, at)
	}
	if err != nil {
		return fmt.Errorf("store what heartbeats say of runners: %w", translate(err))
	}
	return nil
}
