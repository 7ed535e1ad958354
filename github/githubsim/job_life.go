package githubsim

import (
	"fmt"
	"slices"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// conclusions are what a workflow job may end with.
var conclusions = []string{"success", "failure", "cancelled", "skipped", "timed_out", "neutral", "action_required"}

// changeJob does something to one workflow job under the lock.
func (s *Sim) changeJob(id int64, do func(j *workflowJob, now time.Time) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleAll()
	j := s.flows.byID[id]
	if j == nil {
		return fmt.Errorf("github simulator: workflow job %d: %w", id, fleet.ErrNotFound)
	}
	return do(j, s.config.Now())
}

// settleAll lets happen to the runners what the passing of time brings, so that
// what they do not get on with is given up.
func (s *Sim) settleAll() {
	now := s.config.Now()
	for _, id := range s.scopeIDs() {
		s.byID[id].settleDue(now)
	}
}

// Approve queues a workflow job that was waiting.
func (s *Sim) Approve(id int64) error {
	return s.changeJob(id, func(j *workflowJob, now time.Time) error {
		if j.State != JobWaiting {
			return fmt.Errorf("github simulator: approve workflow job %d: it is %s: %w", id, j.State, fleet.ErrConflict)
		}
		j.touch(now)
		j.enqueue()
		return nil
	})
}

// RunJob gives a queued workflow job to a runner, whatever its labels, unless its
// group takes no jobs of that repository.
func (s *Sim) RunJob(scope fleet.Scope, runnerID, id int64) error {
	return s.change(scope, runnerID, func(st *scopeState, r *runner, now time.Time) error {
		s.settleAll()
		j := s.flows.byID[id]
		switch {
		case j == nil:
			return fmt.Errorf("github simulator: run workflow job %d: %w", id, fleet.ErrNotFound)
		case !j.free():
			return fmt.Errorf("github simulator: run workflow job %d: it is %s, or a runner's: %w", id, j.State, fleet.ErrConflict)
		case r.job != 0:
			return fmt.Errorf("github simulator: run workflow job %d on runner %d of %s: it has one: %w", id, runnerID, scope, fleet.ErrBusy)
		}
		if !s.takes(st, r, j.repo()) {
			return fmt.Errorf("github simulator: run workflow job %d on runner %d of %s: its group takes no jobs of %s: %w", id, runnerID, scope, j.Repository, fleet.ErrConflict)
		}
		s.assign(st, r, j, now)
		return nil
	})
}

// MoveJob gives a workflow job that is in progress to another runner of the same
// scope, which has none. The hooks are told once more that it is in progress, now
// with that runner and with the job's own start. The runner that had it is idle
// then, and stays, also where it is ephemeral: it has not ended the job.
func (s *Sim) MoveJob(scope fleet.Scope, runnerID, id int64) error {
	return s.change(scope, runnerID, func(st *scopeState, r *runner, _ time.Time) error {
		s.settleAll()
		j := s.flows.byID[id]
		switch {
		case j == nil:
			return fmt.Errorf("github simulator: move workflow job %d: %w", id, fleet.ErrNotFound)
		case j.State != JobInProgress:
			return fmt.Errorf("github simulator: move workflow job %d: it is %s: %w", id, j.State, fleet.ErrConflict)
		case r.job != 0:
			return fmt.Errorf("github simulator: move workflow job %d to runner %d of %s: it has one: %w", id, runnerID, scope, fleet.ErrBusy)
		case j.at != st, !r.online, !s.takes(st, r, j.repo()):
			return fmt.Errorf("github simulator: move workflow job %d to runner %d of %s: want an online runner of the same scope that takes jobs of %s: %w", id, runnerID, scope, j.Repository, fleet.ErrConflict)
		}
		from := j.runner
		from.job, from.work, from.busyUntil = 0, nil, time.Time{}
		s.note(st, from, ChangeMoved, "")
		st.touch(from)
		j.belong(st, r)
		s.note(st, r, ChangeAssigned, "")
		s.tell(j, JobInProgress)
		return nil
	})
}

// assign gives a job to a runner that has none.
func (s *Sim) assign(st *scopeState, r *runner, j *workflowJob, now time.Time) {
	r.job = j.ID // what is told first is that it has one
	s.note(st, r, ChangeAssigned, "")
	j.take(st, r, now)
}

// nextJob is the oldest that waits for a runner like this one, or a new one; nil
// where its group takes no jobs at all.
func (s *Sim) nextJob(st *scopeState, r *runner) *workflowJob {
	for _, j := range s.queued() {
		if j.fits(st, r) {
			return j
		}
	}
	repository, ok := s.ownRepository(st, r)
	if !ok {
		return nil
	}
	labels := make([]string, len(r.labels))
	for i, l := range r.labels {
		labels[i] = l.Name
	}
	j := s.newJob(st, JobSpec{Repository: repository, Labels: labels})
	j.enqueue()
	return j
}

// Dispatch gives the queued workflow jobs, oldest first, to the runners of the
// scope that are online and idle, have their labels and are in a group that takes
// them. It returns how many
// found one.
func (s *Sim) Dispatch(scope fleet.Scope) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return 0, err
	}
	s.settleAll()
	now, n := s.config.Now(), 0
	idle := slices.DeleteFunc(slices.Clone(st.order), func(r *runner) bool { return !r.online || !r.shown || r.job != 0 })
	for _, j := range s.queued() {
		i := slices.IndexFunc(idle, func(r *runner) bool { return j.fits(st, r) })
		if i < 0 {
			continue
		}
		r := idle[i]
		idle = slices.Delete(idle, i, i+1)
		s.assign(st, r, j, now)
		st.touch(r)
		st.watch(r)
		n++
	}
	return n, nil
}

// FinishJob completes a workflow job in whatever state it is, such as with
// success or cancelled. A runner that has it is idle then, or gone where it is
// ephemeral.
func (s *Sim) FinishJob(id int64, conclusion string) error {
	if !slices.Contains(conclusions, conclusion) {
		return fmt.Errorf("github simulator: finish workflow job %d: conclusion %q: want one of %v", id, conclusion, conclusions)
	}
	return s.changeJob(id, func(j *workflowJob, now time.Time) error {
		if j.State == JobCompleted {
			return fmt.Errorf("github simulator: finish workflow job %d: it is completed: %w", id, fleet.ErrConflict)
		}
		if r, st := j.runner, j.at; r != nil {
			s.finish(st, r, conclusion, now)
			st.touch(r)
			return nil
		}
		j.complete(conclusion, now)
		return nil
	})
}

// finish ends the job that a runner has.
func (s *Sim) finish(st *scopeState, r *runner, conclusion string, now time.Time) {
	j := r.work
	r.job, r.work, r.busyUntil = 0, nil, time.Time{}
	s.note(st, r, ChangeFinished, "")
	j.complete(conclusion, now)
	if r.ephemeral {
		s.drop(st, r, "ephemeral")
	}
}

// Rerun begins another attempt of a run all of whose jobs are completed: those
// that did not succeed are queued again under new ids. Of those that did, the
// hooks are told once more that they are completed, as GitHub does.
func (s *Sim) Rerun(runID int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := s.flows.runs[runID]
	if run == nil {
		return fmt.Errorf("github simulator: run %d: %w", runID, fleet.ErrNotFound)
	}
	if run.status() != JobCompleted {
		return fmt.Errorf("github simulator: run %d again: it is %s: %w", runID, run.status(), fleet.ErrConflict)
	}
	last := run.latest()
	run.attempt++
	for _, j := range last {
		if j.Conclusion == "success" {
			j.Attempt = run.attempt
			s.tell(j, JobCompleted)
			continue
		}
		s.newJob(j.in, JobSpec{RunID: runID, Labels: j.Labels, Name: j.Name, Workflow: j.Workflow, Branch: j.Branch}).enqueue()
	}
	return nil
}

// latest are the jobs of the newest attempt.
func (run *workflowRun) latest() []*workflowJob {
	return slices.DeleteFunc(slices.Clone(run.jobs), func(j *workflowJob) bool { return j.Attempt != run.attempt })
}

// status is in_progress from the first job that starts until the last has
// ended, also while others are still queued.
func (run *workflowRun) status() JobState {
	var completed, started, queued int
	jobs := run.latest()
	for _, j := range jobs {
		switch j.State {
		case JobCompleted:
			completed++
		case JobInProgress:
			started++
		case JobQueued:
			queued++
		}
	}
	switch {
	case completed == len(jobs):
		return JobCompleted
	case started+completed > 0:
		return JobInProgress
	case queued > 0:
		return JobQueued
	}
	return JobWaiting
}

// Jobs is the truth about all workflow jobs, by id.
func (s *Sim) Jobs() []Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleAll()
	all := make([]Job, len(s.flows.order))
	for i, j := range s.flows.order {
		all[i] = j.Job
		all[i].Scope = j.in.scope
		all[i].Labels = slices.Clone(j.Labels)
	}
	return all
}
