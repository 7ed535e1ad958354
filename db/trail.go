package db

import (
	"context"
	"encoding/json"
	"fmt"
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

// Trail reads the audit trail, oldest first.
func (db *DB) Trail(ctx context.Context, f TrailFilter) ([]TrailEvent, error) {
	var limit *int
	if f.Limit > 0 {
		limit = &f.Limit
	}
	rows, err := db.pool.Query(ctx, `
		SELECT event_id::text, occurred_at, code, action, outcome, actor_type, actor, coalesce(target, ''),
			coalesce(runner_id, 0), coalesce(runner_name, ''), coalesce(host, ''), coalesce(policy, ''),
			coalesce(trigger_id, ''), coalesce(reason, ''), payload
		FROM (
			SELECT *
			FROM api.audit
			WHERE ($1::timestamptz IS NULL OR occurred_at >= $1)
				AND ($2 = 0 OR runner_id = $2)
				AND ($6 = '' OR target = $6)
				AND ($3 = '' OR host = $3)
				AND ($4 = '' OR code = $4)
			ORDER BY occurred_at DESC, event_id DESC
			LIMIT $5
		) newest
		ORDER BY occurred_at, event_id`, orNull(f.Since), f.RunnerID, f.Host, f.Code, limit, f.Target)
	if err == nil {
		var all []TrailEvent
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (TrailEvent, error) {
			var e TrailEvent
			err := row.Scan(&e.ID, &e.At, &e.Code, &e.Action, &e.Outcome, &e.Actor.Type, &e.Actor.Name, &e.Target,
				&e.RunnerID, &e.RunnerName, &e.Host, &e.Policy, &e.TriggerID, &e.Reason, &e.Payload)
			e.At = e.At.UTC()
			return e, err
		})
		if err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read the audit trail: %w", translate(err))
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
