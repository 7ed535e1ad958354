package db

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Begin begins the run of a trigger, or says why it does not begin now.
//
// A run takes over one that was queued, has failed, or whose lease has ended. A
// run that begins is done for all triggers of the same job and name that wait:
// it looks at everything that they ask to look at. They are joined to it.
//
// While another run of the same job and name is going, a trigger waits, since
// that run began to look before the trigger came. Of several that wait, the
// oldest stays queued and comes again, and the others are joined to it at once.
func (r Runs) Begin(ctx context.Context, t fleet.Trigger, lease time.Duration) (fleet.Begun, error) {
	var begun fleet.Begun
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		var err error
		begun, err = tx.begin(ctx, t, lease)
		if err != nil {
			return err
		}
		return readRun(ctx, tx.tx, t.ID, &begun.Run)
	})
	if err != nil {
		return fleet.Begun{}, fmt.Errorf("begin run %s: %w", t.ID, err)
	}
	return begun, nil
}

func (tx *Tx) begin(ctx context.Context, t fleet.Trigger, lease time.Duration) (fleet.Begun, error) {
	// Two that begin at once would not see each other's run: one waits here.
	_, err := tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('muster.run:' || $1 || '.' || $2, 0))`, string(t.Job), t.Name)
	if err != nil {
		return fleet.Begun{}, err
	}

	own, err := tx.ownRun(ctx, t)
	if err != nil {
		return fleet.Begun{}, err
	}
	switch own.state {
	case fleet.RunDone, fleet.RunDead, fleet.RunJoined:
		return fleet.Begun{Disposition: fleet.DispositionFinished}, nil
	case fleet.RunRunning:
		if own.left > 0 {
			return fleet.Begun{Disposition: fleet.DispositionElsewhere, RetryAfter: own.left}, nil
		}
	case fleet.RunQueued:
		going, err := tx.anotherGoes(ctx, t)
		if err != nil {
			return fleet.Begun{}, err
		}
		if going {
			return tx.wait(ctx, t)
		}
	}
	return fleet.Begun{Disposition: fleet.DispositionStarted}, tx.start(ctx, t, lease)
}

// ownRun is what is on record of the trigger itself.
type ownRun struct {
	state fleet.RunState
	left  time.Duration // of its lease
}

// ownRun reads the trigger's row and keeps others from beginning it until the
// transaction ends. A trigger that has none becomes queued.
func (tx *Tx) ownRun(ctx context.Context, t fleet.Trigger) (ownRun, error) {
	var own ownRun
	read := func() error {
		return translate(tx.tx.QueryRow(ctx, `
			SELECT state, coalesce(lease_until - clock_timestamp(), '0')
			FROM muster.run
			WHERE trigger_id = $1
			FOR UPDATE`, t.ID).Scan(&own.state, &own.left))
	}
	err := read()
	if !isNotFound(err) {
		return own, err
	}
	tag, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.run (trigger_id, job, name, source, reason, state, queued_at)
		VALUES ($1, $2, $3, $4, $5, 'queued', clock_timestamp())
		ON CONFLICT (trigger_id) DO NOTHING`,
		t.ID, string(t.Job), t.Name, string(t.Source), t.Reason)
	if err != nil {
		return own, err
	}
	if tag.RowsAffected() == 1 {
		return ownRun{state: fleet.RunQueued}, nil
	}
	return own, read() // somebody else was faster
}

// anotherGoes reports whether a run of the same job and name is going that is
// not the trigger's own, and keeps that run from ending until the transaction
// has ended.
func (tx *Tx) anotherGoes(ctx context.Context, t fleet.Trigger) (bool, error) {
	var id string
	err := translate(tx.tx.QueryRow(ctx, `
		SELECT trigger_id::text
		FROM muster.run
		WHERE job = $1 AND name = $2 AND trigger_id <> $3 AND state = 'running' AND lease_until > clock_timestamp()
		LIMIT 1
		FOR SHARE`, string(t.Job), t.Name, t.ID).Scan(&id))
	if isNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// waitsAtMost is how long a trigger that waits for another run is left alone.
const waitsAtMost = time.Second

// wait joins a queued trigger to the oldest one of the same job and name, which
// cannot begin before the transaction has ended. The oldest one itself comes
// again.
func (tx *Tx) wait(ctx context.Context, t fleet.Trigger) (fleet.Begun, error) {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.run r
		SET state = 'joined', joined_to = w.trigger_id, finished_at = clock_timestamp()
		FROM (
			SELECT q.trigger_id
			FROM muster.run q
			JOIN muster.run own ON own.trigger_id = $3
			WHERE q.job = $1 AND q.name = $2 AND q.state = 'queued'
				AND (q.queued_at, q.trigger_id) < (own.queued_at, own.trigger_id)
			ORDER BY q.queued_at, q.trigger_id
			LIMIT 1
			FOR SHARE OF q
		) w
		WHERE r.trigger_id = $3`, string(t.Job), t.Name, t.ID)
	if err != nil {
		return fleet.Begun{}, err
	}
	if tag.RowsAffected() == 1 {
		return fleet.Begun{Disposition: fleet.DispositionJoined}, nil
	}
	return fleet.Begun{Disposition: fleet.DispositionElsewhere, RetryAfter: waitsAtMost}, nil
}

// start makes the run the caller's and joins to it whatever waits for the same
// job and name. Triggers that somebody has a hand on are left out.
func (tx *Tx) start(ctx context.Context, t fleet.Trigger, lease time.Duration) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.run
		SET attempt = attempt + 1, state = 'running', started_at = clock_timestamp(), finished_at = NULL,
			lease_until = clock_timestamp() + $2::interval
		WHERE trigger_id = $1`, t.ID, lease)
	if err != nil {
		return err
	}
	_, err = tx.tx.Exec(ctx, `
		UPDATE muster.run r
		SET state = 'joined', joined_to = $3, finished_at = clock_timestamp()
		FROM (
			SELECT trigger_id
			FROM muster.run
			WHERE job = $1 AND name = $2 AND state = 'queued' AND trigger_id <> $3
			FOR UPDATE SKIP LOCKED
		) waiting
		WHERE r.trigger_id = waiting.trigger_id`, string(t.Job), t.Name, t.ID)
	return err
}
