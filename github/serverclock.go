package github

import (
	"net/http"
	"sync"
	"time"
)

// clockError is from where on a difference of clocks is worth a second try: an
// assertion that is as much off would still be taken.
const clockError = 30 * time.Second

// serverClock is a transport that learns the server's time from its answers.
// Between them time goes on as this machine counts it, which a step of its
// clock does not disturb.
type serverClock struct {
	now  func() time.Time
	next http.RoundTripper

	mu       sync.Mutex
	date, at time.Time     // what the server's clock showed, and ours; zero: not heard yet
	moved    time.Duration // by how much the newest answer corrected what was believed
}

// RoundTrip counts from the sending of the request, so that the server's time
// is never taken to be earlier than it is, and what it issues to live longer.
func (c *serverClock) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := c.now()
	resp, err := c.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	date, malformed := http.ParseTime(resp.Header.Get("Date"))
	believed, _ := c.time()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moved = 0; malformed == nil {
		c.moved = date.Sub(believed)
		c.date, c.at = date, sent
	}
	return resp, nil
}

// time is the server's time, or ours as long as that is not known.
func (c *serverClock) time() (t time.Time, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.date.IsZero() {
		return now, false
	}
	return c.date.Add(now.Sub(c.at)), true
}

// corrected reports whether the newest answer showed that the time believed
// until then was wrong.
func (c *serverClock) corrected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved.Abs() >= clockError
}
