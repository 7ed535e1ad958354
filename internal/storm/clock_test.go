package storm_test

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// clock is the time of everybody but Postgres's leases: of GitHub, of its
// clients, and of the jobs.
type clock struct {
	ns atomic.Int64 // since 1970

	mu    sync.Mutex            // held while time passes
	ahead func(until time.Time) // of what happens until then, before it does
}

func newClock() *clock {
	c := new(clock)
	c.ns.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time { return time.Unix(0, c.ns.Load()).UTC() }

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead(c.now().Add(d))
	c.ns.Add(int64(d))
}

// tell is the clock as jobs read it. It moves on with each reading, by as
// little as Postgres tells apart: no two walks begin at the same time.
func (c *clock) tell(context.Context) (time.Time, error) {
	return time.Unix(0, c.ns.Add(int64(time.Microsecond))).UTC(), nil
}
