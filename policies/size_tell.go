package policies

import (
	"fmt"
	"regexp"

	"github.com/muster-fleet/muster/fleet"
)

// sizeWords are what each reason says, with the evidence of its numbers in
// braces; where words follow from a number, {KEY|those for one|those for any other}.
var sizeWords = map[string]string{
	SizeForDemand:      "{queued|workflow job waits|workflow jobs wait} and {in_progress|runs|run}; with {idle|host|hosts} to wait for work, {wanted|is|are} wanted",
	SizeForUtilisation: "{busy|host is|hosts are} at work, more than the jobs known and target_utilisation account for; with {idle} to wait for work, {wanted|is|are} wanted",
	SizeForPeriod:      "the period {period} holds until {period_until}: min {min}, max {max}, idle {idle}",
	SizeForMin:         "fewer than min, which is {min}",
	SizeForMax:         "more than max, which is {max}: jobs wait for hosts that finish",

	SizeEnough:  "{online|is|are} online",
	SizeBooting: "{online|is|are} online and {booting|boots|boot}",

	SizeListingDoubtful: "the newest listing shows much of the target newly offline, {dark|host|hosts} of the pool among them; none is asked for until another listing shows it",

	SizeBackoff:    "{leases_expired|host|hosts} asked for in a row did not come online; the next are asked for at {retry_at}",
	SizeCooldownUp: "the pool grew a moment ago, and may again at {cooldown_until}",
	SizeNoRoom:     "{online} online, {booting} booting and {draining} being taken away leave less room under max, which is {max}",
	SizeDark:       "{dark} went offline within boot_deadline and may come back: until then there is less room",
	SizeStepUp:     "step.up bounds what is asked for at once; the rest follows",

	SizeDemandUnknown: "not all workflow jobs are known, so no host is taken away",
	SizeDemandStale:   "workflow jobs were last counted at {demand_at}, so no host is taken away",
	SizeYoung:         "the pool has not been watched for as long as cooldown.down, so no host is taken away",
	SizeWindow:        "{highest|was|were} desired within cooldown.down",
	SizeCooldownDown:  "the pool shrank a moment ago, and may again at {cooldown_until}",
	SizeInUse:         "the others online are at work or wanted by jobs",
	SizeNotOurs:       "{free} of those without work may be given up: the others are new, held, or on a host that muster does not know and cannot ask",
	SizeStepDown:      "step.down bounds what is taken away at once; the rest follows",
}

var sizeGap = regexp.MustCompile(`\{([a-z_]+)(?:\|([^|}]*)\|([^}]*))?\}`)

// TellSize tells a decision in words, a line for each step of it.
func TellSize(d fleet.SizeDecision) []string {
	values := map[string]string{"min": fmt.Sprint(d.Bounds.Min), "max": fmt.Sprint(d.Bounds.Max), "idle": fmt.Sprint(d.Bounds.Idle)}
	for key, value := range d.Evidence {
		values[key] = fmt.Sprint(value)
	}
	fill := func(gap string) string {
		m := sizeGap.FindStringSubmatch(gap)
		value, known := values[m[1]]
		switch {
		case !known:
			return gap
		case m[2] == "":
			return value
		}
		return counted(value, m[2], m[3])
	}
	var told []string
	for _, reason := range d.Reasons {
		told = append(told, sizeGap.ReplaceAllStringFunc(sizeWords[reason], fill))
	}
	desired := counted(fmt.Sprint(d.Desired), "is desired", "are desired")
	switch d.Direction {
	case fleet.SizeUp:
		return append(told, desired+": "+counted(fmt.Sprint(d.Change), "more is asked for", "more are asked for"))
	case fleet.SizeDown:
		return append(told, desired+": "+counted(fmt.Sprint(d.Change), "of those without work is chosen to leave", "of those without work are chosen to leave"))
	case fleet.SizeHold:
	}
	return append(told, desired+": nothing to do now")
}

// counted is a number with the words that agree with it.
func counted(number, one, others string) string {
	if number == "1" {
		return number + " " + one
	}
	return number + " " + others
}
