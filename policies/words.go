package policies

import (
	"fmt"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Words say what the code of a reason means for one decision.
type Words struct {
	Says  string // what is so
	Needs string // what would have to happen for the runner to be acted on; empty: nothing
}

// InWords puts a reason of a decision in words, with the numbers of the
// decision's evidence as far as it has them.
func InWords(reason string, e fleet.Evidence) Words {
	if say, ok := words[reason]; ok {
		return say(quotable(e))
	}
	return Words{Says: reason}
}

// quotable is evidence to be quoted: as it was made, or read back from JSON.
type quotable fleet.Evidence

func (e quotable) text(key string) string {
	switch x := e[key].(type) {
	case float64:
		return fmt.Sprintf("%.0f", x)
	case nil:
		return "?"
	default:
		return fmt.Sprint(x)
	}
}

// span is a number of seconds as a duration.
func (e quotable) span(key string) string {
	d, err := time.ParseDuration(e.text(key) + "s")
	if err != nil {
		return "?"
	}
	return short(d)
}

// has adds a text about evidence that may not be there.
func (e quotable) has(key, format string) string {
	if _, ok := e[key]; !ok {
		return ""
	}
	return fmt.Sprintf(format, e.text(key))
}

func always(says, needs string) func(quotable) Words {
	return func(quotable) Words { return Words{says, needs} }
}

// words has every reason there is.
var words = map[string]func(quotable) Words{
	ReasonMatched:    always("it matches, nothing exempts it, and every guard lets it go", ""),
	ReasonReport:     always("the policy reports it and deletes nobody", ""),
	ReasonNotMatched: always("the policy does not match it", "its match has to hold"),
	ReasonMatchError: func(e quotable) Words {
		return Words{"match could not be evaluated" + e.has("error", ": %s"), "the policy has to be mended"}
	},
	ReasonExempt: func(e quotable) Words {
		return Words{"it is exempt: " + e.text("exempt"), "no exemption may hold"}
	},
	ReasonExemptError: func(e quotable) Words {
		return Words{"whether it is exempt cannot be told: " + e.text("exempt_error"), "what the exemption rests on has to be known"}
	},
	ReasonRemoved:  always("it is no longer registered", ""),
	ReasonNameless: always("GitHub shows no name of it, so the last look could not tell it from another", "GitHub has to show its name"),
	ReasonMissing: func(e quotable) Words {
		return Words{"the newest complete listing lacks it" + e.has("missing_since", ", since %s") + "; whether it is gone is being found out", "the next sync has to find it"}
	},
	ReasonUnreadable: func(e quotable) Words {
		return Words{"GitHub's newest answer about it could not be read" + e.has("unreadable", ": %s") + "; what was known stays", "a listing has to show it in full"}
	},
	ReasonOnline: func(e quotable) Words {
		return Words{"GitHub shows it " + e.text("status"), "it has to be offline"}
	},
	ReasonOffline: func(e quotable) Words {
		return Words{"GitHub shows it " + e.text("status") + ", and only what is online can be drained", "it has to be online"}
	},
	ReasonNoHost: always("it is not known for sure which host it is on, so nobody can be asked whether a workflow job runs there",
		"its host has to list it in its heartbeats, and no other host"),
	ReasonYoung: func(e quotable) Words {
		return Words{fmt.Sprintf("it was first seen at %s, and %s is the least", e.text("first_seen_at"), e.span("min_lifetime_seconds")), "it has to be older"}
	},
	ReasonBusy: always("GitHub shows it busy, or does not say", "GitHub has to show it idle"),
	ReasonOpenJob: func(e quotable) Words {
		return Words{fmt.Sprintf("GitHub's events say that workflow job %s runs on it since %s", e.text("open_job"), e.text("open_job_since")),
			"the event of the job's end has to come, or five days have to pass"}
	},
	ReasonRefused: func(e quotable) Words {
		return Words{"deliveries of GitHub's webhook were refused" + e.has("refused_since", " since %s") + ", so a workflow job may run on it that muster has not heard of",
			"GitHub has to deliver them again, or a comparison of workflow jobs has to come to its end: see muster doctor"}
	},
	ReasonHostBusy:  always("its host said within three minutes that it is at work", "its host has to say otherwise, or nothing for three minutes"),
	ReasonHostAlive: always("its host said within three minutes that it waits for work", "its host has to say otherwise, or nothing for three minutes"),
	ReasonBooting:   always("it was registered less than ten minutes ago with a token of muster's, and may be booting", "ten minutes have to pass"),
	ReasonHold: func(e quotable) Words {
		until := "until it is lifted"
		if _, ends := e["hold_until"]; ends {
			until = "until " + e.text("hold_until")
		}
		return Words{fmt.Sprintf("%s holds it %s: %s", e.text("hold_by"), until, e.text("hold_reason")), "the hold has to end, or be lifted with muster unhold"}
	},
	ReasonSpared: always("the last look before a deletion, or its host, spoke against it",
		"a complete sync that begins later has to show it as before, and before it is drained ten minutes have to pass"),
	ReasonCredential: func(e quotable) Words {
		return Words{"GitHub refuses the target's credential" + e.has("credential_fault", ": %s"), "the credential has to be mended: see muster doctor"}
	},
	ReasonInventoryIncomplete: func(e quotable) Words {
		return Words{"the newest sync was " + e.text("inventory_outcome") + ", not complete", "a complete sync has to come"}
	},
	ReasonInventoryStale: func(e quotable) Words {
		if _, ok := e["inventory_age_seconds"]; !ok {
			return Words{"there has been no complete sync yet", "a complete sync has to come"}
		}
		return Words{fmt.Sprintf("the last complete sync is %s old, and %s is the most", e.span("inventory_age_seconds"), e.span("inventory_max_age_seconds")),
			"a complete sync has to come"}
	},
	ReasonInventorySuspect: func(e quotable) Words {
		return Words{"the newest complete listing looks more like a fault than a fleet" + e.has("inventory_suspect", " (%s)"), "a complete listing that does not has to come"}
	},
	ReasonWitnessListings: func(e quotable) Words {
		return Words{counted(e.text("listings"), "complete listing", "complete listings in a row") + " saw it offline, and " + counted(e.text("listings_wanted"), "is wanted", "are wanted"),
			"more of them have to see it offline"}
	},
	ReasonWitnessApart: func(e quotable) Words {
		return Words{fmt.Sprintf("the complete listings that saw it offline span %s, and %s is wanted", e.span("span_seconds"), e.span("span_wanted_seconds")),
			"later ones have to see it offline"}
	},
	ReasonMinSurvivors: func(e quotable) Words {
		return Words{counted(e.text("survivors"), "other with its labels is online", "others with its labels are online") + ", and " + counted(e.text("min_survivors"), "has to remain", "have to remain"),
			"more runners with its labels have to be online"}
	},
	ReasonGrace: func(e quotable) Words {
		return Words{"its grace has run since " + e.text("matched_since"), "it has to match without a break until " + e.text("grace_until")}
	},
	ReasonHalted: always("it is due, and the policy is halted here", "an operator has to look, and muster policy resume"),
	ReasonBrake: func(e quotable) Words {
		return Words{fmt.Sprintf("it is due, and too much of the target went dark at once: %s offline, %s missing and %s removed of %s",
			e.text("newly_offline"), e.text("newly_missing"), e.text("newly_removed"), e.text("newly_of")),
			"an operator has to look, and muster policy resume"}
	},
	ReasonBudget: always("it is due, and GitHub's limits leave no room for the last look and the deletion", "a later run has to find room"),
	ReasonClock:  always("it is due, and the clock has stepped a moment ago", "the clock has to be steady for 15 minutes"),
	ReasonFreeze: func(e quotable) Words {
		return Words{"it is due, and the policy is frozen until " + e.text("freeze_until"), "the freeze has to end"}
	},
	ReasonOverMax: func(e quotable) Words {
		return Words{fmt.Sprintf("%s runners are due and %s may be acted on, so none is", e.text("due"), e.text("allowed")),
			"an operator has to look, and muster policy resume with --allow"}
	},
	ReasonRate: func(e quotable) Words {
		return Words{fmt.Sprintf("%s are due, and %s a minute are let through, those offline longest or idle longest first", e.text("due"), e.text("rate_per_minute")), "a later run has to reach it"}
	},
}
