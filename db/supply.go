package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Census is the registered runners of a target, counted for its pools.
type Census struct {
	Sets []LabelSet
	// Suspect is what is odd about the newest complete listing.
	Suspect fleet.Suspect
}

// LabelSet is the registered runners of a target that carry the very same
// labels, are in the same runner group, and whose hosts the same pool asked for.
// No runner counts twice.
type LabelSet struct {
	Labels   []string
	Group    string // empty: the server does not say
	Pool     string // that asked for their hosts; empty: none, or not known
	Online   int    // and not leaving
	Busy     int    // of those online, at work by GitHub's word or by a workflow job's
	Draining int    // online, and about to be deleted, or with the one workflow job behind them that they take
	// Registered is when those were first seen that were never online and are of
	// no lease that is counted; Dark is since when those are offline that were
	// online before. Both go back as far as was asked.
	Registered, Dark []time.Time
}

const censusQuery = `
	WITH working AS (
		SELECT DISTINCT j.runner_id
		FROM muster.job_runner j
		WHERE j.target = $1 AND j.state = 'in_progress' AND j.runner_id <> 0 AND j.changed_at > $3
			AND EXISTS (` + runnerOfJob + `)
	), named AS (
		SELECT DISTINCT lower(j.runner_name) AS name
		FROM muster.job_runner j
		WHERE j.target = $1 AND j.state = 'in_progress' AND j.runner_name <> '' AND j.changed_at > $3
			AND NOT EXISTS (` + runnerOfJob + `)
	), leased AS (
		SELECT DISTINCT runner_id
		FROM muster.lease
		WHERE target = $1 AND state IN ('requested', 'claimed', 'registered') AND runner_id IS NOT NULL
	), live AS (
		SELECT r.labels, r.runner_group, coalesce(r.pool, '') AS pool, r.status = 'online' AS online, r.first_seen_at, r.last_online_at, r.status_since,
			r.busy OR w.runner_id IS NOT NULL OR n.name IS NOT NULL AS busy, l.runner_id IS NOT NULL AS leased, a.runner_id IS NOT NULL AS deleting,
			r.ephemeral IS TRUE AND EXISTS (
				SELECT FROM muster.workflow_job j
				WHERE j.target = r.target AND j.runner_id = r.runner_id AND j.runner_id <> 0 AND j.state = 'completed'
					AND lower(j.runner_name) IN ('', lower(r.name))) AS spent
		FROM muster.runner r
		LEFT JOIN muster.action a ON a.target = r.target AND a.runner_id = r.runner_id AND a.state = 'intended'
		LEFT JOIN working w ON w.runner_id = r.runner_id
		LEFT JOIN named n ON n.name = lower(r.name)
		LEFT JOIN leased l ON l.runner_id = r.runner_id
		WHERE r.target = $1 AND r.removed_at IS NULL
	)
	SELECT labels, runner_group, pool,
		count(*) FILTER (WHERE online AND NOT deleting AND NOT spent),
		count(*) FILTER (WHERE online AND NOT deleting AND NOT spent AND busy),
		count(*) FILTER (WHERE online AND (deleting OR spent)),
		array_agg(first_seen_at ORDER BY first_seen_at) FILTER (WHERE NOT online AND last_online_at IS NULL AND first_seen_at > $2
			AND NOT deleting AND NOT spent AND NOT leased),
		array_agg(status_since ORDER BY status_since) FILTER (WHERE NOT online AND last_online_at IS NOT NULL AND status_since > $2
			AND NOT spent)
	FROM live
	GROUP BY labels, runner_group, pool
	ORDER BY labels, runner_group, pool`

// Census counts the registered runners of a target. Of those that are not
// online, what was before since does not matter, and no runner is at work for
// longer before now than GitHub lets a job run. fleet.ErrNotFound says that the
// target was never synced completely: nobody knows what it has.
func (tx *Tx) Census(ctx context.Context, target string, since, now time.Time) (Census, error) {
	return census(ctx, tx.tx, target, since, now)
}

// Census is that of Tx.
func (db *DB) Census(ctx context.Context, target string, since, now time.Time) (Census, error) {
	return census(ctx, db.pool, target, since, now)
}

func census(ctx context.Context, q querier, target string, since, now time.Time) (Census, error) {
	var c Census
	err := q.QueryRow(ctx, `
		SELECT coalesce(suspect, '')
		FROM muster.target
		WHERE name = $1 AND last_complete_sync_at IS NOT NULL`, target).Scan(&c.Suspect)
	if err != nil {
		return Census{}, fmt.Errorf("look for an inventory of %s: %w", target, translate(err))
	}
	rows, err := q.Query(ctx, censusQuery, target, since, now.Add(-fleet.LongestWorkflowJob))
	if err == nil {
		if c.Sets, err = pgx.CollectRows(rows, pgx.RowToStructByPos[LabelSet]); err == nil {
			return c, nil
		}
	}
	return Census{}, fmt.Errorf("count the runners of %s: %w", target, translate(err))
}

// OpenJobs are workflow jobs of a target that are alike: in the same state, of
// the same repository, for the same labels, and where they run, on runners with
// the same labels.
type OpenJobs struct {
	State        fleet.WorkflowJobState
	Labels       []string
	RunnerLabels []string // nil: none of that is known
	RunnerPool   string   // that asked for their hosts; empty: none, or not known
	Count        int
	OldestAt     time.Time // when the first of them was queued; zero: not told
	Repository   string
}

// mostQueued is how long GitHub lets a job wait for a self-hosted runner until
// it ends the job by itself. What is older is over, whatever event was lost; so
// is what was heard to run longer ago than fleet.LongestWorkflowJob. A job that
// waited for an approval was made long before it was queued, so that what counts
// is when it was last heard of.
//
// A date tells that somebody's clock was wrong where it lies in the future, or
// before the time for which GitHub keeps a run: such a job waits for nobody (issue
// 10). What its date is compared with is when it was heard of, which a step of
// Postgres's clock does not change.
// https://docs.github.com/en/actions/reference/limits
const mostQueued = 24 * time.Hour

const openJobQuery = `
	SELECT j.state, j.labels, r.labels, coalesce(r.pool, ''), count(*), min(j.queued_at), j.repository
	FROM muster.workflow_job j
	LEFT JOIN muster.runner r ON j.runner_id <> 0 AND r.target = j.target AND r.runner_id = j.runner_id
		AND lower(j.runner_name) IN ('', lower(r.name))
	WHERE j.target = $1 AND (
		j.state = 'queued' AND j.changed_at > $2
			AND coalesce(j.queued_at, j.changed_at) BETWEEN j.changed_at - interval '35 days' AND j.changed_at + interval '1 hour'
		OR j.state = 'in_progress' AND j.changed_at > $3)
	GROUP BY j.state, j.labels, r.labels, r.pool, j.repository
	ORDER BY j.state, j.labels, r.labels, 4, 7`

// OpenJobs counts the workflow jobs of a target that wait or run: how many rows
// that is depends on how different they are, and not on how many.
func (tx *Tx) OpenJobs(ctx context.Context, target string, now time.Time) ([]OpenJobs, error) {
	return openJobs(ctx, tx.tx, target, now)
}

// OpenJobs is that of Tx.
func (db *DB) OpenJobs(ctx context.Context, target string, now time.Time) ([]OpenJobs, error) {
	return openJobs(ctx, db.pool, target, now)
}

func openJobs(ctx context.Context, q querier, target string, now time.Time) ([]OpenJobs, error) {
	rows, err := q.Query(ctx, openJobQuery, target, now.Add(-mostQueued), now.Add(-fleet.LongestWorkflowJob))
	if err == nil {
		var all []OpenJobs
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (OpenJobs, error) {
			var j OpenJobs
			var oldest *time.Time
			err := row.Scan(&j.State, &j.Labels, &j.RunnerLabels, &j.RunnerPool, &j.Count, &oldest, &j.Repository)
			j.OldestAt = utc(oldest)
			return j, err
		})
		if err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("count open workflow jobs of %s: %w", target, translate(err))
}
