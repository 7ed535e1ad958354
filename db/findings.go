package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// SaveFindings makes the findings of these kinds on a target those that there
// are now. One that was known keeps the moment since when it has been wrong; a
// new one that does not say has been so since now. Those who save the findings
// of one target wait for each other.
func (tx *Tx) SaveFindings(ctx context.Context, target string, kinds []fleet.FindingKind, findings []fleet.Finding, now time.Time) error {
	of := make([]string, len(kinds))
	for i, k := range kinds {
		of[i] = string(k)
	}
	var kind, subject []string
	var since []*time.Time
	var detail []fleet.Evidence
	for _, f := range findings {
		kind, subject = append(kind, string(f.Kind)), append(subject, f.Subject)
		since, detail = append(since, orNull(f.Since)), append(detail, f.Detail)
	}
	_, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('muster.finding:' || $1, 0))`, target)
	if err != nil {
		return fmt.Errorf("lock what is wrong with %s: %w", target, translate(err))
	}
	_, err = tx.tx.Exec(ctx, `
		DELETE FROM muster.finding f
		WHERE target = $1 AND kind = ANY($2) AND NOT EXISTS (
			SELECT FROM unnest($3::text[], $4::text[]) AS found (kind, subject)
			WHERE found.kind = f.kind AND found.subject = f.subject)`, target, of, kind, subject)
	if err == nil && len(findings) > 0 {
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO muster.finding (target, kind, subject, since, detail)
			SELECT $1, kind, subject, coalesce(since, $6), detail
			FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::jsonb[]) AS found (kind, subject, since, detail)
			ORDER BY kind, subject
			ON CONFLICT (target, kind, subject) DO UPDATE
			SET since = least(muster.finding.since, excluded.since), detail = excluded.detail
			WHERE muster.finding.since > excluded.since OR muster.finding.detail <> excluded.detail`,
			target, kind, subject, since, detail, now)
	}
	if err != nil {
		return fmt.Errorf("store what is wrong with %s: %w", target, translate(err))
	}
	return nil
}

// Findings reads what is wrong with all targets, what was found first first.
func (db *DB) Findings(ctx context.Context) ([]fleet.Finding, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT kind, target, subject, since, detail
		FROM muster.finding
		ORDER BY target, since, kind, subject`)
	if err == nil {
		var all []fleet.Finding
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (fleet.Finding, error) {
			var f fleet.Finding
			err := row.Scan(&f.Kind, &f.Target, &f.Subject, &f.Since, &f.Detail)
			f.Since = f.Since.UTC()
			return f, err
		})
		if err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read what is wrong with targets: %w", translate(err))
}
