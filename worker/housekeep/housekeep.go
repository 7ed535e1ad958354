// Package housekeep deletes records that are older than the configuration asks
// to keep. The audit trail is not among them.
package housekeep

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// Housekeeper is the housekeep job. All fields are required.
type Housekeeper struct {
	Log   *slog.Logger
	DB    *db.DB
	Now   func(context.Context) (time.Time, error)
	Keep  func() time.Duration // how long records are kept, as configured now
	Pools func() []string      // names of those configured now
}

// Handle deletes what is too old, in one transaction with its audit event.
func (h *Housekeeper) Handle(ctx context.Context, trigger fleet.Trigger) (fleet.Counts, error) {
	now, err := h.Now(ctx)
	if err != nil {
		return nil, err
	}
	before := now.Add(-h.Keep())
	var counts fleet.Counts
	err = h.DB.InTx(ctx, func(tx *db.Tx) error {
		var err error
		if counts, err = tx.Housekeep(ctx, now, before, h.Pools()); err != nil {
			return err
		}
		details := map[string]any{"before": before.UTC().Format(time.RFC3339)}
		for what, n := range counts {
			details[what] = n
		}
		return tx.Audit(ctx, fleet.AuditEvent{
			At: now, Code: fleet.AuditHousekept, Actor: db.ActorOf(trigger), TriggerID: trigger.ID, Reason: trigger.Reason, Details: details,
		})
	})
	if err != nil {
		return nil, fmt.Errorf("delete records from before %s: %w", before.Format(time.RFC3339), err)
	}
	return counts, nil
}
