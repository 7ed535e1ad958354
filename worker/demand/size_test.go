package demand_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/policies"
)

// linux is a pool for what asks for linux.
func linux(t *testing.T) *policies.Pool {
	t.Helper()
	p, faults := policies.NewPool(fleet.Pool{
		Name: "linux", Target: "acme", Labels: []string{"linux"}, PoolBounds: fleet.PoolBounds{Max: 20}, TargetUtilisation: 1,
		BootDeadline: 10 * time.Minute, Step: fleet.PoolStep{Up: fleet.Portion{Count: 20}, Down: fleet.Portion{Percent: 100}},
	})
	if faults != nil {
		t.Fatal(faults)
	}
	return p
}

// size decides on the pool as the record has it, for so many hosts online and
// at work, all of them idle otherwise.
func (o *oracle) size(pool *policies.Pool, online, busy int) fleet.SizeDecision {
	o.Helper()
	open, err := o.db.OpenJobs(o.Context(), "acme", o.clock())
	o.ok(err)
	r, err := o.db.Reconciliation(o.Context(), "acme")
	o.ok(err)
	d := policies.NewMatcher([]fleet.Pool{pool.Pool}).Match(jobsOf(open), policies.Outside{}).Demand[pool.Name]
	d.At, d.Confidence = r.AsOf, fleet.DemandConfidence(r.AsOf, r.Fault == "", o.clock())
	return pool.Size(fleet.Supply{Online: online, Busy: busy}, d, fleet.SizeMemory{Since: t0.Add(-time.Hour)}, o.clock())
}

// jobsOf are the jobs that were counted together, one by one.
func jobsOf(open []db.OpenJobs) []fleet.WorkflowJob {
	var all []fleet.WorkflowJob
	for _, j := range open {
		for range j.Count {
			all = append(all, fleet.WorkflowJob{Target: "acme", ID: int64(len(all)) + 1, Labels: j.Labels, State: j.State, Repository: j.Repository})
		}
	}
	return all
}

// One job is queued, and five that ran long ago are told to be completed in the
// same moment, as after a re-run: added up they are none (ARC #4315).
func TestLateCompletionsTakeNoRunnerFromAQueuedJob(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	pool := linux(t)
	first := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	run := o.run(first)
	jobs := []int64{first}
	for range 5 {
		jobs = append(jobs, o.queue(githubsim.JobSpec{Labels: []string{"linux"}, RunID: run}))
	}
	for i, id := range jobs {
		conclusion := "success"
		if i == 0 {
			conclusion = "failure"
		}
		o.ok(o.sim.FinishJob(id, conclusion))
	}
	o.events() // all of it is lost
	o.ok(o.sim.Rerun(run))
	batch := o.events()
	if len(batch) != 6 {
		t.Fatalf("a re-run is %d events, want one queued and five completed", len(batch))
	}
	for range 2 {
		slices.Reverse(batch)
		for i, d := range batch {
			d.ID = fmt.Sprint(d.ID, i)
			o.ok(o.intake.Receive(t.Context(), d))
		}
		if d := o.size(pool, 0, 0); d.Desired != 1 || d.Direction != fleet.SizeUp || d.Change != 1 {
			t.Errorf("%+v, want exactly one host", d)
		}
	}
	o.reconcile()
	if d := o.size(pool, 0, 0); d.Desired != 1 || d.Change != 1 {
		t.Errorf("compared: %+v, want exactly one host", d)
	}
}

// All jobs of a matrix are queued at once and two may run at a time. Whatever
// becomes of the hosts that came too early, there are some for the last jobs.
func TestAMatrixWithFewAtATimeDoesNotStarve(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	pool := linux(t)
	first := o.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	for range 5 {
		o.queue(githubsim.JobSpec{Labels: []string{"linux"}, RunID: o.run(first)})
	}
	for _, d := range o.events() {
		o.ok(o.intake.Receive(t.Context(), d)) // the only ones that are heard
	}
	runners, err := o.sim.CreateMany(acme, 2, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprint("build-", i), Labels: []string{"linux"}, Online: true}
	})
	o.ok(err)
	for left := 6; left > 0; left -= 2 {
		_, err := o.sim.Dispatch(acme)
		o.ok(err)
		o.pass(time.Minute)
		o.reconcile()
		// The others have gone: what waits is asked for anew.
		if d := o.size(pool, len(runners), len(runners)); d.Desired != left || d.Direction == fleet.SizeDown || d.Change != left-2 {
			t.Errorf("%d jobs left: %+v, want a host for each", left, d)
		}
		for _, j := range o.sim.Jobs() {
			if j.State == githubsim.JobInProgress {
				o.ok(o.sim.FinishJob(j.ID, "success"))
			}
		}
	}
	o.reconcile()
	if d := o.size(pool, len(runners), 0); d.Desired != 0 || d.Direction != fleet.SizeDown {
		t.Errorf("all done: %+v, want no host", d)
	}
}
