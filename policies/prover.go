package policies

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"cel.dev/cel-go/cel"

	"github.com/muster-fleet/muster/fleet"
)

// prover shows at load which runners a policy may match, before it meets any.
type prover struct {
	policy *Policy
	match  *clauses
	exempt []*clauses
	asked  askedFields
}

func newProver(p *Policy) *prover {
	x := &prover{policy: p, match: &clauses{p.match, map[int64]cel.Program{}}, asked: askedFields{}}
	x.asked.gather(p.match)
	for _, e := range p.exempt {
		x.exempt = append(x.exempt, &clauses{e.compiled, map[int64]cel.Program{}})
		x.asked.gather(e.compiled)
	}
	return x
}

// example is a set of runners: fix says what they have in common, in the fields
// that fixed names; all other fields may have any value.
type example struct {
	what    string
	missing string // what a match lacks that may match one of them
	fixed   []string
	fix     func(a *activation)
}

// An offline time and a runner that was never online go with the status.
var decisive = []string{"runner.status", "runner.offline_for", "runner.never_online"}

const (
	wantOffline = `runner.status == "offline"`
	wantLong    = `runner.offline_for > duration("168h")`
	wantIdle    = `!runner.busy`
)

// kept are the runners that no deletion without a drain may match: it must be
// decided by their being offline, and for a while (issue 10).
var kept = []example{
	{
		"a runner that is online", wantOffline, decisive,
		func(a *activation) { a.runner.Status = string(fleet.StatusOnline) },
	},
	{"a runner whose status is not known", wantOffline, decisive, func(*activation) {}},
	{
		"a runner that went offline this moment", wantLong, decisive[:2],
		func(a *activation) {
			a.runner.Status = string(fleet.StatusOffline)
			a.runner.OfflineFor = &a.offlineFor
		},
	},
}

// keptByDrains are those that no drain may match.
var keptByDrains = []example{
	{
		"a runner that is busy", wantIdle, append([]string{"runner.busy"}, decisive...),
		func(a *activation) { a.runner.Busy, a.runner.Status = true, string(fleet.StatusOnline) },
	},
}

// longAgo is longer than any bound of a policy.
const longAgo = 10 * 365 * 24 * time.Hour

// spans are offline times that are tried besides the constants of a policy:
// one that adds to offline_for is not bound by its constants.
var spans = []time.Duration{
	time.Second, time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, longAgo,
}

// offlineFor is a runner that has been offline so long and may be deleted.
func offlineFor(d time.Duration) example {
	return example{
		fixed: append([]string{"runner.busy"}, decisive[:2]...),
		fix: func(a *activation) {
			a.runner.Status = string(fleet.StatusOffline)
			a.offlineFor = d
			a.runner.OfflineFor = &a.offlineFor
		},
	}
}

// idle is a runner that a drain may take.
var idle = example{
	fixed: append([]string{"runner.busy"}, decisive...),
	fix:   func(a *activation) { a.runner.Status = string(fleet.StatusOnline) },
}

// maxCombinations bounds how many runners of one example are tried. Beyond it
// fields stay open, which finds fewer policies in order and lets none through.
const maxCombinations = 4096

// mayMatch reports whether the policy may match a runner of the example, and
// gives one; of its open fields nothing is known.
func (x *prover) mayMatch(e example) (*activation, bool) {
	a := &activation{}
	e.fix(a)
	var free []*asked
	for _, name := range slices.Sorted(maps.Keys(x.asked)) {
		if !slices.Contains(e.fixed, name) {
			free = append(free, x.asked[name])
		}
	}
	if !x.wants(a, free) {
		return nil, false
	}
	listed, open := x.listed(free)
	return a, x.any(a, listed, open)
}

// listing is a field with its values.
type listing struct {
	*asked
	values []any
}

// listed divides fields into those whose values are tried, and those that stay
// open.
func (x *prover) listed(free []*asked) (listed []listing, open []*asked) {
	combinations := 1
	for _, f := range free {
		values := f.values(x.policy)
		if len(values) == 0 || combinations*len(values) > maxCombinations {
			open = append(open, f)
			continue
		}
		combinations *= len(values)
		listed = append(listed, listing{f, values})
	}
	return listed, open
}

// any tries the values of the listed fields, each with each, and stops at the
// first runner that is wanted.
func (x *prover) any(a *activation, listed []listing, open []*asked) bool {
	if len(listed) == 0 {
		return x.wants(a, open)
	}
	for _, value := range listed[0].values {
		a.set(listed[0].asked, value)
		if x.any(a, listed[1:], open) {
			return true
		}
	}
	return false
}

// wants reports whether match may be true and every exemption false.
func (x *prover) wants(a *activation, open []*asked) bool {
	var names []string
	for _, f := range open {
		names = append(names, f.name())
	}
	v, err := withOpen(a, names)
	if err != nil {
		return true // then nothing can be shown
	}
	if !x.match.possible(v).may(mayYes) {
		return false
	}
	for _, e := range x.exempt {
		if !e.possible(v).may(mayNo) {
			return false
		}
	}
	return true
}

// decided reports a policy that may match runners which its action keeps
// anyway, and one that can match nobody else.
func (f *file) decided(p *Policy, match ast.Node) bool {
	wants, _ := p.wants(p.activation())
	if p.Drain && wants {
		f.fault(match, "spec.match: it matches a runner of which nothing is known, which no deletion may: ask for what must be known, such as runner.status")
		return false
	}

	x := newProver(p)
	var examples []example
	if p.Action == fleet.ActionDeleteRunner {
		examples = kept
		if p.Drain {
			examples = keptByDrains
		}
	}
	what, missing := "", []string(nil)
	for _, e := range examples {
		a, may := x.mayMatch(e)
		if !may {
			continue
		}
		if what == "" {
			what = e.what + x.such(a, e)
		}
		if !slices.Contains(missing, e.missing) {
			missing = append(missing, e.missing)
		}
	}
	if what != "" {
		f.fault(match, "spec.match: it may match %s, which no deletion may: add %s", what, strings.Join(missing, " && "))
		return false
	}
	if x.acts() {
		return true
	}
	f.fault(match, "spec.match: it is never true%s: some of its conditions exclude each other, or an exemption covers whatever it matches", mayAct(p))
	return false
}

// mayAct says in words for which runners a policy is.
func mayAct(p *Policy) string {
	switch {
	case p.Action != fleet.ActionDeleteRunner:
		return ""
	case p.Drain:
		return " of a runner that may be drained, which is online and not busy"
	}
	return " of a runner that may be deleted, which is offline and not busy"
}

// acts reports whether there may be a runner on which the policy acts, and notes
// the shortest offline time of one.
func (x *prover) acts() bool {
	p := x.policy
	if p.Drain {
		_, may := x.mayMatch(idle)
		return may
	}
	times := spans
	if f := x.asked["runner.offline_for"]; f != nil {
		for _, n := range f.around() {
			times = append(times, time.Duration(n))
		}
	}
	slices.Sort(times)
	for _, d := range times {
		if _, may := x.mayMatch(offlineFor(d)); may {
			p.leastOffline = d
			return true
		}
	}
	for _, e := range append([]example{idle}, append(kept, keptByDrains...)...) {
		if _, may := x.mayMatch(e); may {
			return true
		}
	}
	return false
}

// such names the fields that make the runner one that matches, other than those
// of the example.
func (x *prover) such(a *activation, e example) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(x.asked)) {
		f := x.asked[name]
		value, ok := a.value(f.variable, f.field)
		if slices.Contains(e.fixed, name) || !ok || value == "unknown" || value == "false" || value == "[]" {
			continue
		}
		all = append(all, fmt.Sprintf("%s = %s", name, value))
	}
	if len(all) == 0 {
		return ""
	}
	return " (with " + strings.Join(all, ", ") + ")"
}

// LeastOffline is the shortest offline time at which the policy may match a
// runner, whatever else is known of it; 0 for a drain, and for a report that
// asks for none.
func (p *Policy) LeastOffline() time.Duration { return p.leastOffline }
