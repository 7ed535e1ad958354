package fleet

import (
	"strings"
	"time"
)

// Job is a kind of work that muster does.
type Job string

const (
	JobSync      Job = "sync"
	JobEnforce   Job = "enforce"
	JobScale     Job = "scale"
	JobHousekeep Job = "housekeep"
)

// Jobs are all kinds of work there are.
var Jobs = []Job{JobSync, JobEnforce, JobScale, JobHousekeep}

// Named reports whether the job works on one name at a time, so that a
// trigger for All stands for one trigger per name. Housekeeping has no names:
// All is its only one.
func (j Job) Named() bool { return j != JobHousekeep }

// Source is who caused a trigger.
type Source string

const (
	SourceCron Source = "cron"
	SourceNATS Source = "nats"
	SourceCLI  Source = "cli"
	SourceSync Source = "sync" // what was learnt of GitHub asks for it: a complete sync, or an event
)

// Trigger is the message that makes a job run. It says "look at this again",
// never "do this".
type Trigger struct {
	ID     string // UUID; the key of the run
	Job    Job
	Name   string // a target, of JobScale a pool; or All
	Source Source
	Parent string // id of the trigger that named All, where this is one of its parts
	Reason string // free text of whoever published it
}

// TriggerPrefix begins the subject of every trigger.
const TriggerPrefix = "muster.v1.trigger."

// HeaderTrigger carries the id of a trigger that muster itself has published.
const HeaderTrigger = "Muster-Trigger"

// OutgoingBody is the body of every trigger that muster itself has published:
// what there is to say stands in its run.
const OutgoingBody = "{}"

// Subject is where the trigger is published.
func (t Trigger) Subject() string { return TriggerPrefix + string(t.Job) + "." + t.Name }

// SplitSubject takes the job and the name out of the subject of a trigger,
// whether or not there are such; ok is false where it is no trigger's.
func SplitSubject(subject string) (job Job, name string, ok bool) {
	rest, ok := strings.CutPrefix(subject, TriggerPrefix)
	if !ok {
		return "", "", false
	}
	first, name, ok := strings.Cut(rest, ".")
	return Job(first), name, ok && !strings.Contains(name, ".")
}

// Outgoing is the trigger as a message of the outbox: its id is the message's.
func (t Trigger) Outgoing() OutboxMessage {
	return OutboxMessage{
		ID: t.ID, Subject: t.Subject(), Body: []byte(OutgoingBody),
		Headers: map[string]string{HeaderTrigger: t.ID},
	}
}

// RunState is how far the run of a trigger has come.
type RunState string

const (
	// RunQueued is internal: the outbox holds the trigger, nobody has begun.
	RunQueued  RunState = "queued"
	RunRunning RunState = "running"
	RunDone    RunState = "done"
	RunFailed  RunState = "failed" // and will be tried again
	RunDead    RunState = "dead"   // and will not
	RunJoined  RunState = "joined" // done with another run of the same job and name
)

// Ended reports whether nothing is left to do.
func (s RunState) Ended() bool { return s == RunDone || s == RunDead || s == RunJoined }

// Counts are the figures a run leaves behind, by a stable key.
type Counts map[string]int64

// CountNoInventory is the figure of a run that had something to decide on a
// target which was never synced, and left it: how many pools or policies.
const CountNoInventory = "no_inventory"

// Run is one trigger being worked on.
type Run struct {
	Trigger    Trigger
	Attempt    int
	State      RunState
	StartedAt  time.Time
	FinishedAt time.Time
	Error      string
	Counts     Counts
	// Lasting says that no repetition mends what the newest attempt failed for,
	// such as a credential that GitHub refuses.
	Lasting  bool
	JoinedTo string // id of the trigger that it is done with; empty: of none
}

// Disposition is what the record says to somebody who wants to begin a run.
type Disposition string

const (
	DispositionStarted   Disposition = "started"   // it is yours, under a lease
	DispositionFinished  Disposition = "finished"  // done, dead or joined: nothing is left to do
	DispositionJoined    Disposition = "joined"    // just now, to a run that waits for the same job and name
	DispositionElsewhere Disposition = "elsewhere" // somebody else holds a live lease
	DispositionReady     Disposition = "ready"     // nothing keeps it from being begun, as far as is known
)

// Begun is the answer to the wish to begin a run.
type Begun struct {
	Disposition Disposition
	// Run is the run as recorded, with Source, Parent and Attempt: what the
	// store knows of a trigger wins over what its message says.
	Run Run
	// RetryAfter is how long the lease of somebody else still lasts.
	RetryAfter time.Duration
}

// DeadLetter is a message that failed for good.
type DeadLetter struct {
	ID        string // UUID
	Subject   string
	TriggerID string // empty where the message never became a trigger
	Body      string // at most 16 KiB, invalid UTF-8 replaced
	Error     string
	Attempts  int
	DiedAt    time.Time
}

// TickState is what became of one due moment of a schedule.
type TickState string

const (
	TickFired   TickState = "fired"
	TickMissed  TickState = "missed"  // nobody was there within the deadline
	TickSkipped TickState = "skipped" // the run before was still going
)

// Tick is one due moment of a schedule.
type Tick struct {
	Schedule  string // JOB/NAME
	At        time.Time
	State     TickState
	FiredAt   time.Time
	TriggerID string
}

// OutboxMessage is something to be published once the transaction that wrote
// it has committed. Its ID is the message id on the wire.
type OutboxMessage struct {
	ID      string // UUID
	Subject string
	Headers map[string]string
	Body    []byte
	Due     time.Time // when it is to be published, by Postgres's clock; zero: at once
}
