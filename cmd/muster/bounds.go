package main

import (
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// safeSyncs is how many sync intervals a runner must be offline before a
// deletion may ask for it: a reboot or a hiccup of the network is over by then
// (issue 10).
const safeSyncs = 3

// usualInterval is the sync interval that policy check assumes of a target that
// no configuration names. Five fields of cron are due no more often.
const usualInterval = time.Minute

// shortBound is a policy that may delete a runner of a target soon after it went
// offline.
type shortBound struct {
	policy, target string
	least          time.Duration // the shortest offline time at which it matches
	interval       time.Duration // between syncs of the target
}

// shortBounds finds the policies whose bound on offline_for is below three sync
// intervals of a target. interval gives that of a target; 0: it is not known.
func shortBounds(all []*policies.Policy, interval func(target string) time.Duration) []shortBound {
	var found []shortBound
	for _, p := range all {
		if p.Enforcement == fleet.EnforcementDisabled || p.Action != fleet.ActionDeleteRunner || p.Drain {
			continue
		}
		for _, target := range p.Targets {
			b := shortBound{p.Name, target, p.LeastOffline(), interval(target)}
			if b.least < safeSyncs*b.interval {
				found = append(found, b)
			}
		}
	}
	return found
}

func (b shortBound) found() string {
	least := span(b.least)
	if least == "" {
		least = "less than a second"
	}
	return fmt.Sprintf("policy %s may match a runner that has been offline for %s, and syncs of target %s are %s apart",
		b.policy, least, b.target, span(b.interval))
}

func (b shortBound) mend() string {
	return fmt.Sprintf("a reboot or a hiccup of the network lasts as long: ask for offline_for of at least %s, which is three syncs",
		span(safeSyncs*b.interval))
}

// syncInterval is the time between syncs of a target that counts as observed; 0
// where no schedule syncs it.
func (c *config) syncInterval(target string) time.Duration {
	var longest time.Duration
	for _, s := range c.schedules {
		if s.Spec().Job == fleet.JobSync && s.Spec().Name == target {
			longest = longestGap(s)
		}
	}
	for _, t := range c.targets {
		if t.Name == target {
			return min(longest, t.MaxObservationGap)
		}
	}
	return 0
}

// warnOfShortBounds notes the policies that may delete runners which are just
// being restarted.
func (r *reader) warnOfShortBounds() {
	for _, b := range shortBounds(r.config.policies, r.config.syncInterval) {
		r.warn("%s: %s", b.found(), b.mend())
	}
}

// judgeBounds has a line for each policy that is too quick on the target.
func (t *targetExam) judgeBounds(s *sheet, c *config) {
	for _, b := range shortBounds(c.policies, c.syncInterval) {
		if b.target == t.Name {
			s.add(levelWarn, "policy", b.mend(), "%s", b.found())
		}
	}
}

// checkedInterval is the sync interval that policy check goes by: that of the
// configuration, where there is one that can be read and names the target.
func (a *app) checkedInterval() func(target string) time.Duration {
	c, err := a.load()
	return func(target string) time.Duration {
		if err == nil {
			if interval := c.syncInterval(target); interval > 0 {
				return interval
			}
		}
		return usualInterval
	}
}
