package github

import (
	"net/http"
	"strconv"
	"time"
)

const (
	// longestWindow is the most that a reset may be away to be believed.
	// GitHub's windows are an hour.
	longestWindow = 2 * time.Hour
	// sameWindow is how far the resets that answers of one window name may be
	// apart, in seconds. Those of two windows differ by about an hour.
	sameWindow = 60
)

// budget is GitHub's primary limit on a credential: so many requests in a
// window that ends at the reset. The zero budget knows of no limit.
//
// Requests in flight count as spent, and the lowest figure of a window is the
// newest, whatever the order in which answers arrive. So the budget never shows
// more than there is, as far as this process can know.
type budget struct {
	known     bool
	limit     int
	remaining int       // the least that an answer of this window said
	reset     int64     // Unix seconds of the server's clock; names the window
	ends      time.Time // the reset by our clock
	inFlight  int
	// unsaid counts answers since then that may have been charged and do not
	// say what is left; silences counts them up and never down.
	unsaid   int
	silences uint64
}

// rate is what an answer says of the primary limit.
type rate struct {
	limit, remaining int
	reset            int64
}

// rateOf is false where the answer does not say all of it.
func rateOf(h http.Header) (rate, bool) {
	limit, err := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	if err != nil || limit <= 0 {
		return rate{}, false
	}
	remaining, err := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	if err != nil || remaining < 0 {
		return rate{}, false
	}
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return rate{}, false
	}
	return rate{limit, remaining, reset}, true
}

// serverTime is the clock of the answer, or ours where it does not tell: moments
// that the server names are compared with its own clock, since ours may differ.
func serverTime(h http.Header, now time.Time) time.Time {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		return date
	}
	return now
}

// pass forgets a window that has ended. Until an answer tells of the next one
// there is no limit that is known.
func (b *budget) pass(now time.Time) {
	if b.known && !now.Before(b.ends) {
		b.known, b.unsaid = false, 0
	}
}

// left is what may still be sent. It is meaningless where nothing is known.
func (b *budget) left() int { return b.remaining - b.unsaid - b.inFlight }

// floor is how much is left to higher priorities.
func (b *budget) floor(p Priority) int { return (b.limit*ranks[p].floor + 99) / 100 }

// allows reports whether one more request may be sent.
func (b *budget) allows(p Priority) bool { return !b.known || b.left() > b.floor(p) }

// send counts a request as spent.
func (b *budget) send() { b.inFlight++ }

// unsend takes a request back that was not sent after all.
func (b *budget) unsend() { b.inFlight-- }

// answered learns from an answer, and from the lack of one. silences is what it
// was when the request was sent. A 304 is free. It reports whether the server
// shows a limit.
func (b *budget) answered(got reply, silences uint64, now time.Time) bool {
	b.inFlight--
	b.pass(now)
	r, says := rateOf(got.header)
	switch {
	case says:
		b.hear(r, got.header, silences, now)
	case b.known && got.status != http.StatusNotModified:
		b.unsaid++
		b.silences++
	}
	return says
}

func (b *budget) hear(r rate, h http.Header, silences uint64, now time.Time) {
	switch {
	case b.known && r.reset == b.reset && r.limit == b.limit:
		b.remaining = min(b.remaining, r.remaining)
	case b.known && r.reset < b.reset-sameWindow:
		return // a late answer of the window before
	default:
		date := serverTime(h, now)
		// The server writes whole seconds and rounds down, so this ends late
		// rather than early.
		wait := time.Unix(r.reset, 0).Sub(date)
		if wait <= 0 || wait > longestWindow {
			return
		}
		same := b.known && r.reset <= b.reset+sameWindow && r.limit == b.limit
		switch ends := now.Add(wait); {
		case !same:
			*b = budget{
				known: true, limit: r.limit, remaining: r.remaining, reset: r.reset, ends: ends,
				inFlight: b.inFlight, silences: b.silences,
			}
			return
		case r.reset > b.reset:
			b.reset, b.ends = r.reset, ends
		}
		b.remaining = min(b.remaining, r.remaining)
	}
	if silences == b.silences {
		// It was sent when all that did not say had been answered, so that its
		// figure holds them.
		b.unsaid = 0
	}
}
