package policies

import (
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/calendar"
)

// Pool is a pool that was checked and can be decided on.
type Pool struct {
	fleet.Pool
	periods []recurrence // of Periods, one for each
}

// PoolFault is one thing that is wrong with a pool.
type PoolFault struct {
	Key  string // of muster.yaml below the pool, such as periods[0].cron
	Text string // what, why, what to do
}

// What a pool may be: far above any use, and low enough for sums to be sums.
const (
	maxPoolHosts     = 100_000
	maxPoolPeriods   = 20
	minPoolPeriod    = 15 * time.Minute // hosts take minutes to boot
	maxPoolPeriod    = 92 * 24 * time.Hour
	minBootDeadline  = 30 * time.Second
	maxPoolDurations = 7 * 24 * time.Hour // deadlines, lifetimes, cool-downs
)

// NewPool checks what makes sense of a pool, each fault once. Of a pool with
// faults there is nothing to decide.
func NewPool(p fleet.Pool) (*Pool, []PoolFault) {
	c := poolCheck{pool: p}
	if p.Labels = normal(p.Labels); len(p.Labels) == 0 {
		c.fault("labels", "names no label: a job that asks for none could not be told to wait for this pool")
	}
	c.bounds("", p.PoolBounds)
	if !(p.TargetUtilisation > 0 && p.TargetUtilisation <= 1) {
		c.fault("target_utilisation", "%v is out of bounds, want more than 0 and at most 1, such as 0.75", p.TargetUtilisation)
	}
	c.duration("boot_deadline", p.BootDeadline, minBootDeadline)
	c.duration("min_lifetime", p.MinLifetime, 0)
	c.duration("cooldown.up", p.Cooldown.Up, 0)
	c.duration("cooldown.down", p.Cooldown.Down, 0)
	c.portion("step.up", p.Step.Up)
	c.portion("step.down", p.Step.Down)
	checked := &Pool{Pool: p, periods: c.periods()}
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	return checked, nil
}

type poolCheck struct {
	pool   fleet.Pool
	faults []PoolFault
}

func (c *poolCheck) fault(key, format string, args ...any) {
	c.faults = append(c.faults, PoolFault{key, fmt.Sprintf(format, args...)})
}

// bounds checks the bounds of the pool, or of a period under the key before.
func (c *poolCheck) bounds(under string, b fleet.PoolBounds) {
	switch {
	case b.Min < 0:
		c.fault(under+"min", "%d is out of bounds, want 0 to %d", b.Min, maxPoolHosts)
	case b.Max < 1 || b.Max > maxPoolHosts:
		c.fault(under+"max", "%d is out of bounds, want 1 to %d", b.Max, maxPoolHosts)
	case b.Min > b.Max:
		c.fault(under+"min", "%d is more than max, which is %d: lower the one or raise the other", b.Min, b.Max)
	case b.Idle < 0 || b.Idle > b.Max:
		c.fault(under+"idle", "%d is out of bounds, want 0 to max, which is %d", b.Idle, b.Max)
	}
}

func (c *poolCheck) duration(key string, d, least time.Duration) {
	switch {
	case d < least:
		c.fault(key, "%s is too short, %s is the least", short(d), short(least))
	case d > maxPoolDurations:
		c.fault(key, "%s is too long, %s is the most", short(d), short(maxPoolDurations))
	}
}

func (c *poolCheck) portion(key string, p fleet.Portion) {
	switch {
	case p.Percent == 0 && (p.Count < 1 || p.Count > maxPoolHosts):
		c.fault(key, "%d is out of bounds, want 1 to %d, or a percentage such as 10%%", p.Count, maxPoolHosts)
	case p.Percent != 0 && (p.Count != 0 || p.Percent < 0 || p.Percent > 100):
		c.fault(key, "%d%% is out of bounds, want 1%% to 100%%", p.Percent)
	}
}

// periods checks each period, then that no two of them hold at once: which one
// would count is what operators of others cannot tell.
func (c *poolCheck) periods() []recurrence {
	periods := c.pool.Periods
	if len(periods) > maxPoolPeriods {
		c.fault("periods", "%d periods are too many, %d is the most: join some", len(periods), maxPoolPeriods)
		return nil
	}
	all := make([]recurrence, len(periods))
	spans := make([][]span, len(periods))
	for i, z := range periods {
		key := fmt.Sprintf("periods[%d].", i)
		before := len(c.faults)
		fields, err := calendar.ParseFields(z.Cron)
		if err != nil {
			c.fault(key+"cron", "%q: %v", z.Cron, err)
		}
		zone, err := calendar.Zone(z.TimeZone)
		if err != nil {
			c.fault(key+"time_zone", "%v", err)
		}
		switch {
		case z.Duration < minPoolPeriod:
			c.fault(key+"duration", "%s is too short, %s is the least: write how long, such as 10h", short(z.Duration), short(minPoolPeriod))
		case z.Duration > maxPoolPeriod:
			c.fault(key+"duration", "%s is too long, %s is the most: change the pool's own min, max and idle", short(z.Duration), short(maxPoolPeriod))
		}
		c.bounds(key, z.PoolBounds)
		if len(c.faults) > before {
			continue
		}
		all[i] = recurrence{z.Duration, calendar.NewClock(fields, zone)}
		if all[i].endless() {
			c.fault(key+"duration", "the next time of the period begins before this one ends, so the pool's own min, max and idle would never hold: make it shorter, or write its numbers in the pool itself")
			continue
		}
		spans[i] = all[i].spans()
		for j := range i {
			if at, found := meet(spans[j], spans[i]); found {
				c.fault(key+"cron", "holds together with periods[%d], such as on %s: let one end before the other begins", j, at.Format("2006-01-02 15:04 MST"))
				break
			}
		}
	}
	return all
}

// bounds are those that hold at a moment: of the period that holds, else the
// pool's own. Should two hold in spite of the check, in a year that it did not
// look at, the first counts.
func (p *Pool) bounds(now time.Time) (b fleet.PoolBounds, period string, until time.Time) {
	for i, r := range p.periods {
		if end, holds := r.until(now); holds {
			return p.Periods[i].PoolBounds, p.Periods[i].Cron, end
		}
	}
	return p.PoolBounds, "", time.Time{}
}
