package githubsim

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// JobState is the state of a workflow job.
type JobState string

const (
	JobWaiting    JobState = "waiting" // for somebody's approval
	JobQueued     JobState = "queued"
	JobInProgress JobState = "in_progress"
	JobCompleted  JobState = "completed"
)

// JobSpec is a workflow job to be made. The zero JobSpec is usable.
type JobSpec struct {
	Repository string   // OWNER/REPO; empty: the scope's own, or "widgets" of its owner
	Labels     []string // of runs-on; nil: self-hosted
	RunID      int64    // that it belongs to, and whose repository it has; zero: a run of its own
	Name       string   // empty: build
	Workflow   string   // empty: CI
	Branch     string   // empty: main
	Waiting    bool     // needs Approve first
	Skipped    bool     // is completed at once, and never was queued
}

// Job is the truth about a workflow job.
type Job struct {
	ID         int64       `json:"id"`
	RunID      int64       `json:"run_id"`
	Attempt    int         `json:"attempt"` // of the run, from 1
	Scope      fleet.Scope `json:"-"`       // that it was queued in
	Repository string      `json:"repository"`
	Name       string      `json:"name"`
	Workflow   string      `json:"workflow"`
	Branch     string      `json:"branch"`
	Labels     []string    `json:"labels"`
	State      JobState    `json:"state"`
	Conclusion string      `json:"conclusion,omitempty"`
	// The runner that has it, or had it; zero: none yet. It is the runner's
	// before it is in progress.
	RunnerID    int64     `json:"runner_id,omitempty"`
	RunnerName  string    `json:"runner_name,omitempty"`
	RunnerGroup int64     `json:"runner_group,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
}

// workflowJob is a Job under the Sim's lock.
type workflowJob struct {
	Job    // without its Scope
	sim    *Sim
	in     *scopeState // that it was queued in
	runner *runner     // that has it; nil: none
	group  string      // the name of its RunnerGroup
	at     *scopeState // of the runner
}

// workflowRun is some jobs of one repository.
type workflowRun struct {
	id        int64
	attempt   int
	jobs      []*workflowJob // of all attempts
	createdAt time.Time
	updatedAt time.Time
}

// maxJobs bounds the memory of a Sim that runs for days. Beyond it the oldest
// that are completed are forgotten, and runs that have none left.
const maxJobs = 200_000

type workflows struct {
	order []*workflowJob // by id
	queue []*workflowJob // those that may be free, by the time that they came
	byID  map[int64]*workflowJob
	runs  map[int64]*workflowRun
	last  int64 // id of runs
}

// QueueJob makes a workflow job, as a push to its repository does. The runners
// of the scope may take it, and those of its repository and its organisation, as
// far as their groups take jobs of the repository.
func (s *Sim) QueueJob(scope fleet.Scope, spec JobSpec) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return 0, err
	}
	if spec.Repository != "" {
		at, err := fleet.ParseScope("repo/" + spec.Repository)
		if err != nil || scope.Kind != fleet.ScopeEnterprise && !covers(scope, at) {
			return 0, fmt.Errorf("github simulator: queue a workflow job in %s: repository %q: want OWNER/REPO of that scope", scope, spec.Repository)
		}
	}
	if spec.RunID != 0 && s.flows.runs[spec.RunID] == nil {
		return 0, fmt.Errorf("github simulator: queue a workflow job in run %d: %w", spec.RunID, fleet.ErrNotFound)
	}
	j := s.newJob(st, spec)
	if at := j.repo(); s.scopes[key(at)] == nil && at.Valid() == nil {
		s.addScope(at) // the API has its runs
	}
	switch {
	case spec.Skipped:
		j.complete("skipped", j.CreatedAt)
	case spec.Waiting:
		s.tell(j, JobWaiting)
	default:
		j.enqueue()
	}
	return j.ID, nil
}

// ownRepo is the repository of jobs that name none.
const ownRepo = "widgets"

// covers reports whether the runners of a scope may take jobs of a repository.
// An enterprise takes those that were queued in it, which its name does not say.
func covers(scope, repo fleet.Scope) bool {
	return key(scope) == key(repo) || scope.Kind == fleet.ScopeOrg && strings.EqualFold(scope.Owner, repo.Owner)
}

func (s *Sim) newJob(st *scopeState, spec JobSpec) *workflowJob {
	now := s.config.Now()
	s.lastJob++
	j := &workflowJob{sim: s, in: st, Job: Job{
		ID: s.lastJob, Attempt: 1, Repository: spec.Repository,
		Name: cmp.Or(spec.Name, "build"), Workflow: cmp.Or(spec.Workflow, "CI"), Branch: cmp.Or(spec.Branch, "main"),
		Labels: slices.Clone(spec.Labels), State: JobQueued, CreatedAt: now,
	}}
	if spec.Waiting {
		j.State = JobWaiting
	}
	if spec.Labels == nil {
		j.Labels = []string{"self-hosted"}
	}
	if j.Repository == "" {
		j.Repository = st.scope.Owner + "/" + cmp.Or(st.scope.Repo, ownRepo)
	}
	run := s.flows.runs[spec.RunID]
	if run == nil {
		s.flows.last++
		run = &workflowRun{id: s.flows.last, attempt: 1, createdAt: now}
		s.flows.runs[run.id] = run
	} else {
		j.Repository, j.Attempt = run.jobs[0].Repository, run.attempt
	}
	j.RunID, run.updatedAt = run.id, now
	run.jobs = append(run.jobs, j)
	s.flows.order = append(s.flows.order, j)
	s.flows.byID[j.ID] = j
	s.forgetJobs()
	return j
}

func (s *Sim) forgetJobs() {
	f := &s.flows
	if len(f.order) <= maxJobs {
		return
	}
	old := len(f.order) / 2
	f.order = slices.Concat(slices.DeleteFunc(slices.Clone(f.order[:old]), func(j *workflowJob) bool {
		if j.State != JobCompleted {
			return false
		}
		delete(f.byID, j.ID)
		run := f.runs[j.RunID]
		if run.jobs = slices.DeleteFunc(run.jobs, func(other *workflowJob) bool { return other == j }); len(run.jobs) == 0 {
			delete(f.runs, run.id)
		}
		return true
	}), f.order[old:])
}

// fits reports whether a runner of the scope may take the job.
func (j *workflowJob) fits(st *scopeState, r *runner) bool {
	if st != j.in && !covers(st.scope, j.repo()) {
		return false
	}
	return !slices.ContainsFunc(j.Labels, func(name string) bool { return !r.hasLabel(name) }) && j.sim.takes(st, r, j.repo())
}

// repo is where the job's code is.
func (j *workflowJob) repo() fleet.Scope {
	owner, name, _ := strings.Cut(j.Repository, "/")
	return fleet.Scope{Kind: fleet.ScopeRepo, Owner: owner, Repo: name}
}

// free reports whether the job waits for a runner.
func (j *workflowJob) free() bool { return j.State == JobQueued && j.runner == nil }

// enqueue has the job wait for a runner.
func (j *workflowJob) enqueue() {
	j.State = JobQueued
	j.sim.flows.queue = append(j.sim.flows.queue, j)
	j.sim.tell(j, JobQueued)
}

// queued are the jobs that wait for a runner, those first that came first.
func (s *Sim) queued() []*workflowJob {
	f := &s.flows
	f.queue = slices.DeleteFunc(f.queue, func(j *workflowJob) bool { return !j.free() })
	return slices.Clone(f.queue)
}

// take gives the job to a runner. It is in progress once the runner's program
// has it: one that is only shown online never gets there.
func (j *workflowJob) take(st *scopeState, r *runner, now time.Time) {
	j.belong(st, r)
	if r.shown && !r.online {
		r.busyUntil = now.Add(requeue)
		return
	}
	j.start(now)
}

// belong makes the job the runner's.
func (j *workflowJob) belong(st *scopeState, r *runner) {
	r.job, r.work = j.ID, j
	j.runner, j.at, j.group = r, st, st.groupOf(r.group).name
	j.RunnerID, j.RunnerName, j.RunnerGroup = r.id, r.name, r.group
}

func (j *workflowJob) start(now time.Time) {
	if j.State == JobQueued {
		j.State, j.StartedAt = JobInProgress, now
		j.touch(now)
		j.sim.tell(j, JobInProgress)
	}
}

// complete ends the job. Its runner has to be freed beside.
func (j *workflowJob) complete(conclusion string, now time.Time) {
	j.runner, j.at = nil, nil
	j.State, j.Conclusion, j.CompletedAt = JobCompleted, conclusion, now
	j.touch(now)
	j.sim.tell(j, JobCompleted)
}

// giveUp is for a job whose runner does not get on with it: one that never was
// picked up waits for another runner, one that was has failed.
func (j *workflowJob) giveUp(now time.Time) {
	switch j.State {
	case JobQueued:
		j.runner, j.at = nil, nil
		j.RunnerID, j.RunnerName, j.RunnerGroup = 0, "", 0
		j.sim.flows.queue = append(j.sim.flows.queue, j)
	case JobInProgress:
		j.complete("failure", now)
	}
}

func (j *workflowJob) touch(now time.Time) {
	if run := j.sim.flows.runs[j.RunID]; run != nil {
		run.updatedAt = now
	}
}

// tell puts a change of a job down in the log, and has the hooks told of it.
func (s *Sim) tell(j *workflowJob, action JobState) {
	s.record(Event{Change: ChangeJob, Cause: string(action), Scope: j.in.name, Job: j.ID, RunnerID: j.RunnerID, RunnerName: j.RunnerName})
	s.announce(j, action)
}
