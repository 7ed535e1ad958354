package db

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Queue makes triggers true and has them published, once per id.
func (tx *Tx) Queue(ctx context.Context, triggers ...fleet.Trigger) error {
	return tx.queue(ctx, make([]time.Duration, len(triggers)), triggers)
}

// Later is a trigger for a moment that lies ahead.
type Later struct {
	fleet.Trigger
	In time.Duration // from now, by Postgres's clock
}

// QueueLater has each trigger published when its moment has come, in one
// statement, however many they are. A trigger is left out where one of its job
// and name waits for an earlier moment or for the same second: the run of that
// one leaves the next. It holds up no trigger that is to run at once, and is
// joined to one that begins before its moment.
func (tx *Tx) QueueLater(ctx context.Context, later ...Later) error {
	triggers := make([]fleet.Trigger, len(later))
	in := make([]time.Duration, len(later))
	for i, l := range later {
		triggers[i], in[i] = l.Trigger, max(l.In, time.Millisecond)
	}
	return tx.queue(ctx, in, triggers)
}

func (tx *Tx) queue(ctx context.Context, in []time.Duration, triggers []fleet.Trigger) error {
	if len(triggers) == 0 {
		return nil
	}
	var id, job, name, source, reason []string
	var parent []*uuid.UUID
	byID := make(map[string]fleet.Trigger, len(triggers))
	for _, t := range triggers {
		above, err := parseOptional(t.Parent)
		if err != nil {
			return fmt.Errorf("queue trigger %s: parent %q: %w", t.Subject(), t.Parent, err)
		}
		own, err := uuid.Parse(t.ID)
		if err != nil {
			return fmt.Errorf("queue trigger %s: id %q: %w", t.Subject(), t.ID, err)
		}
		id, job, name = append(id, own.String()), append(job, string(t.Job)), append(name, t.Name)
		source, parent, reason = append(source, string(t.Source)), append(parent, above), append(reason, t.Reason)
		byID[own.String()] = t
	}
	rows, err := tx.tx.Query(ctx, `
		INSERT INTO muster.run (trigger_id, job, name, source, parent, reason, state, queued_at)
		SELECT trigger_id, job, name, source, parent, reason, 'queued', clock_timestamp() + wait
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::interval[])
			AS t (trigger_id, job, name, source, parent, reason, wait)
		WHERE wait = '0' OR NOT EXISTS (
			SELECT FROM muster.run q
			WHERE q.job = t.job AND q.name = t.name AND q.state = 'queued'
				AND q.queued_at > clock_timestamp() AND q.queued_at < clock_timestamp() + wait + interval '1 second')
		ON CONFLICT (trigger_id) DO NOTHING
		RETURNING trigger_id::text, CASE WHEN queued_at > clock_timestamp() THEN queued_at END`, id, job, name, source, parent, reason, in)
	var added []fleet.OutboxMessage
	if err == nil {
		added, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (fleet.OutboxMessage, error) {
			var id string
			var due *time.Time
			err := row.Scan(&id, &due)
			m := byID[id].Outgoing()
			m.Due = utc(due)
			return m, err
		})
	}
	if err != nil {
		return fmt.Errorf("queue %d triggers, the first of them %s: %w", len(triggers), triggers[0].Subject(), translate(err))
	}
	return tx.Enqueue(ctx, added...)
}

// QueueOnce is Queue without those of whose job and name a run is queued since
// less than a minute, and not about to begin: nobody begins it before this
// transaction has ended, so that it sees what the transaction wrote. All
// triggers are of one job, and none waits for another transaction.
func (tx *Tx) QueueOnce(ctx context.Context, triggers ...fleet.Trigger) error {
	if len(triggers) == 0 {
		return nil
	}
	names := make([]string, len(triggers))
	for i, t := range triggers {
		names[i] = t.Name
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT name
		FROM muster.run
		WHERE job = $1 AND name = ANY($2) AND state = 'queued'
			AND queued_at > clock_timestamp() - $3::interval AND queued_at <= clock_timestamp()
		FOR SHARE SKIP LOCKED`, string(triggers[0].Job), names, requeueAfter)
	var waiting []string
	if err == nil {
		waiting, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return fmt.Errorf("look for queued runs of %s: %w", triggers[0].Job, translate(err))
	}
	waits := make(map[string]bool, len(waiting))
	for _, name := range waiting {
		waits[name] = true
	}
	var missing []fleet.Trigger
	for _, t := range triggers {
		if !waits[t.Name] {
			missing = append(missing, t)
		}
	}
	return tx.Queue(ctx, missing...)
}

// TakeQueued reads the triggers of queued runs of a job and of these names, the
// longest waiting first, and keeps others from beginning them or leaning on
// them until the transaction ends. What the transaction reads from here on is
// no older than what any of them was queued for. Runs that somebody has a hand
// on are left out.
func (tx *Tx) TakeQueued(ctx context.Context, job fleet.Job, names []string) ([]fleet.Trigger, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT trigger_id::text, job, name, source, coalesce(parent::text, ''), reason
		FROM muster.run
		WHERE job = $1 AND name = ANY($2) AND state = 'queued'
		ORDER BY queued_at, trigger_id
		FOR UPDATE SKIP LOCKED`, string(job), names)
	if err == nil {
		var all []fleet.Trigger
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[fleet.Trigger]); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("take queued runs of %s along: %w", job, translate(err))
}

// FinishTaken records that runs which TakeQueued gave are done, with their
// counts by id. Their messages find that nothing is left to do.
func (tx *Tx) FinishTaken(ctx context.Context, counts map[string]fleet.Counts) error {
	var all pgx.Batch
	for id, c := range counts {
		if c == nil {
			c = fleet.Counts{}
		}
		all.Queue(`
			UPDATE muster.run
			SET state = 'done', attempt = attempt + 1, started_at = clock_timestamp(), finished_at = clock_timestamp(), counts = $2
			WHERE trigger_id = $1 AND state = 'queued'`, id, c)
	}
	if err := tx.tx.SendBatch(ctx, &all).Close(); err != nil {
		return fmt.Errorf("finish %d runs that were taken along: %w", len(counts), translate(err))
	}
	return nil
}

const (
	// requeueAfter is how long a queued run waits for somebody to begin it
	// until its message may be lost.
	requeueAfter = time.Minute
	// requeueBatch is how many go at once: what is left waits for the next look.
	requeueBatch = 1000
)

// Requeue has the triggers of runs published again that are queued for longer
// than a minute and not in the outbox any more: their message may have gone
// with a server's files. Where it has not, the repeat does no harm, and the
// stream drops it within ten minutes. It returns how many there were.
func (r Runs) Requeue(ctx context.Context) (int, error) {
	n := 0
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		rows, err := tx.tx.Query(ctx, `
			UPDATE muster.run r
			SET requeued_at = clock_timestamp()
			FROM (
				SELECT trigger_id
				FROM muster.run q
				WHERE state = 'queued' AND coalesce(requeued_at, queued_at) < clock_timestamp() - $1::interval
					AND NOT EXISTS (SELECT FROM muster.outbox o WHERE o.id = q.trigger_id)
				LIMIT $2
				FOR UPDATE SKIP LOCKED
			) lost
			WHERE r.trigger_id = lost.trigger_id
			RETURNING r.trigger_id::text, r.job, r.name`, requeueAfter, requeueBatch)
		if err != nil {
			return err
		}
		messages, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (fleet.OutboxMessage, error) {
			var t fleet.Trigger
			err := row.Scan(&t.ID, &t.Job, &t.Name)
			return t.Outgoing(), err
		})
		if err != nil {
			return err
		}
		n = len(messages)
		return tx.Enqueue(ctx, messages...)
	})
	if err != nil {
		return 0, fmt.Errorf("publish queued triggers again: %w", err)
	}
	return n, nil
}
