package db

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// mostClaims bounds the findings about claims on one target: hosts decide how
// many there are.
const mostClaims = 1000

// SaveClaims makes the findings of kind claimed_runner on a target those that
// there are now, in one statement: registered runners that a host lists in its
// heartbeat which is not theirs. A runner's own host is the one that was handed
// its token; where that is not known, it is the host of the runner's very name,
// if that is among hosts. Whoever calls it has locked the target.
func (tx *Tx) SaveClaims(ctx context.Context, target string, hosts fleet.HostNames, now time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		WITH found AS (
			SELECT r.name AS subject, jsonb_strip_nulls(jsonb_build_object(
				'runner_id', min(r.runner_id), 'host', min(r.host), 'claimed_by', string_agg(DISTINCT s.host, ', '))) AS detail
			FROM muster.host_runner s
			JOIN muster.runner r ON r.target = s.target AND r.name = s.name AND r.removed_at IS NULL
			WHERE s.target = $1 AND s.host <> coalesce(r.host, CASE
				WHEN r.name = ANY($3) OR EXISTS (SELECT FROM unnest($4::text[]) AS p (prefix) WHERE starts_with(r.name, prefix)) THEN r.name
				ELSE '' END)
			GROUP BY r.name
			ORDER BY r.name
			LIMIT $6
		), gone AS (
			DELETE FROM muster.finding f
			WHERE target = $1 AND kind = $2 AND NOT EXISTS (SELECT FROM found WHERE found.subject = f.subject)
		)
		INSERT INTO muster.finding (target, kind, subject, since, detail)
		SELECT $1, $2, subject, $5, detail
		FROM found
		ON CONFLICT (target, kind, subject) DO UPDATE SET detail = excluded.detail
			WHERE muster.finding.detail <> excluded.detail`,
		target, string(fleet.FindingClaimedRunner), hosts.Names, hosts.Prefixes, now, mostClaims)
	if err != nil {
		return fmt.Errorf("store which runners of %s strangers claim: %w", target, translate(err))
	}
	return nil
}
