package db

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-fleet/muster/fleet"
)

// tableWait is how long a change of a target's name waits for one table. It is
// shorter than the second after which Postgres looks for a deadlock: where the
// two wait for each other, the change gives way and not the service.
const tableWait = 800 * time.Millisecond

// targetTable is a table with what is known of targets by name.
type targetTable struct {
	Name string
	// Keys are the columns beside target of each unique index that has target.
	Keys [][]string
}

func (t targetTable) sql() string { return pgx.Identifier{"muster", t.Name}.Sanitize() }

// targetTables are all tables of the record that have a column target. They are
// read from the catalogue, so that no later table is forgotten.
func (tx *Tx) targetTables(ctx context.Context) ([]targetTable, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT c.relname, coalesce(i.keys, '{}')
		FROM pg_class c
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'target' AND NOT a.attisdropped
		LEFT JOIN LATERAL (
			SELECT array_agg(k.keys) AS keys
			FROM (
				SELECT (
					SELECT coalesce(string_agg(quote_ident(b.attname), ','), '')
					FROM pg_attribute b
					WHERE b.attrelid = c.oid AND b.attnum = ANY(x.indkey) AND b.attname <> 'target'
				) AS keys
				FROM pg_index x
				WHERE x.indrelid = c.oid AND x.indisunique AND a.attnum = ANY(x.indkey)
			) k
		) i ON true
		WHERE c.relnamespace = 'muster'::regnamespace AND c.relkind IN ('r', 'p')
		ORDER BY c.relname`)
	var tables []targetTable
	if err == nil {
		tables, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (targetTable, error) {
			var t targetTable
			var keys []string
			err := row.Scan(&t.Name, &keys)
			for _, key := range keys {
				t.Keys = append(t.Keys, strings.Split(key, ","))
			}
			return t, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read which tables are about targets: %w", translate(err))
	}
	return tables, nil
}

// BusyError says that work on a target is under way, so that its name cannot be
// changed now.
type BusyError struct {
	Target string
	Why    string
}

func (e *BusyError) Error() string { return fmt.Sprintf("target %s is at work: %s", e.Target, e.Why) }

// Is makes it a conflict.
func (e *BusyError) Is(target error) bool { return target == fleet.ErrConflict }

// lockTargets keeps everybody else from writing about any target until the
// transaction ends, and refuses with a BusyError where a deletion or a run of one
// of the names is under way. All locks are taken before anything is read: what
// others write about the targets is either seen or comes afterwards, under the
// new name.
func (tx *Tx) lockTargets(ctx context.Context, names ...string) ([]targetTable, error) {
	tables, err := tx.targetTables(ctx)
	if err != nil {
		return nil, err
	}
	all := []string{"muster.target", "muster.run"}
	for _, t := range tables {
		all = append(all, t.sql())
	}
	for _, sql := range []string{
		fmt.Sprintf(`SET LOCAL lock_timeout = %d`, tableWait.Milliseconds()),
		`SET CONSTRAINTS ALL DEFERRED`,
		`LOCK TABLE ` + strings.Join(all, ", ") + ` IN EXCLUSIVE MODE`,
		`SET LOCAL lock_timeout = 0`,
	} {
		_, err := tx.tx.Exec(ctx, sql)
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "55P03" { // lock_not_available
			return nil, &BusyError{Target: names[0], Why: "others write to the record without a pause"}
		}
		if err != nil {
			return nil, fmt.Errorf("lock target %s: %w", names[0], translate(err))
		}
	}

	for _, name := range names {
		if err := tx.idle(ctx, name); err != nil {
			return nil, err
		}
	}
	return tables, nil
}

// idle returns a BusyError where a deletion or a run of the target is under way.
func (tx *Tx) idle(ctx context.Context, target string) error {
	var intents, runs int
	err := tx.tx.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM muster.action WHERE target = $1 AND state = 'intended'),
			(SELECT count(*) FROM muster.run WHERE job IN ('sync', 'enforce') AND name = $1 AND state = 'running' AND lease_until > clock_timestamp())`,
		target).Scan(&intents, &runs)
	switch {
	case err != nil:
		return fmt.Errorf("look for work on target %s: %w", target, translate(err))
	case intents > 0:
		return &BusyError{Target: target, Why: fmt.Sprintf("%d deletions are not settled; muster serve settles them once GitHub answers", intents)}
	case runs > 0:
		return &BusyError{Target: target, Why: "a sync or enforce is running"}
	}
	return nil
}

// closeRuns ends the runs of a name that nobody will use any more. The triggers
// of theirs that NATS still has are then done.
func (tx *Tx) closeRuns(ctx context.Context, target, why string) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.run
		SET state = 'done', finished_at = clock_timestamp(), lease_until = NULL, error = $2
		WHERE job IN ('sync', 'enforce') AND name = $1 AND state IN ('queued', 'running', 'failed')`, target, why)
	if err != nil {
		return fmt.Errorf("end the open runs of target %s: %w", target, translate(err))
	}
	return nil
}

// TargetUse is what is recorded of a target that matters for its runners, and
// who uses it.
type TargetUse struct {
	fleet.Target
	Fixed     bool // there was a complete sync
	Runners   int  // live
	Holds     int  // in force
	Jobs      int  // workflow jobs in progress
	Decisions int
	Replicas  int // muster serve processes that work with it now
}

// TargetUse reads what is recorded under a target's name; fleet.ErrNotFound
// where nothing is.
func (db *DB) TargetUse(ctx context.Context, target string) (TargetUse, error) {
	return targetUse(ctx, db.pool, target)
}

func targetUse(ctx context.Context, q querier, target string) (TargetUse, error) {
	u := TargetUse{Target: fleet.Target{Name: target}}
	var scope string
	err := q.QueryRow(ctx, `
		SELECT scope, api_url, complete_syncs > 0,
			(SELECT count(*) FROM muster.runner WHERE target = t.name AND removed_at IS NULL),
			(SELECT count(*) FROM muster.hold WHERE target = t.name AND (until IS NULL OR until > clock_timestamp())),
			(SELECT count(*) FROM muster.workflow_job WHERE target = t.name AND state = 'in_progress'),
			(SELECT count(*) FROM muster.decision WHERE target = t.name),
			(SELECT count(*) FROM muster.replica WHERE seen_at > clock_timestamp() - $2::interval AND t.name = ANY(targets))
		FROM muster.target t
		WHERE name = $1`, target, replicaLife).Scan(&scope, &u.APIURL, &u.Fixed, &u.Runners, &u.Holds, &u.Jobs, &u.Decisions, &u.Replicas)
	if err == nil {
		u.Scope, err = fleet.ParseScope(scope)
	}
	if err != nil {
		return TargetUse{}, fmt.Errorf("read target %s: %w", target, translate(err))
	}
	return u, nil
}

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

// moveRows moves all rows of one name to another. Of rows that both have, the
// moved one stays: the new name was never completely synced. Only of a workflow
// job the later account stays.
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
		{"drop runners listed under the new name", `DELETE FROM muster.runner WHERE target = $1`, []any{to}},
		{"drop pages of the new name", `DELETE FROM muster.page WHERE target = $1`, []any{to}},
		{"drop the row of the new name", `DELETE FROM muster.target WHERE name = $1`, []any{to}},
		{"take back the former name", `DELETE FROM muster.former_target WHERE name = $1`, []any{to}},
		{"join workflow jobs", `
			DELETE FROM muster.workflow_job o
			USING muster.workflow_job n
			WHERE o.target = $1 AND n.target = $2 AND n.workflow_job_id = o.workflow_job_id AND n.changed_at > o.changed_at`, []any{from, to}},
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

// GuardError says that a target must not be forgotten.
type GuardError struct {
	Target string
	Why    string
}

func (e *GuardError) Error() string {
	return fmt.Sprintf("target %s must not be forgotten: %s", e.Target, e.Why)
}

// Forget is the wish to drop what is known of a target.
type Forget struct {
	Target string
	// Protection is whether holds in force and workflow jobs in progress may be
	// dropped with the rest.
	Protection bool
	Actor      fleet.Actor
	Reason     string // empty: none was given
}

// ForgetTarget deletes what is recorded of a target, so that its name is free,
// in one transaction with the audit event. Tokens stay: hosts may still use
// them. The trail stays as it is. It returns what was dropped. Errors:
// fleet.ErrNotFound where the target is not recorded, a GuardError where it must
// not be forgotten, a BusyError where work on it is under way.
func (db *DB) ForgetTarget(ctx context.Context, f Forget) (TargetUse, error) {
	var dropped TargetUse
	err := db.InTx(ctx, func(tx *Tx) error {
		var err error
		dropped, err = tx.forget(ctx, f)
		return err
	})
	if err != nil {
		return TargetUse{}, fmt.Errorf("forget target %s: %w", f.Target, err)
	}
	return dropped, nil
}

func (tx *Tx) forget(ctx context.Context, f Forget) (TargetUse, error) {
	tables, err := tx.lockTargets(ctx, f.Target)
	if err != nil {
		return TargetUse{}, err
	}
	dropped, err := targetUse(ctx, tx.tx, f.Target)
	switch {
	case err != nil:
		return TargetUse{}, err
	case dropped.Replicas > 0:
		return TargetUse{}, &GuardError{f.Target, fmt.Sprintf("%d muster serve work with it: take it out of muster.yaml and reload", dropped.Replicas)}
	case dropped.Holds+dropped.Jobs > 0 && !f.Protection:
		return TargetUse{}, &GuardError{f.Target, fmt.Sprintf("%d holds and %d workflow jobs in progress protect its runners. "+
			"muster target rename carries them over to another name; with --drop-protection they are forgotten too", dropped.Holds, dropped.Jobs)}
	}

	if err := tx.closeRuns(ctx, f.Target, "the target was forgotten"); err != nil {
		return TargetUse{}, err
	}
	for _, t := range tables {
		if t.Name == "token" {
			continue
		}
		if _, err := tx.tx.Exec(ctx, `DELETE FROM `+t.sql()+` WHERE target = $1`, f.Target); err != nil {
			return TargetUse{}, fmt.Errorf("drop rows of %s: %w", t.Name, translate(err))
		}
	}
	if _, err := tx.tx.Exec(ctx, `DELETE FROM muster.target WHERE name = $1`, f.Target); err != nil {
		return TargetUse{}, fmt.Errorf("drop its row: %w", translate(err))
	}
	return dropped, tx.Audit(ctx, fleet.AuditEvent{
		Code: fleet.AuditTargetForgotten, Actor: f.Actor, Target: f.Target, Reason: f.Reason,
		Details: map[string]any{
			"scope": dropped.Scope.String(), "api_url": dropped.APIURL,
			"runners": dropped.Runners, "holds": dropped.Holds, "workflow_jobs": dropped.Jobs, "decisions": dropped.Decisions,
		},
	})
}
