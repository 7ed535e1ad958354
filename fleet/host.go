package fleet

import (
	"slices"
	"strings"
	"time"
)

// HostNames names hosts. The zero HostNames names none.
type HostNames struct {
	Names    []string // exactly
	Prefixes []string // each literal, and never empty
}

// Has reports whether a host is named. Names are compared exactly: in a rule of
// trust, a pattern lets in more than it was meant to.
func (n HostNames) Has(host string) bool {
	begins := func(prefix string) bool { return prefix != "" && strings.HasPrefix(host, prefix) }
	return slices.Contains(n.Names, host) || slices.ContainsFunc(n.Prefixes, begins)
}

// HostState is what is known of a host as a whole.
type HostState string

const (
	HostBooting HostState = "booting" // got a token within 10 min, and no heartbeat since
	HostRunning HostState = "running" // a heartbeat within 3 min
	HostSilent  HostState = "silent"  // no heartbeat for 3 min
	HostGone    HostState = "gone"    // none for 24 h, or it said that all its runners are stopped
)

// HostRunnerState is what a host says of a runner program on it.
type HostRunnerState string

const (
	HostRunnerIdle    HostRunnerState = "idle" // the program runs, and has no workflow job
	HostRunnerBusy    HostRunnerState = "busy"
	HostRunnerStopped HostRunnerState = "stopped"
)

// HostRunner is a runner as its host sees it.
type HostRunner struct {
	Target string
	Name   string
	State  HostRunnerState
}

// Heartbeat is what a host says of itself at one moment: all runners on it,
// each once. What a heartbeat before listed and this one does not is no longer
// on the host.
type Heartbeat struct {
	Host    string // as the subject says, which nats-server enforces
	Runners []HostRunner
	At      time.Time // when it arrived
}

// HostRequest is what a host is asked about one of its runners, or told.
type HostRequest struct {
	Host   string
	Runner string // its name
	Reason string // a stable code or a name, for the host's log
	// DecisionID is the same in a drain and in the release that follows it, so
	// that a host can tell whether the drain still stands.
	DecisionID string
}

// DrainLife is how long a host that was drained waits for its release; after
// that it may let its runners take workflow jobs again, and muster sends none.
const DrainLife = 10 * time.Minute
