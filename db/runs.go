package db

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Runs records the runs of triggers: the recorder of the worker engine.
// Leases are of the real clock, whatever time the jobs believe it is: they are
// about processes being alive.
type Runs struct{ DB *DB }

// Known reports of each trigger whether there is a run of its id, job and name.
func (r Runs) Known(ctx context.Context, triggers ...fleet.Trigger) ([]bool, error) {
	var id, job, name []string
	for _, t := range triggers {
		id, job, name = append(id, t.ID), append(job, string(t.Job)), append(name, t.Name)
	}
	rows, err := r.DB.pool.Query(ctx, `
		SELECT EXISTS (SELECT FROM muster.run r WHERE r.trigger_id = t.id AND r.job = t.job AND r.name = t.name)
		FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS t (id, job, name, n)
		ORDER BY n`, id, job, name)
	if err != nil {
		return nil, fmt.Errorf("look for %d runs: %w", len(triggers), translate(err))
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		return nil, fmt.Errorf("look for %d runs: %w", len(triggers), translate(err))
	}
	return known, nil
}

func readRun(ctx context.Context, q querier, id string, run *fleet.Run) error {
	var parent *uuid.UUID
	var started, finished *time.Time
	var failure *string
	err := q.QueryRow(ctx, `
		SELECT trigger_id::text, job, name, source, parent, reason, attempt, state, started_at, finished_at, error, counts,
			coalesce(joined_to::text, ''), lasting
		FROM muster.run
		WHERE trigger_id = $1`, id).Scan(&run.Trigger.ID, &run.Trigger.Job, &run.Trigger.Name, &run.Trigger.Source,
		&parent, &run.Trigger.Reason, &run.Attempt, &run.State, &started, &finished, &failure, &run.Counts, &run.JoinedTo, &run.Lasting)
	if err != nil {
		return translate(err)
	}
	if parent != nil {
		run.Trigger.Parent = parent.String()
	}
	run.StartedAt, run.FinishedAt, run.Error = utc(started), utc(finished), text(failure)
	return nil
}

// Run reads one run; fleet.ErrNotFound where there is none.
func (db *DB) Run(ctx context.Context, triggerID string) (fleet.Run, error) {
	var run fleet.Run
	if err := readRun(ctx, db.pool, triggerID, &run); err != nil {
		return fleet.Run{}, fmt.Errorf("read run %s: %w", triggerID, err)
	}
	return run, nil
}

// Parts reads the runs that a trigger of the name all was split into.
func (db *DB) Parts(ctx context.Context, triggerID string) ([]fleet.Run, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT trigger_id::text FROM muster.run WHERE parent = $1 ORDER BY name`, triggerID)
	if err != nil {
		return nil, fmt.Errorf("read the parts of run %s: %w", triggerID, translate(err))
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the parts of run %s: %w", triggerID, translate(err))
	}
	parts := make([]fleet.Run, len(ids))
	for i, id := range ids {
		if parts[i], err = db.Run(ctx, id); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// Extend renews the lease of a run. fleet.ErrConflict says that somebody else
// has taken it over.
func (r Runs) Extend(ctx context.Context, id string, attempt int, lease time.Duration) error {
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		tag, err := tx.tx.Exec(ctx, `
			UPDATE muster.run SET lease_until = clock_timestamp() + $3::interval
			WHERE trigger_id = $1 AND attempt = $2 AND state = 'running'`, id, attempt, lease)
		if err == nil && tag.RowsAffected() == 0 {
			err = fleet.ErrConflict
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("extend the lease of run %s: %w", id, err)
	}
	return nil
}

// Finish records that an attempt is over: done, or failed and to be tried
// again. fleet.ErrConflict says that somebody else has taken it over.
func (r Runs) Finish(ctx context.Context, run fleet.Run) error {
	if err := r.DB.InTx(ctx, func(tx *Tx) error { return tx.finish(ctx, run) }); err != nil {
		return fmt.Errorf("finish run %s: %w", run.Trigger.ID, err)
	}
	return nil
}

func (tx *Tx) finish(ctx context.Context, run fleet.Run) error {
	counts := run.Counts
	if counts == nil {
		counts = fleet.Counts{}
	}
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.run
		SET state = $3, finished_at = clock_timestamp(), lease_until = NULL, error = $4, counts = $5, lasting = $6
		WHERE trigger_id = $1 AND attempt = $2 AND state = 'running'`,
		run.Trigger.ID, run.Attempt, string(run.State), orNull(run.Error), counts, run.Lasting)
	if err == nil && tag.RowsAffected() == 0 {
		err = fleet.ErrConflict
	}
	return err
}

// GiveBack records that a stop of this process interrupted an attempt, which
// does not count as one. fleet.ErrConflict says that somebody else has taken
// the run over.
func (r Runs) GiveBack(ctx context.Context, run fleet.Run) error {
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		if err := tx.finish(ctx, run); err != nil {
			return err
		}
		_, err := tx.tx.Exec(ctx, `
			UPDATE muster.run SET attempt = attempt - 1
			WHERE trigger_id = $1 AND attempt = $2`, run.Trigger.ID, run.Attempt)
		return err
	})
	if err != nil {
		return fmt.Errorf("give run %s back: %w", run.Trigger.ID, err)
	}
	return nil
}

// Die records that a trigger is given up, with its dead letter and an audit
// event.
func (r Runs) Die(ctx context.Context, run fleet.Run, letter fleet.DeadLetter) error {
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		run.State = fleet.RunDead
		if err := tx.finish(ctx, run); err != nil {
			return err
		}
		return tx.bury(ctx, letter, ActorOf(run.Trigger), run.Trigger.Reason)
	})
	if err != nil {
		return fmt.Errorf("give up run %s: %w", run.Trigger.ID, err)
	}
	return nil
}

// Reject records messages that never became triggers. The same message rejected
// again (a redelivery) leaves one dead letter.
func (r Runs) Reject(ctx context.Context, letters ...fleet.DeadLetter) error {
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		for _, letter := range letters {
			actor := fleet.Actor{Type: fleet.ActorNATS, Name: orElse(letter.Subject, "nats")}
			err := tx.bury(ctx, letter, actor, "")
			if err != nil {
				return fmt.Errorf("message on %s: %w", letter.Subject, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record %d rejected messages: %w", len(letters), err)
	}
	return nil
}

// FanOut queues one trigger per name and finishes the one that named all. The
// parts' ids follow from the whole's, so that doing it twice makes no more.
func (r Runs) FanOut(ctx context.Context, run fleet.Run, names []string) error {
	whole, err := uuid.Parse(run.Trigger.ID)
	if err != nil {
		return fmt.Errorf("split run %q: %w", run.Trigger.ID, err)
	}
	err = r.DB.InTx(ctx, func(tx *Tx) error {
		parts := make([]fleet.Trigger, len(names))
		for i, name := range names {
			parts[i] = run.Trigger
			parts[i].ID, parts[i].Name, parts[i].Parent = uuid.NewSHA1(whole, []byte(name)).String(), name, run.Trigger.ID
		}
		if err := tx.Queue(ctx, parts...); err != nil {
			return err
		}
		return tx.finish(ctx, run)
	})
	if err != nil {
		return fmt.Errorf("split run %s: %w", run.Trigger.ID, err)
	}
	return nil
}

// ActorOf is who is behind a trigger, for the audit trail. Of a trigger of the
// command line that is all there is to say: its message can name whom it likes,
// so that the user stands in the reason it gives.
func ActorOf(t fleet.Trigger) fleet.Actor {
	switch t.Source {
	case fleet.SourceCron:
		return fleet.Actor{Type: fleet.ActorCron, Name: string(t.Job) + "/" + t.Name}
	case fleet.SourceCLI:
		return fleet.Actor{Type: fleet.ActorCLI, Name: "cli"}
	case fleet.SourceNATS:
		return fleet.Actor{Type: fleet.ActorNATS, Name: t.Subject()}
	}
	return fleet.System
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
