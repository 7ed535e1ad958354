package storm_test

import (
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// exempt notes that a runner has the label that exempts it, which it never
// loses, whatever listings show and the record says.
func (w *world) exempt(scope fleet.Scope, id int64) {
	ids := w.keepers[scope]
	if ids == nil {
		ids = map[int64]bool{}
		w.keepers[scope] = ids
	}
	ids[id] = true
}

// emptyLabels has GitHub show lost machines without any label (issue 10).
func (w *world) emptyLabels() *weather {
	f := githubsim.Fault{
		Kind: githubsim.FaultUnlabelled, Path: anyOf(w, "without labels", "", ofPages, ofPages),
		For: time.Duration(anyOf(w, "without labels for minutes", 0, 4, 20)) * time.Minute,
	}
	lift, err := w.sim.Inject(f)
	w.ok(err)
	w.tally.count("times that lost machines show no labels")
	return &weather{what: string(f.Kind), lift: lift}
}

// wantExemptAlive checks that no runner with the exempting label was deleted for
// a policy, by what the simulator knows of labels.
func (w *world) wantExemptAlive(t *target) {
	deleted := read[struct{ ID int64 }](w, `
		SELECT runner_id FROM muster.action
		WHERE target = $1 AND state IN ('done', 'intended') AND policy NOT IN ('operator', 'scale_down')`, t.Name)
	for _, a := range deleted {
		if w.keepers[t.Scope][a.ID] {
			w.Errorf("%s/%d was deleted although its labels exempt it", t.Name, a.ID)
		}
	}
	if len(w.keepers[t.Scope]) > 0 {
		w.tally.count("targets with exempt runners, all of which are there")
	}
}
