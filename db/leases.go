package db

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// LeaseCounts is how the requests for hosts of a pool fare.
type LeaseCounts struct {
	Live int // asked for, and neither online nor expired
	// Expired counts those that ran out since a host last came online, within
	// a day, and Rounds how often hosts were asked for by them, each time after
	// those before had run out.
	Expired, Rounds int
	LastDeadline    time.Time // the newest of theirs
}

// leaseCountQuery counts the leases in a table.
func leaseCountQuery(table string) string {
	return `
	SELECT p.name, live.n, over.n, over.rounds, over.last
	FROM unnest($2::text[]) AS p (name)
	CROSS JOIN LATERAL (
		SELECT count(*)
		FROM ` + table + `
		WHERE pool = p.name AND target = $1 AND state IN ('requested', 'claimed', 'registered')
	) AS live (n)
	CROSS JOIN LATERAL (
		SELECT max(online_at)
		FROM ` + table + `
		WHERE pool = p.name AND target = $1 AND state = 'online'
	) AS came (at)
	CROSS JOIN LATERAL (
		-- What had been asked for when that host came begins the row.
		SELECT count(*), coalesce(max(CASE WHEN requested_at <= came.at THEN 1 ELSE attempt END), 0), max(deadline)
		FROM ` + table + `
		WHERE pool = p.name AND target = $1 AND state = 'expired' AND deadline > greatest($3::timestamptz - interval '1 day', came.at)
	) AS over (n, rounds, last)`
}

// leasesWentQuery finds those of pools of a target whose host came, had its one
// workflow job and went between two syncs: it was online. The job names it, and a
// sync that began after that was told does not show it any more.
const leasesWentQuery = `
	SELECT DISTINCT ON (l.request_id) l.request_id, nullif(j.runner_id, 0) AS runner_id, coalesce(j.started_at, j.changed_at) AS at
	FROM muster.lease l
	JOIN muster.workflow_job j ON j.target = l.target AND j.state = 'completed' AND lower(j.runner_name) = l.host
		AND j.changed_at >= l.requested_at AND coalesce(j.started_at, j.changed_at) >= l.requested_at
		-- of a year of jobs those since the oldest request
		AND j.changed_at >= (
			SELECT min(requested_at) FROM muster.lease
			WHERE target = $1 AND pool = ANY($2) AND state IN ('claimed', 'registered'))
		AND j.changed_at <= (SELECT last_complete_sync_at FROM muster.target WHERE name = $1)
	WHERE l.target = $1 AND l.pool = ANY($2) AND l.state IN ('claimed', 'registered')
	ORDER BY l.request_id, at`

// leaseOver says of a lease whose host did not come whether it has run out.
const leaseOver = `state IN ('requested', 'claimed', 'registered') AND deadline <= $3
	AND deadline <= (SELECT last_complete_sync_at FROM muster.target WHERE name = $1)`

// LeaseCounts tells how the requests for hosts of pools of a target fare, by
// name. Those that ran out do so with ExpireLeases.
func (tx *Tx) LeaseCounts(ctx context.Context, target string, pools []string, now time.Time) (map[string]LeaseCounts, error) {
	return leaseCounts(ctx, tx.tx, leaseCountQuery("muster.lease"), target, pools, now)
}

// LeaseCounts is that of Tx after ExpireLeases, and changes nothing.
func (db *DB) LeaseCounts(ctx context.Context, target string, pools []string, now time.Time) (map[string]LeaseCounts, error) {
	return leaseCounts(ctx, db.pool, `
	WITH went AS (`+leasesWentQuery+`
	), lease AS (
		SELECT pool, target, attempt, requested_at, deadline, coalesce(went.at, online_at) AS online_at,
			CASE WHEN went.at IS NOT NULL THEN 'online' WHEN `+leaseOver+` THEN 'expired' ELSE state END AS state
		FROM muster.lease
		LEFT JOIN went USING (request_id)
		WHERE target = $1 AND pool = ANY($2)
	)`+leaseCountQuery("lease"), target, pools, now)
}

func leaseCounts(ctx context.Context, q querier, query, target string, pools []string, now time.Time) (map[string]LeaseCounts, error) {
	rows, err := q.Query(ctx, query, target, pools, now)
	if err != nil {
		return nil, fmt.Errorf("count the leases of %s: %w", target, translate(err))
	}
	all := make(map[string]LeaseCounts, len(pools))
	var pool string
	var c LeaseCounts
	var last *time.Time
	_, err = pgx.ForEachRow(rows, []any{&pool, &c.Live, &c.Expired, &c.Rounds, &last}, func() error {
		c.LastDeadline = utc(last)
		all[pool] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("count the leases of %s: %w", target, translate(err))
	}
	return all, nil
}

// AddLeases stores requests for hosts.
func (tx *Tx) AddLeases(ctx context.Context, leases []fleet.Lease) error {
	if len(leases) == 0 {
		return nil
	}
	_, err := tx.tx.CopyFrom(ctx, pgx.Identifier{"muster", "lease"},
		[]string{"request_id", "pool", "target", "state", "attempt", "requested_at", "deadline"},
		pgx.CopyFromSlice(len(leases), func(i int) ([]any, error) {
			l := &leases[i]
			id, err := uuid.Parse(l.RequestID)
			return []any{id, l.Pool, l.Target, string(fleet.LeaseRequested), l.Attempt, l.RequestedAt, l.Deadline}, err
		}))
	if err != nil {
		return fmt.Errorf("store %d leases of pool %s: %w", len(leases), leases[0].Pool, translate(err))
	}
	return nil
}

// ExpireLeases ends the requests of pools of a target whose host was not online
// by its deadline, and returns how many, by pool. That it was not is what a complete sync has to show which
// began later: while GitHub cannot be seen, hosts that came online would be
// asked for a second time. A host that came, had its one workflow job and went
// between two syncs was online.
//
// Those of pools that the target does not have any more end with them: of all but
// the pools named as others, whose own decision that is.
func (tx *Tx) ExpireLeases(ctx context.Context, target string, pools, others []string, now time.Time) (map[string]int, error) {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.lease l
		SET state = 'online', runner_id = coalesce(went.runner_id, l.runner_id),
			registered_at = coalesce(l.registered_at, went.at), online_at = went.at
		FROM (`+leasesWentQuery+`
		) went
		WHERE l.request_id = went.request_id`, target, pools)
	if err != nil {
		return nil, fmt.Errorf("look for hosts of %s that came and went: %w", target, translate(err))
	}
	rows, err := tx.tx.Query(ctx, `
		UPDATE muster.lease
		SET state = 'expired'
		WHERE target = $1 AND pool <> ALL(coalesce($2::text[], '{}')) AND `+leaseOver+`
		RETURNING pool`, target, others, now)
	if err != nil {
		return nil, fmt.Errorf("end the leases of %s: %w", target, translate(err))
	}
	expired := map[string]int{}
	var pool string
	_, err = pgx.ForEachRow(rows, []any{&pool}, func() error {
		expired[pool]++
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("end the leases of %s: %w", target, translate(err))
	}
	return expired, nil
}

// LockLease reads a request for a host and keeps others from changing it until
// the transaction ends.
func (tx *Tx) LockLease(ctx context.Context, requestID string) (fleet.Lease, error) {
	l := fleet.Lease{RequestID: requestID}
	err := tx.tx.QueryRow(ctx, `
		SELECT pool, target, coalesce(host, ''), coalesce(runner_id, 0), state, attempt, requested_at, deadline
		FROM muster.lease
		WHERE request_id = $1
		FOR UPDATE`, requestID).Scan(&l.Pool, &l.Target, &l.Host, &l.RunnerID, &l.State, &l.Attempt, &l.RequestedAt, &l.Deadline)
	if err != nil {
		return fleet.Lease{}, fmt.Errorf("lock lease %s: %w", requestID, translate(err))
	}
	l.RequestedAt, l.Deadline = l.RequestedAt.UTC(), l.Deadline.UTC()
	return l, nil
}

// ClaimLease makes a request the host's that has come of it.
func (tx *Tx) ClaimLease(ctx context.Context, requestID, host string, now time.Time) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.lease
		SET state = 'claimed', host = $2, claimed_at = $3
		WHERE request_id = $1 AND state = 'requested'`, requestID, host, now)
	if err == nil && tag.RowsAffected() == 0 {
		err = fleet.ErrConflict
	}
	if err != nil {
		return fmt.Errorf("claim lease %s for host %s: %w", requestID, host, translate(err))
	}
	return nil
}

// AdvanceLeases moves the claimed requests of a target on whose hosts have a
// runner now, in one statement. A runner is a host's by the token it was
// registered with, or by its name; it has to have appeared or changed its status
// since the host was asked for. From then on it is the pool's, whatever its labels
// are.
//
// The heartbeat of a host speaks for a runner of another name only where nobody
// else may have it: no token shows whose it is, no host of its name was ever heard
// of or has claimed a request, and no other host lists it. Else a host that lists the runners of others
// would use up their requests, and have its pool take them away.
//
// A runner that came of several requests of its host is of the newest.
//
// A host that comes within a day after its deadline is the pool's too, and its
// runner is noted. The request stays expired, since another host has been asked
// for in its place, or will be.
func (tx *Tx) AdvanceLeases(ctx context.Context, target string, at time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		WITH waiting AS (
			SELECT request_id, host, requested_at
			FROM muster.lease
			WHERE target = $1 AND state IN ('claimed', 'registered')
			UNION ALL
			SELECT request_id, host, requested_at
			FROM muster.lease
			WHERE target = $1 AND state = 'expired' AND host IS NOT NULL AND runner_id IS NULL
				AND deadline > $2::timestamptz - interval '1 day'
		), mine AS (
			SELECT l.request_id, l.requested_at, r.runner_id, r.status = 'online' AS online, r.first_seen_at, r.status_since
			FROM waiting l
			JOIN muster.runner r ON r.target = $1 AND r.removed_at IS NULL
				AND (r.host = l.host OR r.host IS NULL AND r.name = l.host)
			UNION ALL
			SELECT l.request_id, l.requested_at, r.runner_id, r.status = 'online', r.first_seen_at, r.status_since
			FROM waiting l
			JOIN muster.host_runner s ON s.host = l.host AND s.target = $1
			JOIN muster.runner r ON r.target = $1 AND r.name = s.name AND r.removed_at IS NULL AND r.host IS NULL
			WHERE NOT EXISTS (SELECT FROM muster.host o WHERE o.host = lower(r.name) AND o.host <> l.host)
				AND NOT EXISTS (SELECT FROM muster.token o WHERE o.host = lower(r.name) AND o.host <> l.host AND o.outcome = 'issued')
				AND NOT EXISTS (SELECT FROM muster.lease o WHERE o.target = $1 AND o.host = lower(r.name) AND o.host <> l.host)
				AND NOT EXISTS (SELECT FROM muster.host_runner o WHERE o.target = $1 AND o.name = r.name AND o.host <> l.host)
		), best AS (
			SELECT DISTINCT ON (request_id) request_id, requested_at, runner_id, online
			FROM mine
			WHERE greatest(first_seen_at, status_since) >= requested_at AND NOT EXISTS (
				SELECT FROM muster.lease later
				WHERE later.target = $1 AND later.runner_id = mine.runner_id AND later.requested_at > mine.requested_at)
			ORDER BY request_id, online DESC, first_seen_at DESC
		), newest AS (
			SELECT DISTINCT ON (runner_id) request_id, runner_id, online
			FROM best
			ORDER BY runner_id, requested_at DESC, request_id
		), moved AS (
			UPDATE muster.lease l
			SET state = CASE WHEN l.state = 'expired' THEN 'expired' WHEN newest.online THEN 'online' ELSE 'registered' END,
				runner_id = newest.runner_id, registered_at = coalesce(l.registered_at, $2),
				online_at = CASE WHEN newest.online AND l.state <> 'expired' THEN $2::timestamptz END
			FROM newest
			WHERE l.request_id = newest.request_id
				AND (l.state IN ('claimed', 'registered') OR l.state = 'expired' AND l.runner_id IS NULL)
				AND (newest.online OR l.state <> 'registered' OR l.runner_id <> newest.runner_id)
			RETURNING l.pool, l.runner_id
		)
		UPDATE muster.runner r
		SET pool = moved.pool
		FROM moved
		WHERE r.target = $1 AND r.runner_id = moved.runner_id AND r.pool IS DISTINCT FROM moved.pool`, target, at)
	if err != nil {
		return fmt.Errorf("move leases of %s on: %w", target, translate(err))
	}
	return nil
}

// NewestLeases reads the last n requests for hosts of a pool, newest first.
func (db *DB) NewestLeases(ctx context.Context, pool string, n int) ([]fleet.Lease, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT request_id::text, pool, target, coalesce(host, ''), coalesce(runner_id, 0), state, attempt, requested_at, deadline
		FROM muster.lease
		WHERE pool = $1
		ORDER BY requested_at DESC, host, request_id
		LIMIT $2`, pool, n)
	if err == nil {
		var all []fleet.Lease
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[fleet.Lease]); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read the leases of pool %s: %w", pool, translate(err))
}
