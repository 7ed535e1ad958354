package demand

import (
	"cmp"
	"slices"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// rank orders states by what can follow what. A job that needs an approval is
// waiting first and queued once it has it: were waiting the higher of the two,
// a late event would hide for ever that the job wants a runner
// (runs-on#539).
func rank(s fleet.WorkflowJobState) int {
	switch s {
	case fleet.WorkflowJobWaiting:
		return 1
	case fleet.WorkflowJobQueued:
		return 2
	case fleet.WorkflowJobInProgress:
		return 3
	case fleet.WorkflowJobCompleted:
		return 4
	}
	return 0
}

// Fold adds what an event tells of a workflow job to what was known of it.
// Both are of the same target and id. GitHub promises no order, repeats some
// events and loses others, so nothing is ever taken back: the state only rises,
// and each field is the greatest of the values told, by an order in which "not
// told" is the least. Every runner that was named stays named. So the same events come to the same job, in whatever
// order and however often each of them is heard.
func Fold(known, told fleet.WorkflowJob) fleet.WorkflowJob {
	next := known
	if rank(told.State) > rank(known.State) {
		next.State = told.State
	}
	next.RunID = max(known.RunID, told.RunID)
	next.RunAttempt = max(known.RunAttempt, told.RunAttempt)
	next.Repository = max(known.Repository, told.Repository)
	if cmp.Or(cmp.Compare(len(told.Labels), len(known.Labels)), slices.Compare(told.Labels, known.Labels)) > 0 {
		next.Labels = told.Labels
	}
	next.Runners = mergeRunners(namedRunners(known), namedRunners(told))
	if len(next.Runners) > 0 {
		newest := slices.MaxFunc(next.Runners, compareRunners)
		next.RunnerID = newest.ID
		next.RunnerName = newest.Name
	}
	next.QueuedAt = earliest(known.QueuedAt, told.QueuedAt)
	next.StartedAt = earliest(known.StartedAt, told.StartedAt)
	// The later one: from there on its runner counts as idle.
	if told.CompletedAt.After(known.CompletedAt) {
		next.CompletedAt = told.CompletedAt
	}
	next.Conclusion = max(known.Conclusion, told.Conclusion)
	return next
}

// namedRunners gives the runners that events named for a job. An event names one
// and lists none; a job that was stored before the list was kept does likewise.
func namedRunners(j fleet.WorkflowJob) []fleet.JobRunner {
	own := fleet.JobRunner{ID: j.RunnerID, Name: j.RunnerName, State: j.State, StartedAt: j.StartedAt}
	isOwn := func(r fleet.JobRunner) bool { return r.ID == own.ID && r.Name == own.Name }
	if own.ID == 0 && own.Name == "" || slices.ContainsFunc(j.Runners, isOwn) {
		return j.Runners
	}
	return append(slices.Clone(j.Runners), own)
}

// mergeRunners gives every runner of both lists once, by id and name, with what
// the newest event told of it.
func mergeRunners(a, b []fleet.JobRunner) []fleet.JobRunner {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y fleet.JobRunner) int {
		return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.Name, y.Name), compareRunners(y, x))
	})
	return slices.CompactFunc(all, func(x, y fleet.JobRunner) bool { return x.ID == y.ID && x.Name == y.Name })
}

// compareRunners orders runners of one job by which of them has it: the end of
// the job names the one that had it last, and of two beginnings the later counts.
// Ids count up: where the times are the same, the runner registered later has it.
func compareRunners(a, b fleet.JobRunner) int {
	return cmp.Or(cmp.Compare(rank(a.State), rank(b.State)), a.StartedAt.Compare(b.StartedAt),
		cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name), cmp.Compare(a.State, b.State))
}

// earliest is the earlier of two times, of which the zero one does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
