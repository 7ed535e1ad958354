package policies

import (
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

const (
	defaultMaxAge   = 10 * time.Minute
	defaultRate     = 10 // runners per minute
	defaultListings = 2
	defaultApart    = 2 * time.Minute
	defaultWindow   = time.Hour
)

// guards reads spec.guards, absent where m is nil, and fills in the defaults.
// What a deletion must not go without is asked for.
func (f *file) guards(p *Policy, m, spec *mapping) {
	g := Guards{Complete: true, MaxAge: defaultMaxAge}
	deletes := p.Action == fleet.ActionDeleteRunner
	if deletes {
		g.Rate = defaultRate
		if !p.Drain {
			g.Listings, g.Apart = defaultListings, defaultApart
		}
		if m == nil && !spec.has("guards") {
			f.fault(spec.node, "spec.guards is missing: a deletion needs grace and max, which have no default")
		}
	}
	f.inventory(&g, f.mapping("spec.guards.inventory", m.take("inventory")), deletes)

	if deletes {
		g.Grace, _ = f.duration("spec.guards.grace", m.need("grace", "say how long a runner has to stay matched, such as 24h; a deletion has no default"))
		f.max(&g.Max, f.mapping("spec.guards.max", m.need("max", "write max: {count: 25, percent: 10, min_population: 10}; a deletion has no default")))
	} else {
		g.Grace, _ = f.duration("spec.guards.grace", m.take("grace"))
		f.max(&g.Max, f.mapping("spec.guards.max", m.take("max")))
	}

	rate := m.take("rate")
	if s, ok := f.text("spec.guards.rate", rate); ok {
		n, ok := parseRate(s)
		if !ok {
			f.fault(rate, "spec.guards.rate: %q is not a rate: write runners per minute, such as 10/m", s)
		}
		g.Rate = n
	}

	wNode := m.take("witnesses")
	w := f.mapping("spec.guards.witnesses", wNode)
	if p.Drain && wNode != nil {
		f.fault(wNode, "spec.guards.witnesses: a drain takes runners that are online, which no listing sees offline: leave it out, the host is the witness")
	}
	if n, ok := f.integer("spec.guards.witnesses.listings", w.take("listings"), 1, math.MaxInt32); ok {
		g.Listings = n
	}
	if d, ok := f.duration("spec.guards.witnesses.apart", w.take("apart")); ok {
		g.Apart = d
	}
	w.done()
	g.MinSurvivors, _ = f.integer("spec.guards.min_survivors", m.take("min_survivors"), 0, math.MaxInt32)
	g.Freeze = f.freezes(m.take("freeze"))
	m.done()
	p.Guards = g
}

func (f *file) inventory(g *Guards, m *mapping, deletes bool) {
	n := m.take("complete")
	if complete, ok := f.boolean("spec.guards.inventory.complete", n); ok {
		if !complete && deletes {
			f.fault(n, "spec.guards.inventory.complete: a deletion always needs a complete inventory: leave it out")
		}
		g.Complete = complete
	}
	n = m.take("max_age")
	if d, ok := f.duration("spec.guards.inventory.max_age", n); ok {
		if d == 0 {
			f.fault(n, "spec.guards.inventory.max_age: 0 is never met: write how old the inventory may be, such as 10m")
		}
		g.MaxAge = d
	}
	m.done()
}

func (f *file) max(limit *Max, m *mapping) {
	if m == nil {
		return
	}
	limit.Window = defaultWindow
	limit.Count, _ = f.integer("spec.guards.max.count", m.need("count", "say how many runners within the window at most"), 1, math.MaxInt32)
	limit.Percent, _ = f.integer("spec.guards.max.percent", m.need("percent", "say which share of the target's runners at most (1 to 100)"), 1, 100)
	limit.MinPopulation, _ = f.integer("spec.guards.max.min_population", m.take("min_population"), 0, math.MaxInt32)
	n := m.take("window")
	if d, ok := f.duration("spec.guards.max.window", n); ok {
		if d == 0 {
			f.fault(n, "spec.guards.max.window: 0 would never count anything: write a window such as 1h")
		}
		limit.Window = d
	}
	f.word("spec.guards.max.on_exceed", m.take("on_exceed"), "halt")
	m.done()
}

var rateForm = regexp.MustCompile(`^([1-9][0-9]{0,8})/m$`)

func parseRate(s string) (perMinute int, ok bool) {
	m := rateForm.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil
}
