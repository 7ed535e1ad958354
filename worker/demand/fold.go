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
// told" is the least. So the same events come to the same job, in whatever
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
	// One runner, not the id of one with the name of another. Ids count up: of
	// two, the one registered later has the job.
	if cmp.Or(cmp.Compare(told.RunnerID, known.RunnerID), cmp.Compare(told.RunnerName, known.RunnerName)) > 0 {
		next.RunnerID, next.RunnerName = told.RunnerID, told.RunnerName
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

// earliest is the earlier of two times, of which the zero one does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
