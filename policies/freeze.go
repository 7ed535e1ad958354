package policies

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/muster-fleet/muster/internal/calendar"
)

// Freeze is a time that comes again and again, in which a policy acts on
// nobody: from each due moment of Cron on, for Duration as it passes.
type Freeze struct {
	Cron     string
	TimeZone string
	Duration time.Duration

	recurrence
}

// frozen tells until when the policy acts on nobody, as far as the freezes
// that hold at now go.
func (g Guards) frozen(now time.Time) (until time.Time, holds bool) {
	for _, z := range g.Freeze {
		if end, is := z.until(now); is && (!holds || end.After(until)) {
			until, holds = end, true
		}
	}
	return until, holds
}

// freezes reads spec.guards.freeze.
func (f *file) freezes(n ast.Node) []Freeze {
	var all []Freeze
	entries := f.list("spec.guards.freeze", n)
	if len(entries) > maxFreezes {
		f.fault(n, "spec.guards.freeze: %d freezes are too many, %d is the most: join some", len(entries), maxFreezes)
		return nil
	}
	for i, entry := range entries {
		path := fmt.Sprintf("spec.guards.freeze[%d]", i)
		m := f.mapping(path, entry)
		if m == nil {
			continue
		}
		before := len(f.faults)
		z := Freeze{TimeZone: "UTC"}
		cronNode := m.need("cron", "say when the freeze begins, such as \"0 18 * * 5\" (in five fields: minute hour day month weekday)")
		z.Cron, _ = f.text(path+".cron", cronNode)
		fields, err := calendar.ParseFields(z.Cron)
		if err != nil && cronNode != nil && len(f.faults) == before {
			f.fault(cronNode, "%s.cron: %q: %v", path, z.Cron, err)
		}
		durationNode := m.need("duration", "say how long the freeze lasts, such as 12h")
		z.Duration, _ = f.duration(path+".duration", durationNode)
		zoneNode := m.take("time_zone")
		if zone, ok := f.text(path+".time_zone", zoneNode); ok {
			z.TimeZone = zone
		}
		zone, err := calendar.Zone(z.TimeZone)
		if err != nil {
			f.fault(zoneNode, "%s.time_zone: %v", path, err)
		}
		m.done()
		if len(f.faults) > before {
			continue
		}
		z.recurrence = recurrence{z.Duration, calendar.NewClock(fields, zone)}
		switch {
		case z.Duration < minFreeze:
			f.fault(durationNode, "%s.duration: %s is too short, %s is the least: write how long, such as 12h", path, short(z.Duration), short(minFreeze))
		case z.Duration > maxFreeze:
			f.fault(durationNode, "%s.duration: %s is too long, %s is the most: turn the policy off with enforcement: disabled", path, short(z.Duration), short(maxFreeze))
		case z.endless():
			f.fault(entry, "%s: the next freeze begins before this one ends, so the policy would never act: make it shorter, or write enforcement: disabled", path)
		}
		all = append(all, z)
	}
	return all
}

// maxFreezes bounds a policy's, far above any use.
const maxFreezes = 20

// A freeze is no shorter and no longer than this: it keeps the search for an
// end of overlapping freezes short.
const (
	minFreeze = time.Minute
	maxFreeze = 92 * 24 * time.Hour
)
