package fleet

import (
	"cmp"
	"time"
)

// Status is what GitHub says of the connection of a runner.
type Status string

const (
	StatusOnline  Status = "online"
	StatusOffline Status = "offline"
)

// Runner is a registration as GitHub showed it at one moment. An empty field
// means that GitHub did not say: [Runner.Or] fills it from what was known.
type Runner struct {
	ID   int64
	Name string
	// OS is linux, windows or macos, whatever the server calls them, else the
	// server's word in lower case. It is empty too where GitHub says "unknown",
	// as it does for a runner that has never connected.
	OS     string
	Status Status // empty where GitHub does not say
	// Busy is true too where GitHub left the field out: unknown is never a
	// licence to delete.
	Busy bool
	// Labels are in lower case, sorted and without repeats. Every self-hosted
	// runner has labels, so an empty list means that they are not known: GitHub
	// lists a lost machine with an empty list (issue 10).
	Labels    []string
	Group     string // id of the runner group
	Ephemeral Known
	Version   string // of the runner program
	// Unreadable says why GitHub's answer about the runner could not be read in
	// full; empty: it could.
	Unreadable string
}

// Or gives the runner with the fields that GitHub did not say taken from what
// was known of the same runner before.
func (r Runner) Or(known Runner) Runner {
	r.Name = cmp.Or(r.Name, known.Name)
	r.OS = cmp.Or(r.OS, known.OS)
	r.Status = cmp.Or(r.Status, known.Status)
	r.Group = cmp.Or(r.Group, known.Group)
	r.Ephemeral = cmp.Or(r.Ephemeral, known.Ephemeral)
	r.Version = cmp.Or(r.Version, known.Version)
	if len(r.Labels) == 0 {
		r.Labels = known.Labels
	}
	return r
}

// Observed is a runner with what muster has seen of it over time. Zero times
// and durations mean "not known".
type Observed struct {
	Runner
	Target       string
	Host         string // that asked for the token it was registered with, where known
	Pool         string // that asked for its host; empty: none, or not known
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
	// SparedAt is when a last look before a deletion, or its host, last spoke
	// against it; zero: not within a day before the newest complete sync.
	SparedAt time.Time
	// MissingSince is when a complete listing first lacked the runner, without
	// a proof that it is gone.
	MissingSince time.Time

	Work     Work       // what workflow jobs say of it
	Refused  Refused    // what its target was told of workflow jobs and did not take in
	HostSays HostReport // what hosts say of it
	Hold     Hold
	// Claim is what a host of the runner's very name says, where no token shows
	// whose the runner is. See Vouch.
	Claim HostClaim
}

// Booting reports whether the runner was registered with a token of muster's a
// moment ago, and may not have had the time to connect.
func (o *Observed) Booting(now time.Time) bool {
	return o.Host != "" && !o.HostSays.TokenAt.IsZero() && o.LastOnlineAt.IsZero() && now.Sub(o.FirstSeenAt) < BootTime
}

// Vouch decides whether the claim of a host to the runner counts: it does where
// a grant lets that host register runners with the target. Else the host is a
// stranger to the runner. Whoever reads runners to decide on them calls it first.
func (o *Observed) Vouch(hosts HostNames) {
	claim := o.Claim
	o.Claim = HostClaim{}
	switch {
	case claim.Host == "":
	case hosts.Has(claim.Host):
		o.HostSays.Name, o.HostSays.SeenAt, o.HostSays.Stopped = claim.Host, claim.SeenAt, claim.Stopped
	default:
		o.HostSays.Stranger = cmp.Or(o.HostSays.Stranger, claim.Host)
	}
}

// Machine is the host that the runner is on, which may be asked to let it go;
// empty where that is not known. A host is known by custody alone: it was handed
// a token of muster's for the runner's name, or the runner has its name and a
// grant lets it register runners with the target. Any host can list any runner in
// its heartbeat, and would then be asked whether another machine is at work. Where
// another host lists the runner too, what is known does not agree.
func (o *Observed) Machine() string {
	switch {
	case o.HostSays.Stranger != "":
		return ""
	case o.Host != "":
		return o.Host
	}
	return o.HostSays.Name
}

// IdleSince is when the runner was last known to work; zero: that is not known,
// or it works now. Its workflow jobs may all have run between two looks, so one
// that was never seen busy may not have been idle.
func (o *Observed) IdleSince(now time.Time) time.Time {
	if o.Busy || o.Work.Open(now) {
		return time.Time{}
	}
	if o.Work.LastDoneAt.After(o.LastBusyAt) {
		return o.Work.LastDoneAt
	}
	return o.LastBusyAt
}

// LastThereAt is when the runner was last seen online, or first seen at all
// where it never was.
func (o *Observed) LastThereAt() time.Time {
	if o.LastOnlineAt.IsZero() {
		return o.FirstSeenAt
	}
	return o.LastOnlineAt
}

// Neighbours counts the other live runners of the target around one runner.
// Those that the newest complete listing lacks do not count.
type Neighbours struct {
	Alike int // online, with the very same labels
	Newer int // registered by the same host since this one was last there; 0 where the host is not known
}

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
