package calendar

import (
	"time"

	"github.com/robfig/cron/v3"
)

// Clock computes due moments in a zone. The cron fields are only ever asked
// about UTC, where every day has 24 hours; a wall-clock time is written as
// the UTC time that reads the same. It is a value and safe for concurrent use;
// the zero Clock is not valid.
type Clock struct {
	fields    *cron.SpecSchedule
	zone      *time.Location
	everyHour bool
}

// NewClock reads the fields off the clock of a zone.
func NewClock(f Fields, zone *time.Location) Clock {
	return Clock{fields: f.spec, zone: zone, everyHour: f.EveryHour()}
}

// searchYears is how far nextWall looks: the 29th of February is at most eight
// years away, around a century that is no leap year. cron itself gives up
// after five.
const searchYears = 10

// nextWall is the first match of the fields after the given time, all in UTC;
// zero where there is none.
func nextWall(fields *cron.SpecSchedule, after time.Time) time.Time {
	if t := fields.Next(after); !t.IsZero() {
		return t
	}
	for year := after.Year() + 1; year <= after.Year()+searchYears; year++ {
		t := fields.Next(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Second))
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// Next is the first due moment after the given time, in UTC. An hour of *
// means every hour that passes; other hours are read off the zone's wall
// clock, each once a day at most: one that the clock jumps over falls on the
// moment of the jump, of one that comes twice the first counts.
func (c Clock) Next(after time.Time) time.Time {
	if c.everyHour {
		return c.nextPassing(after)
	}
	return c.nextReading(after)
}

// nextPassing takes every moment at which the clock on the wall shows a match:
// an hour that comes twice has its ticks twice, a missing one has none.
func (c Clock) nextPassing(after time.Time) time.Time {
	for {
		local := after.In(c.zone)
		_, offset := local.Zone()
		_, end := local.ZoneBounds()
		wall := nextWall(c.fields, asUTC(after, offset))
		if wall.IsZero() {
			return wall
		}
		tick := asUTC(wall, -offset)
		if end.IsZero() || tick.Before(end) {
			return tick
		}
		// The clock is changed first; the moment of the change is the first
		// that may match.
		if wall := asUTC(end, offsetAt(end, c.zone)); nextWall(c.fields, wall.Add(-time.Nanosecond)).Equal(wall) {
			return end.UTC()
		}
		after = end
	}
}

// nextReading takes every reading of the clock once.
func (c Clock) nextReading(after time.Time) time.Time {
	wall := asUTC(after, offsetAt(after, c.zone))
	for {
		wall = nextWall(c.fields, wall)
		if wall.IsZero() {
			return wall
		}
		// In the second round of a repeated hour the readings point back to
		// the first one, and several in a missing hour to its end.
		if tick := c.moment(wall); tick.After(after) {
			return tick
		}
	}
}

// moment is when the clock first shows the reading, or where it jumps over it,
// the moment of the jump.
func (c Clock) moment(wall time.Time) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), c.zone)
	start, end := t.ZoneBounds()
	shown := asUTC(t, offsetAt(t, c.zone))
	switch {
	case shown.After(wall): // jumped over, and t lies after the jump
		return start.UTC()
	case shown.Before(wall): // jumped over, and t lies before the jump
		return end.UTC()
	case start.IsZero():
		return t.UTC()
	}
	if earlier := asUTC(wall, -offsetAt(start.Add(-time.Second), c.zone)); earlier.Before(start) && earlier.Before(t) {
		return earlier
	}
	return t.UTC()
}

func offsetAt(t time.Time, zone *time.Location) int {
	_, offset := t.In(zone).Zone()
	return offset
}

// asUTC moves the time by seconds, in UTC.
func asUTC(t time.Time, seconds int) time.Time {
	return t.UTC().Add(time.Duration(seconds) * time.Second)
}
