package db

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// clockSlack is how far the clock may go back without being a step: a
	// correction of less is waited out.
	clockSlack = time.Second
	// sameStep is how long after a step of the clock another one in the same
	// direction is taken for it: several replicas find one step.
	sameStep = 2 * time.Minute
	// readEvery is how rarely readings move the record on.
	readEvery = 4 * time.Second
)

// Clock is the record of the clock that all replicas share: internal/clock
// watches it. All methods are safe for concurrent use, by several processes too.
type Clock struct {
	DB *DB
	// Now reads the clock; nil: Postgres's clock is read.
	Now func(context.Context) (time.Time, error)
}

// ClockStep is the newest step of the clock.
type ClockStep struct {
	Steps int           // that were found so far
	At    time.Time     // when the newest one was found, by the clock after it; zero: there was none
	By    time.Duration // how far the clock went; negative: back
}

// Read reads the clock. A reading moves the record on at most every few seconds.
func (c Clock) Read(ctx context.Context) (fleet.ClockReading, error) {
	var r fleet.ClockReading
	fail := func(err error) (fleet.ClockReading, error) {
		return fleet.ClockReading{}, fmt.Errorf("read the shared clock: %w", translate(err))
	}
	var stepped *time.Time
	err := c.DB.pool.QueryRow(ctx, `
		SELECT newest, stepped_at, clock_timestamp()
		FROM muster.clock`).Scan(&r.Newest, &stepped, &r.Now)
	if err != nil {
		return fail(err)
	}
	if c.Now != nil {
		r.Now, err = c.Now(ctx)
		if err != nil {
			return fail(err)
		}
	}
	r.Now, r.Newest, r.SteppedAt = r.Now.UTC(), r.Newest.UTC(), utc(stepped)
	if r.Now.Sub(r.Newest) < readEvery {
		return r, nil
	}
	err = c.DB.InTx(ctx, func(tx *Tx) error {
		_, err := tx.tx.Exec(ctx, `UPDATE muster.clock SET newest = $1 WHERE newest < $1`, r.Now)
		return err
	})
	if err != nil {
		return fail(err)
	}
	return r, nil
}

// lock keeps other replicas from recording a step until the transaction ends,
// and reads the clock.
func (c Clock) lock(ctx context.Context, tx *Tx) (now, newest time.Time, err error) {
	err = tx.tx.QueryRow(ctx, `SELECT newest FROM muster.clock FOR UPDATE`).Scan(&newest)
	if err != nil {
		return now, newest, err
	}
	if c.Now != nil {
		now, err = c.Now(ctx)
	} else {
		err = tx.tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	}
	return now.UTC(), newest.UTC(), err
}

// Back records that the clock has gone back, where it still shows an earlier
// time than the newest one, and corrects every time on record that is later
// than now: see clockColumns. Ticks that are later than now are deleted, so that
// they are fired when they come. It returns by how far the clock went, and
// whether this call was the one that recorded it.
func (c Clock) Back(ctx context.Context) (time.Duration, bool, error) {
	var by time.Duration
	recorded := false
	err := c.DB.InTx(ctx, func(tx *Tx) error {
		by, recorded = 0, false
		now, newest, err := c.lock(ctx, tx)
		if err != nil {
			return err
		}
		by = newest.Sub(now)
		if by <= clockSlack {
			by = 0 // another replica has recorded it, or the clock has come again
			return nil
		}
		recorded = true
		ticks, err := tx.dropTicksAfter(ctx, now)
		if err != nil {
			return err
		}
		rows, err := tx.turnBack(ctx, now, by)
		if err != nil {
			return err
		}
		return tx.noteStep(ctx, now, -by, map[string]any{"ticks": ticks, "rows": rows})
	})
	if err != nil {
		return 0, false, fmt.Errorf("record that the shared clock went back: %w", err)
	}
	return by, recorded, nil
}

// Forward records that the clock leapt ahead, and moves on by as much what
// counts time from before the leap, so that no grace, pause or rolling window
// seems to be over: see leapStatements. It reports whether this call was the one
// that recorded it.
func (c Clock) Forward(ctx context.Context, by time.Duration) (bool, error) {
	recorded := false
	err := c.DB.InTx(ctx, func(tx *Tx) error {
		recorded = false
		now, _, err := c.lock(ctx, tx)
		if err != nil {
			return err
		}
		var known bool
		err = tx.tx.QueryRow(ctx, `
			SELECT coalesce(stepped_by > '0' AND stepped_at > $1::timestamptz - $2::interval, false)
			FROM muster.clock`, now, sameStep).Scan(&known)
		if err != nil || known {
			return err
		}
		recorded = true
		rows, err := tx.moveOn(ctx, now, by)
		if err != nil {
			return err
		}
		return tx.noteStep(ctx, now, by, map[string]any{"rows": rows})
	})
	if err != nil {
		return false, fmt.Errorf("record that the shared clock leapt ahead: %w", err)
	}
	return recorded, nil
}

// noteStep writes the step with its audit event.
func (tx *Tx) noteStep(ctx context.Context, now time.Time, by time.Duration, details map[string]any) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.clock
		SET newest = $1, steps = steps + 1, stepped_at = $1, stepped_by = $2::interval`, now, by)
	if err != nil {
		return fmt.Errorf("store the step: %w", translate(err))
	}
	reason := "the clock leapt ahead by " + by.Round(time.Second).String()
	if by < 0 {
		reason = "the clock went back by " + (-by).Round(time.Second).String()
	}
	details["by"] = by.Round(time.Millisecond).String()
	return tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditClockStepped, Actor: fleet.System, Reason: reason, Details: details,
	})
}

// dropTicksAfter deletes ticks that were recorded while the clock was ahead, and
// returns how many there were. Their runs stay on record.
func (tx *Tx) dropTicksAfter(ctx context.Context, now time.Time) (int64, error) {
	tag, err := tx.tx.Exec(ctx, `DELETE FROM muster.tick WHERE tick_at > $1`, now)
	if err != nil {
		return 0, fmt.Errorf("delete ticks later than now: %w", translate(err))
	}
	return tag.RowsAffected(), nil
}

// ClockStep reads the newest step of the clock.
func (db *DB) ClockStep(ctx context.Context) (ClockStep, error) {
	var s ClockStep
	var at *time.Time
	err := db.pool.QueryRow(ctx, `
		SELECT steps, stepped_at, coalesce(stepped_by, '0')
		FROM muster.clock`).Scan(&s.Steps, &at, &s.By)
	if err != nil {
		return ClockStep{}, fmt.Errorf("read the steps of the shared clock: %w", translate(err))
	}
	s.At = utc(at)
	return s, nil
}
