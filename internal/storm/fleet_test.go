package storm_test

import (
	"fmt"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// populate gives a scope its first runners: none, some, or enough for several
// pages.
func (w *world) populate(scope fleet.Scope) {
	sizes, dead := rapid.OneOf(
		rapid.IntRange(0, 12), rapid.IntRange(0, 40), rapid.IntRange(98, 102), rapid.IntRange(150, 250),
	), []int{0, 2, 3, 7, 40}
	if w.reaping {
		sizes, dead = rapid.IntRange(5, 40), []int{2, 1, 3}
	}
	if w.about == aboutWork {
		sizes, dead = rapid.IntRange(3, 14), []int{3, 2, 5, 0}
	}
	size, nth := sizes.Draw(w.T, "runners"), anyOf(w, "dead: every nth", dead...)
	busy, keep, ephemeral := anyOf(w, "busy: every nth", 0, 2, 5), anyOf(w, "keep: every nth", 0, 3, 10), anyOf(w, "ephemeral: every nth", 0, 2, 9)
	old := 0
	if w.about == aboutWork {
		old = anyOf(w, "old: every nth", 2, 1, 3, 1, 0)
	}
	is := func(i, nth int) bool { return nth > 0 && i%nth == nth-1 }
	ids, err := w.sim.CreateMany(scope, size, func(i int) githubsim.RunnerSpec {
		w.names++
		spec := githubsim.RunnerSpec{
			Name: w.runnerName(w.names), Online: !is(i, nth), Ephemeral: is(i, ephemeral),
		}
		spec.Busy = spec.Online && is(i, busy)
		if is(i, keep) {
			spec.Labels = append(spec.Labels, keepLabel)
		}
		if is(i, old) {
			spec.Labels = append(spec.Labels, oldLabel)
		}
		return spec
	})
	w.ok(err)
	for i, id := range ids {
		if is(i, keep) {
			w.exempt(scope, id)
		}
	}
}

// runnerName has later runners stand anywhere in the order of names. No two lives
// share a name, as hosts have those of their runners.
func (w *world) runnerName(n int) string { return fmt.Sprintf("r%03d-%d-%d", n*389%1000, w.life, n) }

// ownHosts are the hosts that grants let register runners: those of the names of
// runners.
var ownHosts = fleet.HostNames{Prefixes: []string{"r", "h"}}

// newcomer registers one more runner. Hooks call it too.
func (w *world) newcomer(scope fleet.Scope, kind int) {
	w.mu.Lock()
	w.names++
	spec := githubsim.RunnerSpec{
		Name: w.runnerName(w.names), Online: kind%3 > 0, Busy: kind%5 == 4, Ephemeral: kind%4 == 3,
	}
	w.mu.Unlock()
	if _, err := w.sim.Create(scope, spec); err != nil {
		panic(err) // the name is new
	}
}

// live is what befalls the fleets between two rounds. Often that is nothing, so
// that there are listings that have not changed.
func (w *world) live() {
	for _, t := range w.targets {
		if w.oneIn(2, "quiet") {
			continue
		}
		for range rapid.IntRange(0, 3).Draw(w.T, "changes") {
			w.change(t.Scope)
		}
		if w.oneIn(12, "mass") {
			w.sweep(t.Scope)
		}
	}
}

// change does something to one runner, if it can be done.
func (w *world) change(scope fleet.Scope) {
	which := rapid.IntRange(0, 999).Draw(w.T, "runner")
	what := rapid.SampledFrom([]string{"kill", "kill", "kill", "connect", "assign", "finish", "remove", "create"}).Draw(w.T, "change")
	all := w.sim.Snapshot(scope)
	if what == "create" || len(all) == 0 {
		w.newcomer(scope, which)
		return
	}
	s := all[which%len(all)]
	switch what {
	case "kill":
		for i := range min(rapid.IntRange(1, 6).Draw(w.T, "how many"), len(all)) {
			w.ok(w.sim.Kill(scope, all[(which+i)%len(all)].ID))
		}
	case "connect":
		w.ok(w.sim.Connect(scope, s.ID))
	case "assign":
		if !s.Busy {
			w.ok(w.sim.Assign(scope, s.ID))
		}
	case "finish":
		if s.Busy {
			w.ok(w.sim.Finish(scope, s.ID))
		}
	case "remove":
		w.ok(w.sim.Remove(scope, s.ID))
	}
}

// sweep does the same to a large part of a fleet.
func (w *world) sweep(scope fleet.Scope) {
	what := rapid.SampledFrom([]string{"kill", "connect", "remove"}).Draw(w.T, "mass change")
	share := rapid.IntRange(2, 5).Draw(w.T, "spares every nth")
	for i, s := range w.sim.Snapshot(scope) {
		switch {
		case i%share == 0:
		case what == "kill":
			w.ok(w.sim.Kill(scope, s.ID))
		case what == "connect":
			w.ok(w.sim.Connect(scope, s.ID))
		case what == "remove":
			w.ok(w.sim.Remove(scope, s.ID))
		}
	}
}
