package policies

import (
	"time"

	"github.com/muster-fleet/muster/internal/calendar"
)

// recurrence is a time that comes again and again: from each due moment of a
// clock on, for as long as it lasts.
type recurrence struct {
	lasts time.Duration
	clock calendar.Clock
}

// until tells when the time that holds at now ends. The moment it begins
// belongs to it, the moment it ends does not.
func (r recurrence) until(now time.Time) (end time.Time, holds bool) {
	start := r.clock.Next(now.Add(-r.lasts))
	if start.IsZero() || start.After(now) {
		return time.Time{}, false
	}
	return start.Add(r.lasts), true
}

// lookedAt is the year over which recurrences are looked at when they are
// loaded. It does not matter much which one, as long as it is always the same.
var lookedAt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// endless reports whether the time never ends, looking over a year.
func (r recurrence) endless() bool {
	end := lookedAt.AddDate(1, 0, 0)
	if r.lasts >= time.Hour {
		return r.holdsFrom(lookedAt, end)
	}
	// A gap between short times is there on the first day, as on any day on
	// which they begin, or it is a whole day long.
	for noon := lookedAt.Add(12 * time.Hour); noon.Before(end); noon = noon.Add(24 * time.Hour) {
		if _, holds := r.until(noon); !holds {
			return false
		}
	}
	return r.holdsFrom(lookedAt, lookedAt.Add(26*time.Hour))
}

// holdsFrom reports whether the times follow each other without a gap.
func (r recurrence) holdsFrom(at, end time.Time) bool {
	for at.Before(end) {
		until, holds := r.until(at)
		if !holds {
			return false
		}
		at = until
	}
	return true
}

// spans are the times of the year that is looked at, in order.
func (r recurrence) spans() []span {
	var all []span
	end := lookedAt.AddDate(1, 0, 0)
	for start := r.clock.Next(lookedAt.Add(-r.lasts)); !start.IsZero() && start.Before(end); start = r.clock.Next(start) {
		all = append(all, span{start, start.Add(r.lasts)})
	}
	return all
}

// span is one time, without its end.
type span struct{ start, end time.Time }

// meet is the first moment that lies in a span of both. Within a and within b no
// span ends before an earlier one does.
func meet(a, b []span) (at time.Time, found bool) {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case !a[0].end.After(b[0].start):
			a = a[1:]
		case !b[0].end.After(a[0].start):
			b = b[1:]
		case a[0].start.After(b[0].start):
			return a[0].start, true
		default:
			return b[0].start, true
		}
	}
	return time.Time{}, false
}
