package scheduler

import "time"

// maxDue bounds how many ticks of one schedule are looked at in one go: a
// schedule of seconds has thousands of them after a long night.
const maxDue = 1000

// decision is what is to become of one due tick.
type decision struct {
	tick time.Time
	fire bool // else it was missed
}

// due decides about the ticks after the given time whose moment has come, in
// order. The bool says that there are more than it looked at; then it wants to
// be asked again, from the last one.
//
// A tick that is older than the deadline was missed. With misfire once, the
// newest of those missed is fired nevertheless, unless a younger tick is fired
// anyhow: one run makes up for them all.
func due(s Schedule, after, now time.Time) ([]decision, bool) {
	var decisions []decision
	fires := false
	for {
		tick := s.Next(after)
		// In order, so that a tick that waits for its jitter is never
		// overtaken and forgotten.
		if tick.IsZero() || s.fireAt(tick).After(now) {
			if n := len(decisions); n > 0 && !fires && s.spec.Misfire == misfireOnce {
				decisions[n-1].fire = true
			}
			return decisions, false
		}
		if len(decisions) == maxDue {
			return decisions, true
		}
		fire := now.Sub(s.fireAt(tick)) <= s.spec.Deadline
		fires = fires || fire
		decisions = append(decisions, decision{tick, fire})
		after = tick
	}
}
