package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// RefusedDelivery is a delivery that told of a workflow job of a target and was
// turned away.
type RefusedDelivery struct {
	Target   string
	Delivery string // its id; empty: not known
	At       time.Time
	Reason   string
}

// sweepSoon is how soon after a refusal the webhooks' logs are read: by then
// GitHub has written down that the delivery failed.
const sweepSoon = 15 * time.Second

// RefuseDeliveries notes deliveries that were turned away, unless they have been
// folded in since. The logs of the
// targets' webhooks are read soon after now, so that GitHub delivers again.
func (tx *Tx) RefuseDeliveries(ctx context.Context, refused []RefusedDelivery, now time.Time) error {
	if len(refused) == 0 {
		return nil
	}
	var targets, deliveries, reasons []string
	var at []time.Time
	for _, r := range refused {
		targets = append(targets, r.Target)
		deliveries = append(deliveries, r.Delivery)
		reasons = append(reasons, r.Reason)
		at = append(at, r.At)
	}
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.refused_delivery AS r (target, delivery_id, at, reason)
		SELECT n.target, n.delivery_id, n.at, n.reason
		FROM (
			SELECT DISTINCT ON (muster.current_target(given.target), delivery_id) muster.current_target(given.target) AS target, delivery_id, at, reason
			FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) AS given (target, delivery_id, at, reason)
			ORDER BY muster.current_target(given.target), delivery_id, at DESC
		) n
		WHERE NOT EXISTS (
			SELECT FROM muster.delivery d WHERE d.target = n.target AND d.delivery_id = n.delivery_id)
		ON CONFLICT (target, delivery_id) DO UPDATE SET at = excluded.at, reason = excluded.reason
			WHERE r.at < excluded.at`, targets, deliveries, at, reasons)
	if err == nil {
		_, err = tx.tx.Exec(ctx, `
			UPDATE muster.hook
			SET due_at = least(due_at, $2)
			WHERE target IN (SELECT muster.current_target(given) FROM unnest($1::text[]) AS given) AND due_at > $2`, targets, now.Add(sweepSoon))
	}
	if err != nil {
		return fmt.Errorf("note %d refused deliveries: %w", len(refused), translate(err))
	}
	return nil
}

// CloseRefusals forgets the refusals of a target from before a moment: its workflow
// jobs have been compared since. It returns how many there were.
func (tx *Tx) CloseRefusals(ctx context.Context, target string, before time.Time) (int, error) {
	tag, err := tx.tx.Exec(ctx, `DELETE FROM muster.refused_delivery WHERE target = $1 AND at < $2`, target, before)
	if err != nil {
		return 0, fmt.Errorf("close the refused deliveries of %s: %w", target, translate(err))
	}
	return int(tag.RowsAffected()), nil
}

// Refusals reads what was refused and is not made good, of all targets that there
// is something of, by name.
func (db *DB) Refusals(ctx context.Context) (map[string]fleet.Refused, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT target, count(*), min(at), max(at), (array_agg(reason ORDER BY at DESC))[1]
		FROM muster.refused_delivery
		GROUP BY target`)
	all := map[string]fleet.Refused{}
	if err == nil {
		var target string
		var r fleet.Refused
		_, err = pgx.ForEachRow(rows, []any{&target, &r.Deliveries, &r.Since, &r.Until, &r.Reason}, func() error {
			r.Since, r.Until = r.Since.UTC(), r.Until.UTC()
			all[target] = r
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the refused deliveries: %w", translate(err))
	}
	return all, nil
}
