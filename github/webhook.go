package github

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// EventWorkflowJob is the event that tells of workflow jobs.
const EventWorkflowJob = fleet.EventWorkflowJob

const (
	signaturePrefix = "sha256="
	// maxEventText bounds what is kept of each text of an event, in bytes:
	// GitHub's own limits are lower.
	maxEventText = 256
	// maxEventLabels bounds the labels of a workflow job; GitHub's own limit
	// for a runner is 100.
	maxEventLabels = 200
)

// Signed reports whether a signature, as in X-Hub-Signature-256, is the
// secret's over the very bytes of the body, in constant time. GitHub's older
// signature, with SHA-1, is none, wherever it stands; an empty secret signs
// nothing. (go-github v45 takes the former, and no secret for no check.)
func Signed(body []byte, signature string, secret fleet.Secret) bool {
	s := NewSignature(signature, secret)
	_, _ = s.Write(body) // a hash takes everything
	return s.Holds()
}

// Signature is Signed for a body that comes in parts: each is written to it, and
// none is kept. It is not safe for concurrent use.
type Signature struct {
	want []byte
	mac  hash.Hash // nil: nothing can hold
}

// NewSignature begins to check a signature with a secret.
func NewSignature(signature string, secret fleet.Secret) *Signature {
	given, ok := strings.CutPrefix(signature, signaturePrefix)
	want, err := hex.DecodeString(given)
	if !ok || err != nil || secret.IsZero() {
		return &Signature{}
	}
	return &Signature{want: want, mac: hmac.New(sha256.New, []byte(secret.Reveal()))}
}

// Write adds a part of the body. It never fails.
func (s *Signature) Write(part []byte) (int, error) {
	if s.mac == nil {
		return len(part), nil
	}
	return s.mac.Write(part)
}

// Holds reports whether the signature is the secret's over what was written.
func (s *Signature) Holds() bool { return s.mac != nil && hmac.Equal(s.mac.Sum(nil), s.want) }

// WorkflowJobEvent is what a workflow_job event tells, and whose it is.
type WorkflowJobEvent struct {
	// Job is without a Target. Its State is empty where the event tells of a
	// step in a job's life that muster does not know.
	Job          fleet.WorkflowJob
	Organization string // login of the repository's owner, empty where not told
	Enterprise   string // slug, empty where not told
}

// wireWorkflowJobEvent is decoded instead of go-github's type, which in v45
// lacks run_attempt, created_at and the enterprise.
type wireWorkflowJobEvent struct {
	Action      string           `json:"action"`
	WorkflowJob *wireWorkflowJob `json:"workflow_job"`
	Repository  struct {
		FullName string `json:"full_name"`
	} `json:"repository"`
	Organization struct {
		Login string `json:"login"`
	} `json:"organization"`
	Enterprise struct {
		Slug string `json:"slug"`
	} `json:"enterprise"`
}

// wireWorkflowJob is a workflow job as events and listings have it.
type wireWorkflowJob struct {
	ID          int64     `json:"id"`
	RunID       int64     `json:"run_id"`
	RunAttempt  int64     `json:"run_attempt"`
	Status      string    `json:"status"` // not used of events, whose action says more
	CreatedAt   time.Time `json:"created_at"`
	StartedAt   time.Time `json:"started_at"`
	CompletedAt time.Time `json:"completed_at"`
	Conclusion  string    `json:"conclusion"`
	Labels      []string  `json:"labels"`
	RunnerID    int64     `json:"runner_id"`
	RunnerName  string    `json:"runner_name"`
}

// ReadWorkflowJob reads the body of a workflow_job event. What it cannot read
// is fleet.ErrMalformed, which repeats nothing of the body.
func ReadWorkflowJob(body []byte) (WorkflowJobEvent, error) {
	bad := func(why string) (WorkflowJobEvent, error) {
		return WorkflowJobEvent{}, fmt.Errorf("read a workflow_job event: %s: %w", why, fleet.ErrMalformed)
	}
	var wire wireWorkflowJobEvent
	// Not Unmarshal's own words: they quote what stands in the body.
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&wire); err != nil {
		return bad("not JSON, or a field of another type")
	}
	w := wire.WorkflowJob
	if w == nil {
		return bad("it has no workflow_job")
	}
	j, err := w.job(fleet.WorkflowJobState(wire.Action))
	if err != nil {
		return bad("its workflow_job: " + err.Error())
	}
	j.Repository = fleet.CleanText(wire.Repository.FullName, maxEventText)
	e := WorkflowJobEvent{
		Organization: fleet.CleanText(wire.Organization.Login, maxEventText),
		Enterprise:   fleet.CleanText(wire.Enterprise.Slug, maxEventText),
		Job:          j,
	}
	if owner, _, found := strings.Cut(j.Repository, "/"); found && e.Organization == "" {
		e.Organization = owner // that of a repository that belongs to a person, say
	}
	return e, nil
}

// job converts, or says what is wrong. It has no state where the one given is
// none that muster knows, and tells then no more than that it is there.
func (w *wireWorkflowJob) job(state fleet.WorkflowJobState) (fleet.WorkflowJob, error) {
	switch {
	case w.ID <= 0:
		return fleet.WorkflowJob{}, errors.New("no id")
	case w.RunID < 0 || w.RunnerID < 0 || w.RunAttempt < 0 || w.RunAttempt > math.MaxInt32:
		return fleet.WorkflowJob{}, errors.New("a number is out of bounds")
	case len(w.Labels) > maxEventLabels:
		return fleet.WorkflowJob{}, errors.New("too many labels")
	}
	j := fleet.WorkflowJob{
		ID: w.ID, RunID: w.RunID, RunAttempt: int(w.RunAttempt), Labels: eventLabels(w.Labels), QueuedAt: eventTime(w.CreatedAt),
	}
	switch state {
	case fleet.WorkflowJobWaiting, fleet.WorkflowJobQueued:
		j.State = state
		if j.QueuedAt.IsZero() {
			// Until it is in progress started_at is when it was made, and all
			// that older servers tell of that.
			j.QueuedAt = eventTime(w.StartedAt)
		}
	case fleet.WorkflowJobInProgress:
		j.State, j.StartedAt = state, eventTime(w.StartedAt)
		j.RunnerID, j.RunnerName = w.RunnerID, fleet.CleanText(w.RunnerName, maxEventText)
	case fleet.WorkflowJobCompleted:
		j.State, j.StartedAt, j.CompletedAt = state, eventTime(w.StartedAt), eventTime(w.CompletedAt)
		j.RunnerID, j.RunnerName = w.RunnerID, fleet.CleanText(w.RunnerName, maxEventText)
		j.Conclusion = fleet.CleanText(w.Conclusion, maxEventText)
		if j.RunnerID == 0 && j.RunnerName == "" {
			j.StartedAt = time.Time{} // it never was on a runner: skipped, or cancelled in the queue
		}
	}
	return j, nil
}

// eventTime is a time as the record can hold it; the zero time stays zero.
func eventTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// eventLabels are lower case, sorted and without repeats; nil: none.
func eventLabels(wire []string) []string {
	var labels []string
	for _, l := range wire {
		if l = strings.ToLower(fleet.CleanText(l, maxEventText)); l != "" {
			labels = append(labels, l)
		}
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}

// Concerns reports whether the event is of something within the scope. Where
// it names no enterprise, as some servers have it, any enterprise's will do.
func (e WorkflowJobEvent) Concerns(scope fleet.Scope) bool {
	switch scope.Kind {
	case fleet.ScopeEnterprise:
		return e.Enterprise == "" || strings.EqualFold(e.Enterprise, scope.Owner)
	case fleet.ScopeOrg:
		return strings.EqualFold(e.Organization, scope.Owner)
	case fleet.ScopeRepo:
		return strings.EqualFold(e.Job.Repository, scope.Owner+"/"+scope.Repo)
	}
	return false
}
