package token

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// openLimit is how old an intent without an outcome must be before anybody
// calls it lost: more than twice what a request may take in all. Whoever made
// it finds it settled then, and hands out nothing.
const openLimit = 60 * time.Second

// Settle records as unknown the intents that have had no outcome for 60 s: of
// whoever made them it is not known whether GitHub had minted, only that
// nothing was handed out, nor will be. Every replica calls it at start and
// every 15 s; it also drops what the memory of this one no longer needs.
func (i *Issuer) Settle(ctx context.Context) error {
	now, err := i.clock(ctx)
	if err != nil {
		return fmt.Errorf("settle token requests: %w", err)
	}
	i.turns.forget(now)
	i.shared.forget(now)
	var lost []fleet.TokenRequest
	err = i.inTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		var err error
		if lost, err = tx.ForgetTokens(ctx, now.Add(-openLimit)); err != nil {
			return err
		}
		events := make([]fleet.AuditEvent, 0, len(lost))
		for _, row := range lost {
			e := event(fleet.AuditTokenUnknown, row, now)
			e.Actor, e.Reason = fleet.System, "no outcome: the token may exist, and was not handed out"
			events = append(events, e)
		}
		return tx.Audit(ctx, events...)
	})
	if err != nil {
		return fmt.Errorf("settle token requests: %w", err)
	}
	for _, row := range lost {
		i.Log.WarnContext(ctx, "token request lost", "host", row.Host, "target", row.Target, "kind", row.Kind,
			"request", row.RequestID, "verdict", row.Outcome)
	}
	return nil
}
