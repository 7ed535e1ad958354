package policies

import (
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Policy is a loaded policy. It is not changed after loading and may be used
// by many goroutines at once.
type Policy struct {
	Name  string
	Owner string // free text; may be empty
	// SHA256 is the hex digest of what the document says, whatever its layout,
	// its comments and the order of its keys. Empty for [Operator].
	SHA256      string
	Enforcement fleet.Enforcement
	// Targets are the names the policy is for; none for [Operator], which is
	// for all. A report may name [fleet.All].
	Targets []string
	Guards  Guards
	Action  fleet.ActionKind
	// Drain has the deletion take online runners that have no workflow job, and
	// their hosts asked first. Without it a deletion takes offline ones alone.
	Drain bool
	// Pool is the one whose hosts are too many; empty: none is.
	Pool string
	// Release has the host told, once its runner is gone. Only with Drain.
	Release bool

	match  *compiled // nil: matches always
	exempt []exemption

	leastOffline time.Duration
}

// exemption is one entry of exempt.
type exemption struct {
	name string
	*compiled
}

// Guards are the limits of a policy that its expressions cannot move. A report
// minds the inventory alone (and that its listing is not suspect).
type Guards struct {
	// Complete asks that the newest sync was complete, MaxAge that the last
	// complete one is no older.
	Complete bool
	MaxAge   time.Duration
	Grace    time.Duration // a runner has to stay matched that long; 0: none
	Max      Max
	Rate     int // runners per minute; 0: any number
	// Listings is how many complete listings of the unbroken offline run there
	// have to be, Apart the time from the first of them to the last; 0: any.
	Listings int
	Apart    time.Duration
	// MinSurvivors is how many runners with the same labels have to be online
	// beside one that is deleted; 0: none.
	MinSurvivors int
	// MinLifetime is how long ago a runner has to have been seen first; 0: any.
	MinLifetime time.Duration
	Freeze      []Freeze // no act within any of them
}

// Max caps how many runners of one target a policy acts on within a rolling
// window. Both caps hold. The zero Max caps nothing.
type Max struct {
	Count         int
	Percent       int // of the target's live runners, before any matching
	MinPopulation int // with fewer live runners Percent does not hold
	Window        time.Duration
}

// OperatorName is the name of the built-in policy, which no file may use.
const OperatorName = "operator"

// Operator is the built-in policy behind an operator's deletion by hand: it
// matches whatever runner it is given. Inventory and rate hold, as do all
// rules for a deletion; grace, witnesses and max do not.
func Operator() *Policy {
	return &Policy{
		Name:        OperatorName,
		Enforcement: fleet.EnforcementEnforce,
		Guards:      Guards{MaxAge: defaultMaxAge, Rate: defaultRate},
		Action:      fleet.ActionDeleteRunner,
	}
}

// ScaleDownName is the name of the built-in policy behind hosts that are too
// many. It is no name that a file could use.
const ScaleDownName = "scale_down"

// ScaleDown is the built-in policy by which a pool gives up hosts: how many is
// for the size of the pool to say, and not for max or rate. Everything else that
// guards a drain holds.
func ScaleDown(pool *Pool) *Policy {
	return &Policy{
		Name:        ScaleDownName,
		Enforcement: fleet.EnforcementEnforce,
		Targets:     []string{pool.Target},
		Pool:        pool.Name,
		Guards:      Guards{MaxAge: defaultMaxAge, MinLifetime: pool.MinLifetime},
		Action:      fleet.ActionDeleteRunner,
		Drain:       true,
		Release:     true,
	}
}

// Actions are what the policy does, in the order in which a file has them.
func (p *Policy) Actions() []fleet.ActionKind {
	all := []fleet.ActionKind{p.Action}
	if p.Drain {
		all = append([]fleet.ActionKind{fleet.ActionDrainHost}, all...)
	}
	if p.Release {
		all = append(all, fleet.ActionReleaseHost)
	}
	return all
}

// Covers reports whether the policy is for a target.
func (p *Policy) Covers(target string) bool {
	return len(p.Targets) == 0 || slices.Contains(p.Targets, target) || slices.Contains(p.Targets, fleet.All)
}

// LooksAround reports whether a decision on one runner rests on others: see
// [Input].Neighbours.
func (p *Policy) LooksAround() bool { return p.Guards.MinSurvivors > 0 || p.asksForNewer() }

// asksForNewer reports whether an expression names newer_registrations.
func (p *Policy) asksForNewer() bool {
	return p.match != nil && p.match.neighbours ||
		slices.ContainsFunc(p.exempt, func(x exemption) bool { return x.neighbours })
}

// Cap is how many runners Max lets the policy act on within its window, given
// the live runners of the target; false where nothing caps it.
func (m Max) Cap(population int) (int, bool) {
	if m == (Max{}) {
		return 0, false
	}
	n := m.Count
	if population >= m.MinPopulation {
		n = min(n, m.Percent*population/100)
	}
	return n, true
}

// WindowText is the window as people write it: 1h and not 1h0m0s.
func (m Max) WindowText() string { return short(m.Window) }

// short writes a duration without its zero units: 1h and not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
