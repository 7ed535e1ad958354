package fleet

import "time"

// Verdict is what a decision says of one runner under one policy.
type Verdict string

const (
	VerdictAct  Verdict = "act"
	VerdictKeep Verdict = "keep"
	// VerdictHalt means that the runner would have been acted on, had the
	// policy not run into its limit: nobody is acted on.
	VerdictHalt Verdict = "halt"
)

// Enforcement says how far a policy may go.
type Enforcement string

const (
	EnforcementDisabled Enforcement = "disabled"
	EnforcementAudit    Enforcement = "audit" // decide and record, never act
	EnforcementEnforce  Enforcement = "enforce"
)

// ActionKind is something a policy may do to a runner.
type ActionKind string

const (
	ActionDeleteRunner ActionKind = "delete_runner"
	ActionReport       ActionKind = "report"
	// A drain comes before a deletion, and a release after it: a policy has
	// them beside delete_runner.
	ActionDrainHost   ActionKind = "drain_host"
	ActionReleaseHost ActionKind = "release_host"
)

// Evidence is what a decision rests on: numbers, times and texts by a stable
// key. Values are strings, bools, integers or floats.
type Evidence map[string]any

// Decision is the verdict on one runner under one policy at one moment.
type Decision struct {
	ID           string // UUID; empty until stored
	At           time.Time
	TriggerID    string
	Policy       string
	PolicySHA256 string // hex; empty for the built-in operator policy
	Enforcement  Enforcement
	Target       string
	RunnerID     int64
	Name         string
	Verdict      Verdict
	Action       ActionKind
	Reasons      []string // stable codes, see package policies; never numbers
	Evidence     Evidence
}

// ActionState is how far an action has come.
type ActionState string

const (
	ActionIntended ActionState = "intended"
	ActionDone     ActionState = "done"   // GitHub confirmed it
	ActionGone     ActionState = "gone"   // the runner was not there any more
	ActionSpared   ActionState = "spared" // the last look spoke against it
	ActionFailed   ActionState = "failed"
)

// Action is an intent with its outcome.
type Action struct {
	ID         string // UUID
	DecisionID string
	TriggerID  string
	Policy     string
	Target     string
	RunnerID   int64
	Name       string
	Kind       ActionKind
	State      ActionState
	Reason     string // a stable code, then words where they help
	HTTPStatus int    // of the deciding answer; 0 where none came
	IntendedAt time.Time
	SettledAt  time.Time

	// Host is who has to say first that no workflow job runs there; empty:
	// nobody has to be asked. DrainedAt is when it said so; zero: it has not.
	Host      string
	DrainedAt time.Time
	Release   bool // tell the host that it is not needed any more, once the runner is gone
}

// PolicyState is whether a policy may act on a target.
type PolicyState struct {
	Policy      string
	Target      string
	SHA256      string
	Enforcement Enforcement
	Halted      bool
	Reason      string // why halted, with its numbers
	// Allowance is how many runners may be acted on beyond the caps, once:
	// what is left of what an operator gave with policy resume --allow, for a
	// day.
	Allowance int
	// BrakeFrom is when the newest walk began that an operator had looked at
	// on ending a halt of the brake: what it showed trips no brake again.
	// Zero: none was.
	BrakeFrom time.Time
	LastRunAt time.Time
}
