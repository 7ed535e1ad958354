package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// PoolState is a pool as it was last decided on.
type PoolState struct {
	Pool     string
	Target   string
	Labels   []string
	Groups   []string           // runner groups of its runners, when some were last online
	Carried  []string           // labels that all of them carried then
	Decision fleet.SizeDecision // At is zero where nobody has decided yet
	Supply   fleet.Supply       // what is a column of it
	Demand   fleet.Demand
	Reason   string // in words
}

// LockPools reads the last decisions on pools, by name, making the rows where
// there are none, and keeps everybody else from deciding on them until the
// transaction ends: the maximum is counted under this lock.
func (tx *Tx) LockPools(ctx context.Context, pools []fleet.Pool) (map[string]PoolState, error) {
	names, targets := make([]string, len(pools)), make([]string, len(pools))
	for i, p := range pools {
		names[i], targets[i] = p.Name, p.Target
	}
	// In one order, so that replicas do not lock each other out.
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.pool (name, target, labels)
		SELECT name, target, '{}'
		FROM unnest($1::text[], $2::text[]) AS p (name, target)
		ORDER BY name
		ON CONFLICT (name) DO NOTHING`, names, targets)
	if err != nil {
		return nil, fmt.Errorf("register pools: %w", translate(err))
	}
	rows, err := tx.tx.Query(ctx, poolQuery+` WHERE name = ANY($1) ORDER BY name FOR UPDATE`, names)
	if err != nil {
		return nil, fmt.Errorf("lock pools: %w", translate(err))
	}
	locked, err := pgx.CollectRows(rows, scanPool)
	if err != nil {
		return nil, fmt.Errorf("lock pools: %w", translate(err))
	}
	all := make(map[string]PoolState, len(locked))
	for _, s := range locked {
		all[s.Pool] = s
	}
	return all, nil
}

// PoolState reads a pool's last decision; of one that was never decided on it
// is empty.
func (db *DB) PoolState(ctx context.Context, pool string) (PoolState, error) {
	rows, err := db.pool.Query(ctx, poolQuery+` WHERE name = $1`, pool)
	if err != nil {
		return PoolState{}, fmt.Errorf("read pool %s: %w", pool, translate(err))
	}
	s, err := pgx.CollectExactlyOneRow(rows, scanPool)
	switch err = translate(err); {
	case isNotFound(err):
		return PoolState{Pool: pool}, nil
	case err != nil:
		return PoolState{}, fmt.Errorf("read pool %s: %w", pool, err)
	}
	return s, nil
}

// PoolStates reads all that were ever decided on, by name.
func (db *DB) PoolStates(ctx context.Context) ([]PoolState, error) {
	rows, err := db.pool.Query(ctx, poolQuery+` WHERE decided_at IS NOT NULL ORDER BY name`)
	if err == nil {
		var all []PoolState
		if all, err = pgx.CollectRows(rows, scanPool); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read pools: %w", translate(err))
}

// Carried is what the runners of a pool carried when some were last online.
type Carried struct {
	Configured []string // the labels of the pool then
	Labels     []string // those that each of them had
}

// Carried reads it of the pools of a target, by name.
func (tx *Tx) Carried(ctx context.Context, target string) (map[string]Carried, error) {
	return carried(ctx, tx.tx, target)
}

// Carried is that of Tx.
func (db *DB) Carried(ctx context.Context, target string) (map[string]Carried, error) {
	return carried(ctx, db.pool, target)
}

func carried(ctx context.Context, q querier, target string) (map[string]Carried, error) {
	rows, err := q.Query(ctx, `SELECT name, labels, carried FROM muster.pool WHERE target = $1 AND carried <> '{}'`, target)
	all := map[string]Carried{}
	if err == nil {
		var pool string
		var c Carried
		_, err = pgx.ForEachRow(rows, []any{&pool, &c.Configured, &c.Labels}, func() error {
			all[pool], c = c, Carried{}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read what runners of pools of %s carried: %w", target, translate(err))
	}
	return all, nil
}

const poolQuery = `
	SELECT name, target, labels, groups, carried, memory, decided_at, coalesce(min, 0), coalesce(max, 0), coalesce(idle, 0),
		coalesce(desired, 0), coalesce(direction, ''), coalesce(change, 0), reasons, evidence, coalesce(reason, ''),
		coalesce(online, 0), coalesce(busy, 0), coalesce(booting, 0), coalesce(draining, 0), coalesce(leases_expired, 0),
		coalesce(queued, 0), coalesce(in_progress, 0), oldest_at, demand_at, coalesce(confidence, 'unknown')
	FROM muster.pool`

func scanPool(row pgx.CollectableRow) (PoolState, error) {
	var s PoolState
	var memory []byte
	var decided, oldest, at *time.Time
	d := &s.Decision
	err := row.Scan(&s.Pool, &s.Target, &s.Labels, &s.Groups, &s.Carried, &memory, &decided, &d.Bounds.Min, &d.Bounds.Max, &d.Bounds.Idle,
		&d.Desired, &d.Direction, &d.Change, &d.Reasons, &d.Evidence, &s.Reason,
		&s.Supply.Online, &s.Supply.Busy, &s.Supply.Booting, &s.Supply.Draining, &s.Supply.Expired,
		&s.Demand.Queued, &s.Demand.InProgress, &oldest, &at, &s.Demand.Confidence)
	if err != nil {
		return s, err
	}
	var m sizeMemory
	if err := json.Unmarshal(memory, &m); err != nil {
		return s, fmt.Errorf("memory of pool %s: %w", s.Pool, err)
	}
	d.At, d.Pool, d.Memory = utc(decided), s.Pool, m.read()
	s.Demand.OldestAt, s.Demand.At = utc(oldest), utc(at)
	return s, nil
}

// SavePools stores what was decided on pools, on what, and why in words.
func (tx *Tx) SavePools(ctx context.Context, states []PoolState) error {
	var all pgx.Batch
	for _, s := range states {
		d := s.Decision
		all.Queue(`
			UPDATE muster.pool
			SET target = $2, labels = $3, memory = $4, decided_at = $5, min = $6, max = $7, idle = $8,
				desired = $9, direction = $10, change = $11, reasons = $12, evidence = $13, reason = $14,
				online = $15, busy = $16, booting = $17, draining = $18, leases_expired = $19,
				queued = $20, in_progress = $21, oldest_at = $22, demand_at = $23, confidence = $24,
				groups = coalesce($25::text[], '{}'), carried = coalesce($26::text[], '{}')
			WHERE name = $1`,
			s.Pool, s.Target, s.Labels, storedMemory(d.Memory), d.At, d.Bounds.Min, d.Bounds.Max, d.Bounds.Idle,
			d.Desired, string(d.Direction), d.Change, d.Reasons, d.Evidence, s.Reason,
			s.Supply.Online, s.Supply.Busy, s.Supply.Booting, s.Supply.Draining, s.Supply.Expired,
			s.Demand.Queued, s.Demand.InProgress, orNull(s.Demand.OldestAt), orNull(s.Demand.At), string(s.Demand.Confidence), s.Groups, s.Carried)
	}
	if err := tx.tx.SendBatch(ctx, &all).Close(); err != nil {
		return fmt.Errorf("store the decisions on pools: %w", translate(err))
	}
	return nil
}

// TellPool adds to the words of a decision on a pool, unless there is a newer one.
func (db *DB) TellPool(ctx context.Context, pool string, decided time.Time, more string) error {
	_, err := db.pool.Exec(ctx, `
		UPDATE muster.pool
		SET reason = reason || '; ' || $3
		WHERE name = $1 AND decided_at = $2`, pool, decided, more)
	if err != nil {
		return fmt.Errorf("store what became of the decision on pool %s: %w", pool, translate(err))
	}
	return nil
}

// sizeMemory is how the memory of decisions stands in its column.
type sizeMemory struct {
	Since  time.Time    `json:"since,omitzero"`
	At     time.Time    `json:"at,omitzero"`
	Spans  []storedSpan `json:"spans,omitempty"`
	UpAt   time.Time    `json:"up_at,omitzero"`
	DownAt time.Time    `json:"down_at,omitzero"`
}

type storedSpan struct {
	Desired int       `json:"desired"`
	Until   time.Time `json:"until"`
}

func storedMemory(m fleet.SizeMemory) sizeMemory {
	s := sizeMemory{Since: m.Since, At: m.At, UpAt: m.UpAt, DownAt: m.DownAt}
	for _, d := range m.Spans {
		s.Spans = append(s.Spans, storedSpan(d))
	}
	return s
}

func (s sizeMemory) read() fleet.SizeMemory {
	m := fleet.SizeMemory{Since: s.Since, At: s.At, UpAt: s.UpAt, DownAt: s.DownAt}
	for _, d := range s.Spans {
		m.Spans = append(m.Spans, fleet.DesiredSpan(d))
	}
	return m
}
