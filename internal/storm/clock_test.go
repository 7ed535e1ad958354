package storm_test

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// worldClock is the time of everybody but Postgres's leases: of GitHub, of its
// clients, and of the jobs. Jobs read the clock that all replicas share, which
// may be wrong: see step_test.go.
type worldClock struct {
	ns   atomic.Int64 // since 1970
	born int64        // ns at the beginning
	off  atomic.Int64 // by how far the shared clock is wrong, in ns

	mu    sync.Mutex            // held while time passes
	ahead func(until time.Time) // of what happens until then, before it does
}

// newClock is the clock of a life. Lives are two weeks apart: a clock that goes
// back finds no time of another life that is later. And they are later than
// Postgres's own clock, as whose leases are.
func newClock(life int64) *worldClock {
	c := new(worldClock)
	c.born = time.Date(2060, 3, 1, 12, 0, 0, 0, time.UTC).AddDate(0, 0, 14*int(life)).UnixNano()
	c.ns.Store(c.born)
	return c
}

func (c *worldClock) now() time.Time { return time.Unix(0, c.ns.Load()).UTC() }

// elapsed is the time that has truly passed, as each process measures it.
func (c *worldClock) elapsed() time.Duration { return time.Duration(c.ns.Load() - c.born) }

func (c *worldClock) elapsedAt(at time.Time) time.Duration {
	return time.Duration(at.UnixNano() - c.born)
}

// step has the shared clock step.
func (c *worldClock) step(by time.Duration) { c.off.Add(int64(by)) }

// shared is what the shared clock shows at a moment, as it is wrong now.
func (c *worldClock) shared(at time.Time) time.Time { return at.Add(time.Duration(c.off.Load())) }

func (c *worldClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead(c.now().Add(d))
	c.ns.Add(int64(d))
}

// tell is the shared clock as jobs read it. It moves on with each reading, by as
// little as Postgres tells apart: no two walks begin at the same time.
func (c *worldClock) tell(context.Context) (time.Time, error) {
	return c.shared(time.Unix(0, c.ns.Add(int64(time.Microsecond))).UTC()), nil
}
