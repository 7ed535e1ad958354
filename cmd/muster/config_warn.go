package main

import (
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/scheduler"
)

// warnOfBlindness notes targets on which policies wait in vain: those that
// nothing syncs, and those synced so seldom that no time counts as observed.
func (r *reader) warnOfBlindness() {
	if len(r.config.targets) == 0 {
		r.warn("no target is configured, so that muster looks after no runner: name one under targets")
	}
	synced := map[string]scheduler.Schedule{}
	for _, s := range r.config.schedules {
		if s.Spec().Job == fleet.JobSync {
			synced[s.Spec().Name] = s
		}
	}
	for _, t := range r.config.targets {
		s, ok := synced[t.Name]
		if !ok {
			if r.config.covered(t.Name) {
				r.warn("target %s: policies cover it and no schedule syncs it, so they know what other triggers bring and no more: add a schedule of sync", t.Name)
			}
			continue
		}
		if gap := longestGap(s); gap > t.MaxObservationGap {
			r.warn("target %s: schedule %s leaves %s without a sync, and beyond max_observation_gap (%s) that counts as not looked at, so offline_for does not grow: sync more often, or raise max_observation_gap",
				t.Name, s.ID(), span(gap), span(t.MaxObservationGap))
		}
	}
}

func (r *reader) warn(format string, args ...any) {
	r.config.warnings = append(r.config.warnings, fmt.Sprintf(format, args...))
}

// longestGap is the longest time between ticks in an ordinary week, beginning
// at any of its hours: nights and weekends may be without.
func longestGap(s scheduler.Schedule) time.Duration {
	var longest time.Duration
	monday := time.Date(2026, time.January, 5, 0, 0, 0, 0, time.UTC)
	for hour := range 7 * 24 {
		from := monday.Add(time.Duration(hour) * time.Hour)
		first := s.Next(from)
		second := s.Next(first)
		if first.IsZero() || second.IsZero() {
			continue
		}
		longest = max(longest, first.Sub(from), second.Sub(first))
	}
	return longest
}
