package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Pauses keeps GitHub's wishes to be left alone for all processes: the record
// of github.Pauses.
type Pauses struct{ DB *DB }

// Now is Postgres's clock, so that processes with other clocks agree on when a
// pause ends.
func (p Pauses) Now(ctx context.Context) (time.Time, error) { return p.DB.Now(ctx) }

// Save records a pause.
func (p Pauses) Save(ctx context.Context, pause fleet.Pause) error {
	return p.DB.InTx(ctx, func(tx *Tx) error { return tx.SavePause(ctx, pause) })
}

// Standing reads the pauses that are not over.
func (p Pauses) Standing(ctx context.Context, at time.Time) ([]fleet.Pause, error) {
	rows, err := p.DB.pool.Query(ctx, `
		SELECT credential, until, told_at, reason
		FROM muster.github_pause
		WHERE until > $1
		ORDER BY credential`, at)
	if err == nil {
		var all []fleet.Pause
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (fleet.Pause, error) {
			var p fleet.Pause
			err := row.Scan(&p.Credential, &p.Until, &p.ToldAt, &p.Reason)
			p.Until, p.ToldAt = p.Until.UTC(), p.ToldAt.UTC()
			return p, err
		})
		if err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read GitHub's pauses: %w", translate(err))
}

// SavePause records a pause. One never shortens another of the same credential.
func (tx *Tx) SavePause(ctx context.Context, p fleet.Pause) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.github_pause (credential, until, told_at, reason)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (credential) DO UPDATE
		SET until = excluded.until, told_at = excluded.told_at, reason = excluded.reason
		WHERE muster.github_pause.until < excluded.until`,
		p.Credential, p.Until, p.ToldAt, p.Reason)
	if err != nil {
		return fmt.Errorf("record the pause of %s: %w", p.Credential, translate(err))
	}
	return nil
}
