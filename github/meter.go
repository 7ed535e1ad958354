package github

import "time"

// meter holds one of GitHub's secondary limits: so many points in a rolling
// window of time. What is in flight counts, and goes on counting for a whole
// window from its answer. A server counts a request at some moment between the
// two, so that no window of its clock ever holds more than the limit, whatever
// the latency.
type meter struct {
	what   string // the points are of, in words
	window time.Duration
	limit  int

	inFlight int
	used     int     // points in spent
	spent    []spent // by time; a queue
	// full is the number of the pass in which somebody was found to wait for
	// this meter.
	full uint64
}

type spent struct {
	at     time.Time
	points int
}

// pass forgets what is older than the window.
func (m *meter) pass(now time.Time) {
	n := 0
	for n < len(m.spent) && !now.Before(m.spent[n].at.Add(m.window)) {
		m.used -= m.spent[n].points
		n++
	}
	if m.spent = m.spent[n:]; len(m.spent) == 0 {
		m.spent = nil // or the queue would keep the memory of its greatest length
	}
}

// free is when so many points may be spent within the limit: now, or when
// enough of the past is forgotten. It is false where that takes an answer of
// what is in flight.
func (m *meter) free(now time.Time, points, limit int) (time.Time, bool) {
	m.pass(now)
	over := m.used + m.inFlight + points - limit
	if over <= 0 {
		return now, true
	}
	for _, s := range m.spent {
		if over -= s.points; over <= 0 {
			return s.at.Add(m.window), true
		}
	}
	return time.Time{}, false
}

func (m *meter) send(points int)   { m.inFlight += points }
func (m *meter) unsend(points int) { m.inFlight -= points }

// spend counts points from now on for a whole window.
func (m *meter) spend(points int, now time.Time) {
	m.used += points
	m.spent = append(m.spent, spent{now, points})
}
