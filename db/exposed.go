package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// TokenKey is a request for a token by its host and its id.
type TokenKey struct{ Host, RequestID string }

// ExposedTokens returns the tokens that were handed out since then, and the
// newest attempts of those requests whose answer went out again, unless the trail
// names them for that stream already. Only one transaction at a time reads them.
func (tx *Tx) ExposedTokens(ctx context.Context, stream string, since time.Time, again []TokenKey) ([]fleet.TokenRequest, error) {
	fail := func(err error) ([]fleet.TokenRequest, error) {
		return nil, fmt.Errorf("read the tokens that stream %s may hold: %w", stream, translate(err))
	}
	if _, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('muster.token.exposed', 0))`); err != nil {
		return fail(err)
	}
	hosts, ids := make([]string, len(again)), make([]string, len(again))
	for i, key := range again {
		hosts[i], ids[i] = key.Host, key.RequestID
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT t.host, t.request_id::text, t.attempt, t.target, t.kind, t.fingerprint, t.expires_at
		FROM muster.token t
		WHERE t.outcome = 'issued' AND t.expires_at >= $2
			AND (t.issued_at >= $2 OR (t.host, t.request_id) IN (SELECT * FROM unnest($3::text[], $4::uuid[])))
			AND NOT EXISTS (
				SELECT FROM api.audit e
				WHERE e.code = $5 AND e.host = t.host AND e.occurred_at >= t.issued_at
					AND e.payload->'details'->>'request_id' = t.request_id::text
					AND e.payload->'details'->>'attempt' = t.attempt::text
					AND e.payload->'details'->>'stream' = $1)
		ORDER BY t.issued_at, t.host, t.request_id`, stream, since, hosts, ids, string(fleet.AuditTokenExposed))
	if err != nil {
		return fail(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (fleet.TokenRequest, error) {
		r := fleet.TokenRequest{Outcome: fleet.TokenIssued}
		err := row.Scan(&r.Host, &r.RequestID, &r.Attempt, &r.Target, &r.Kind, &r.Fingerprint, &r.ExpiresAt)
		return r, err
	})
	if err != nil {
		return fail(err)
	}
	return all, nil
}
