package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// freezing is a policy that deletes, with more guards.
func freezing(guards string) string {
	return strings.Replace(document(longOffline), "guards: {", "guards: {"+guards+", ", 1)
}

func TestFreezeHoldsFromItsBeginningToItsEnd(t *testing.T) {
	t.Parallel()
	const weekend = `freeze: [{cron: "0 18 * * 5", duration: 60h}]`
	const london = `freeze: [{cron: "30 1 * * *", duration: 2h, time_zone: Europe/London}]`
	tests := []struct {
		name, guards, at, until string
	}{
		{"before", weekend, "2026-03-13T17:59:59Z", ""},
		{"the first moment", weekend, "2026-03-13T18:00:00Z", "2026-03-16T06:00:00Z"},
		{"in the middle", weekend, "2026-03-15T12:00:00Z", "2026-03-16T06:00:00Z"},
		{"the last moment", weekend, "2026-03-16T05:59:59Z", "2026-03-16T06:00:00Z"},
		{"the end", weekend, "2026-03-16T06:00:00Z", ""},
		{"two at once end with the later", `freeze: [{cron: "0 9 * * *", duration: 2h}, {cron: "0 8 * * *", duration: 5h}]`,
			"2026-03-14T09:26:53Z", "2026-03-14T13:00:00Z"},
		{"another zone in winter", london, "2026-03-14T01:30:00Z", "2026-03-14T03:30:00Z"},
		{"another zone in summer", london, "2026-06-14T00:30:00Z", "2026-06-14T02:30:00Z"},
		{"an hour that the clock jumps over", london, "2026-03-29T01:00:00Z", "2026-03-29T03:00:00Z"},
		{"an hour that comes twice", london, "2026-10-25T02:29:59Z", "2026-10-25T02:30:00Z"},
	}
	for _, tt := range tests {
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		in := input(due(1))
		in.Target.LastCompleteSyncAt, in.MatchedSince[1] = at, at.Add(-48*time.Hour)
		d := policies.Decide(load(t, freezing(tt.guards)), in, at).Decisions[0]
		want, reason := fleet.VerdictKeep, policies.ReasonFreeze
		if tt.until == "" {
			want, reason = fleet.VerdictAct, policies.ReasonMatched
		}
		until, _ := d.Evidence["freeze_until"].(string)
		if d.Verdict != want || !cmp.Equal(d.Reasons, []string{reason}) || until != tt.until {
			t.Errorf("%s: %s %v until %q, want %s %s until %q", tt.name, d.Verdict, d.Reasons, until, want, reason, tt.until)
		}
	}
}

// What is kept anyway keeps its reason, and max does not halt meanwhile.
func TestFreezeIsForThoseThatAreDue(t *testing.T) {
	t.Parallel()
	p := load(t, freezing(`freeze: [{cron: "0 9 * * *", duration: 2h}]`))
	busy := due(2)
	busy.Busy = true
	in := input(due(1), busy, due(3), due(4), due(5), due(6), due(7))
	plan := policies.Decide(p, in, now)
	if got, want := verdicts(plan), "1 keep freeze; 2 keep busy; 3 keep freeze; 4 keep freeze; 5 keep freeze; 6 keep freeze; 7 keep freeze"; got != want || plan.Halt != "" {
		t.Errorf("Decide = %q with Halt %q, want %q and none", got, plan.Halt, want)
	}
	if len(plan.Marks) != 7 {
		t.Errorf("Matched = %v, want all seven: grace goes on", plan.Marks)
	}
	in.State.Halted = true
	if got := verdicts(policies.Decide(p, in, now)); !strings.HasPrefix(got, "1 halt halted;") {
		t.Errorf("a halted policy decides %q, want it to say so", got)
	}
}

func TestOperatorIsNotFrozen(t *testing.T) {
	t.Parallel()
	if got := verdicts(policies.Decide(policies.Operator(), input(due(1)), now)); got != "1 act matched" {
		t.Errorf("Decide = %q", got)
	}
}

// A freeze with a gap, however rare, is one that may be written.
func TestFreezesThatEndAreTaken(t *testing.T) {
	t.Parallel()
	for _, freeze := range []string{
		`{cron: "* * 1 * *", duration: 1m}`, `{cron: "* * 1-30 * *", duration: 1m}`, `{cron: "0 * * * *", duration: 59m}`,
		`{cron: "* 0-22 * * *", duration: 2m}`, `{cron: "* * * 1-11 *", duration: 59m}`, `{cron: "0 0 * * *", duration: 23h}`,
		`{cron: "0 0 1 * *", duration: 30d}`, `{cron: "0 0 1 1,4,7,10 *", duration: 91d}`, `{cron: "0 0 1 1 *", duration: 92d}`,
		`{cron: "* * * * 1-6", duration: 1m, time_zone: Europe/London}`,
	} {
		if _, err := policies.Load("p.yaml", []byte(freezing("freeze: ["+freeze+"]"))); err != nil {
			t.Errorf("%s: %v", freeze, err)
		}
	}
}
