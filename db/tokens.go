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
func (tx *Tx) TokenAttempts(ctx context.Context, host, requestID string) (attempts int, bodySHA256 string, err error) {
	err = tx.tx.QueryRow(ctx, `
		SELECT count(*), coalesce(min(body_sha256) FILTER (WHERE attempt = 1), '')
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

// LiveUnderGrant counts what a grant has brought about and is still there:
// registered runners of its hosts, and tokens that may yet become one.
func (tx *Tx) LiveUnderGrant(ctx context.Context, grant string, now time.Time) (int, error) {
	var n int
	err := tx.tx.QueryRow(ctx, `
		SELECT (
			SELECT count(*)
			FROM muster.runner r
			WHERE r.removed_at IS NULL
				AND r.host IN (SELECT host FROM muster.token WHERE grant_key = $1 AND outcome = 'issued')
		) + (
			SELECT count(*)
			FROM muster.token t
			WHERE t.grant_key = $1 AND t.kind <> 'removal'
				AND (t.outcome = 'issued' AND t.expires_at > $2 OR t.outcome = 'requested')
				AND NOT EXISTS (
					SELECT FROM muster.runner r
					WHERE r.host = t.host AND r.target = t.target AND r.removed_at IS NULL AND r.first_seen_at >= t.issued_at)
		)`, grant, now).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count what is live under a grant: %w", translate(err))
	}
	return n, nil
}

// AddToken stores one attempt: an intent, or a refusal.
func (tx *Tx) AddToken(ctx context.Context, r fleet.TokenRequest, grant string) error {
	if _, err := uuid.Parse(r.RequestID); err != nil {
		return fmt.Errorf("store token request: id %q: %w", r.RequestID, err)
	}
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, code, body_sha256, demand_id,
			grant_key, requested_at, reason)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		r.Host, r.RequestID, r.Attempt, r.Target, string(r.Kind), string(r.Outcome), orNull(r.Code), r.BodySHA256,
		orNull(r.DemandID), orNull(grant), r.RequestedAt, orNull(r.Reason))
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
