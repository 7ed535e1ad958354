package fleet

import "time"

// What others than GitHub's listings say of a runner. Zero values mean that
// they said nothing, which neither speaks for the runner nor against it.

// LongestWorkflowJob is when GitHub itself ends a workflow job on a runner of
// one's own: what has been open for longer has lost its end.
// https://docs.github.com/en/actions/reference/limits
const LongestWorkflowJob = 5 * 24 * time.Hour

// HeartbeatLife is how long what a host said of its runners stands.
const HeartbeatLife = 3 * time.Minute

// BootTime is how long a runner that was registered with a token of muster's
// may take to connect.
const BootTime = 10 * time.Minute

// Work is what workflow jobs say of a runner.
type Work struct {
	OpenJob    int64     // id of the newest one that is in progress on it; 0: none
	OpenSince  time.Time // when that one began, by the clock of its server
	HeardAt    time.Time // when an event last told something new of that one; zero: OpenSince counts alone
	LastDoneAt time.Time // when the newest that is completed ended
}

// Open reports whether a workflow job runs on the runner, as far as its events
// tell. The date that a server gives may be wrong by years, so the job also counts
// for as long as a job may last after it was last heard of (issue 10).
func (w Work) Open(now time.Time) bool {
	newest := w.OpenSince
	if w.HeardAt.After(newest) {
		newest = w.HeardAt
	}
	return w.OpenJob != 0 && now.Sub(newest) <= LongestWorkflowJob
}

// Refused is what was turned away of the deliveries that tell of a target's
// workflow jobs, and is not made good yet. The zero value: nothing.
type Refused struct {
	Deliveries   int
	Since, Until time.Time // when the first and the newest came
	Reason       string    // of the newest
}

// Stands reports whether a workflow job may be at work that nobody here has heard
// of for that reason. What was told longer ago than a job may last tells nothing
// any more.
func (r Refused) Stands(now time.Time) bool {
	return r.Deliveries > 0 && now.Sub(r.Until) <= LongestWorkflowJob
}

// HostClaim is a host that lists a runner in its heartbeat, and how it fares
// itself. The zero HostClaim says that none does.
type HostClaim struct {
	Host    string
	SeenAt  time.Time // its newest heartbeat
	Stopped bool      // that one said of all its runners that they are stopped
}

// HostReport is what is known of the host that a runner is on, and what hosts
// last said of the runner. What speaks against a runner is taken from its own
// host alone; what protects it, from any host.
type HostReport struct {
	Name     string    // its own host, where that lists the runner; empty: it does not
	SeenAt   time.Time // the newest heartbeat of its own host; zero: none came
	Stopped  bool      // that one said of all its runners that they are stopped
	TokenAt  time.Time // when its own host was last handed a token to register with; zero: never
	Stranger string    // another host that lists the runner; empty: none does
	// BusyAt and IdleAt are when the heartbeat of any host came that last said of
	// this runner that its program is at work, or waits for work, and still stands.
	BusyAt, IdleAt time.Time
}

// State is that of the host as a whole; empty: the host is not known. api.hosts
// shows the same.
func (h HostReport) State(now time.Time) HostState {
	switch {
	case h.SeenAt.IsZero() && h.TokenAt.IsZero():
		return ""
	case h.SeenAt.After(now.Add(-HeartbeatLife)) && !h.Stopped:
		return HostRunning
	case h.TokenAt.After(now.Add(-BootTime)) && h.TokenAt.After(h.SeenAt):
		return HostBooting
	case h.Stopped || !h.SeenAt.IsZero() && !h.SeenAt.After(now.Add(-24*time.Hour)):
		return HostGone
	}
	return HostSilent
}

// Says is what the host says of the runner at now: busy, idle, or empty where
// it said neither within HeartbeatLife.
func (h HostReport) Says(now time.Time) HostRunnerState {
	since := now.Add(-HeartbeatLife)
	switch {
	case h.BusyAt.After(since):
		return HostRunnerBusy
	case h.IdleAt.After(since):
		return HostRunnerIdle
	}
	return ""
}

// Hold is an operator's word that a runner must not be acted on. The zero Hold
// is none.
type Hold struct {
	Reason string
	By     string
	At     time.Time // zero: there is no hold
	Until  time.Time // zero: until it is lifted
}

// Stands reports whether the hold is in force.
func (h Hold) Stands(now time.Time) bool {
	return !h.At.IsZero() && (h.Until.IsZero() || now.Before(h.Until))
}
