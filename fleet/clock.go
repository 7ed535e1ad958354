package fleet

import "time"

// ClockReading is one look at the clock that all replicas share, and what the
// record knows of it.
type ClockReading struct {
	Now time.Time
	// Newest is the newest time that any replica has read. It is later than Now
	// where the clock has gone back.
	Newest time.Time
	// SteppedAt is when the newest step was found, by the clock after it; zero:
	// there was none.
	SteppedAt time.Time
}
