package demand

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

const (
	// durable is the consumer that all replicas share.
	durable = "muster-github"
	// consumers is how many events are folded at once by this process.
	consumers = 4
	// maxAttempts is how often an event is tried that the record refuses. While
	// Postgres is away none counts.
	maxAttempts = 12
	// awayPause is when to try again while Postgres is away, and failPause the
	// first pause after any other failure, doubled up to failPauseMost.
	awayPause     = 5 * time.Second
	failPause     = time.Second
	failPauseMost = time.Minute
	maxSubject    = 256  // bytes of a subject that are recorded
	maxError      = 4096 // bytes of an error that are recorded
)

// Headers of an event that somebody's webhook receiver hands on.
const (
	headerEvent    = "X-GitHub-Event"
	headerDelivery = "X-GitHub-Delivery"
	headerTarget   = "Muster-Target"
)

// consumer is the side of queue.Conn that hands out messages.
type consumer interface {
	Consume(ctx context.Context, c queue.Consumer, handle func(context.Context, queue.Message) queue.Verdict) error
}

// Consume takes in events that webhook receivers of other people's have
// checked and published, until ctx ends. What cannot be read becomes a dead
// letter. An error means that the connection was closed.
func (i *Intake) Consume(ctx context.Context) error {
	c := queue.Consumer{
		Stream: queue.StreamGitHub, Durable: durable, Subjects: []string{queue.GitHubSubject(">")}, Workers: consumers,
	}
	return i.Conn.Consume(ctx, c, i.handle)
}

func (i *Intake) handle(ctx context.Context, m queue.Message) queue.Verdict {
	fault, err := i.takeIn(ctx, m)
	subject := fleet.CleanText(m.Subject, maxSubject)
	switch {
	case fault == nil && err == nil:
		return queue.Ack()
	case fault == nil && !away(err) && m.Delivered >= maxAttempts:
		fault = err
	}
	if fault != nil {
		if err = i.reject(ctx, letter(m, fault)); err == nil {
			i.Log.WarnContext(ctx, "event given up", "subject", subject, "delivery", m.Delivered, "err", fault)
			return queue.Term(fault.Error())
		}
	}
	again := pause(m.Delivered, err)
	i.Log.WarnContext(ctx, "event not recorded yet", "subject", subject, "delivery", m.Delivered, "again_in", again, "err", err)
	return queue.Retry(again)
}

// takeIn folds the event that the message is. The fault is what makes it none,
// however often it comes; the error is why it could not be recorded this time.
func (i *Intake) takeIn(ctx context.Context, m queue.Message) (fault, err error) {
	ctx, cancel := context.WithTimeout(ctx, foldLimit)
	defer cancel()
	defer func() {
		if fault != nil {
			i.observe(ViaNATS, OutcomeMalformed)
		}
	}()
	event, id, name := m.Header(headerEvent), m.Header(headerDelivery), m.Header(headerTarget)
	said := strings.TrimPrefix(m.Subject, queue.GitHubSubject(""))
	target, known := i.Targets()[name]
	switch {
	case event == "" || id == "" || name == "":
		return fmt.Errorf("want the headers %s, %s and %s", headerEvent, headerDelivery, headerTarget), nil
	case event != said:
		return fmt.Errorf("header %s is %q, and the subject says %q", headerEvent, fleet.CleanText(event, maxSubject), fleet.CleanText(said, maxSubject)), nil
	case !validDeliveryID(id):
		return fmt.Errorf("header %s is not 1 to %d printable characters", headerDelivery, maxDeliveryID), nil
	case !known:
		return fmt.Errorf("header %s: there is no target %q in the configuration", headerTarget, fleet.CleanText(name, maxSubject)), nil
	}
	e, ok, err := read(event, m.Body)
	switch {
	case err != nil:
		return err, nil
	case !ok:
		i.observe(ViaNATS, OutcomeIgnored)
		return nil, nil
	case !e.Concerns(target.Scope):
		return fmt.Errorf("header %s is %s, which is %s: the event is of %q", headerTarget, name, target.Scope, e.Job.Repository), nil
	}
	return nil, i.fold(ctx, ViaNATS, []string{name}, id, e.Job, nil)
}

func (i *Intake) reject(ctx context.Context, l fleet.DeadLetter) error {
	ctx, cancel := context.WithTimeout(ctx, foldLimit)
	defer cancel()
	return db.Runs{DB: i.DB}.Reject(ctx, l)
}

// away reports whether an error says that Postgres is not there, or does not
// answer, rather than that it refuses something.
func away(err error) bool {
	return errors.Is(err, fleet.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// letter is the message as it is kept when it is given up. Its id is the same
// at each delivery, so that it is kept once.
func letter(m queue.Message, fault error) fleet.DeadLetter {
	return fleet.DeadLetter{
		ID: m.TriggerID, Subject: fleet.CleanText(m.Subject, maxSubject), Body: fleet.CleanText(string(m.Body), queue.MaxBody),
		Error: fleet.CleanText(fault.Error(), maxError), Attempts: m.Delivered,
	}
}

func pause(delivered int, err error) time.Duration {
	if away(err) {
		return awayPause
	}
	return min(failPause<<min(max(delivered-1, 0), 10), failPauseMost)
}
