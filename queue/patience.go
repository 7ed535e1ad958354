package queue

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// changes turns a row of equal results into one line of log: it is true where
// the state changes. The zero value works, as far as it knows.
type changes struct {
	mu      sync.Mutex
	failing bool
}

// failed reports whether this failure is the first since a success.
func (c *changes) failed() bool { return c.set(true) }

// worked reports whether this success is the first since a failure.
func (c *changes) worked() bool { return c.set(false) }

func (c *changes) set(failing bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := c.failing != failing
	c.failing = failing
	return changed
}

const (
	backoffBase = 250 * time.Millisecond
	backoffMax  = 10 * time.Second
)

// backoff doubles from 250 ms to 10 s. It takes off up to a half by chance, so
// that replicas do not come back in step. The zero value is ready.
type backoff struct{ step time.Duration }

func (b *backoff) next() time.Duration {
	b.step = min(max(2*b.step, backoffBase), backoffMax)
	return b.step/2 + rand.N(b.step/2)
}

func (b *backoff) reset() { b.step = 0 }

// pause waits; false says that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
