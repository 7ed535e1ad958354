package policies

// Reasons of the size of a pool: stable codes. Their numbers stand in the
// evidence. A decision has them in this order: what the desired size rests on,
// then what is done about it or why not.
const (
	// SizeForDemand: workflow jobs that wait or run, and those hosts that are
	// to wait for work, say how many there should be.
	SizeForDemand = "demand"
	// SizeForUtilisation: so many hosts are at work that more than
	// target_utilisation would be, were there no more than the jobs known.
	SizeForUtilisation = "utilisation"
	// SizeForPeriod: a period's min, max and idle hold (evidence period).
	SizeForPeriod = "period"
	// SizeForMin and SizeForMax: fewer or more would be wanted, and the bounds
	// say otherwise (evidence wanted).
	SizeForMin = "min"
	SizeForMax = "max"

	// SizeEnough: there are as many as desired.
	SizeEnough = "enough"
	// SizeBooting: there will be as many as desired, once those that boot are
	// there.
	SizeBooting = "hosts_booting"

	// SizeListingDoubtful: hosts of the pool are among so many of the target that
	// went offline at once that the next listing has to show it, too.
	SizeListingDoubtful = "listing_doubtful"
	// SizeBackoff: no host of the last requests came online, and none is asked
	// for before a moment (evidence retry_at).
	SizeBackoff = "lease_backoff"
	// SizeCooldownUp: the pool grew a moment ago (evidence cooldown_until).
	SizeCooldownUp = "cooldown_up"
	// SizeNoRoom: those that are there, booting or being taken away leave less
	// room under max than is wanted.
	SizeNoRoom = "no_room"
	// SizeDark: some of that room is taken by hosts that went offline within
	// boot_deadline, and may come back (evidence dark).
	SizeDark = "hosts_dark"
	// SizeStepUp and SizeStepDown: more would be changed, and the rest is for
	// later decisions.
	SizeStepUp   = "step_up"
	SizeStepDown = "step_down"

	// SizeDemandUnknown and SizeDemandStale: nobody knows how many jobs there
	// are now, so none is taken away.
	SizeDemandUnknown = "demand_unknown"
	SizeDemandStale   = "demand_stale"
	// SizeYoung: the pool has not been decided on for as long as the cool-down
	// window lasts, so nobody knows how many it had to be within it.
	SizeYoung = "window_unknown"
	// SizeWindow: as many as are there were desired within the cool-down window
	// (evidence highest).
	SizeWindow = "cooldown_window"
	// SizeCooldownDown: the pool shrank a moment ago (evidence cooldown_until).
	SizeCooldownDown = "cooldown_down"
	// SizeNotOurs: fewer of those without work, or none, can be given up than are
	// too many (evidence free): the others are new, held, or on a host that muster
	// does not know, so that nobody could be asked.
	SizeNotOurs = "hosts_unknown"
	// SizeInUse: those too many are at work, or wanted by a job as long as
	// others boot.
	SizeInUse = "hosts_in_use"
)
