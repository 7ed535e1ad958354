package storm_test

import (
	"slices"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// assign gives a runner the workflow job of a stretch. A job that moves is another
// runner's first: its webhook says so truthfully, and what befalls the webhook of
// the stretch befalls the one that names the runner that has the job now.
func (w *world) assign(scope fleet.Scope, r githubsim.State, s stretch) error {
	befall := func() func() {
		if s.webhook == "" {
			return func() {}
		}
		return w.inject(githubsim.Fault{Kind: s.webhook, Delay: s.late, Event: "workflow_job.in_progress"})
	}
	first, found := w.waystation(scope, r)
	if !s.moves || !found {
		mend := befall()
		defer mend()
		return w.sim.Assign(scope, r.ID)
	}
	if w.sim.Assign(scope, first.ID) != nil {
		return w.sim.Assign(scope, r.ID) // the other one has just gone
	}
	w.sim.Deliver(w.ctx)
	has, there := w.runner(scope, first.ID)
	if !there {
		return fleet.ErrNotFound
	}
	mend := befall()
	defer mend()
	err := w.sim.MoveJob(scope, r.ID, has.Job)
	if err != nil {
		_ = w.sim.FinishJob(has.Job, "cancelled") // nobody tells of it
		return err
	}
	if w.jobs.moved == nil {
		w.jobs.moved = map[int64]string{}
	}
	w.jobs.moved[has.Job] = runnerKey(scope, first.ID)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.count("workflow jobs that moved")
	if first.ID > r.ID {
		w.tally.count("workflow jobs that moved to the runner of the lower id")
	}
	return nil
}

// waystation is the runner that has a job before it moves: the newest that is idle
// like the other one, and of which nobody lies.
func (w *world) waystation(scope fleet.Scope, to githubsim.State) (githubsim.State, bool) {
	all := w.sim.Snapshot(scope)
	for i := len(all) - 1; i >= 0; i-- {
		r := all[i]
		lied := len(w.jobs.lies[runnerKey(scope, r.ID)]) > 0
		if r.ID != to.ID && r.Online && r.Shown == fleet.StatusOnline && !r.Busy && !lied && isPooled(r) == isPooled(to) {
			return r, true
		}
	}
	return githubsim.State{}, false
}

// withMoved are the runners of a scope that have a job that moved.
func (w *world) withMoved(scope fleet.Scope) []githubsim.State {
	return slices.DeleteFunc(w.sim.Snapshot(scope), func(r githubsim.State) bool { return w.jobs.moved[r.Job] == "" })
}

// endMoved ends the jobs that moved: until then they are the work of the runners
// that had them too, which may be dead.
func (w *world) endMoved() {
	for _, j := range w.openJobs(func(j githubsim.Job) bool { return w.jobs.moved[j.ID] != "" }) {
		w.ok(w.sim.FinishJob(j.ID, "success"))
	}
}
