package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

func TestMaxHaltsEverybody(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		due        int
		max        string
		population int
		acted      int
		allowance  int
		want       string // empty: no halt
	}{
		{"as many as the count", 25, "count: 25, percent: 10", 410, 0, 0, ""},
		{"over the count", 37, "count: 25, percent: 10", 410, 0, 0, "37 runners are due, 25 allowed in 1h (count 25, 10% of 410 = 41, 0 acted so far)"},
		{"over the percentage", 3, "count: 25, percent: 10", 29, 0, 0, "3 runners are due, 2 allowed in 1h (count 25, 10% of 29 = 2, 0 acted so far)"},
		{"the window is used up", 1, "count: 5, percent: 100, window: 2d", 410, 5, 0, "1 runner is due, 0 allowed in 48h (count 5, 100% of 410 = 410, 5 acted so far)"},
		{"the window was overdrawn", 1, "count: 5, percent: 100, window: 90m", 410, 9, 0, "1 runner is due, 0 allowed in 1h30m (count 5, 100% of 410 = 410, 9 acted so far)"},
		{"half of the window is left", 2, "count: 5, percent: 100", 410, 3, 0, ""},
		{"under the population only the count holds", 5, "count: 5, percent: 1, min_population: 10", 9, 0, 0, ""},
		{"over the count under the population", 6, "count: 5, percent: 1, min_population: 10", 9, 0, 0, "6 runners are due, 5 allowed in 1h (count 5, 9 live runners, under 10 no percentage, 0 acted so far)"},
		{"from the population on both hold", 1, "count: 5, percent: 1, min_population: 10", 10, 0, 0,
			"1 runner is due, 0 allowed in 1h (count 5, 1% of 10 = 0, 0 acted so far): 1% of 10 is less than one runner, so the policy can act on nobody here"},
		{"no population at all", 1, "count: 5, percent: 100", 0, 0, 0,
			"1 runner is due, 0 allowed in 1h (count 5, 100% of 0 = 0, 0 acted so far): 100% of 0 is less than one runner, so the policy can act on nobody here"},
		{"the allowance covers it", 37, "count: 25, percent: 10", 410, 0, 12, ""},
		{"the allowance falls short", 37, "count: 25, percent: 10", 410, 5, 12, "37 runners are due, 32 allowed in 1h (count 25, 10% of 410 = 41, 5 acted so far, 12 by allowance)"},
		{"an overdrawn window leaves the allowance whole", 3, "count: 5, percent: 100", 410, 9, 3, ""},
		{"and no more than it", 4, "count: 5, percent: 100", 410, 9, 3, "4 runners are due, 3 allowed in 1h (count 5, 100% of 410 = 410, 9 acted so far, 3 by allowance)"},
	}
	for _, tt := range tests {
		p := load(t, strings.Replace(document(longOffline), "count: 5, percent: 10}", tt.max+"}, rate: 1000/m", 1))
		var runners []fleet.Observed
		for i := range tt.due {
			runners = append(runners, due(int64(i+1)))
		}
		online := due(99)
		online.Status = fleet.StatusOnline
		in := input(append(runners, online)...)
		in.Target.Population, in.Acted, in.State.Allowance = tt.population, tt.acted, tt.allowance
		plan := policies.Decide(p, in, now)
		if plan.Halt != tt.want {
			t.Errorf("%s: Halt = %q, want %q", tt.name, plan.Halt, tt.want)
		}
		wantAct, wantHalt := int64(tt.due), int64(0)
		if tt.want != "" {
			wantAct, wantHalt = 0, int64(tt.due)
		}
		if plan.Counts["act"] != wantAct || plan.Counts["halt"] != wantHalt || plan.Counts["reason_over_max"] != wantHalt {
			t.Errorf("%s: counts %v, want %d act and %d halt", tt.name, plan.Counts, wantAct, wantHalt)
		}
	}
}

func TestMaxCountsThePopulationAlsoForOneRunner(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline))
	in := input(due(1))
	in.Target.Population = 30 // 10% are 3
	for acted, want := range []string{"1 act matched", "1 act matched", "1 act matched", "1 halt over_max"} {
		in.Acted = acted
		if got := verdicts(policies.Decide(p, in, now)); got != want {
			t.Errorf("with %d acted: %q, want %q", acted, got, want)
		}
	}
}

func TestHaltedPolicyActsOnNobodyAndDoesNotHaltAgain(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline))
	busy := due(2)
	busy.Busy = true
	in := input(due(1), busy)
	in.State.Halted, in.State.Allowance, in.Acted = true, 100, 100
	plan := policies.Decide(p, in, now)
	if got, want := verdicts(plan), "1 halt halted; 2 keep busy"; got != want || plan.Halt != "" {
		t.Errorf("Decide = %q with Halt %q, want %q and none", got, plan.Halt, want)
	}
}

func TestRateLetsTheLongestOfflineGoFirst(t *testing.T) {
	t.Parallel()
	p := load(t, strings.Replace(document(longOffline), "count: 5, percent: 10}", "count: 50, percent: 50}, rate: 3/m", 1))
	runners := []fleet.Observed{due(5), due(4), due(3), due(2), due(1)}
	runners[0].OfflineFor += time.Hour
	tests := []struct {
		acted int
		want  string
	}{
		{0, "1 act matched; 2 act matched; 3 keep rate; 4 keep rate; 5 act matched"},
		{2, "1 keep rate; 2 keep rate; 3 keep rate; 4 keep rate; 5 act matched"},
		{3, "1 keep rate; 2 keep rate; 3 keep rate; 4 keep rate; 5 keep rate"},
		{9, "1 keep rate; 2 keep rate; 3 keep rate; 4 keep rate; 5 keep rate"},
	}
	for _, tt := range tests {
		in := input(runners...)
		in.ActedLastMinute = tt.acted
		if got := verdicts(policies.Decide(p, in, now)); got != tt.want {
			t.Errorf("after %d in the minute: %q, want %q", tt.acted, got, tt.want)
		}
	}
}
