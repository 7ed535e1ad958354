package fleet

import (
	"io"
	"time"
)

// WorkflowJobState is how far a workflow job has come, in GitHub's words.
type WorkflowJobState string

const (
	WorkflowJobWaiting    WorkflowJobState = "waiting" // for an approval; it needs no runner yet
	WorkflowJobQueued     WorkflowJobState = "queued"
	WorkflowJobInProgress WorkflowJobState = "in_progress"
	WorkflowJobCompleted  WorkflowJobState = "completed"
)

// WorkflowJob is what GitHub's events have told of one workflow job. Zero
// values mean "not told"; a re-run is another workflow job, with an id of its
// own.
type WorkflowJob struct {
	Target     string
	ID         int64
	RunID      int64
	RunAttempt int
	Repository string   // OWNER/REPO
	Labels     []string // that it asks for: lower case, sorted, without repeats
	State      WorkflowJobState
	RunnerID   int64  // told from in_progress on
	RunnerName string // likewise
	// Runners are all that its events named, in no particular order. GitHub may
	// give a job to one runner and then to another; RunnerID and RunnerName are
	// those of the newest.
	Runners     []JobRunner
	QueuedAt    time.Time
	StartedAt   time.Time // on the runner
	CompletedAt time.Time
	Conclusion  string // success, failure, cancelled, skipped…
}

// JobRunner is a runner that an event named for a workflow job: by its id, by its
// name, or by both.
type JobRunner struct {
	ID   int64  `json:"id,omitempty"`   // 0: not told
	Name string `json:"name,omitempty"` // empty: not told
	// State and StartedAt are those of the newest event that named it.
	State     WorkflowJobState `json:"state,omitempty"`
	StartedAt time.Time        `json:"started_at,omitzero"`
}

// Delivery is one webhook request as it came.
type Delivery struct {
	ID        string // X-GitHub-Delivery: the same when GitHub sends it again
	Event     string // X-GitHub-Event
	Signature string // X-Hub-Signature-256
	Body      []byte
	// Hook is X-GitHub-Hook-ID, and HookOf X-GitHub-Hook-Installation-Target-Type:
	// which webhook it is, and what kind of thing has it. No signature covers
	// them.
	Hook   int64
	HookOf string
}

// EventWorkflowJob is GitHub's name of the event that tells of workflow jobs.
const EventWorkflowJob = "workflow_job"

// TellsOfJobs reports whether the delivery says that it is of the one kind that
// tells muster something.
func (d Delivery) TellsOfJobs() bool { return d.Event == EventWorkflowJob }

// SignatureCheck checks the signature of a delivery while its body is written to
// it. It keeps nothing of the body.
type SignatureCheck interface {
	io.Writer
	// Signers are the names of the targets whose secret signed what was written.
	// fleet.ErrUnauthorized: nobody's did. Any other error says that this cannot be
	// told now, with the names of the targets for which it cannot.
	Signers() ([]string, error)
}
