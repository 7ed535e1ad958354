package storm_test

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/demand"
)

// byOperator is who renames targets and holds runners.
var byOperator = fleet.Actor{Type: fleet.ActorCLI, Name: "operator"}

// otherName is the name that a target takes when it is renamed: each has two,
// and policies are for both.
func otherName(name string) string {
	if born, renamed := strings.CutSuffix(name, "-b"); renamed {
		return born
	}
	return name + "-b"
}

// rename gives a target its other name, as muster target rename does, and starts
// the replicas anew with that. Webhooks and hosts go on under the name of the
// beginning. What protects runners must go on protecting them.
func (w *world) rename() {
	if !w.oneIn(5, "rename") {
		return
	}
	t := rapid.SampledFrom(w.targets).Draw(w.T, "renamed")
	from, to := t.Name, t.Target
	to.Name = otherName(from)
	carried, err := w.replicas[0].db.RenameTarget(w.ctx, db.Rename{From: from, To: to, Actor: byOperator})
	var busy *db.BusyError
	switch {
	case errors.As(err, &busy):
		w.tally.count("targets not renamed, since a deletion is open")
		return
	case errors.Is(err, fleet.ErrNotFound):
		return // it was never used
	}
	w.ok(err)
	w.tally.count("targets renamed")
	w.tally["holds carried over"] += carried.Holds
	w.tally["open workflow jobs carried over"] += carried.Jobs
	w.tell("%s is called %s", from, to.Name)

	t.Target = to
	for _, p := range w.pools {
		if p.Target == from {
			p.Target = to.Name
		}
	}
	for _, e := range w.waiting {
		if e.Name == from {
			e.Name = to.Name
		}
	}
	for i, r := range w.replicas {
		r.crash()
		w.boot(i)
	}
}

// signedNow are the targets with the secrets of their webhooks, by the names that
// they have now.
func (w *world) signedNow() map[string]demand.Target {
	signed := map[string]demand.Target{}
	for _, t := range w.targets {
		of := w.ears.signed[t.born]
		of.Target = t.Target
		signed[t.Name] = of
	}
	return signed
}

// hold has an operator hold a runner that looks dead, now and then.
func (w *world) hold() {
	if !w.oneIn(4, "hold") {
		return
	}
	t := rapid.SampledFrom(w.targets).Draw(w.T, "where")
	var recorded []int64
	for _, r := range read[struct{ ID int64 }](w, `SELECT runner_id FROM muster.runner WHERE target = $1 AND removed_at IS NULL`, t.Name) {
		recorded = append(recorded, r.ID)
	}
	dead := slices.DeleteFunc(w.sim.Snapshot(t.Scope), func(s githubsim.State) bool {
		return s.Online || isPooled(s) || has(s, oldLabel) || !slices.Contains(recorded, s.ID)
	})
	if len(dead) == 0 {
		return
	}
	s := dead[rapid.IntRange(0, 999).Draw(w.T, "held")%len(dead)]
	err := w.replicas[0].db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.LockRunner(w.ctx, t.Name, s.ID); err != nil {
			return err
		}
		if err := tx.NoIntent(w.ctx, t.Name, s.ID); err != nil {
			return err
		}
		return tx.Hold(w.ctx, t.Name, s.ID, fleet.Hold{Reason: "it is looked at", By: byOperator.Name, At: w.clock.shared(w.clock.now())})
	})
	if errors.Is(err, fleet.ErrConflict) {
		return // a deletion of it is open
	}
	w.ok(err)
	if key := runnerKey(t.Scope, s.ID); w.holds[key] == 0 {
		w.holds[key] = w.lastEvent()
		w.tally.count("runners held")
	}
}

// wantHolds checks that no runner was deleted that an operator held, whatever its
// target was called.
func (w *world) wantHolds(log []githubsim.Event) {
	for _, e := range log {
		key := runnerKey(fleet.Scope{}, 0)
		for _, t := range w.targets {
			if t.Scope.String() == e.Scope {
				key = runnerKey(t.Scope, e.RunnerID)
			}
		}
		if since, held := w.holds[key]; held && isDelete(e) && e.Acted && e.Seq > since {
			w.Errorf("a runner was deleted that an operator held: %s; holds: %v", text(e), slices.Sorted(maps.Keys(w.holds)))
		}
	}
}
