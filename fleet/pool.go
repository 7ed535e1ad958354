package fleet

import "time"

// Pool is what an operator wrote of the hosts that serve one label set of a
// target.
type Pool struct {
	Name   string
	Target string
	Labels []string // that each of its runners carries: lower case, sorted, without repeats
	PoolBounds
	// TargetUtilisation is how much of the pool should be at work, above 0 and
	// at most 1: what is beyond it counts as too few hosts.
	TargetUtilisation float64
	BootDeadline      time.Duration // from the request for a host to its runner being online
	MinLifetime       time.Duration // before which no host is taken away for want of work
	Cooldown          PoolCooldown
	Step              PoolStep
	Periods           []PoolPeriod
}

// PoolBounds are how many hosts a pool may have, and how many of them are to
// wait for work.
type PoolBounds struct{ Min, Max, Idle int }

// PoolCooldown is how long a pool waits: with growing again, since it last
// grew, and with shrinking, since it last had to be larger.
type PoolCooldown struct{ Up, Down time.Duration }

// PoolStep is the most by which one decision changes a pool.
type PoolStep struct{ Up, Down Portion }

// Portion is a number of hosts, or a percentage of those there and booting:
// the one that is not 0.
type Portion struct{ Count, Percent int }

// Of is the portion of so many hosts, at least one host.
func (p Portion) Of(hosts int) int {
	if p.Percent == 0 {
		return max(p.Count, 1)
	}
	return max(hosts*p.Percent/100, 1)
}

// PoolPeriod is a time that comes again and again, in which other bounds hold:
// from each due moment of Cron on, for Duration as it passes.
type PoolPeriod struct {
	Cron     string
	TimeZone string // UTC or an IANA name
	Duration time.Duration
	PoolBounds
}

// Confidence is how far a number can be relied on.
type Confidence string

const (
	ConfidenceKnown Confidence = "known"
	// ConfidenceStale was known once, too long ago to rest a scale-down on.
	ConfidenceStale Confidence = "stale"
	// ConfidenceUnknown is a lower bound: what is counted is there, and nobody
	// knows what else is.
	ConfidenceUnknown Confidence = "unknown"
)

// Demand is how many workflow jobs want a host of a pool.
type Demand struct {
	Queued     int
	InProgress int
	OldestAt   time.Time // when the longest waiting of those queued was queued; zero: nobody waits, or it is not told
	At         time.Time // as of when all of GitHub's jobs were compared; zero: never
	Confidence Confidence
}

// Jobs is how many there are.
func (d Demand) Jobs() int { return d.Queued + d.InProgress }

// Supply is what a pool has. No host counts twice.
type Supply struct {
	Online int // connected, and not being taken away
	Busy   int // of those online, at work or perhaps at work
	// Booting counts the leases that are not over: asked for or registered,
	// not yet online, before their deadline.
	Booting  int
	Draining int // being taken away or leaving by themselves, and still there
	// Dark went offline within the time that a host has to boot. They serve
	// nobody, and take room all the same: a listing may be wrong, and they
	// may be back before another has booted.
	Dark int
	// Doubtful is whether the newest listing shows so much of the target newly
	// offline that the fault may be the listing's.
	Doubtful bool
	// Expired counts the leases in a row that ran out, and RetryAt is when the
	// next host may be asked for; zero: now.
	Expired int
	RetryAt time.Time
}

// Size is how many hosts there are or will be without anybody's doing.
func (s Supply) Size() int { return s.Online + s.Booting }

// SizeDirection is what a decision does to a pool.
type SizeDirection string

const (
	SizeUp   SizeDirection = "up"
	SizeHold SizeDirection = "hold"
	SizeDown SizeDirection = "down"
)

// SizeDecision is how many hosts a pool should have at one moment, and what is
// to be done for it now.
type SizeDecision struct {
	At      time.Time
	Pool    string
	Bounds  PoolBounds // that held at the moment
	Desired int
	// Direction and Change are what is to be done now: Change hosts more, or
	// Change fewer. Desired may lie further away.
	Direction SizeDirection
	Change    int
	Reasons   []string // stable codes, see package policies, in the order in which they were found
	Evidence  Evidence
	Memory    SizeMemory // for the next decision on the pool
	// NextAt is when a cool-down, a step or a back-off that holds the pool back
	// ends, so that another decision may do more; zero: nothing of that kind does.
	NextAt time.Time
}

// SizeMemory is what a decision has to know of those before it. The zero
// SizeMemory is that of a pool that was never decided on.
type SizeMemory struct {
	Since time.Time // of the first decision
	At    time.Time // of the newest one
	// Spans are the desired sizes that may still be the highest of the
	// cool-down window: until later from each to the next, and lower.
	Spans  []DesiredSpan
	UpAt   time.Time // when the pool was last told to grow
	DownAt time.Time // and to shrink
}

// DesiredSpan is a size that was desired until some moment.
type DesiredSpan struct {
	Desired int
	Until   time.Time
}

// FindingKind is a kind of thing that is wrong with a fleet and that a person
// has to look at.
type FindingKind string

const (
	// FindingUnlabelledJob is a workflow job that asks for no label, so that
	// nobody can tell which hosts it waits for.
	FindingUnlabelledJob FindingKind = "unlabelled_job"
	// FindingUnservedJob is a label set that queued workflow jobs ask for and
	// that neither a pool nor a runner outside of pools has.
	FindingUnservedJob FindingKind = "unserved_job"
	// FindingMislabelledHost is a pool whose hosts were registered without its
	// labels: they count, and serve none of its jobs.
	FindingMislabelledHost FindingKind = "mislabelled_host"
	// FindingClaimedRunner is a runner that a host lists in its heartbeat which has
	// neither a token of muster's nor a grant for the runner's name.
	FindingClaimedRunner FindingKind = "claimed_runner"
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind    FindingKind
	Target  string
	Subject string // what it is about: labels, a repository, a pool
	Since   time.Time
	Detail  Evidence
}

// demandFresh is for how long demand that was known counts as what it is. A
// host that is taken away in between is missed for minutes at most.
const demandFresh = 10 * time.Minute

// DemandConfidence is how far the workflow jobs that are known can be taken for
// all that there are: asOf is when they last were, zero for never, and whole is
// false where the newest comparison with GitHub did not come to its end.
func DemandConfidence(asOf time.Time, whole bool, now time.Time) Confidence {
	switch {
	case asOf.IsZero() || !whole:
		return ConfidenceUnknown
	case now.Sub(asOf) > demandFresh:
		return ConfidenceStale
	}
	return ConfidenceKnown
}
