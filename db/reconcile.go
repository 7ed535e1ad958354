package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// KnownRepository is a repository whose workflow jobs are compared with
// GitHub's.
type KnownRepository struct {
	Repository string    // OWNER/REPO
	HeardAt    time.Time // when something was last told of a workflow job of it; zero: never
	ComparedAt time.Time // as of when all its workflow jobs were last compared; zero: never
	Listed     bool      // by GitHub; false: events told of it
	Moved      bool      // it was found under this name a moment ago; not stored
}

// Reconciliation is how far the comparison of a target has come.
type Reconciliation struct {
	BeganAt  time.Time // of the newest part; zero: there was none
	ListedAt time.Time // when its repositories were last listed; zero: they are to be listed
	AsOf     time.Time // when all workflow jobs were known at last; zero: never
	Fault    string    // why the newest part is not whole; empty: it is
	// GroupsAt is when its runner groups were last asked for, zero: never, and
	// GroupsFault why they are not known as of then; empty: they are.
	GroupsAt    time.Time
	GroupsFault string
	// Unreadable counts the repositories of the newest listing that cannot be read,
	// and UnreadableItems names the first of them.
	Unreadable      int
	UnreadableItems []string
	// Refused is what was told of workflow jobs and not taken in, and is not made
	// good yet, but for its reason.
	Refused fleet.Refused
}

// ClaimReconciliation makes the next part of a target's comparison the
// caller's, where it is due, and nobody else's until then. It returns how far
// the comparison has come.
func (tx *Tx) ClaimReconciliation(ctx context.Context, target string, now, until time.Time) (Reconciliation, bool, error) {
	r, err := scanReconciliation(tx.tx.QueryRow(ctx, `
		INSERT INTO muster.reconciliation AS r (target, due_at)
		VALUES ($1, $3)
		ON CONFLICT (target) DO UPDATE SET due_at = $3 WHERE r.due_at <= $2
		RETURNING `+reconciliationColumns, target, now, until))
	switch {
	case isNotFound(translate(err)):
		return r, false, nil
	case err != nil:
		return r, false, fmt.Errorf("claim the comparison of %s: %w", target, translate(err))
	}
	return r, true, nil
}

// SaveReconciliation stores how far it has come, and when it is due next.
func (tx *Tx) SaveReconciliation(ctx context.Context, target string, r Reconciliation, due time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.reconciliation
		SET due_at = $2, began_at = $3, listed_at = $4, as_of = $5, fault = $6, groups_at = $7, groups_fault = $8,
			unreadable = $9, unreadable_items = coalesce($10::text[], '{}')
		WHERE target = $1`, target, due, orNull(r.BeganAt), orNull(r.ListedAt), orNull(r.AsOf), r.Fault, orNull(r.GroupsAt), r.GroupsFault,
		r.Unreadable, r.UnreadableItems)
	if err != nil {
		return fmt.Errorf("store the comparison of %s: %w", target, translate(err))
	}
	return nil
}

// Reconciliation is that of Tx.
func (tx *Tx) Reconciliation(ctx context.Context, target string) (Reconciliation, error) {
	return reconciliation(ctx, tx.tx, target)
}

// Reconciliation reads how far the comparison of a target has come; of one that
// is not compared it is zero.
func (db *DB) Reconciliation(ctx context.Context, target string) (Reconciliation, error) {
	return reconciliation(ctx, db.pool, target)
}

func reconciliation(ctx context.Context, q querier, target string) (Reconciliation, error) {
	rows, err := q.Query(ctx, `SELECT `+reconciliationColumns+` FROM muster.reconciliation r WHERE r.target = $1`, target)
	var r Reconciliation
	if err == nil {
		r, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (Reconciliation, error) { return scanReconciliation(row) })
	}
	if err = translate(err); err != nil && !isNotFound(err) {
		return Reconciliation{}, fmt.Errorf("read the comparison of %s: %w", target, err)
	}
	return r, nil
}

const reconciliationColumns = `r.began_at, r.listed_at, r.as_of, r.fault, r.groups_at, r.groups_fault, r.unreadable, r.unreadable_items,
	(SELECT count(*) FROM muster.refused_delivery d WHERE d.target = r.target),
	(SELECT min(at) FROM muster.refused_delivery d WHERE d.target = r.target),
	(SELECT max(at) FROM muster.refused_delivery d WHERE d.target = r.target)`

func scanReconciliation(row pgx.Row) (Reconciliation, error) {
	var r Reconciliation
	var began, listed, asOf, groups, since, until *time.Time
	err := row.Scan(&began, &listed, &asOf, &r.Fault, &groups, &r.GroupsFault, &r.Unreadable, &r.UnreadableItems, &r.Refused.Deliveries, &since, &until)
	r.UnreadableItems = named(r.UnreadableItems)
	r.Refused.Since, r.Refused.Until = utc(since), utc(until)
	r.BeganAt, r.ListedAt, r.AsOf, r.GroupsAt = utc(began), utc(listed), utc(asOf), utc(groups)
	return r, err
}

// named is a list of names as a reader wants it: nil where there is none.
func named(items []string) []string {
	if len(items) == 0 {
		return nil
	}
	return items
}

// HearRepositories notes the repositories of which something was told since.
func (tx *Tx) HearRepositories(ctx context.Context, target string, since time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.repository AS r (target, repository, heard_at, listed)
		SELECT target, repository, max(changed_at), false
		FROM muster.workflow_job
		WHERE target = $1 AND changed_at >= $2 AND repository <> ''
		GROUP BY target, repository
		ON CONFLICT (target, repository) DO UPDATE SET heard_at = excluded.heard_at
			WHERE r.heard_at IS NULL OR r.heard_at < excluded.heard_at`, target, since)
	if err != nil {
		return fmt.Errorf("note the repositories of %s: %w", target, translate(err))
	}
	return nil
}

// ListRepositories has the repositories of a target be these, of which some are
// public, and those of which something was told since.
func (tx *Tx) ListRepositories(ctx context.Context, target string, listed, public []string, since time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		DELETE FROM muster.repository
		WHERE target = $1 AND repository <> ALL (coalesce($2::text[], '{}')) AND (heard_at IS NULL OR heard_at < $3)`, target, listed, since)
	if err != nil {
		return fmt.Errorf("store the repositories of %s: %w", target, translate(err))
	}
	return tx.AddRepositories(ctx, target, listed, public)
}

// AddRepositories has the repositories of a target be these, of which some are
// public, and those that are known besides.
func (tx *Tx) AddRepositories(ctx context.Context, target string, listed, public []string) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.repository AS r (target, repository, public)
		SELECT $1, name, name = ANY (coalesce($3::text[], '{}'))
		FROM unnest($2::text[]) AS listed (name)
		ON CONFLICT (target, repository) DO UPDATE SET public = excluded.public, listed = true, unseen = false
			WHERE r.public <> excluded.public OR NOT r.listed OR r.unseen`,
		target, listed, public)
	if err != nil {
		return fmt.Errorf("store the repositories of %s: %w", target, translate(err))
	}
	return nil
}

// CompareRepository notes as of when all workflow jobs of a repository were
// compared.
func (tx *Tx) CompareRepository(ctx context.Context, target, repository string, at time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.repository
		SET compared_at = $3, tried_at = NULL
		WHERE target = $1 AND repository = $2`, target, repository, at)
	if err != nil {
		return fmt.Errorf("note that %s of %s was compared: %w", repository, target, translate(err))
	}
	return nil
}

// PassOverRepository notes when a repository was not compared to the end: then
// others have their turn before it has the next.
func (tx *Tx) PassOverRepository(ctx context.Context, target, repository string, at time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.repository
		SET tried_at = $3
		WHERE target = $1 AND repository = $2`, target, repository, at)
	if err != nil {
		return fmt.Errorf("note that %s of %s was not compared: %w", repository, target, translate(err))
	}
	return nil
}

// LeaveRepository notes that GitHub does not show a repository that it did not list
// either: it is not known then, until the repositories are listed anew.
func (tx *Tx) LeaveRepository(ctx context.Context, target, repository string) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.repository
		SET unseen = true
		WHERE target = $1 AND repository = $2 AND NOT listed`, target, repository)
	if err != nil {
		return fmt.Errorf("note that %s of %s is not seen: %w", repository, target, translate(err))
	}
	return nil
}

// RenameRepository notes that a repository of a target has another name now, as of
// at. Its workflow jobs that are open or were told of lately go with it. With an
// empty name it is not the target's any more.
func (tx *Tx) RenameRepository(ctx context.Context, target, from, to string, at time.Time) error {
	var err error
	if to != "" {
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO muster.repository AS r (target, repository, heard_at, compared_at, public, listed)
			SELECT target, $3, heard_at, compared_at, public, listed
			FROM muster.repository
			WHERE target = $1 AND repository = $2
			ON CONFLICT (target, repository) DO UPDATE SET heard_at = greatest(r.heard_at, excluded.heard_at), unseen = false`, target, from, to)
	}
	if err == nil && to != "" {
		_, err = tx.tx.Exec(ctx, `
			UPDATE muster.workflow_job
			SET repository = $3
			WHERE target = $1 AND repository = $2 AND (state <> 'completed' OR changed_at > $4)`, target, from, to, at.Add(-heardFor))
	}
	if err == nil {
		_, err = tx.tx.Exec(ctx, `DELETE FROM muster.repository WHERE target = $1 AND repository = $2`, target, from)
	}
	if err != nil {
		return fmt.Errorf("note that %s of %s is %s now: %w", from, target, to, translate(err))
	}
	return nil
}

// heardFor is for longer than a repository is noted for an event of it.
const heardFor = 8 * 24 * time.Hour

// KnownRepositories reads those of a target, the one whose last turn is longest
// ago first.
func (tx *Tx) KnownRepositories(ctx context.Context, target string) ([]KnownRepository, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT repository, heard_at, compared_at, listed
		FROM muster.repository
		WHERE target = $1 AND NOT unseen
		ORDER BY greatest(compared_at, tried_at) NULLS FIRST, repository`, target)
	var all []KnownRepository
	if err == nil {
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (KnownRepository, error) {
			var r KnownRepository
			var heard, compared *time.Time
			err := row.Scan(&r.Repository, &heard, &compared, &r.Listed)
			r.HeardAt, r.ComparedAt = utc(heard), utc(compared)
			return r, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the repositories of %s: %w", target, translate(err))
	}
	return all, nil
}

// WorkflowJobs reads what is known of some workflow jobs, by id.
func (db *DB) WorkflowJobs(ctx context.Context, target string, ids []int64) (map[int64]fleet.WorkflowJob, error) {
	return db.workflowJobs(ctx, target, `workflow_job_id = ANY ($2)`, ids)
}

// OpenJobsOf reads the workflow jobs of a repository that, as far as is known,
// have waited for a runner or run since before a moment, by id.
func (db *DB) OpenJobsOf(ctx context.Context, target, repository string, before time.Time) (map[int64]fleet.WorkflowJob, error) {
	return db.workflowJobs(ctx, target, `state IN ('queued', 'in_progress') AND repository = $2 AND changed_at < $3`, repository, before)
}

func (db *DB) workflowJobs(ctx context.Context, target, which string, args ...any) (map[int64]fleet.WorkflowJob, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT workflow_job_id, `+workflowJobColumns+`
		FROM muster.workflow_job
		WHERE target = $1 AND `+which, append([]any{target}, args...)...)
	all := map[int64]fleet.WorkflowJob{}
	if err == nil {
		j := fleet.WorkflowJob{Target: target}
		for rows.Next() {
			if err = scanWorkflowJob(rows, &j, &j.ID); err != nil {
				break
			}
			all[j.ID] = j
			j = fleet.WorkflowJob{Target: target}
		}
		rows.Close()
		if err == nil {
			err = rows.Err()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read workflow jobs of %s: %w", target, translate(err))
	}
	return all, nil
}
