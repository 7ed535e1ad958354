package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Hook is a webhook that has delivered something.
type Hook struct {
	ID      int64
	Scope   fleet.Scope // whose webhook it is
	SweptTo time.Time   // up to when what it failed to deliver has been asked for again, by GitHub's clock
	Fault   string      // why its log of deliveries was not read at last; empty: it was
}

// hookHeard is how exactly it is known when a webhook last delivered: so rarely
// is its row written, whatever comes.
const hookHeard = 5 * time.Minute

// HearHook notes that a webhook has delivered something. What it delivered in
// the hour before the first time may have been lost.
func (tx *Tx) HearHook(ctx context.Context, target string, h Hook, at time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.hook AS h (target, hook_id, scope, heard_at, due_at, swept_to)
		VALUES ($1, $2, $3, $4, $4, $5)
		ON CONFLICT (target, hook_id) DO UPDATE SET scope = excluded.scope, heard_at = excluded.heard_at
			WHERE h.heard_at < $6`, target, h.ID, h.Scope.String(), at, at.Add(-time.Hour), at.Add(-hookHeard))
	if err != nil {
		return fmt.Errorf("note webhook %d of %s: %w", h.ID, target, translate(err))
	}
	return nil
}

// ClaimHooks makes reading the logs of a target's webhooks the caller's, where
// that is due, and nobody else's until then.
func (tx *Tx) ClaimHooks(ctx context.Context, target string, now, until time.Time) ([]Hook, error) {
	rows, err := tx.tx.Query(ctx, `
		UPDATE muster.hook
		SET due_at = $3
		WHERE target = $1 AND due_at <= $2
		RETURNING hook_id, scope, swept_to, fault`, target, now, until)
	var all []Hook
	if err == nil {
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Hook, error) {
			var h Hook
			var scope string
			var swept *time.Time
			err := row.Scan(&h.ID, &scope, &swept, &h.Fault)
			if err == nil {
				h.Scope, err = fleet.ParseScope(scope)
			}
			h.SweptTo = utc(swept)
			return h, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("claim the webhooks of %s: %w", target, translate(err))
	}
	return all, nil
}

// SaveHook stores how far a webhook's log has been read, and when that is due
// next.
func (tx *Tx) SaveHook(ctx context.Context, target string, h Hook, due time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.hook
		SET swept_to = $3, fault = $4, due_at = $5
		WHERE target = $1 AND hook_id = $2`, target, h.ID, h.SweptTo, h.Fault, due)
	if err != nil {
		return fmt.Errorf("store webhook %d of %s: %w", h.ID, target, translate(err))
	}
	return nil
}

// Hearing is what the record says of how a target hears of workflow jobs.
type Hearing struct {
	Reconciliation
	EventAt   time.Time // when the newest event came, by webhook or over NATS; zero: none did within days
	HookFault string    // why a webhook's log of deliveries was not read; empty: it was, or there is none
	Busy      int       // runners at work, by the newest sync
}

// Hearings reads it of all targets of which anything is known, by name.
func (db *DB) Hearings(ctx context.Context) (map[string]Hearing, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT t.name, c.began_at, c.listed_at, c.as_of, coalesce(c.fault, ''), c.groups_at, coalesce(c.groups_fault, ''),
			coalesce(c.unreadable, 0), coalesce(c.unreadable_items, '{}'), e.at, coalesce(h.fault, ''),
			(SELECT count(*) FROM muster.runner r WHERE r.target = t.name AND r.busy AND r.removed_at IS NULL)
		FROM muster.target t
		LEFT JOIN muster.reconciliation c ON c.target = t.name
		LEFT JOIN (SELECT target, max(at) AS at FROM muster.delivery GROUP BY target) e ON e.target = t.name
		LEFT JOIN (
			-- One that is silent for a day while others speak was replaced by them.
			SELECT target, max(fault) AS fault
			FROM (SELECT target, fault, heard_at, max(heard_at) OVER (PARTITION BY target) AS newest FROM muster.hook) hooks
			WHERE heard_at > newest - interval '1 day'
			GROUP BY target
		) h ON h.target = t.name`)
	if err != nil {
		return nil, fmt.Errorf("read how targets hear of workflow jobs: %w", translate(err))
	}
	all := map[string]Hearing{}
	var name string
	var h Hearing
	var began, listed, asOf, groups, event *time.Time
	var items []string
	_, err = pgx.ForEachRow(rows, []any{&name, &began, &listed, &asOf, &h.Fault, &groups, &h.GroupsFault, &h.Unreadable, &items, &event, &h.HookFault, &h.Busy}, func() error {
		h.BeganAt, h.ListedAt, h.AsOf, h.GroupsAt, h.EventAt = utc(began), utc(listed), utc(asOf), utc(groups), utc(event)
		h.UnreadableItems = named(items)
		items = nil
		all[name] = h
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read how targets hear of workflow jobs: %w", translate(err))
	}
	refused, err := db.Refusals(ctx)
	if err != nil {
		return nil, err
	}
	for name, h := range all {
		h.Refused = refused[name]
		all[name] = h
	}
	return all, nil
}

// EventCameSince reports whether an event of a target's workflow jobs came at that
// moment or later, by webhook or over NATS.
func (tx *Tx) EventCameSince(ctx context.Context, target string, since time.Time) (bool, error) {
	var came bool
	err := tx.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM muster.delivery WHERE target = $1 AND at >= $2)`, target, since).Scan(&came)
	if err != nil {
		return false, fmt.Errorf("look for events of %s: %w", target, translate(err))
	}
	return came, nil
}
