package fleet

import "time"

// Brake is from when on a target that goes dark halts the policies that delete
// its runners: so many of them newly offline or newly missing within a window
// are a fault of GitHub's or of the network, and not so many runners that died.
type Brake struct {
	Percent int // of the target's runners; it takes more
	Min     int // it takes as many
	Window  time.Duration
}

// DefaultBrake is the brake of a target that says nothing of one.
var DefaultBrake = Brake{Percent: 20, Min: 10, Window: 15 * time.Minute}

// OrDefault is the brake itself, or for the zero one DefaultBrake: a guard is
// not off because somebody forgot it.
func (b Brake) OrDefault() Brake {
	if b == (Brake{}) {
		return DefaultBrake
	}
	return b
}

// Trips reports whether what was counted is too much.
func (b Brake) Trips(a Alarm) bool {
	b = b.OrDefault()
	return a.Newly() > 0 && a.Newly() >= b.Min && a.Newly()*100 > b.Percent*a.Of
}

// Alarm counts the runners of a target that went dark lately, each once, by the
// times of the walks that showed it.
type Alarm struct {
	Offline int // were online and are offline since
	Missing int // are lacking in a listing since, and nobody knows whether they are gone
	Removed int // are gone since, and muster did not do it, nor were they done with
	// Of is how many runners of the target there would be without that.
	Of    int
	Since time.Time // counted from then on, which is not included
	First time.Time // the first of them; zero: there is none
}

// Newly is how many runners it is about.
func (a Alarm) Newly() int { return a.Offline + a.Missing + a.Removed }
