package db

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Rename is the wish to record a target under another name.
type Rename struct {
	From string
	// To is the target as it is called from now on. Its scope and address may
	// be others than those recorded, where the caller has seen that GitHub lists
	// the same runners there. Both may be under the same name.
	To     fleet.Target
	Actor  fleet.Actor
	Reason string // empty: none was given
}

// RenameTarget records all that is known of a target under another name, in one
// transaction with the audit event: runners with their holds and clocks,
// workflow jobs, history, decisions, tokens, pools. What was recorded under the
// new name before its first complete sync is joined to it. It returns what was
// carried over. Errors: fleet.ErrNotFound where the target is not recorded, an
// IdentityError where the new name or scope is another target's, a BusyError
// where work on it is under way.
func (db *DB) RenameTarget(ctx context.Context, r Rename) (TargetUse, error) {
	var carried TargetUse
	err := db.InTx(ctx, func(tx *Tx) error {
		var err error
		carried, err = tx.rename(ctx, r)
		return err
	})
	if err != nil {
		return TargetUse{}, fmt.Errorf("rename target %s to %s: %w", r.From, r.To.Name, err)
	}
	return carried, nil
}

func (tx *Tx) rename(ctx context.Context, r Rename) (TargetUse, error) {
	tables, err := tx.lockTargets(ctx, r.From, r.To.Name)
	if err != nil {
		return TargetUse{}, err
	}
	carried, err := targetUse(ctx, tx.tx, r.From)
	if err != nil {
		return TargetUse{}, err
	}
	if err := tx.nameIsFree(ctx, r); err != nil {
		return TargetUse{}, err
	}

	if r.From != r.To.Name {
		if err := tx.moveRows(ctx, tables, r.From, r.To.Name); err != nil {
			return TargetUse{}, err
		}
	}
	if err := tx.renameRow(ctx, r, carried.Target); err != nil {
		return TargetUse{}, err
	}
	return carried, tx.Audit(ctx, fleet.AuditEvent{
		Code: fleet.AuditTargetRenamed, Actor: r.Actor, Target: r.To.Name, Reason: r.Reason,
		Details: map[string]any{
			"from": r.From, "scope": r.To.Scope.String(), "api_url": r.To.APIURL,
			"scope_before": carried.Scope.String(), "api_url_before": carried.APIURL,
			"runners": carried.Runners, "holds": carried.Holds, "workflow_jobs": carried.Jobs,
		},
	})
}

// nameIsFree refuses a new name that is a fixed target's, and a new scope that
// is another target's.
func (tx *Tx) nameIsFree(ctx context.Context, r Rename) error {
	if r.From != r.To.Name {
		other, err := targetUse(ctx, tx.tx, r.To.Name)
		if err != nil && !isNotFound(err) {
			return err
		}
		if err == nil && other.Fixed {
			return &IdentityError{Target: r.From, Known: r.To.Name, Taken: true}
		}
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT name, scope, api_url, true FROM muster.target WHERE name <> $1 AND name <> $2 AND lower(scope) = lower($3)`,
		r.From, r.To.Name, r.To.Scope.String())
	if err != nil {
		return fmt.Errorf("look for others of the same scope: %w", translate(err))
	}
	var other recordedTarget
	var twin string
	_, err = pgx.ForEachRow(rows, []any{&other.name, &other.scope, &other.apiURL, &other.fixed}, func() error {
		if other.is(r.To) {
			twin = other.name
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("look for others of the same scope: %w", translate(err))
	case twin != "":
		return &IdentityError{Target: r.To.Name, Want: identityOf(r.To), Known: twin}
	}
	return nil
}

// bothNames are the workflow jobs that are known under two names, with every
// runner that was named for one under either, each once.
const bothNames = `
	SELECT workflow_job_id, jsonb_agg(
		jsonb_strip_nulls(jsonb_build_object('id', nullif(id, 0), 'name', nullif(name, ''), 'state', nullif(state, ''),
			'started_at', to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
		ORDER BY id, name) AS runners
	FROM (
		SELECT DISTINCT ON (workflow_job_id, r.id, r.name) workflow_job_id, r.id, r.name, r.state, r.started_at
		FROM muster.workflow_job j
		CROSS JOIN LATERAL (
			SELECT coalesce(j.runner_id, 0) AS id, j.runner_name AS name, j.state, j.started_at
			UNION ALL
			SELECT coalesce(x.id, 0), coalesce(x.name, ''), coalesce(x.state, ''), x.started_at
			FROM jsonb_to_recordset(j.runners) AS x (id bigint, name text, state text, started_at timestamptz)
		) r
		WHERE j.target IN ($1, $2) AND (r.id <> 0 OR r.name <> '')
		ORDER BY workflow_job_id, r.id, r.name, ` + stateRank + ` DESC, r.started_at DESC NULLS LAST
	) named
	GROUP BY workflow_job_id`

// stateRank orders the accounts of one job: what begins is later than what
// waits, and an end is the last.
const stateRank = `array_position('{queued,in_progress,completed}', r.state)`

// moveRows moves all rows of one name to another. Of rows that both have, the
// moved one stays: the new name was never completely synced. Of a workflow job
// the account that has come further stays, with the runners of both; a runner
// that is held and that only the new name listed stays with its hold.
func (tx *Tx) moveRows(ctx context.Context, tables []targetTable, from, to string) error {
	if err := tx.closeRuns(ctx, from, "the target is called "+to+" since"); err != nil {
		return err
	}
	for _, step := range []struct {
		what, sql string
		args      []any
	}{
		// Else they would go with the runners.
		{"keep holds of the new name", `
			UPDATE muster.hold h
			SET target = $1
			WHERE h.target = $2 AND EXISTS (SELECT FROM muster.runner r WHERE r.target = $1 AND r.runner_id = h.runner_id)
				AND NOT EXISTS (SELECT FROM muster.hold o WHERE o.target = $1 AND o.runner_id = h.runner_id
					AND (o.until IS NULL OR o.until > clock_timestamp()))`, []any{from, to}},
		// What was counted by the clock of the new name begins anew.
		{"keep held runners of the new name", `
			UPDATE muster.runner r
			SET target = $1, missing_since = NULL, offline_from_us = NULL, offline_from_sync = NULL, offline_from_at = NULL
			WHERE r.target = $2 AND EXISTS (SELECT FROM muster.hold h WHERE h.target = $2 AND h.runner_id = r.runner_id)
				AND NOT EXISTS (SELECT FROM muster.runner o WHERE o.target = $1 AND o.runner_id = r.runner_id)`, []any{from, to}},
		{"keep their holds", `
			UPDATE muster.hold h
			SET target = $1
			WHERE h.target = $2 AND NOT EXISTS (SELECT FROM muster.runner r WHERE r.target = $2 AND r.runner_id = h.runner_id)
				AND NOT EXISTS (SELECT FROM muster.hold o WHERE o.target = $1 AND o.runner_id = h.runner_id)`, []any{from, to}},
		{"drop runners listed under the new name", `DELETE FROM muster.runner WHERE target = $1`, []any{to}},
		{"drop pages of the new name", `DELETE FROM muster.page WHERE target = $1`, []any{to}},
		{"drop the row of the new name", `DELETE FROM muster.target WHERE name = $1`, []any{to}},
		{"take back the former name", `DELETE FROM muster.former_target WHERE name = $1`, []any{to}},
		{"join the runners of workflow jobs", `
			UPDATE muster.workflow_job w
			SET runners = both_names.runners
			FROM (` + bothNames + `) both_names
			WHERE w.target IN ($1, $2) AND w.workflow_job_id = both_names.workflow_job_id
				AND EXISTS (SELECT FROM muster.workflow_job x
					WHERE x.workflow_job_id = w.workflow_job_id AND x.target IN ($1, $2) AND x.target <> w.target)`, []any{from, to}},
		{"join workflow jobs", `
			DELETE FROM muster.workflow_job r
			USING muster.workflow_job n
			WHERE r.target = $1 AND n.target = $2 AND n.workflow_job_id = r.workflow_job_id
				AND (` + strings.ReplaceAll(stateRank, "r.", "n.") + `, n.changed_at) > (` + stateRank + `, r.changed_at)`, []any{from, to}},
	} {
		if _, err := tx.tx.Exec(ctx, step.sql, step.args...); err != nil {
			return fmt.Errorf("%s: %w", step.what, translate(err))
		}
	}
	for _, t := range tables {
		if err := tx.moveTable(ctx, t, from, to); err != nil {
			return fmt.Errorf("move the rows of %s: %w", t.Name, translate(err))
		}
	}
	return nil
}

// moveTable moves the rows of one table, once those of the new name that are in
// their way are gone.
func (tx *Tx) moveTable(ctx context.Context, t targetTable, from, to string) error {
	for _, key := range t.Keys {
		same := ""
		for _, column := range key {
			if column != "" {
				same += " AND n." + column + " = o." + column
			}
		}
		_, err := tx.tx.Exec(ctx, `
			DELETE FROM `+t.sql()+` n USING `+t.sql()+` o WHERE o.target = $1 AND n.target = $2`+same, from, to)
		if err != nil {
			return err
		}
	}
	_, err := tx.tx.Exec(ctx, `UPDATE `+t.sql()+` SET target = $2 WHERE target = $1`, from, to)
	return err
}

// renameRow changes the target's own row, and remembers its former name. Pages
// that an address gave are good for that address alone.
func (tx *Tx) renameRow(ctx context.Context, r Rename, before fleet.Target) error {
	moved := !before.Same(r.To)
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.target
		SET name = $2, scope = $3, api_url = $4, proven_listing = CASE WHEN $5 THEN NULL ELSE proven_listing END
		WHERE name = $1`, r.From, r.To.Name, r.To.Scope.String(), r.To.APIURL, moved)
	if err == nil && moved {
		_, err = tx.tx.Exec(ctx, `DELETE FROM muster.page WHERE target = $1`, r.To.Name)
	}
	if err == nil && r.From != r.To.Name {
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO muster.former_target (name, target, at) VALUES ($1, $2, clock_timestamp())`, r.From, r.To.Name)
	}
	if err != nil {
		return fmt.Errorf("change its name: %w", translate(err))
	}
	return nil
}
