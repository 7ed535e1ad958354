package db

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Hold keeps everybody from acting on a runner, in place of the hold that it
// may have. Whoever locks the runner too does that first.
func (tx *Tx) Hold(ctx context.Context, target string, runner int64, h fleet.Hold) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.hold (target, runner_id, reason, by, at, until)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (target, runner_id) DO UPDATE SET
			reason = excluded.reason, by = excluded.by, at = excluded.at, until = excluded.until`,
		target, runner, h.Reason, h.By, h.At, orNull(h.Until))
	if err != nil {
		return fmt.Errorf("hold runner %s/%d: %w", target, runner, translate(err))
	}
	return nil
}

// Unhold lifts the hold on a runner and returns it; fleet.ErrNotFound where
// none stands at now.
func (tx *Tx) Unhold(ctx context.Context, target string, runner int64, now time.Time) (fleet.Hold, error) {
	var h fleet.Hold
	var until *time.Time
	err := tx.tx.QueryRow(ctx, `
		DELETE FROM muster.hold
		WHERE target = $1 AND runner_id = $2 AND (until IS NULL OR until > $3)
		RETURNING reason, by, at, until`, target, runner, now).Scan(&h.Reason, &h.By, &h.At, &until)
	if err != nil {
		return fleet.Hold{}, fmt.Errorf("lift the hold on runner %s/%d: %w", target, runner, translate(err))
	}
	h.At, h.Until = h.At.UTC(), utc(until)
	return h, nil
}
