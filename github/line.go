package github

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// line is who waits for a turn: the highest priority first, and of one priority
// who came first.
type line []*waiter

// waiter is one call in the line. Its state is guarded by the governor's mutex.
type waiter struct {
	call  call
	since time.Time
	// leaves is when it goes unserved. What it waits for may have an end that
	// is always put off.
	leaves time.Time
	hold   hold
	wake   context.CancelFunc
	wakes  time.Time // when it looks by itself; zero: when it is woken
	turn   *turn     // once it may go
	gaveUp bool      // it has waited as long as it is worth, or would have to
}

func (l *line) join(w *waiter) {
	at, _ := slices.BinarySearchFunc(*l, w.call.priority, func(other *waiter, p Priority) int {
		if other.call.priority >= p {
			return -1 // before w
		}
		return 1
	})
	*l = slices.Insert(*l, at, w)
}

func (l *line) leave(w *waiter) {
	if i := slices.Index(*l, w); i >= 0 {
		*l = slices.Delete(*l, i, i+1)
	}
}

// enter waits for the operation's turn. Where that would take longer than it is
// worth, or than ctx allows, it fails at once. Errors are *Error; the turn then
// only tells what was waited for, and how long.
func (g *governor) enter(ctx context.Context, o operation) (turn, error) {
	g.mu.Lock()
	now := g.now()
	c := g.call(o)
	h := g.hold(c, now)
	if h.why == "" && len(g.line) == 0 {
		t := g.grant(c)
		g.mu.Unlock()
		return t, nil
	}
	queue, _ := o.patience()
	w := &waiter{call: c, since: now, leaves: now.Add(queue)}
	if deadline, ok := ctx.Deadline(); ok {
		// By the real clock, as contexts go, whatever ours is.
		left := time.Until(deadline) - answerTime
		w.leaves = now.Add(min(queue, max(left, 0)))
	}
	g.line.join(w)
	g.dispatch(now)
	why, spent := w.hold.why, map[Reason]time.Duration{} // why is what it waited for the longest
	for w.turn == nil && !w.gaveUp && ctx.Err() == nil {
		waking, cancel := context.WithCancel(ctx)
		w.wake, w.wakes = cancel, w.hold.until
		held, since := w.hold.why, now
		g.mu.Unlock()
		if w.wakes.IsZero() {
			<-waking.Done() // whose answer it waits for, or who is before it, sees to that
		} else {
			_ = g.sleep(waking, w.wakes.Sub(now)) // why it ended is found below
		}
		cancel()
		g.mu.Lock()
		now = g.now()
		if spent[held] += now.Sub(since); spent[held] > spent[why] {
			why = held
		}
		g.dispatch(now)
	}
	defer g.mu.Unlock()
	t := turn{waited: now.Sub(w.since), why: why}
	if w.turn == nil {
		g.line.leave(w)
		g.dispatch(now) // it may have been in the way
		if err := ctx.Err(); err != nil && !w.gaveUp {
			return t, o.fail(fleet.ErrUnavailable, "not sent: "+err.Error(), err)
		}
		return t, g.unserved(w, now)
	}
	t.call, t.episode, t.silences = w.turn.call, w.turn.episode, w.turn.silences
	return t, nil
}

// answerTime is what has to be left of a context's time for the request itself.
const answerTime = 3 * time.Second

// dispatch gives turns to all who may go now, in the order of the line, and
// sends away who would wait too long. The mutex is held.
func (g *governor) dispatch(now time.Time) {
	if len(g.line) == 0 {
		return
	}
	g.passes++
	g.line = slices.DeleteFunc(g.line, func(w *waiter) bool {
		h := g.hold(w.call, now)
		if h.why == "" {
			h = g.behind(w.call)
		}
		switch {
		case h.why == "":
			t := g.grant(w.call)
			w.turn = &t
		case h.long, !now.Before(w.leaves), h.until.After(w.leaves):
			w.gaveUp = true
		case h.meter != nil:
			h.meter.full = g.passes
		}
		w.hold = h
		done := w.turn != nil || w.gaveUp
		if w.wake != nil && (done || !h.until.IsZero() && (w.wakes.IsZero() || h.until.Before(w.wakes))) {
			w.wake()
		}
		return done
	})
}

// behind holds a call that could go, were nobody before it waiting for more of
// the same points. What stops a call otherwise stops all after it anyway.
func (g *governor) behind(c call) hold {
	for _, charge := range c.charges {
		if charge.meter != nil && charge.meter.full == g.passes {
			return hold{why: ReasonPace, meter: charge.meter}
		}
	}
	return hold{}
}

// unserved says why nothing was sent, with the figures. The mutex is held.
func (g *governor) unserved(w *waiter, now time.Time) *Error {
	rank := ranks[w.call.priority]
	wait := max(w.hold.until.Sub(now), shortestPause)
	var detail string
	switch w.hold.why {
	case ReasonPause:
		detail = "GitHub asked for a pause, which is not over"
	case ReasonBudget:
		detail = fmt.Sprintf("%d of the hour's %d requests are left", max(g.budget.left(), 0), g.budget.limit)
		if floor := g.budget.floor(w.call.priority); floor > 0 {
			detail += fmt.Sprintf(", and the last %d are kept for what matters more than a %s", floor, rank.name)
		}
	case ReasonPace:
		m := w.hold.meter
		detail = fmt.Sprintf("%d of the %d %s that are for a %s are used", m.used+m.inFlight, g.part(m, w.call.priority), m.what, rank.name)
		if g.sharers > 1 {
			detail += fmt.Sprintf("; %d replicas share what GitHub allows", g.sharers)
		}
	default:
		wait = shortestPause
		detail = fmt.Sprintf("%d requests are under way", g.inFlight)
	}
	e := w.call.op.fail(fleet.ErrRateLimited, "not sent: "+detail, nil)
	e.Wait = wait
	return e
}
