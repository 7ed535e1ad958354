package fleet

import "time"

// Status is what GitHub says of the connection of a runner.
type Status string

const (
	StatusOnline  Status = "online"
	StatusOffline Status = "offline"
)

// Runner is a registration as GitHub showed it at one moment.
type Runner struct {
	ID     int64
	Name   string
	OS     string // free-form: "linux", "Linux", "Ubuntu 22.04.5 LTS", "unknown"
	Status Status
	// Busy is true too where GitHub left the field out: unknown is never a
	// licence to delete.
	Busy      bool
	Labels    []string // lower case, sorted, without repeats
	Group     string   // id of the runner group, empty where the server does not say
	Ephemeral bool     // false too where the server does not say
	Version   string   // of the runner program, empty where the server does not say
}

// Observed is a runner with what muster has seen of it over time. Zero times
// and durations mean "not known".
type Observed struct {
	Runner
	Target       string
	Host         string // that asked for the token it was registered with, where known
	FirstSeenAt  time.Time
	LastSeenAt   time.Time
	StatusSince  time.Time
	OfflineSince time.Time // first observation of the unbroken offline run
	LastOnlineAt time.Time // zero: never seen online
	LastBusyAt   time.Time // zero: never seen busy
	RemovedAt    time.Time // zero: live
	RemovalCause RemovalCause

	// OfflineFor is observed offline time: the sum of the intervals between
	// consecutive complete syncs that both saw the runner offline, intervals
	// longer than the target's MaxObservationGap counting nothing.
	OfflineFor time.Duration
	// OfflineListings counts the complete syncs within the unbroken run, and
	// OfflineSpan is the time from the first of them to the last.
	OfflineListings int
	OfflineSpan     time.Duration
	// SparedAt is when a last look before a deletion last spoke against it.
	SparedAt time.Time
	// MissingSince is when a complete listing first lacked the runner, without
	// a proof that it is gone.
	MissingSince time.Time
}

// RemovalCause says why a runner is no longer registered.
type RemovalCause string

const (
	CausePolicy   RemovalCause = "policy"
	CauseOperator RemovalCause = "operator"
	CauseUnknown  RemovalCause = "unknown"
)

// Change is one kind of transition in a runner's history.
type Change string

const (
	ChangeRegistered Change = "registered"
	ChangeOnline     Change = "online"
	ChangeOffline    Change = "offline"
	ChangeBusy       Change = "busy"
	ChangeIdle       Change = "idle"
	ChangeRelabelled Change = "relabelled"
	ChangeRenamed    Change = "renamed"
	ChangeRemoved    Change = "removed"
)

// Download is one runner application that a server offers.
type Download struct {
	OS, Architecture, URL, Filename, SHA256 string
}
