package db

import (
	"context"
	"maps"
	"slices"
	"time"
)

// HasClockRule reports whether a column of times, TABLE.COLUMN, has a rule.
func HasClockRule(name string) bool {
	_, has := clockColumns[name]
	return has
}

// ClockRules are the columns that have one.
func ClockRules() []string { return slices.Sorted(maps.Keys(clockColumns)) }

// Do runs statements on one of the connections that the service works with.
func (db *DB) Do(ctx context.Context, sql string) error {
	_, err := db.pool.Exec(ctx, sql)
	return err
}

// Ask reads one value on such a connection.
func (db *DB) Ask(ctx context.Context, sql string, into any) error {
	return db.pool.QueryRow(ctx, sql).Scan(into)
}

// ClaimPlan and ClaimQuery are the statements of Outbox.Claim.
const (
	ClaimPlan  = claimPlan
	ClaimQuery = claimQuery
)

// OutboxFront is where the next claim of a lane begins, within a second; nil: at
// the very front.
func (db *DB) OutboxFront(lane string) *time.Time {
	at, known := db.fronts.lanes[lane]
	if !known {
		return nil
	}
	return &at.created
}
