package db

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Enqueue puts messages into the outbox: they are published once the
// transaction has committed. An empty ID is filled in.
func (tx *Tx) Enqueue(ctx context.Context, messages ...fleet.OutboxMessage) error {
	if len(messages) == 0 {
		return nil
	}
	var rows, later [][]any
	for _, m := range messages {
		id := uuid.New()
		if m.ID != "" {
			var err error
			if id, err = uuid.Parse(m.ID); err != nil {
				return fmt.Errorf("put %s into the outbox: id %q: %w", m.Subject, m.ID, err)
			}
		}
		headers := m.Headers
		if headers == nil {
			headers = map[string]string{}
		}
		body := m.Body
		if body == nil {
			body = []byte{}
		}
		if m.Due.IsZero() {
			rows = append(rows, []any{id, m.Subject, headers, body})
			continue
		}
		later = append(later, []any{id, m.Subject, headers, body, m.Due, m.Due})
	}
	columns := []string{"id", "subject", "headers", "body"}
	_, err := tx.tx.CopyFrom(ctx, pgx.Identifier{"muster", "outbox"}, columns, pgx.CopyFromRows(rows))
	if err == nil && len(later) > 0 {
		// Nobody claims a message before its moment, from which its age counts.
		columns = append(columns, "created_at", "claimed_until")
		_, err = tx.tx.CopyFrom(ctx, pgx.Identifier{"muster", "outbox"}, columns, pgx.CopyFromRows(later))
	}
	if err != nil {
		return fmt.Errorf("put %s into the outbox: %w", messages[0].Subject, translate(err))
	}
	tx.outbox = true
	return nil
}

// Outbox is the relay's side of the outbox.
type Outbox struct{ DB *DB }

// Wake receives when a transaction of this process has put something in.
// Other processes' messages, and those left by a dead one, want a poll.
func (o Outbox) Wake() <-chan struct{} { return o.DB.wake }

// claimPlan has Postgres take the rows in the order of the index outbox_claim for
// the rest of the transaction. Where many rows have come since the table was last
// analyzed, Postgres would read and sort all of them for each claim.
const claimPlan = `
	SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
		set_config('enable_seqscan', 'off', true)`

// claimQuery reads that index from a place on, so that a claim costs the same
// however many messages wait.
const claimQuery = `
	UPDATE muster.outbox o
	SET claimed_until = clock_timestamp() + $2::interval
	FROM (
		SELECT id, claimed_until AS was, created_at
		FROM muster.outbox
		WHERE lane = $3 AND claimed_until < clock_timestamp()
			AND (claimed_until, created_at) >= ('-infinity'::timestamptz, coalesce($4, '-infinity'::timestamptz))
		ORDER BY claimed_until, created_at
		LIMIT $1
		FOR UPDATE SKIP LOCKED
	) due
	WHERE o.id = due.id
	RETURNING o.id::text, o.subject, o.headers, o.body, CASE WHEN due.was = '-infinity' THEN due.created_at END`

// Claim takes up to n messages of a lane for as long as the lease lasts: those
// that were never claimed first, oldest first. A message whose lease ends without
// Delete is claimed again, after them. A message that was committed later than
// newer ones may be passed over for a second.
func (o Outbox) Claim(ctx context.Context, lane string, n int, lease time.Duration) ([]fleet.OutboxMessage, error) {
	var messages []fleet.OutboxMessage
	from := o.DB.fronts.of(lane, time.Now())
	newest := from
	err := o.DB.InTx(ctx, func(tx *Tx) error {
		if _, err := tx.tx.Exec(ctx, claimPlan); err != nil {
			return err
		}
		var err error
		messages, newest, err = tx.claim(ctx, lane, n, lease, from)
		if err != nil || from == nil || len(messages) == n {
			return err
		}
		more, _, err := tx.claim(ctx, lane, n-len(messages), lease, nil)
		messages = append(messages, more...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim outbox messages: %w", err)
	}
	if len(messages) < n {
		newest = nil
	}
	o.DB.fronts.set(lane, from, newest, time.Now())
	return messages, nil
}

// claim claims messages from a moment of creation on; nil: all. It returns when
// the newest of those that were never claimed before was made.
func (tx *Tx) claim(ctx context.Context, lane string, n int, lease time.Duration, from *time.Time) ([]fleet.OutboxMessage, *time.Time, error) {
	rows, err := tx.tx.Query(ctx, claimQuery, n, lease, lane, from)
	if err != nil {
		return nil, nil, err
	}
	var newest *time.Time
	messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (fleet.OutboxMessage, error) {
		var m fleet.OutboxMessage
		var created *time.Time
		err := row.Scan(&m.ID, &m.Subject, &m.Headers, &m.Body, &created)
		if created != nil && (newest == nil || created.After(*newest)) {
			newest = created
		}
		return m, err
	})
	return messages, newest, err
}

// frontAge is how long claims go on from where the one before ended.
const frontAge = time.Second

// fronts are the places in the index outbox_claim where the next claims of lanes
// begin. Before them lie the entries of messages that are gone, which every claim
// would read again until Postgres has vacuumed the table, and as long as a
// snapshot of another session needs them. The zero value is ready.
type fronts struct {
	mu    sync.Mutex
	lanes map[string]front
}

type front struct {
	created time.Time
	since   time.Time // when a claim last began at the very front
}

// of is where a claim of the lane begins; nil: at the very front.
func (f *fronts) of(lane string, now time.Time) *time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, known := f.lanes[lane]
	if !known || now.Sub(at.since) >= frontAge {
		return nil
	}
	return &at.created
}

// set notes that a claim which began at from found newest; nil: nothing that was
// never claimed is left.
func (f *fronts) set(lane string, from, newest *time.Time, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if newest == nil {
		delete(f.lanes, lane)
		return
	}
	at := front{created: *newest, since: now}
	if from != nil {
		at.since = f.lanes[lane].since
	}
	if f.lanes == nil {
		f.lanes = map[string]front{}
	}
	f.lanes[lane] = at
}

// Delete removes messages that were published.
func (o Outbox) Delete(ctx context.Context, ids []string) error {
	err := o.DB.InTx(ctx, func(tx *Tx) error {
		_, err := tx.tx.Exec(ctx, `DELETE FROM muster.outbox WHERE id = ANY($1::uuid[])`, ids)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete %d published outbox messages: %w", len(ids), err)
	}
	return nil
}
