package db

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// observedColumns add up what a runner's row and its target's clock say.
const observedColumns = `
	r.target, r.runner_id, r.name, r.os, r.status, r.busy, r.labels, r.runner_group, r.ephemeral, r.version, r.unreadable,
	coalesce(r.host, ''), coalesce(r.pool, ''), r.first_seen_at,
	CASE WHEN r.removed_at IS NULL AND r.missing_since IS NULL
		THEN greatest(r.seen_at, t.last_complete_sync_at) ELSE r.seen_at END,
	r.status_since, r.offline_since,
	CASE WHEN r.status <> 'online' THEN r.last_online_at
		WHEN r.removed_at IS NULL AND r.missing_since IS NULL THEN greatest(r.seen_at, t.last_complete_sync_at)
		ELSE r.seen_at END,
	CASE WHEN NOT r.busy THEN r.last_busy_at
		WHEN r.removed_at IS NULL AND r.missing_since IS NULL THEN greatest(r.seen_at, t.last_complete_sync_at)
		ELSE r.seen_at END,
	r.removed_at, coalesce(r.removal_cause, ''), r.missing_since,
	coalesce(CASE WHEN r.removed_at IS NULL THEN t.observed_us - r.offline_from_us END, 0),
	coalesce(t.complete_syncs - r.offline_from_sync + 1, 0),
	coalesce(extract(epoch FROM t.last_complete_sync_at - r.offline_from_at), 0)::double precision,
	spared.at,
	coalesce(CASE WHEN named.heard_at > open.heard_at THEN named.workflow_job_id ELSE open.workflow_job_id END, named.workflow_job_id, 0),
	coalesce(CASE WHEN named.heard_at > open.heard_at THEN named.began_at ELSE open.began_at END, named.began_at),
	greatest(open.heard_at, named.heard_at), done.at,
	coalesce(own.host, ''), own.seen_at, coalesce(own.stopped, false),
	coalesce(CASE WHEN says.first <> coalesce(r.host, r.name) THEN says.first WHEN says.last <> coalesce(r.host, r.name) THEN says.last END, ''),
	says.busy_at, says.idle_at, tokens.at,
	hold.reason, hold.by, hold.at, hold.until,
	coalesce(refused.n, 0), refused.since, refused.until`

// observedFrom joins what observedColumns need, and observedOne for the runner $2
// of the target $1 alone. Only sparings since the newest complete sync tell more
// than that sync does, but for those of drains, which tell for some time that a
// host does not let its runner go.
var (
	observedFrom = observedBase + witnesses("")
	observedOne  = observedBase + witnesses(` AND lower(j.runner_name) = (
			SELECT lower(name) FROM muster.runner WHERE target = $1 AND runner_id = $2)`)
)

const observedBase = `
	FROM muster.runner r
	JOIN muster.target t ON t.name = r.target
	LEFT JOIN (
		SELECT a.target, a.runner_id, max(a.settled_at) AS at
		FROM muster.action a
		JOIN muster.target n ON n.name = a.target
		WHERE a.state = 'spared' AND a.settled_at > n.last_complete_sync_at - interval '1 day'
		GROUP BY a.target, a.runner_id
	) spared ON spared.target = r.target AND spared.runner_id = r.runner_id
	LEFT JOIN muster.hold hold ON hold.target = r.target AND hold.runner_id = r.runner_id
	LEFT JOIN (
		SELECT target, count(*) AS n, min(at) AS since, max(at) AS until
		FROM muster.refused_delivery
		GROUP BY target
	) refused ON refused.target = r.target`

func scanObserved(row pgx.CollectableRow) (fleet.Observed, error) {
	var o fleet.Observed
	var offline, online, busy, removed, missing, spared *time.Time
	var refusedSince, refusedUntil *time.Time
	var began, heard, done, seen, atWork, idle, token, held, until *time.Time
	var reason, by *string
	var own fleet.HostClaim
	var ephemeral *bool
	var us int64
	var span float64
	err := row.Scan(&o.Target, &o.ID, &o.Name, &o.OS, &o.Status, &o.Busy, &o.Labels, &o.Group, &ephemeral, &o.Version, &o.Unreadable,
		&o.Host, &o.Pool, &o.FirstSeenAt, &o.LastSeenAt, &o.StatusSince, &offline, &online, &busy,
		&removed, &o.RemovalCause, &missing, &us, &o.OfflineListings, &span, &spared,
		&o.Work.OpenJob, &began, &heard, &done, &own.Host, &seen, &own.Stopped, &o.HostSays.Stranger, &atWork, &idle, &token,
		&reason, &by, &held, &until, &o.Refused.Deliveries, &refusedSince, &refusedUntil)
	if err != nil {
		return o, err
	}
	o.Ephemeral = known(ephemeral)
	o.FirstSeenAt, o.LastSeenAt, o.StatusSince = o.FirstSeenAt.UTC(), o.LastSeenAt.UTC(), o.StatusSince.UTC()
	o.OfflineSince, o.LastOnlineAt, o.LastBusyAt = utc(offline), utc(online), utc(busy)
	o.RemovedAt, o.MissingSince, o.SparedAt = utc(removed), utc(missing), utc(spared)
	o.Work.OpenSince, o.Work.HeardAt, o.Work.LastDoneAt = utc(began), utc(heard), utc(done)
	own.SeenAt, o.HostSays.TokenAt = utc(seen), utc(token)
	if o.Host != "" {
		o.HostSays.Name, o.HostSays.SeenAt, o.HostSays.Stopped = own.Host, own.SeenAt, own.Stopped
	} else {
		o.Claim = own // a name alone proves nothing
	}
	o.HostSays.BusyAt, o.HostSays.IdleAt = utc(atWork), utc(idle)
	o.Refused.Since, o.Refused.Until = utc(refusedSince), utc(refusedUntil)
	o.Hold = fleet.Hold{Reason: text(reason), By: text(by), At: utc(held), Until: utc(until)}
	o.OfflineFor = time.Duration(us) * time.Microsecond
	o.OfflineSpan = time.Duration(span * float64(time.Second))
	return o, nil
}

func observed(ctx context.Context, q querier, target string, id int64) ([]fleet.Observed, error) {
	// Two statements: for one runner, no witness is gathered for all.
	from, which := observedFrom, `
		WHERE r.target = $1 AND r.removed_at IS NULL AND $2 = 0
		ORDER BY r.runner_id`
	if id != 0 {
		from, which = observedOne, `
		WHERE r.target = $1 AND r.runner_id = $2`
	}
	rows, err := q.Query(ctx, `
		SELECT`+observedColumns+from+which, target, id)
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

// IdleRunners reads, by id, the registered runners of a target that are online,
// at work by no listing's word, and may be a pool's: whose hosts it asked for, or
// that carry all of its labels. A thousand pools that shrink do not read the whole
// fleet each.
func (db *DB) IdleRunners(ctx context.Context, target, pool string, labels []string) ([]fleet.Observed, error) {
	return idleRunners(ctx, db.pool, target, pool, labels)
}

// IdleRunners is DB.IdleRunners within the transaction.
func (tx *Tx) IdleRunners(ctx context.Context, target, pool string, labels []string) ([]fleet.Observed, error) {
	return idleRunners(ctx, tx.tx, target, pool, labels)
}

func idleRunners(ctx context.Context, q querier, target, pool string, labels []string) ([]fleet.Observed, error) {
	rows, err := q.Query(ctx, `
		SELECT`+observedColumns+observedFrom+`
		WHERE r.target = $1 AND r.removed_at IS NULL AND r.status = 'online' AND NOT r.busy AND (r.pool = $2 OR r.labels @> $3)
		ORDER BY r.runner_id`, target, pool, labels)
	if err == nil {
		var all []fleet.Observed
		if all, err = pgx.CollectRows(rows, scanObserved); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read idle runners of pool %s: %w", pool, translate(err))
}

// FleetState tells one reading of a target's live runners from a later one
// that would show others.
type FleetState struct{ WalkedAt, RemovedAt time.Time }

// FleetState reads when a sync of the target was last recorded, and when one of
// its runners was last removed.
func (tx *Tx) FleetState(ctx context.Context, target string) (FleetState, error) {
	return fleetState(ctx, tx.tx, target)
}

// FleetState is Tx.FleetState outside a transaction.
func (db *DB) FleetState(ctx context.Context, target string) (FleetState, error) {
	return fleetState(ctx, db.pool, target)
}

func fleetState(ctx context.Context, q querier, target string) (FleetState, error) {
	var walked, removed *time.Time
	err := q.QueryRow(ctx, `
		SELECT t.last_walk_at, (SELECT max(r.removed_at) FROM muster.runner r WHERE r.target = t.name)
		FROM muster.target t
		WHERE t.name = $1`, target).Scan(&walked, &removed)
	if err != nil {
		return FleetState{}, fmt.Errorf("read the state of the fleet of %s: %w", target, translate(err))
	}
	return FleetState{WalkedAt: utc(walked), RemovedAt: utc(removed)}, nil
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

// Neighbours counts the other live runners of the target around one, as
// package policies counts them among all.
func (tx *Tx) Neighbours(ctx context.Context, r fleet.Observed) (fleet.Neighbours, error) {
	return neighbours(ctx, tx.tx, r)
}

// Neighbours is Tx.Neighbours outside a transaction.
func (db *DB) Neighbours(ctx context.Context, r fleet.Observed) (fleet.Neighbours, error) {
	return neighbours(ctx, db.pool, r)
}

func neighbours(ctx context.Context, q querier, r fleet.Observed) (fleet.Neighbours, error) {
	labels := r.Labels
	if labels == nil {
		labels = []string{}
	}
	var n fleet.Neighbours
	err := q.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE status = 'online' AND labels = $3 AND cardinality($3::text[]) > 0),
			count(*) FILTER (WHERE host = nullif($4, '') AND first_seen_at > $5)
		FROM muster.runner
		WHERE target = $1 AND runner_id <> $2 AND removed_at IS NULL AND missing_since IS NULL`,
		r.Target, r.ID, labels, r.Host, r.LastThereAt()).Scan(&n.Alike, &n.Newer)
	if err != nil {
		return n, fmt.Errorf("count runners around %s/%d: %w", r.Target, r.ID, translate(err))
	}
	return n, nil
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
	return collect(db.EachRunner(ctx, f))
}

// EachRunner is Runners one by one, for fleets of any size.
func (db *DB) EachRunner(ctx context.Context, f RunnerFilter) iter.Seq2[fleet.Observed, error] {
	labels := f.Labels
	if labels == nil {
		labels = []string{}
	}
	return stream("runners", func() (pgx.Rows, error) {
		return db.pool.Query(ctx, `
			SELECT`+observedColumns+observedFrom+`
			WHERE (r.removed_at IS NOT NULL) = $1
				AND ($2 = '' OR r.target = $2)
				AND ($3 = '' OR r.status = $3)
				AND ($4::bigint = 0 OR t.observed_us - r.offline_from_us >= $4)
				AND r.labels @> $5
				AND ($6 = '' OR r.name = $6)
			ORDER BY r.target, r.name, r.runner_id`,
			f.Removed, f.Target, string(f.Status), f.OfflineFor.Microseconds(), labels, f.Name)
	}, scanObserved)
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
