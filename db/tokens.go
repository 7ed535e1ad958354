package db

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// LockHost makes requests of one host wait for each other until the
// transaction ends, so that quotas hold across replicas.
func (tx *Tx) LockHost(ctx context.Context, host string) error {
	_, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('muster.token.host:' || $1, 0))`, host)
	if err != nil {
		return fmt.Errorf("lock host %s: %w", host, translate(err))
	}
	return nil
}

// LockGrant makes requests under one grant wait for each other.
func (tx *Tx) LockGrant(ctx context.Context, grant string) error {
	_, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('muster.token.grant:' || $1, 0))`, grant)
	if err != nil {
		return fmt.Errorf("lock grant: %w", translate(err))
	}
	return nil
}

// TokenAttempts tells how often a host has used a request id, and with what
// body first.
func (tx *Tx) TokenAttempts(ctx context.Context, host, requestID string) (int, string, error) {
	var attempts int
	var bodySHA256 string
	// The highest number and not the count: old attempts may be gone.
	err := tx.tx.QueryRow(ctx, `
		SELECT coalesce(max(attempt), 0), coalesce((array_agg(body_sha256 ORDER BY attempt))[1], '')
		FROM muster.token
		WHERE host = $1 AND request_id = $2`, host, requestID).Scan(&attempts, &bodySHA256)
	if err != nil {
		return 0, "", fmt.Errorf("read request %s of host %s: %w", requestID, host, translate(err))
	}
	return attempts, bodySHA256, nil
}

// TokensSince counts the tokens that a host was given, or may have been given,
// since then, and tells when the oldest of them was asked for.
func (tx *Tx) TokensSince(ctx context.Context, host string, since time.Time) (int, time.Time, error) {
	var n int
	var oldest *time.Time
	err := tx.tx.QueryRow(ctx, `
		SELECT count(*), min(requested_at)
		FROM muster.token
		WHERE host = $1 AND requested_at > $2 AND outcome IN ('requested', 'issued', 'unknown')`,
		host, since).Scan(&n, &oldest)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("count tokens of host %s: %w", host, translate(err))
	}
	return n, utc(oldest), nil
}

// RefusalsSince counts the requests of a host that were refused with the code since
// then and have a row of their own.
func (tx *Tx) RefusalsSince(ctx context.Context, host string, code int, since time.Time) (int, error) {
	var n int
	err := tx.tx.QueryRow(ctx, `
		SELECT count(*)
		FROM muster.token
		WHERE host = $1 AND requested_at > $2 AND outcome = 'denied' AND code = $3 AND count = 1`, host, since, code).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count refusals of host %s: %w", host, translate(err))
	}
	return n, nil
}

// Reach is whom a grant lets ask, and for what: hosts by exact name or by one
// literal prefix (empty: none), and targets.
type Reach struct {
	Hosts      []string
	HostPrefix string
	Targets    []string
}

// LiveWithin counts what the hosts within reach have brought about on its
// targets and is still there: runners known to be theirs, and tokens that may
// yet become one, which are those asked for or unexpired beyond the runners
// that have appeared since. It goes by names rather than by a key of the
// grant, so that a grant that was edited goes on counting.
func (tx *Tx) LiveWithin(ctx context.Context, r Reach, now time.Time) (int, error) {
	var n int
	err := tx.tx.QueryRow(ctx, `
		WITH live AS (
			SELECT host, target, first_seen_at
			FROM muster.runner
			WHERE removed_at IS NULL AND target = ANY($3)
				AND (host = ANY($1) OR $2 <> '' AND starts_with(host, $2))
		), open AS (
			SELECT host, target, count(*) AS tokens, coalesce(min(issued_at), 'infinity') AS since
			FROM muster.token
			WHERE (outcome = 'requested' OR outcome = 'issued' AND expires_at > $4) AND kind <> 'removal'
				AND target = ANY($3) AND (host = ANY($1) OR $2 <> '' AND starts_with(host, $2))
			GROUP BY host, target
		)
		SELECT (SELECT count(*) FROM live) + coalesce((
			SELECT sum(greatest(0, o.tokens - (
				SELECT count(*)
				FROM live l
				WHERE l.host = o.host AND l.target = o.target AND l.first_seen_at >= o.since)))
			FROM open o), 0)`, r.Hosts, r.HostPrefix, r.Targets, now).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count what is live under a grant: %w", translate(err))
	}
	return n, nil
}

// AddToken stores one attempt: an intent, or a refusal.
func (tx *Tx) AddToken(ctx context.Context, r fleet.TokenRequest) error {
	if _, err := uuid.Parse(r.RequestID); err != nil {
		return fmt.Errorf("store token request: id %q: %w", r.RequestID, err)
	}
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, code, body_sha256, demand_id,
			requested_at, reason, count)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		r.Host, r.RequestID, r.Attempt, r.Target, string(r.Kind), string(r.Outcome), orNull(r.Code), r.BodySHA256,
		orNull(r.DemandID), r.RequestedAt, orNull(r.Reason), max(r.Count, 1))
	if err != nil {
		return fmt.Errorf("store request %s of host %s: %w", r.RequestID, r.Host, translate(err))
	}
	return nil
}

// SettleToken stores the outcome of an intent. fleet.ErrConflict says that it
// was settled before: a token that comes now must not be handed over.
func (tx *Tx) SettleToken(ctx context.Context, r fleet.TokenRequest) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.token
		SET outcome = $4, code = $5, issued_at = $6, expires_at = $7, fingerprint = $8, reason = $9
		WHERE host = $1 AND request_id = $2 AND attempt = $3 AND outcome = 'requested'`,
		r.Host, r.RequestID, r.Attempt, string(r.Outcome), orNull(r.Code), orNull(r.IssuedAt), orNull(r.ExpiresAt),
		orNull(r.Fingerprint), orNull(r.Reason))
	if err != nil {
		return fmt.Errorf("settle request %s of host %s: %w", r.RequestID, r.Host, translate(err))
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("settle request %s of host %s: it is settled: %w", r.RequestID, r.Host, fleet.ErrConflict)
	}
	return nil
}

// ForgetTokens settles as unknown the intents that nobody has settled since
// then, and returns them. Rows that somebody is settling are left alone.
func (tx *Tx) ForgetTokens(ctx context.Context, before time.Time) ([]fleet.TokenRequest, error) {
	rows, err := tx.tx.Query(ctx, `
		UPDATE muster.token t
		SET outcome = 'unknown', reason = 'interrupted: the token may exist, and was not handed over'
		FROM (
			SELECT host, request_id, attempt
			FROM muster.token
			WHERE outcome = 'requested' AND requested_at < $1
			FOR UPDATE SKIP LOCKED
		) open
		WHERE t.host = open.host AND t.request_id = open.request_id AND t.attempt = open.attempt
		RETURNING t.host, t.request_id::text, t.attempt, t.target, t.kind, t.outcome, t.requested_at`, before)
	if err == nil {
		var forgotten []fleet.TokenRequest
		forgotten, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (fleet.TokenRequest, error) {
			var r fleet.TokenRequest
			err := row.Scan(&r.Host, &r.RequestID, &r.Attempt, &r.Target, &r.Kind, &r.Outcome, &r.RequestedAt)
			return r, err
		})
		if err == nil {
			return forgotten, nil
		}
	}
	return nil, fmt.Errorf("settle open token requests: %w", translate(err))
}
