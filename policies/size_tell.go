package policies

import (
	"fmt"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// sizeWords are what each reason says, with the evidence of its numbers in
// braces.
var sizeWords = map[string]string{
	SizeForDemand:      "{queued} workflow jobs wait and {in_progress} run; with {idle} hosts to wait for work, {wanted} are wanted",
	SizeForUtilisation: "{busy} hosts are at work, more than the jobs known and target_utilisation account for; with {idle} to wait for work, {wanted} are wanted",
	SizeForPeriod:      "the period {period} holds until {period_until}: min {min}, max {max}, idle {idle}",
	SizeForMin:         "fewer than min, which is {min}",
	SizeForMax:         "more than max, which is {max}: jobs wait for hosts that finish",

	SizeEnough:  "{online} are online",
	SizeBooting: "{online} are online and {booting} boot",

	SizeListingDoubtful: "the newest listing shows much of the target newly offline, {dark} hosts of the pool among them; none is asked for until another listing shows it",

	SizeBackoff:    "{leases_expired} hosts asked for in a row did not come online; the next are asked for at {retry_at}",
	SizeCooldownUp: "the pool grew a moment ago, and may again at {cooldown_until}",
	SizeNoRoom:     "{online} online, {booting} booting and {draining} being taken away leave less room under max, which is {max}",
	SizeDark:       "{dark} went offline within boot_deadline and take room: they may come back",
	SizeStepUp:     "step.up bounds what is asked for at once; the rest follows",

	SizeDemandUnknown: "not all workflow jobs are known, so no host is taken away",
	SizeDemandStale:   "workflow jobs were last counted at {demand_at}, so no host is taken away",
	SizeYoung:         "the pool has not been watched for as long as cooldown.down, so no host is taken away",
	SizeWindow:        "{highest} were desired within cooldown.down",
	SizeCooldownDown:  "the pool shrank a moment ago, and may again at {cooldown_until}",
	SizeInUse:         "the others online are at work or wanted by jobs",
	SizeStepDown:      "step.down bounds what is taken away at once; the rest follows",
}

// TellSize tells a decision in words, a line for each step of it.
func TellSize(d fleet.SizeDecision) []string {
	pairs := []string{"{min}", fmt.Sprint(d.Bounds.Min), "{max}", fmt.Sprint(d.Bounds.Max), "{idle}", fmt.Sprint(d.Bounds.Idle)}
	for key, value := range d.Evidence {
		pairs = append(pairs, "{"+key+"}", fmt.Sprint(value))
	}
	fill := strings.NewReplacer(pairs...)
	var told []string
	for _, reason := range d.Reasons {
		told = append(told, fill.Replace(sizeWords[reason]))
	}
	switch d.Direction {
	case fleet.SizeUp:
		return append(told, fmt.Sprintf("%d are desired: %d more are asked for", d.Desired, d.Change))
	case fleet.SizeDown:
		return append(told, fmt.Sprintf("%d are desired: %d of those without work are taken away", d.Desired, d.Change))
	case fleet.SizeHold:
	}
	return append(told, fmt.Sprintf("%d are desired: nothing to do now", d.Desired))
}
