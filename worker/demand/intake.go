package demand

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

const (
	// foldLimit is how long one event may take. github.com waits 10 s for an
	// answer.
	foldLimit = 8 * time.Second
	// maxDeliveryID is in bytes; GitHub's are UUIDs.
	maxDeliveryID = 128
)

// Target is a target with the secrets of its webhook.
type Target struct {
	fleet.Target
	// Secrets are those that its webhook signs with, as they are now; two while
	// one gives way to the other. Nil: no webhook can address the target.
	Secrets func(context.Context) ([]fleet.Secret, error)
}

// Outcome is what became of an event, for one target where it was taken for
// one.
type Outcome string

const (
	OutcomeFolded    Outcome = "folded"
	OutcomeRepeated  Outcome = "repeated"  // was folded before
	OutcomeIgnored   Outcome = "ignored"   // of a kind that tells muster nothing
	OutcomeElsewhere Outcome = "elsewhere" // signed well, and outside the scope of the target
	OutcomeRefused   Outcome = "refused"   // nobody's signature
	OutcomeMalformed Outcome = "malformed"
	OutcomeFailed    Outcome = "failed" // could not be recorded
)

// Via is the way that an event came.
type Via string

const (
	ViaWebhook Via = "webhook"
	ViaNATS    Via = "nats"
)

// Intake takes in GitHub's events. It is safe for concurrent use. All fields
// but Pools, Refusals and Observe are required; Conn is for Consume alone.
type Intake struct {
	Log *slog.Logger
	DB  *db.DB
	// Now is the clock that all replicas share: Postgres's.
	Now func(context.Context) (time.Time, error)
	// Targets is the configuration as it is now, by name.
	Targets func() map[string]Target
	Conn    consumer
	// Refusals are the deliveries that were turned away, for Run to record. Nil:
	// none is noted.
	Refusals *Refusals
	// Pools are those that a workflow job of these labels may wait for, the most
	// likely first and no more than so many, to be decided on once an event told
	// something new. Nil: there are none.
	Pools func(target string, labels []string, most int) []string
	// Observe hears of every event, with an empty target where it was taken for
	// none. It is called from many goroutines at once. Nil: nobody listens.
	Observe func(target string, via Via, outcome Outcome)
}

// Receive is Check and Take for a delivery whose body is there: fleet.ErrUnauthorized
// where no target's secret signed it, fleet.ErrUnavailable where it cannot be judged
// now.
func (i *Intake) Receive(ctx context.Context, d fleet.Delivery) error {
	check := i.Check(ctx, d.Signature)
	_, _ = check.Write(d.Body) // a hash takes everything
	targets, err := check.Signers()
	if err != nil {
		if !errors.Is(err, fleet.ErrUnauthorized) {
			i.noteRefused(ctx, d, targets, err.Error())
		}
		return err
	}
	return i.Take(ctx, d, targets)
}

// Take takes in a delivery of a webhook that the secrets of these targets signed,
// for each of them whose scope it concerns. Once it returns nil, what the delivery
// tells is recorded; an event that tells nothing is taken and dropped, without a
// look at its body. Errors: fleet.ErrMalformed where it cannot be read,
// fleet.ErrUnavailable where it cannot be recorded now. What is not taken in is
// noted as refused.
func (i *Intake) Take(ctx context.Context, d fleet.Delivery, signers []string) error {
	took, cancel := context.WithTimeout(ctx, foldLimit)
	defer cancel()
	refuse := func(targets []string, err error) error {
		i.noteRefused(ctx, d, targets, err.Error())
		return err
	}
	if !validDeliveryID(d.ID) {
		i.observe(ViaWebhook, OutcomeMalformed)
		return refuse(signers, fmt.Errorf("take in a webhook: its X-GitHub-Delivery is not 1 to %d printable characters: %w", maxDeliveryID, fleet.ErrMalformed))
	}
	e, ok, err := read(d.Event, d.Body)
	switch {
	case err != nil:
		i.observe(ViaWebhook, OutcomeMalformed)
		return refuse(signers, fmt.Errorf("take in delivery %s: %w", d.ID, err))
	case !ok:
		i.observe(ViaWebhook, OutcomeIgnored)
		return nil
	}
	var names []string
	var targets []Target
	all := i.Targets()
	for _, name := range signers {
		t, configured := all[name]
		if configured && e.Concerns(t.Scope) {
			names = append(names, name)
			targets = append(targets, t)
		}
	}
	if len(targets) == 0 {
		i.observe(ViaWebhook, OutcomeElsewhere)
		return nil
	}
	err = i.fold(took, ViaWebhook, names, d.ID, e.Job, hookOf(targets, d, e))
	if err != nil {
		return refuse(names, err)
	}
	return nil
}

// read reads the one kind of event that tells muster something; false: it is
// of another kind.
func read(event string, body []byte) (github.WorkflowJobEvent, bool, error) {
	if event != github.EventWorkflowJob {
		return github.WorkflowJobEvent{}, false, nil
	}
	e, err := github.ReadWorkflowJob(body)
	return e, err == nil && e.Job.State != "", err
}

// fold adds an event to what is known of its workflow job, once per target and
// delivery, all of it in one transaction with which webhook it came from; nil:
// that is not known.
func (i *Intake) fold(ctx context.Context, via Via, targets []string, delivery string, told fleet.WorkflowJob, from *heardHook) error {
	now, err := i.Now(ctx)
	outcomes := make([]Outcome, len(targets))
	if err == nil {
		err = i.DB.InTx(ctx, func(tx *db.Tx) error {
			for n, target := range targets {
				told := told
				told.Target = target
				var err error
				if outcomes[n], err = i.foldOne(ctx, tx, delivery, told, now); err != nil {
					return err
				}
			}
			if from != nil {
				return tx.HearHook(ctx, from.target, from.Hook, now)
			}
			return nil
		})
	}
	for n, target := range targets {
		if err != nil {
			outcomes[n] = OutcomeFailed
		}
		i.observeFor(target, via, outcomes[n])
	}
	if err != nil {
		return fmt.Errorf("take in delivery %s: %w", delivery, err)
	}
	i.Log.DebugContext(ctx, "event folded", "github_delivery", delivery, "target", strings.Join(targets, ","),
		"workflow_job", told.ID, "state", told.State)
	return nil
}

func (i *Intake) foldOne(ctx context.Context, tx *db.Tx, delivery string, told fleet.WorkflowJob, now time.Time) (Outcome, error) {
	news, err := tx.AddDelivery(ctx, told.Target, delivery, now)
	if err != nil {
		return OutcomeFailed, err
	}
	if !news {
		return OutcomeRepeated, nil
	}
	_, err = i.add(ctx, tx, told, now)
	return OutcomeFolded, err
}

// add adds what is told of a workflow job to what is known of it. It reports
// whether that was news.
func (i *Intake) add(ctx context.Context, tx *db.Tx, told fleet.WorkflowJob, now time.Time) (bool, error) {
	told = Fold(fleet.WorkflowJob{Target: told.Target, ID: told.ID}, believable(told, now))
	known, added, err := tx.AddWorkflowJob(ctx, told, now)
	if err != nil {
		return false, err
	}
	next := told
	if !added {
		if next = Fold(known, told); same(known, next) {
			return false, nil
		}
		if err := tx.SaveWorkflowJob(ctx, next, now); err != nil {
			return false, err
		}
	}
	if err := i.wake(ctx, tx, next); err != nil {
		return false, err
	}
	return true, explain(ctx, tx, next, now)
}

const (
	// clockDifference is by how much the clock of a server may be ahead.
	clockDifference = time.Hour
	// longestRun is how long GitHub lets a run last, with its waiting for
	// approvals.
	// https://docs.github.com/en/actions/reference/limits
	longestRun = 35 * 24 * time.Hour
)

// believable is what was told of a workflow job, without an end at a time that
// cannot be: in the future a runner would seem to have worked until then, and
// years ago it would seem idle since. The end counts from now then. Other dates
// stay as they were told, since nothing but a display rests on them alone.
func believable(told fleet.WorkflowJob, now time.Time) fleet.WorkflowJob {
	if told.CompletedAt.IsZero() {
		return told
	}
	if told.CompletedAt.After(now.Add(clockDifference)) || told.CompletedAt.Before(now.Add(-longestRun)) {
		told.CompletedAt = now
	}
	return told
}

// mostWoken is how many pools an event has decided on at once. Which of them its
// job waits for is seen then; where it is none of these, after the next sync.
const mostWoken = 4

// wake has the pools decided on that a workflow job may wait for, or have left.
// Where there are none, what is wrong shows at the next decision on any pool.
func (i *Intake) wake(ctx context.Context, tx *db.Tx, j fleet.WorkflowJob) error {
	if i.Pools == nil {
		return nil
	}
	var triggers []fleet.Trigger
	for _, pool := range i.Pools(j.Target, j.Labels, mostWoken) {
		triggers = append(triggers, fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: pool, Source: fleet.SourceSync})
	}
	return tx.QueueOnce(ctx, triggers...)
}

// explain has a workflow job say why its runner is gone, where a sync found it
// gone before the event came.
func explain(ctx context.Context, tx *db.Tx, j fleet.WorkflowJob, now time.Time) error {
	if j.RunnerID == 0 {
		return nil
	}
	unexplained, err := tx.LockUnexplained(ctx, j.Target, j.RunnerID)
	if err != nil || !unexplained {
		return err
	}
	evidence, err := tx.Removals(ctx, j.Target, []int64{j.RunnerID}, now)
	if err != nil {
		return err
	}
	removal := evidence[j.RunnerID]
	cause := fleet.CauseOfRemoval(removal)
	if cause == fleet.CauseUnknown {
		return nil
	}
	if err := tx.ExplainRemoval(ctx, j.Target, j.RunnerID, cause); err != nil {
		return err
	}
	return tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditRemovalCause, Actor: fleet.System, Target: j.Target,
		RunnerID: j.RunnerID, RunnerName: removal.Name, Reason: "GitHub told of its workflow job after it was found gone",
		Details: map[string]any{"removal_cause": string(cause), "workflow_job_id": j.ID},
	})
}

// same reports whether two accounts of one job differ in nothing.
func same(a, b fleet.WorkflowJob) bool {
	return slices.Equal(a.Labels, b.Labels) && a.State == b.State && a.RunID == b.RunID && a.RunAttempt == b.RunAttempt &&
		a.Repository == b.Repository && a.RunnerID == b.RunnerID && a.RunnerName == b.RunnerName && a.Conclusion == b.Conclusion &&
		slices.EqualFunc(a.Runners, b.Runners, sameRunner) && a.QueuedAt.Equal(b.QueuedAt) && a.StartedAt.Equal(b.StartedAt) && a.CompletedAt.Equal(b.CompletedAt)
}

func sameRunner(a, b fleet.JobRunner) bool {
	return a.ID == b.ID && a.Name == b.Name && a.State == b.State && a.StartedAt.Equal(b.StartedAt)
}

func validDeliveryID(id string) bool {
	return id != "" && len(id) <= maxDeliveryID && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (i *Intake) observe(via Via, outcome Outcome) { i.observeFor("", via, outcome) }

func (i *Intake) observeFor(target string, via Via, outcome Outcome) {
	if i.Observe != nil {
		i.Observe(target, via, outcome)
	}
}
