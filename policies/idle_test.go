package policies_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// The runners that a pool may give up: the longest idle first, none younger than
// the least lifetime.
func TestChooseIdleTakesTheLongestIdle(t *testing.T) {
	t.Parallel()
	a, b, young, old := idle(1), idle(2), idle(3), idle(4)
	a.LastBusyAt, b.LastBusyAt = now.Add(-time.Hour), now.Add(-2*time.Hour)
	young.FirstSeenAt, old.FirstSeenAt = now.Add(-10*time.Minute+1), now.Add(-10*time.Minute)
	old.LastBusyAt = now.Add(-time.Minute)
	var got []int64
	for _, r := range policies.ChooseIdle([]fleet.Observed{a, young, old, b}, 4, now, 10*time.Minute) {
		got = append(got, r.ID)
	}
	if len(got) != 3 || got[0] != 2 || got[1] != 1 || got[2] != 4 {
		t.Errorf("ChooseIdle = %v, want 2, 1 and 4", got)
	}
}

// A host that says that its runner is idle may be asked to give it up; a host
// that says busy may not.
func TestChooseIdleTakesWhatItsHostCallsIdle(t *testing.T) {
	t.Parallel()
	free, busy := idle(1), idle(2)
	free.HostSays = fleet.HostReport{SeenAt: now, IdleAt: now}
	busy.HostSays = fleet.HostReport{SeenAt: now, BusyAt: now}
	got := policies.ChooseIdle([]fleet.Observed{free, busy}, 2, now, 0)
	if len(got) != 1 || got[0].ID != 1 {
		t.Errorf("ChooseIdle = %v, want runner 1 alone", got)
	}
}

// A runner that is itself online is no survivor beside itself.
func TestADrainedRunnerIsNoSurvivorBesideItself(t *testing.T) {
	t.Parallel()
	p := load(t, strings.Replace(draining(), "guards: {", "guards: {min_survivors: 1, ", 1))
	if !p.LooksAround() {
		t.Errorf("a policy with min_survivors: 1 does not look around")
	}
	got := verdicts(policies.Decide(p, input(idle(1)), now))
	if got != "1 keep min_survivors" {
		t.Errorf("alone: %q, want it kept", got)
	}
	got = verdicts(policies.Decide(p, input(idle(1), idle(2)), now))
	if got != "1 act matched; 2 act matched" {
		t.Errorf("beside another: %q, want both drained", got)
	}
}

// A pool that gives up a host drains it first and releases it afterwards.
func TestScaleDownDrainsAndReleases(t *testing.T) {
	t.Parallel()
	p := policies.ScaleDown(&policies.Pool{Pool: fleet.Pool{Name: "linux", Target: "acme"}})
	want := []fleet.ActionKind{fleet.ActionDrainHost, fleet.ActionDeleteRunner, fleet.ActionReleaseHost}
	if got := p.Actions(); !slices.Equal(got, want) {
		t.Errorf("actions = %v, want %v", got, want)
	}
}

// A percentage is rounded down, and only the smaller of both caps counts.
func TestTheCapIsRoundedDown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		max              policies.Max
		population, want int
	}{
		{policies.Max{Count: 1000, Percent: 10}, 990, 99},
		{policies.Max{Count: 1000, Percent: 10}, 999, 99},
		{policies.Max{Count: 98, Percent: 10}, 990, 98},
		{policies.Max{Count: 1000, Percent: 10, MinPopulation: 991}, 990, 1000},
		{policies.Max{Count: 1000, Percent: 10, MinPopulation: 990}, 990, 99},
	} {
		got, capped := tt.max.Cap(tt.population)
		if got != tt.want || !capped {
			t.Errorf("%+v of %d = %d, %t, want %d", tt.max, tt.population, got, capped, tt.want)
		}
	}
}

// A delivery that was refused keeps a runner, and the evidence says how many
// there were and since when.
func TestRefusedDeliveriesStandInTheEvidence(t *testing.T) {
	t.Parallel()
	r := due(1)
	r.Refused = fleet.Refused{Deliveries: 3, Since: now.Add(-time.Hour), Until: now}
	e := policies.Decide(load(t, document(longOffline)), input(r), now).Decisions[0].Evidence
	if e["refused_deliveries"] != 3 || e["refused_since"] == nil {
		t.Errorf("the evidence has %v deliveries since %v, want 3 and a time", e["refused_deliveries"], e["refused_since"])
	}
}

// A report minds no guard but the inventory, and its evidence names none.
func TestTheEvidenceOfAReportNamesNoOtherGuards(t *testing.T) {
	t.Parallel()
	p := load(t, reporting("runner.busy")+"  guards: {grace: 1h, min_survivors: 2}\n")
	r := idle(1)
	r.Busy = true
	e := policies.Decide(p, input(r), now).Decisions[0].Evidence
	for _, key := range []string{"grace_until", "matched_since", "survivors", "min_survivors", "min_lifetime_seconds", "spared_at"} {
		if e[key] != nil {
			t.Errorf("the evidence has %s: %v", key, e[key])
		}
	}
}

// A runner that GitHub's answer did not tell in full is kept, and the evidence
// says why.
func TestARunnerThatCouldNotBeReadIsKept(t *testing.T) {
	t.Parallel()
	r := due(1)
	r.Unreadable = "labels: null"
	d := policies.Decide(load(t, document(longOffline)), input(r), now).Decisions[0]
	if d.Verdict != fleet.VerdictKeep || d.Reasons[0] != policies.ReasonUnreadable || d.Evidence["unreadable"] != "labels: null" {
		t.Errorf("%s %v with %v, want it kept as unreadable", d.Verdict, d.Reasons, d.Evidence["unreadable"])
	}
}
