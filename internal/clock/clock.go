// Package clock watches the clock that all replicas share for steps: moments in
// which it goes back, or leaps ahead. Elapsed time is measured by the process's
// own monotonic clock, which no step disturbs.
package clock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// Hold is how long after a step nothing is done that time alone allows:
	// long enough for a clock that was wrong for a moment to be right again.
	Hold = 15 * time.Minute
	// Leap is how far the clock may run ahead of elapsed time between two
	// readings.
	Leap = 30 * time.Second
	// slack is how far the clock may go back. It is not less than the record's.
	slack = time.Second

	every     = 5 * time.Second // between two readings
	apart     = 2 * time.Second // between the two readings that find a step
	readLimit = 5 * time.Second // for one reading
	stepLimit = 2 * time.Minute // for recording a step, which looks at all tables
)

// Record keeps the shared clock's readings and its steps.
type Record interface {
	Read(ctx context.Context) (fleet.ClockReading, error)
	// Back records that the clock went back, and corrects times that are later
	// than now. It returns by how far, and whether this call recorded it.
	Back(ctx context.Context) (time.Duration, bool, error)
	// Forward records that the clock leapt ahead, and carries over what counts
	// time. It reports whether this call recorded it.
	Forward(ctx context.Context, by time.Duration) (bool, error)
}

// Watch watches the clock. Its methods are safe for concurrent use.
type Watch struct {
	Log    *slog.Logger
	Record Record
	// Elapsed is the time since some moment, as it passes for this process;
	// nil: the process's monotonic clock is read.
	Elapsed func() time.Duration

	mu sync.Mutex
	// The newest reading that the clock has not moved strangely since; known is
	// false before the first one.
	known bool
	now   time.Time
	at    time.Duration // by Elapsed
	// doubtAt is when the newest step, or the suspicion of one, was seen, by
	// Elapsed; doubted is false where there was none.
	doubted bool
	doubtAt time.Duration
	// suspected is the suspicion of one reading, which a later one confirms or
	// drops.
	suspected   suspicion
	suspectedAt time.Duration
}

// suspicion is what one reading looks like.
type suspicion int

const (
	none suspicion = iota
	wentBack
	leapt
)

var processStart = time.Now()

func (w *Watch) elapsed() time.Duration {
	if w.Elapsed != nil {
		return w.Elapsed()
	}
	return time.Since(processStart)
}

// Run reads the clock every 5 s until ctx ends, and returns nil then. While the
// record is away it says so once.
func (w *Watch) Run(ctx context.Context) error {
	if w.Log == nil || w.Record == nil {
		return errors.New("clock: Log and Record are needed")
	}
	failing := false
	for {
		wait, err := w.Look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			w.Log.WarnContext(ctx, "watching the shared clock failed, retrying", "err", err)
		}
		failing = err != nil
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// Look reads the clock once, records a step that two readings show, and returns
// when to look again.
func (w *Watch) Look(ctx context.Context) (time.Duration, error) {
	seen, err := w.read(ctx)
	if err != nil || seen.is == none {
		return every, err
	}
	if !seen.confirmed {
		return apart, nil
	}
	limited, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	if seen.is == wentBack {
		err = w.back(limited)
	} else {
		err = w.forward(limited, seen.by)
	}
	return every, err
}

func (w *Watch) back(ctx context.Context) error {
	by, recorded, err := w.Record.Back(ctx)
	if err != nil {
		return err
	}
	if recorded {
		w.Log.WarnContext(ctx, "the shared clock went back, times on record are corrected", "by", by)
	}
	w.accept()
	return nil
}

func (w *Watch) forward(ctx context.Context, by time.Duration) error {
	recorded, err := w.Record.Forward(ctx, by)
	if err != nil {
		return err
	}
	if recorded {
		w.Log.WarnContext(ctx, "the shared clock leapt ahead, deletions wait", "by", by, "for", Hold)
	}
	w.accept()
	return nil
}

// accept has the next reading be compared with what the clock shows then.
func (w *Watch) accept() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.suspected = false, none
}

// reading is what one look shows.
type reading struct {
	now       time.Time
	is        suspicion
	by        time.Duration // how far the clock leapt ahead
	confirmed bool          // by the reading before, made some time earlier
}

// read makes one reading and compares it with the record and with the reading
// before.
func (w *Watch) read(ctx context.Context) (reading, error) {
	limited, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	sent := w.elapsed()
	seen, err := w.Record.Read(limited)
	if err != nil {
		return reading{}, err
	}
	got := w.elapsed()

	w.mu.Lock()
	defer w.mu.Unlock()
	w.heed(seen, got)
	// The record may have answered at any moment between sent and got.
	r := reading{now: seen.Now, by: seen.Now.Sub(w.now) - (got - w.at)}
	switch {
	case seen.Newest.Sub(seen.Now) > slack, w.known && w.now.Sub(seen.Now) > slack:
		r.is = wentBack
	case w.known && r.by > Leap:
		r.is = leapt
	}
	if r.is == none {
		w.known, w.suspected = true, none
		w.now, w.at = seen.Now, sent
		return r, nil
	}
	r.confirmed = w.suspected == r.is && got-w.suspectedAt >= apart
	if w.suspected != r.is {
		w.suspected, w.suspectedAt = r.is, got
	}
	w.doubt(got)
	return r, nil
}

// heed takes over the doubt of a step that any replica has recorded, also
// before this process began. The mutex is held.
func (w *Watch) heed(seen fleet.ClockReading, got time.Duration) {
	if seen.SteppedAt.IsZero() {
		return
	}
	age := seen.Now.Sub(seen.SteppedAt)
	if age >= 0 && age < Hold {
		w.doubt(got - age)
	}
}

// doubt notes that the clock was in doubt at that moment. The mutex is held.
func (w *Watch) doubt(at time.Duration) {
	if !w.doubted || at > w.doubtAt {
		w.doubted, w.doubtAt = true, at
	}
}

// InDoubt is the error of Sure.
type InDoubt struct {
	Left time.Duration // until the clock is believed, if it does not step again
}

func (e *InDoubt) Error() string {
	return fmt.Sprintf("Postgres's clock has stepped: nothing that time alone allows is done for another %s", e.Left.Round(time.Second))
}

// Is makes it something that passes by itself.
func (e *InDoubt) Is(target error) bool { return target == fleet.ErrUnavailable }

// Sure reads the clock for acts that cannot be undone, such as deletions. For
// 15 minutes after a step in either direction it returns an InDoubt instead:
// whether a grace, a freeze, a rolling window or a retention is over is not
// known then.
func (w *Watch) Sure(ctx context.Context) (time.Time, error) {
	r, err := w.read(ctx)
	if err != nil {
		return time.Time{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := w.doubtAt + Hold - w.elapsed(); w.doubted && left > 0 {
		return time.Time{}, &InDoubt{Left: left}
	}
	return r.now, nil
}
