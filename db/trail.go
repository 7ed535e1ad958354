package db

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// TrailFilter narrows a reading of the audit trail.
type TrailFilter struct {
	Since    time.Time // zero: from the beginning
	Target   string    // empty: any
	RunnerID int64     // 0: any, and none
	Host     string
	Code     string
	Limit    int // newest so many; 0: all
}

// TrailEvent is an audit event as it was read back.
type TrailEvent struct {
	fleet.AuditEvent
	Action  string
	Outcome fleet.AuditOutcome
	Payload json.RawMessage
}

// trailPage is how many events are read at a time. The payload of each has at
// most 16 KiB.
const trailPage = 500

const trailColumns = `event_id::text, occurred_at, code, action, outcome, actor_type, actor, coalesce(target, ''),
	coalesce(runner_id, 0), coalesce(runner_name, ''), coalesce(host, ''), coalesce(policy, ''),
	coalesce(trigger_id, ''), coalesce(reason, ''), payload`

// trailMatch is the condition of a TrailFilter, in $1 to $4.
const trailMatch = `($1::bigint = 0 OR runner_id = $1)
	AND ($2 = '' OR host = $2)
	AND ($3 = '' OR code = $3)
	AND ($4 = '' OR target = $4)`

// Trail reads the audit trail, oldest first, all at once: see EachEvent.
func (db *DB) Trail(ctx context.Context, f TrailFilter) ([]TrailEvent, error) {
	return collect(db.EachEvent(ctx, f))
}

// EachEvent reads the audit trail, oldest first. It is read in pages, of which
// one is in memory, and each is a statement of its own: a reader who takes his
// time holds nothing up.
func (db *DB) EachEvent(ctx context.Context, f TrailFilter) iter.Seq2[TrailEvent, error] {
	if f.Limit > 0 {
		return db.newestEvents(ctx, f)
	}
	return func(yield func(TrailEvent, error) bool) {
		after, id := orNull(f.Since), uuid.Nil.String()
		for {
			page, err := collect(db.trailPage(ctx, f, after, id))
			if err != nil {
				yield(TrailEvent{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
			if len(page) < trailPage {
				return
			}
			last := page[len(page)-1]
			after, id = &last.At, last.ID
		}
	}
}

// trailPage are the events after a moment and an id; nil: from the beginning.
func (db *DB) trailPage(ctx context.Context, f TrailFilter, after *time.Time, id string) iter.Seq2[TrailEvent, error] {
	return stream("the audit trail", func() (pgx.Rows, error) {
		return db.pool.Query(ctx, `
			SELECT `+trailColumns+`
			FROM api.audit
			WHERE `+trailMatch+`
				AND ($5::timestamptz IS NULL OR occurred_at >= $5 AND (occurred_at, event_id) > ($5, $6::uuid))
			ORDER BY occurred_at, event_id
			LIMIT $7`, f.RunnerID, f.Host, f.Code, f.Target, after, id, trailPage)
	}, scanEvent)
}

// newestEvents are the newest of those that a filter lets through, oldest first.
func (db *DB) newestEvents(ctx context.Context, f TrailFilter) iter.Seq2[TrailEvent, error] {
	return stream("the audit trail", func() (pgx.Rows, error) {
		return db.pool.Query(ctx, `
			SELECT `+trailColumns+`
			FROM (
				SELECT *
				FROM api.audit
				WHERE `+trailMatch+` AND ($5::timestamptz IS NULL OR occurred_at >= $5)
				ORDER BY occurred_at DESC, event_id DESC
				LIMIT $6
			) newest
			ORDER BY occurred_at, event_id`, f.RunnerID, f.Host, f.Code, f.Target, orNull(f.Since), f.Limit)
	}, scanEvent)
}

func scanEvent(row pgx.CollectableRow) (TrailEvent, error) {
	var e TrailEvent
	err := row.Scan(&e.ID, &e.At, &e.Code, &e.Action, &e.Outcome, &e.Actor.Type, &e.Actor.Name, &e.Target,
		&e.RunnerID, &e.RunnerName, &e.Host, &e.Policy, &e.TriggerID, &e.Reason, &e.Payload)
	e.At = e.At.UTC()
	return e, err
}

// Table is what a query of a user's gave, as text.
type Table struct {
	Columns []string
	Rows    [][]string
}

// ReadAPI runs a query on the api views in a read-only transaction.
func (db *DB) ReadAPI(ctx context.Context, sql string, args ...any) (Table, error) {
	var t Table
	tx, err := db.pool.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return t, fmt.Errorf("read the api views: %w", translate(err))
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // nothing was written
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return t, fmt.Errorf("read the api views: %w", translate(err))
	}
	defer rows.Close()
	for _, f := range rows.FieldDescriptions() {
		t.Columns = append(t.Columns, f.Name)
	}
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return t, fmt.Errorf("read the api views: %w", err)
		}
		row := make([]string, len(values))
		for i, v := range values {
			row[i] = display(v)
		}
		t.Rows = append(t.Rows, row)
	}
	if err := rows.Err(); err != nil {
		return t, fmt.Errorf("read the api views: %w", translate(err))
	}
	return t, nil
}

func display(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case time.Time:
		return v.UTC().Format("15:04:05")
	case [16]byte:
		return uuid.UUID(v).String()
	case []any:
		b, _ := json.Marshal(v) // values of a text array always encode
		return string(b)
	}
	return fmt.Sprint(v)
}
