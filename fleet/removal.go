package fleet

import (
	"strconv"
	"strings"
	"time"
)

// RemovalCause says why a runner is no longer registered.
type RemovalCause string

const (
	CausePolicy    RemovalCause = "policy"
	CauseScaleDown RemovalCause = "scale_down" // its pool had too many hosts
	CauseOperator  RemovalCause = "operator"
	CauseHost      RemovalCause = "host"      // its host took it away
	CauseEphemeral RemovalCause = "ephemeral" // it had its one workflow job
	CauseGitHub    RemovalCause = "github"    // GitHub let it expire
	CauseUnknown   RemovalCause = "unknown"
)

// Removal is what is known of a runner that is no longer registered and that
// muster is not known to have deleted. Zero values mean "not known".
type Removal struct {
	RunnerID    int64
	Name        string
	Ephemeral   bool
	Offline     bool      // when last seen
	At          time.Time // when it was found gone
	LastSeenAt  time.Time
	LastThereAt time.Time // last seen online, or first seen where it never was
	LastBusyAt  time.Time
	Work        Work
	// TokenAt and TokenUntil span the life of the newest removal token that
	// its host was given for the target.
	TokenAt, TokenUntil time.Time
	StoppedAt           time.Time // since when its host says that its program is stopped
	// ServerVersion is that of a GitHub Enterprise Server; empty on github.com.
	ServerVersion string
}

// promptly is how soon a registration goes whose end has a cause: GitHub takes
// an ephemeral runner away with its job, config.sh remove a host's own. With
// room for servers that are slow, and clocks that differ. What was there for
// longer went for another reason.
const promptly = time.Hour

// CauseOfRemoval says why a runner is gone, as far as that can be told. It is
// pure. The nearest cause wins: an ephemeral runner whose job just ended was
// not taken away by its host, and neither by GitHub for being away too long.
func CauseOfRemoval(r Removal) RemovalCause {
	worked := r.LastBusyAt
	if r.Work.LastDoneAt.After(worked) {
		worked = r.Work.LastDoneAt
	}
	soonAfter := func(what time.Time) bool { return !what.IsZero() && r.LastSeenAt.Sub(what) <= promptly }
	switch {
	case r.Ephemeral && (r.Work.Open(r.At) || soonAfter(worked)):
		// It had a job, and that alone takes it away so soon, whether or not
		// the event of the job's end has come.
		return CauseEphemeral
	case !r.TokenAt.IsZero() && !r.TokenAt.After(r.At) && !r.TokenUntil.Before(r.LastSeenAt):
		return CauseHost // while it held a token that is good for this alone
	case soonAfter(r.StoppedAt) && !r.StoppedAt.After(r.At):
		return CauseHost
	case r.Offline && !r.LastThereAt.IsZero() && r.At.Sub(r.LastThereAt) >= registrationLife(r.Ephemeral, r.ServerVersion):
		return CauseGitHub
	}
	return CauseUnknown
}

const day = 24 * time.Hour

// registrationLife is for how long GitHub keeps a runner that does not
// connect: 14 days, or one where it is ephemeral; GitHub Enterprise Server
// before 3.7 keeps all for 30.
// https://docs.github.com/en/actions/reference/runners/self-hosted-runners
func registrationLife(ephemeral bool, serverVersion string) time.Duration {
	major, rest, _ := strings.Cut(serverVersion, ".")
	minor, _, _ := strings.Cut(rest, ".")
	m, errMajor := strconv.Atoi(major)
	n, errMinor := strconv.Atoi(minor)
	switch {
	case errMajor == nil && errMinor == nil && (m < 3 || m == 3 && n < 7):
		return 30 * day
	case ephemeral:
		return day
	}
	return 14 * day
}
