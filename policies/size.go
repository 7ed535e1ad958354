package policies

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

const (
	// maxDemandAge is how long a count of workflow jobs is true enough to take
	// hosts away: as long as an inventory, by default.
	maxDemandAge = 10 * time.Minute
	// shrinkEvery is the time from one step down to the next, however often a
	// pool is decided on.
	shrinkEvery = time.Minute
)

// Size decides how many hosts the pool should have, and what to do about it
// now. It grows towards what is wanted in bounded steps, and shrinks, where
// demand is known, only to the most that was desired within the cool-down
// window. Min and max count whatever is there or asked for, and max also what
// was there a moment ago; a pool that is above max loses hosts only as work
// allows.
func (p *Pool) Size(supply fleet.Supply, demand fleet.Demand, memory fleet.SizeMemory, now time.Time) fleet.SizeDecision {
	s := sizing{pool: p, supply: supply, demand: demand, now: now}
	s.d = fleet.SizeDecision{At: now, Pool: p.Name, Direction: fleet.SizeHold, Evidence: fleet.Evidence{
		"queued": demand.Queued, "in_progress": demand.InProgress,
		"online": supply.Online, "busy": supply.Busy, "booting": supply.Booting, "draining": supply.Draining,
	}}
	if supply.Expired > 0 {
		s.d.Evidence["leases_expired"] = supply.Expired
	}
	if supply.Dark > 0 {
		s.d.Evidence["dark"] = supply.Dark
	}
	if s.demand.Confidence == fleet.ConfidenceKnown && now.Sub(demand.At) > maxDemandAge {
		s.demand.Confidence = fleet.ConfidenceStale
	}
	s.desire()
	highest := s.remember(memory)
	switch size := supply.Size(); {
	case s.d.Desired > size:
		s.grow()
	case s.d.Desired < size:
		s.shrink(highest)
	case supply.Booting > 0:
		s.because(SizeBooting)
	default:
		s.because(SizeEnough)
	}
	return s.d
}

// sizing is a decision on the way.
type sizing struct {
	pool   *Pool
	supply fleet.Supply
	demand fleet.Demand
	now    time.Time
	d      fleet.SizeDecision
}

func (s *sizing) because(reason string) { s.d.Reasons = append(s.d.Reasons, reason) }

// desire is the size that is right for the moment, whatever was before.
func (s *sizing) desire() {
	b, period, until := s.pool.bounds(s.now)
	s.d.Bounds = b
	if period != "" {
		s.because(SizeForPeriod)
		s.d.Evidence["period"], s.d.Evidence["period_until"] = period, until.UTC().Format(time.RFC3339)
	}
	wanted := s.demand.Jobs()
	// A host that is busy without a job that is known shows a lost event. The
	// product is rounded first: 9 busy at 0.9 are 10, not 10.000000000000002.
	utilised := int(math.Ceil(math.Round(float64(s.supply.Busy)/s.pool.TargetUtilisation*1e6) / 1e6))
	reason := SizeForDemand
	if utilised > wanted {
		wanted, reason = utilised, SizeForUtilisation
	}
	wanted += b.Idle
	s.because(reason)
	s.d.Evidence["wanted"] = wanted
	s.d.Desired = min(max(wanted, b.Min), b.Max)
	switch {
	case wanted < b.Min:
		s.because(SizeForMin)
	case wanted > b.Max:
		s.because(SizeForMax)
	}
}

// remember is the most that was desired within the cool-down window, this
// decision included. What was desired held until the next decision, so a time
// in which nobody decided counts as one in which it did.
func (s *sizing) remember(before fleet.SizeMemory) (highest int) {
	m := before
	if m.Since.IsZero() {
		m.Since = s.now
	}
	m.At = s.now
	m.Spans = slices.Clone(before.Spans)
	if n := len(m.Spans); n > 0 {
		m.Spans[n-1].Until = s.now
	}
	window := s.now.Add(-s.pool.Cooldown.Down)
	m.Spans = slices.DeleteFunc(m.Spans, func(d fleet.DesiredSpan) bool {
		// One that ended sooner and was no higher can never count again.
		return d.Until.Before(window) || d.Desired <= s.d.Desired
	})
	m.Spans = append(m.Spans, fleet.DesiredSpan{Desired: s.d.Desired, Until: s.now})
	s.d.Memory = m
	return m.Spans[0].Desired
}

// windowEnd is when the most that was desired leaves the cool-down window. What
// is bounded by max however high it is waits for the period to end instead, so
// the answer is never before now.
func (s *sizing) windowEnd() time.Time {
	return s.d.Memory.Spans[0].Until.Add(s.pool.Cooldown.Down + time.Microsecond)
}

func (s *sizing) grow() {
	size := s.supply.Size()
	change := s.d.Desired - size
	step := s.pool.Step.Up.Of(size)
	room := max(s.d.Bounds.Max-size-s.supply.Draining-s.supply.Dark, 0)
	next := s.d.Memory.UpAt.Add(s.pool.Cooldown.Up)
	switch {
	case s.supply.Doubtful && s.supply.Dark > 0:
		s.because(SizeListingDoubtful)
		return
	case s.supply.RetryAt.After(s.now):
		s.because(SizeBackoff)
		s.d.Evidence["retry_at"] = s.supply.RetryAt.UTC().Format(time.RFC3339)
		s.d.NextAt = s.supply.RetryAt
		return
	case next.After(s.now):
		s.because(SizeCooldownUp)
		s.d.NextAt = next
		s.d.Evidence["cooldown_until"] = next.UTC().Format(time.RFC3339)
		return
	}
	if change > room {
		change = room
		s.because(SizeNoRoom)
		if s.supply.Dark > 0 {
			s.because(SizeDark)
		}
	}
	if change > step {
		change = step
		s.because(SizeStepUp)
		s.d.NextAt = s.now.Add(s.pool.Cooldown.Up)
	}
	if change > 0 {
		s.d.Direction, s.d.Change, s.d.Memory.UpAt = fleet.SizeUp, change, s.now
	}
}

func (s *sizing) shrink(highest int) {
	size := s.supply.Size()
	m := &s.d.Memory
	next := m.DownAt.Add(shrinkEvery)
	floor := min(highest, s.d.Bounds.Max)
	switch {
	case s.demand.Confidence == fleet.ConfidenceStale:
		s.because(SizeDemandStale)
		s.d.Evidence["demand_at"] = s.demand.At.UTC().Format(time.RFC3339)
		return
	case s.demand.Confidence != fleet.ConfidenceKnown:
		s.because(SizeDemandUnknown)
		return
	case s.now.Sub(m.Since) < s.pool.Cooldown.Down:
		s.because(SizeYoung)
		s.d.NextAt = m.Since.Add(s.pool.Cooldown.Down)
		return
	case floor >= size:
		s.because(SizeWindow)
		s.d.NextAt = s.windowEnd()
		s.d.Evidence["highest"] = highest
		return
	case next.After(s.now):
		s.because(SizeCooldownDown)
		s.d.NextAt = next
		s.d.Evidence["cooldown_until"] = next.UTC().Format(time.RFC3339)
		return
	}
	change := size - floor
	if floor > s.d.Desired {
		s.because(SizeWindow)
		s.d.NextAt = s.windowEnd()
		s.d.Evidence["highest"] = highest
	}
	// Hosts that boot serve nobody yet, so those online have to be as many as
	// the jobs are.
	if free := max(s.supply.Online-max(s.supply.Busy, s.demand.Jobs()), 0); change > free {
		change = free
		s.because(SizeInUse)
	}
	if step := s.pool.Step.Down.Of(size); change > step {
		change = step
		s.because(SizeStepDown)
		s.d.NextAt = s.now.Add(shrinkEvery)
	}
	if change > 0 {
		s.d.Direction, s.d.Change, m.DownAt = fleet.SizeDown, change, s.now
	}
}

// GiveUp bounds a decision to shrink by how many runners can be given up at all,
// as [ChooseIdle] finds them. Where there are none, nothing is done: before is
// what the decision remembered of earlier ones, and the pool did not shrink now.
func GiveUp(d fleet.SizeDecision, free int, before fleet.SizeMemory) fleet.SizeDecision {
	if d.Direction != fleet.SizeDown || free >= d.Change {
		return d
	}
	d.Reasons = append(slices.Clone(d.Reasons), SizeNotOurs)
	d.Evidence = maps.Clone(d.Evidence)
	d.Evidence["free"] = free
	d.Change = free
	if free == 0 {
		d.Direction, d.Memory.DownAt, d.NextAt = fleet.SizeHold, before.DownAt, time.Time{}
	}
	return d
}

// Waits after requests for hosts of which none came online.
const (
	firstBackoff = 30 * time.Second
	mostBackoff  = 15 * time.Minute
)

// LeaseBackoff is how long to wait with the next request for hosts after so
// many rounds in a row of which no host came online.
func LeaseBackoff(rounds int) time.Duration {
	if rounds <= 0 {
		return 0
	}
	return min(firstBackoff<<min(rounds-1, 5), mostBackoff)
}
