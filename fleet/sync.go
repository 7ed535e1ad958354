package fleet

import "time"

// SyncOutcome says how much of a target a sync saw.
type SyncOutcome string

const (
	SyncComplete SyncOutcome = "complete"
	SyncPartial  SyncOutcome = "partial" // what was seen counts, what was not seen proves nothing
	SyncFailed   SyncOutcome = "failed"
)

// Suspect marks a complete listing that looks more like a fault than a fleet.
type Suspect string

const (
	SuspectNot         Suspect = ""
	SuspectEmpty       Suspect = "empty"
	SuspectShrunk      Suspect = "shrunk"
	SuspectMassOffline Suspect = "mass_offline"
)

// Sync is the record of one walk over a target.
type Sync struct {
	ID         string // UUID
	Target     string
	TriggerID  string
	StartedAt  time.Time
	FinishedAt time.Time
	Outcome    SyncOutcome
	Suspect    Suspect
	Pages      int
	APICalls   int
	// NotModified is how many of them were answered 304.
	NotModified int
	// APIRemaining is how many requests GitHub leaves in the current window;
	// negative: it does not say.
	APIRemaining int
	Runners      int // distinct runners seen
	// Unreadable counts the items of the listing that could not be read in full
	// and are kept as they were known. UnreadableItems names the first of them,
	// each with the reason.
	Unreadable      int
	UnreadableItems []string
	Added           int
	Changed         int
	Removed         int
	Error           string
}
