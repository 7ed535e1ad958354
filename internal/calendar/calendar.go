// Package calendar tells when a cron text is due in a zone whose clocks may
// change: for schedules, and for the times in which policies do not act. It
// does no I/O and has no clock of its own.
package calendar

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a bare container has no zones of its own

	"github.com/robfig/cron/v3"
)

// No descriptors: @every has no grid, so replicas would disagree about it, and
// the others say nothing that five fields do not.
var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// Fields are the fields of a cron text. The zero Fields is not valid.
type Fields struct{ spec *cron.SpecSchedule }

// ParseFields reads five fields, or six with leading seconds. 0 and 7 are
// Sunday. A text that is due at other times than its writer can mean is refused,
// such as a step beyond its field (issue 10).
func ParseFields(text string) (Fields, error) {
	// The parser would read a zone here, and stumbles over one without fields
	// after it.
	if strings.Contains(text, "TZ=") {
		return Fields{}, errors.New("the zone does not belong here; set time_zone")
	}
	if strings.HasPrefix(strings.TrimSpace(text), "@") {
		return Fields{}, errors.New("want five fields, or six with leading seconds, not @")
	}
	text, err := plain(text)
	if err != nil {
		return Fields{}, err
	}
	parsed, err := parser.Parse(text)
	if err != nil {
		return Fields{}, fmt.Errorf("%w; want five fields (minute hour day month weekday), or six with leading seconds", err)
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return Fields{}, fmt.Errorf("want five fields, or six with leading seconds, not %T", parsed)
	}
	// Zones are this package's business: the parser's own arithmetic skips
	// ticks in one night of the year and doubles them in another (cron#541).
	spec.Location = time.UTC
	if nextWall(spec, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Fields{}, errors.New("never fires: no year has such a day, name one that comes")
	}
	return Fields{spec}, nil
}

const allHours = 1<<24 - 1

// EveryHour reports whether the hour field is *, in whatever spelling.
func (f Fields) EveryHour() bool { return f.spec.Hour&allHours == allHours }

// Zone knows the same zones everywhere, UTC and the IANA names: "Local" is
// another one on every machine.
func Zone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("time_zone %q is not known: want UTC or an IANA name such as Europe/London", name)
	}
	return zone, nil
}

// changesSince is where Changes looks from. Zones that gave up changing their
// clocks before do not count as changing; for one that does so later, asking
// for dst: run-once does no harm.
var changesSince = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// Changes reports whether the clocks of the zone change.
func Changes(zone *time.Location) bool {
	offset := offsetAt(changesSince, zone)
	for _, end := changesSince.In(zone).ZoneBounds(); !end.IsZero(); _, end = end.ZoneBounds() {
		// Some zone files end with a change in 2038 that changes nothing.
		if offsetAt(end, zone) != offset {
			return true
		}
	}
	return false
}
