package storm_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/demand"
)

// teller is GitHub for comparisons of workflow jobs. Of some jobs it does not
// tell: its lists lack their runs, and asked for them it says that they are not
// there.
type teller struct {
	*github.Client
	w *world
}

func (g teller) hides(of map[int64]bool, id int64) bool {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return of[id]
}

func (g teller) WorkflowRuns(ctx context.Context, repo fleet.Scope, state fleet.WorkflowJobState) (github.WorkflowRuns, int, error) {
	list, charged, err := g.Client.WorkflowRuns(ctx, repo, state)
	list.Runs = slices.DeleteFunc(list.Runs, func(r github.WorkflowRun) bool { return g.hides(g.w.jobs.hiddenRuns, r.ID) })
	return list, charged, err
}

func (g teller) WorkflowJobs(ctx context.Context, repo fleet.Scope, run int64, of github.WorkflowAttempts) ([]fleet.WorkflowJob, int, error) {
	if g.hides(g.w.jobs.hiddenRuns, run) {
		return nil, 1, fmt.Errorf("run %d: %w", run, fleet.ErrNotFound)
	}
	return g.Client.WorkflowJobs(ctx, repo, run, of)
}

func (g teller) WorkflowJob(ctx context.Context, repo fleet.Scope, id int64) (fleet.WorkflowJob, error) {
	if g.hides(g.w.jobs.hiddenJobs, id) {
		return fleet.WorkflowJob{}, fmt.Errorf("workflow job %d: %w", id, fleet.ErrNotFound)
	}
	return g.Client.WorkflowJob(ctx, repo, id)
}

// hide has comparisons not be told of a workflow job.
func (w *world) hide(job int64) {
	for _, j := range w.sim.Jobs() {
		if j.ID == job {
			w.mu.Lock()
			w.jobs.hiddenJobs[j.ID], w.jobs.hiddenRuns[j.RunID] = true, true
			w.mu.Unlock()
		}
	}
}

// reveal ends what comparisons are not told.
func (w *world) reveal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.jobs.hiddenJobs)
	clear(w.jobs.hiddenRuns)
}

// comparer is the reconciler of a replica.
func (w *world) comparer(r *replica, signed map[string]demand.Target) *demand.Reconciler {
	compared := map[string]demand.Compared{}
	for _, t := range w.targets {
		compared[t.Name] = demand.Compared{Target: t.Target, GitHub: teller{r.github, w}, Pools: true}
	}
	return &demand.Reconciler{
		Intake: &demand.Intake{
			Log: r.log, DB: r.db, Now: w.clock.tell, Targets: func() map[string]demand.Target { return signed }, Pools: w.poolsFor,
		},
		Targets: func() map[string]demand.Compared { return compared },
	}
}

// compare is what a replica does every minute about a target.
func (r *replica) compare(target string, sweep bool) error {
	var swept error
	if sweep {
		_, swept = r.comparer.Sweep(r.ctx, target)
	}
	_, err := r.comparer.Reconcile(r.ctx, target)
	return errors.Join(swept, err)
}

// addRepos makes the repositories that the workflow jobs of a target are of
// known to GitHub's API.
func (w *world) addRepos() {
	for _, t := range w.targets {
		repo := t.Scope.Repo
		if repo == "" {
			repo = "widgets"
		}
		w.ok(w.sim.AddScope(fleet.Scope{Kind: fleet.ScopeRepo, Owner: t.Scope.Owner, Repo: repo}))
	}
}

// compareAll has all workflow jobs known, once nothing is in the way of it.
func (w *world) compareAll() {
	for _, t := range w.targets {
		w.turn++
		r := w.replicas[w.turn%len(w.replicas)]
		if err := r.compare(t.Name, false); err != nil {
			w.Fatalf("comparison of %s in the calm: %v", t.Name, err)
		}
		known, err := r.db.Reconciliation(w.ctx, t.Name)
		w.ok(err)
		if known.Fault != "" {
			w.tell("comparison of %s in the calm: %s", t.Name, known.Fault)
		}
	}
}

// openJobs are the workflow jobs that no runner has ended.
func (w *world) openJobs(of func(githubsim.Job) bool) []githubsim.Job {
	return slices.DeleteFunc(w.sim.Jobs(), func(j githubsim.Job) bool { return j.State == githubsim.JobCompleted || !of(j) })
}
