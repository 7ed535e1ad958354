package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// observedColumns add up what a runner's row and its target's clock say.
const observedColumns = `
	r.target, r.runner_id, r.name, r.os, r.status, r.busy, r.labels, r.runner_group, r.ephemeral, r.version,
	coalesce(r.host, ''), r.first_seen_at,
	CASE WHEN r.removed_at IS NULL AND r.missing_since IS NULL
		THEN greatest(r.seen_at, t.last_complete_sync_at) ELSE r.seen_at END,
	r.status_since, r.offline_since,
	CASE WHEN r.status = 'online' AND r.missing_since IS NULL
		THEN greatest(r.seen_at, t.last_complete_sync_at) ELSE r.last_online_at END,
	CASE WHEN r.busy AND r.missing_since IS NULL
		THEN greatest(r.seen_at, t.last_complete_sync_at) ELSE r.last_busy_at END,
	r.removed_at, coalesce(r.removal_cause, ''), r.missing_since,
	coalesce(CASE WHEN r.removed_at IS NULL THEN t.observed_us - r.offline_from_us END, 0),
	coalesce(t.complete_syncs - r.offline_from_sync + 1, 0),
	coalesce(extract(epoch FROM t.last_complete_sync_at - r.offline_from_at), 0)::double precision,
	spared.at`

// observedFrom joins what observedColumns need. Only sparings since the newest
// complete sync tell more than that sync does.
const observedFrom = `
	FROM muster.runner r
	JOIN muster.target t ON t.name = r.target
	LEFT JOIN (
		SELECT a.target, a.runner_id, max(a.settled_at) AS at
		FROM muster.action a
		JOIN muster.target n ON n.name = a.target
		WHERE a.state = 'spared' AND a.settled_at > n.last_complete_sync_at
		GROUP BY a.target, a.runner_id
	) spared ON spared.target = r.target AND spared.runner_id = r.runner_id`

func scanObserved(row pgx.CollectableRow) (fleet.Observed, error) {
	var o fleet.Observed
	var offline, online, busy, removed, missing, spared *time.Time
	var us int64
	var span float64
	err := row.Scan(&o.Target, &o.ID, &o.Name, &o.OS, &o.Status, &o.Busy, &o.Labels, &o.Group, &o.Ephemeral, &o.Version,
		&o.Host, &o.FirstSeenAt, &o.LastSeenAt, &o.StatusSince, &offline, &online, &busy,
		&removed, &o.RemovalCause, &missing, &us, &o.OfflineListings, &span, &spared)
	if err != nil {
		return o, err
	}
	o.FirstSeenAt, o.LastSeenAt, o.StatusSince = o.FirstSeenAt.UTC(), o.LastSeenAt.UTC(), o.StatusSince.UTC()
	o.OfflineSince, o.LastOnlineAt, o.LastBusyAt = utc(offline), utc(online), utc(busy)
	o.RemovedAt, o.MissingSince, o.SparedAt = utc(removed), utc(missing), utc(spared)
	o.OfflineFor = time.Duration(us) * time.Microsecond
	o.OfflineSpan = time.Duration(span * float64(time.Second))
	return o, nil
}

func observed(ctx context.Context, q querier, target string, id int64) ([]fleet.Observed, error) {
	rows, err := q.Query(ctx, `
		SELECT`+observedColumns+observedFrom+`
		WHERE r.target = $1 AND ($2 = 0 OR r.runner_id = $2) AND ($2 <> 0 OR r.removed_at IS NULL)
		ORDER BY r.runner_id`, target, id)
	if err == nil {
		var all []fleet.Observed
		if all, err = pgx.CollectRows(rows, scanObserved); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read runners of %s: %w", target, translate(err))
}

// LiveRunners reads the registered runners of a target, by id.
func (db *DB) LiveRunners(ctx context.Context, target string) ([]fleet.Observed, error) {
	return observed(ctx, db.pool, target, 0)
}

// LiveRunners is DB.LiveRunners within the transaction.
func (tx *Tx) LiveRunners(ctx context.Context, target string) ([]fleet.Observed, error) {
	return observed(ctx, tx.tx, target, 0)
}

// Runner reads one runner, removed or not; fleet.ErrNotFound where muster
// never saw it.
func (tx *Tx) Runner(ctx context.Context, target string, id int64) (fleet.Observed, error) {
	return one(observed(ctx, tx.tx, target, id))
}

// Runner is Tx.Runner outside a transaction.
func (db *DB) Runner(ctx context.Context, target string, id int64) (fleet.Observed, error) {
	return one(observed(ctx, db.pool, target, id))
}

func one(found []fleet.Observed, err error) (fleet.Observed, error) {
	if err == nil && len(found) == 0 {
		err = fleet.ErrNotFound
	}
	if err != nil {
		return fleet.Observed{}, err
	}
	return found[0], nil
}

// LockRunner keeps others from settling what they do to a runner, or from
// beginning anything, until the transaction ends. Whoever locks a policy too
// does that first. A runner that muster never saw is fleet.ErrNotFound.
func (tx *Tx) LockRunner(ctx context.Context, target string, id int64) error {
	var one int
	err := tx.tx.QueryRow(ctx, `
		SELECT 1 FROM muster.runner WHERE target = $1 AND runner_id = $2 FOR UPDATE`, target, id).Scan(&one)
	if err != nil {
		return fmt.Errorf("lock runner %s/%d: %w", target, id, translate(err))
	}
	return nil
}

// RunnerFilter narrows a listing; its zero value lists every live runner.
type RunnerFilter struct {
	Target     string
	Status     fleet.Status
	OfflineFor time.Duration // at least
	Labels     []string      // all of them
	Name       string        // exactly
	Removed    bool          // the removed ones instead of the live ones
}

// Runners lists runners by target and name.
func (db *DB) Runners(ctx context.Context, f RunnerFilter) ([]fleet.Observed, error) {
	labels := f.Labels
	if labels == nil {
		labels = []string{}
	}
	rows, err := db.pool.Query(ctx, `
		SELECT`+observedColumns+observedFrom+`
		WHERE (r.removed_at IS NOT NULL) = $1
			AND ($2 = '' OR r.target = $2)
			AND ($3 = '' OR r.status = $3)
			AND ($4::bigint = 0 OR t.observed_us - r.offline_from_us >= $4)
			AND r.labels @> $5
			AND ($6 = '' OR r.name = $6)
		ORDER BY r.target, r.name, r.runner_id`,
		f.Removed, f.Target, string(f.Status), f.OfflineFor.Microseconds(), labels, f.Name)
	if err == nil {
		var all []fleet.Observed
		if all, err = pgx.CollectRows(rows, scanObserved); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read runners: %w", translate(err))
}

// MarkRemoved notes that muster removed a runner, or found it removed, with
// its transition. A cause that is known wins over one that a sync could not
// tell. It reports whether the runner was still taken for registered.
func (tx *Tx) MarkRemoved(ctx context.Context, target string, id int64, cause fleet.RemovalCause, now time.Time) (bool, error) {
	found, err := tx.Runner(ctx, target, id)
	if err != nil {
		return false, fmt.Errorf("mark runner %s/%d removed: %w", target, id, err)
	}
	_, err = tx.tx.Exec(ctx, `
		UPDATE muster.runner
		SET removed_at = coalesce(removed_at, $3), removal_cause = $4, seen_at = $5, missing_since = NULL
		WHERE target = $1 AND runner_id = $2 AND (removed_at IS NULL OR removal_cause = 'unknown')`,
		target, id, now, string(cause), found.LastSeenAt)
	if err != nil {
		return false, fmt.Errorf("mark runner %s/%d removed: %w", target, id, translate(err))
	}
	if !found.RemovedAt.IsZero() {
		return false, nil
	}
	return true, tx.AddHistory(ctx, target, "", []HistoryRow{{
		RunnerID: id, Name: found.Name, At: now, Change: fleet.ChangeRemoved,
		Before: map[string]any{"status": string(found.Status), "busy": found.Busy, "removal_cause": nil},
	}})
}
