package githubsim

import (
	"slices"

	"github.com/muster-fleet/muster/fleet"
)

// mistakes reports whether the fault is about the runner, which may be nil.
func (f *injected) mistakes(r *runner) bool {
	return r != nil && (len(f.IDs) == 0 || slices.Contains(f.IDs, r.id)) && (f.Label == "" || r.hasLabel(f.Label))
}

// belief is what an answer says of runners where GitHub is mistaken.
type belief []strike

func (b belief) mistaken(r *runner, field string) bool {
	return slices.ContainsFunc(b, func(f strike) bool { return (f.Field == "" || f.Field == field) && f.mistakes(r) })
}

func (b belief) status(r *runner) fleet.Status {
	if b.mistaken(r, "status") {
		return fleet.StatusOffline
	}
	return r.status()
}

func (b belief) busy(r *runner) bool { return r.job != 0 && !b.mistaken(r, "busy") }
