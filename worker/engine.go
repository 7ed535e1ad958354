package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

const (
	defaultTimeout     = 10 * time.Minute
	defaultLease       = 10 * time.Second
	defaultMaxAttempts = 8
	defaultGrace       = 20 * time.Second
	defaultWorkers     = 4
	defaultBackoffBase = time.Second
	defaultBackoffMax  = 5 * time.Minute

	// redeliverAfter is after how many leases a message comes again whose process
	// died: later than the next trigger of its name may begin, since a process
	// that stands still for some seconds is no dead one.
	redeliverAfter = 3

	// recordTimeout bounds each writing of the record, after a stop too.
	recordTimeout = 5 * time.Second
	// recorderBackoffMax is the longest pause while the record cannot be
	// written: short, as Postgres back means work again.
	recorderBackoffMax = 30 * time.Second
)

// Engine runs the jobs that triggers ask for. Zero values stand for the
// default in the comment; the rest is required.
type Engine struct {
	Log      *slog.Logger
	Conn     *queue.Conn
	Recorder Recorder
	Handlers map[fleet.Job]Handler
	// Names are what a job may be asked for by name, as the configuration
	// says now. It is asked for jobs that are Named only.
	Names func(fleet.Job) []string
	// Observe is told of every delivery; nil: nobody is. It must be quick.
	Observe func(Outcome)

	Workers     map[fleet.Job]int // runs at once in this process, per job; 4
	Timeout     time.Duration     // of one attempt; 10 min
	Lease       time.Duration     // how long after a crash others wait; 10 s
	MaxAttempts int               // before a trigger is dead; 8
	Grace       time.Duration     // what running handlers get after a stop; 20 s
	BackoffBase time.Duration     // pause after the first failure, doubled after each; 1 s
	BackoffMax  time.Duration     // 5 min

	going *going
}

// Result is what became of a delivery.
type Result string

const (
	ResultDone        Result = "done"
	ResultFailed      Result = "failed"      // and will be tried again
	ResultDead        Result = "dead"        // failed for good
	ResultRejected    Result = "rejected"    // never was a trigger
	ResultInterrupted Result = "interrupted" // by a stop; does not count as an attempt
	ResultLost        Result = "lost"        // somebody else has taken the run over
	ResultRepeat      Result = "repeat"      // was done, dead or joined before
	ResultJoined      Result = "joined"      // is done with another trigger, which waits
	ResultElsewhere   Result = "elsewhere"   // a run of it, or of its job and name, is going; comes again
	ResultUnrecorded  Result = "unrecorded"  // the record could not be written; comes again
)

// Outcome tells of one delivery.
type Outcome struct {
	Job    fleet.Job // empty where the message names none that is known
	Name   string    // empty where the message names none that is known
	Result Result
	Lag    time.Duration // from the stream to this process
	Took   time.Duration // from there to the verdict
}

// Run consumes triggers until ctx ends. It then takes nothing new, lets what
// is running finish for Grace, cancels it, records how it ended and returns
// nil. Several processes may run at once. An error means that something
// required is missing, or that the connection was closed.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.check(); err != nil {
		return err
	}
	e = e.withDefaults()
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	g, intake := errgroup.WithContext(ctx)

	var stopper sync.WaitGroup
	stopped := make(chan struct{})
	stopper.Go(func() { e.stop(intake, stopped, cancel) })
	defer stopper.Wait()
	defer close(stopped)

	for job := range e.Handlers {
		consumer := queue.Consumer{
			Durable: "muster-" + string(job), Subjects: []string{queue.TriggerSubject(job, "*")},
			Workers: e.workers(job), AckWait: redeliverAfter * e.Lease,
		}
		g.Go(func() error {
			one := func(_ context.Context, m queue.Message) queue.Verdict { return e.deliver(work, m) }
			many := func(_ context.Context, b *queue.Batch) { e.deliverTogether(work, b) }
			return e.Conn.ConsumeTogether(intake, consumer, one, many)
		})
	}
	// The jobs' consumers see only subjects of theirs. Whatever else is
	// published under the prefix is somebody's mistake, and has to be seen.
	unrouted := queue.Consumer{Durable: "muster-unrouted", Subjects: []string{fleet.TriggerPrefix + ">"}, AckWait: redeliverAfter * e.Lease}
	g.Go(func() error {
		one := func(_ context.Context, m queue.Message) queue.Verdict {
			if e.routed(m) {
				return queue.Ack()
			}
			return e.deliver(work, m)
		}
		many := func(_ context.Context, b *queue.Batch) { e.deliverUnrouted(work, b) }
		return e.Conn.ConsumeTogether(intake, unrouted, one, many)
	})
	return g.Wait()
}

// routed reports whether the message comes to the consumer of a job too.
func (e *Engine) routed(m queue.Message) bool {
	job, _, ok := fleet.SplitSubject(m.Subject)
	return ok && e.Handlers[job] != nil
}

func (e *Engine) check() error {
	var missing []error
	need := func(there bool, field string) {
		if !there {
			missing = append(missing, fmt.Errorf("engine: %s is needed", field))
		}
	}
	need(e.Log != nil, "Log")
	need(e.Conn != nil, "Conn")
	need(e.Recorder != nil, "Recorder")
	need(e.Names != nil, "Names")
	need(len(e.Handlers) > 0, "a handler")
	for job, handler := range e.Handlers {
		need(handler != nil, "a handler of "+string(job))
	}
	return errors.Join(missing...)
}

func (e *Engine) withDefaults() *Engine {
	c := *e
	fill(&c.Timeout, defaultTimeout)
	fill(&c.Lease, defaultLease)
	fill(&c.MaxAttempts, defaultMaxAttempts)
	fill(&c.Grace, defaultGrace)
	fill(&c.BackoffBase, defaultBackoffBase)
	fill(&c.BackoffMax, defaultBackoffMax)
	c.going = &going{}
	if c.Observe == nil {
		c.Observe = func(Outcome) {}
	}
	return &c
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (e *Engine) workers(job fleet.Job) int {
	if n := e.Workers[job]; n > 0 {
		return n
	}
	return defaultWorkers
}
