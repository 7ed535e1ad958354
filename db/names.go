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
