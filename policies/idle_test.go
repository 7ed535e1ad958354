package policies_test

import (
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
