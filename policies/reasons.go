package policies

// Reasons of a decision: stable codes. Their numbers stand in the evidence.
// A decision has them in this order.
const (
	// ReasonMatched stands in every act: the match is true, nothing exempts
	// the runner and every guard lets it go.
	ReasonMatched = "matched"
	// ReasonReport stands in an act of a policy that only reports.
	ReasonReport = "report"

	// ReasonNotMatched keeps a runner that was decided on before and that the
	// policy does not match any more. Decide makes no such decision: whoever
	// knows the last one does.
	ReasonNotMatched = "not_matched"

	// ReasonMatchError keeps a runner of which the match cannot be evaluated
	// (evidence error).
	ReasonMatchError = "match_error"
	// ReasonExempt keeps a runner for which an exemption is true (evidence
	// exempt: their names), ReasonExemptError one for which an exemption has an
	// error or rests on something unknown (evidence exempt_error).
	ReasonExempt      = "exempt"
	ReasonExemptError = "exempt_error"

	// ReasonRemoved keeps what is no longer registered.
	ReasonRemoved = "removed"
	// ReasonNameless keeps a runner whose name GitHub does not show: the last
	// look could not tell it from another.
	ReasonNameless = "nameless"
	// ReasonMissing keeps a runner that the newest complete listing lacks:
	// whether it is gone is being found out.
	ReasonMissing = "missing"
	// ReasonUnreadable keeps a runner that the newest listing shows in a form
	// that could not be read in full (evidence unreadable).
	ReasonUnreadable = "unreadable"
	// ReasonOnline keeps a runner that is not known to be offline.
	ReasonOnline = "online"
	// ReasonOffline keeps a runner that is not known to be online from being
	// drained: nobody could say whether a workflow job is on it.
	ReasonOffline = "offline"
	// ReasonNoHost keeps a runner from being drained of which it is not known
	// which host it is on.
	ReasonNoHost = "no_host"
	// ReasonYoung keeps a runner that was first seen less than min_lifetime ago.
	ReasonYoung = "young"
	// ReasonBusy keeps a runner that is busy or may be.
	ReasonBusy = "busy"
	// ReasonOpenJob keeps a runner on which a workflow job is in progress, as
	// GitHub's events tell, whatever its listings say.
	ReasonOpenJob = "open_job"
	// ReasonRefused keeps every runner of a target while a delivery that told of
	// its workflow jobs was turned away: one may be at work on any of them.
	ReasonRefused = "deliveries_refused"
	// ReasonHostBusy and ReasonHostAlive keep a runner whose host said within
	// the last three minutes that its program is at work, or waits for work.
	ReasonHostBusy  = "host_busy"
	ReasonHostAlive = "host_alive"
	// ReasonBooting keeps a runner that was registered a moment ago with a
	// token of muster's, and may not have had the time to connect.
	ReasonBooting = "booting"
	// ReasonHold keeps a runner that an operator wants kept.
	ReasonHold = "hold"

	// ReasonSpared: the last look before a deletion, or the host, spoke against
	// it, and no complete listing has begun since; or it is to be drained, and
	// that was less than ten minutes ago.
	ReasonSpared = "spared"

	// ReasonCredential: GitHub refuses the target's credential.
	ReasonCredential = "credential"
	// ReasonInventoryIncomplete: the newest sync did not see all.
	ReasonInventoryIncomplete = "inventory_incomplete"
	// ReasonInventoryStale: the last complete sync is older than max_age, or
	// there was none.
	ReasonInventoryStale = "inventory_stale"
	// ReasonInventorySuspect: the newest complete listing looks like a fault.
	ReasonInventorySuspect = "inventory_suspect"

	// ReasonWitnessListings: too few complete listings saw it offline.
	ReasonWitnessListings = "witness_listings"
	// ReasonWitnessApart: those listings are too close together.
	ReasonWitnessApart = "witness_apart"
	// ReasonMinSurvivors: fewer than min_survivors runners of the same labels
	// are online.
	ReasonMinSurvivors = "min_survivors"
	// ReasonGrace: it has not been matched for long enough.
	ReasonGrace = "grace"

	// ReasonHalted: the policy is halted for this target.
	ReasonHalted = "halted"
	// ReasonBrake: too much of the target has gone dark at once.
	ReasonBrake = "brake"
	// ReasonFreeze: it is due, and the policy is within a freeze.
	ReasonFreeze = "freeze"
	// ReasonOverMax: more runners are due than max allows, so none is acted on.
	ReasonOverMax = "over_max"
	// ReasonRate: it is due, and waits for a later run.
	ReasonRate = "rate"
	// ReasonBudget: it is due, and GitHub's limits on the credential do not
	// leave room for the last look and the deletion. Decide makes no such
	// decision: whoever asks GitHub does.
	ReasonBudget = "budget"
	// ReasonClock: it is due, and the clock has stepped within 15 minutes, so
	// that nobody knows which time has passed. Decide makes no such decision:
	// worker/remove does.
	ReasonClock = "clock"
)

// Keys of [Plan].Counts beside those of the reasons, which are "reason_" and
// the code.
const (
	CountEvaluated = "evaluated" // runners looked at
	CountMatched   = "matched"   // match true
	CountUnknown   = "unknown"   // match neither true nor false: something it rests on is unknown
	CountErrors    = "errors"    // expressions that could not be evaluated
	CountAct       = "act"
	CountKeep      = "keep" // decisions to keep; what did not match has no decision
	CountHalt      = "halt"
)
