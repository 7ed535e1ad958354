package github_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

func TestAffordsRemovalAboveTheFloorOnly(t *testing.T) {
	t.Parallel()
	sim, gh, at := limited(t, githubsim.Limits{Primary: 1000}) // the last 20 are for tokens
	list := func() {
		t.Helper()
		if err := gh.CanList(t.Context(), org); err != nil {
			t.Fatal(err)
		}
	}
	affords := func(want string) {
		t.Helper()
		before, got := len(sim.Log()), "yes"
		if err := gh.AffordsRemoval(org, 7); err != nil {
			got = err.Error()
			wantKind(t, "the refusal", err, fleet.ErrRateLimited)
		}
		if got != want {
			t.Errorf("AffordsRemoval = %s, want %s", got, want)
		}
		if asked := len(sim.Log()) - before; asked != 0 {
			t.Errorf("GitHub was asked %d times", asked)
		}
	}
	affords("yes") // nothing is known yet
	sim.Spend(credential, 976)
	list()
	affords("yes") // 23 are left: 20, the look, the deletion, and the look after it
	list()
	affords("get runner 7 of org/acme: rate limited: not sent: 22 of the hour's 1000 requests are left, " +
		"and the last 20 are kept for what matters more than a safety; wait 1h0m0s")
	_ = at.Sleep(t.Context(), time.Hour)
	affords("yes")
	gh.Pause(at.Now().Add(5 * time.Minute))
	affords("get runner 7 of org/acme: rate limited: not sent: GitHub asked for a pause, which is not over; wait 5m0s")
	_ = at.Sleep(t.Context(), 5*time.Minute)
	affords("yes")
}

// Who asks before each deletion never has one refused for want of points.
func TestAffordsRemovalKeepsThePace(t *testing.T) {
	t.Parallel()
	sim, gh, at := limited(t, githubsim.Usual)
	ids := fill(t, sim, org, 100)
	if err := gh.CanList(t.Context(), org); err != nil {
		t.Fatal(err)
	}
	began, deleted := at.Now(), 0
	for _, id := range ids {
		if err := gh.AffordsRemoval(org, id); err != nil {
			break
		}
		if _, err := gh.Runner(t.Context(), org, id); err != nil {
			t.Fatal(err)
		}
		if err := gh.RemoveRunner(t.Context(), org, id, nil); err != nil {
			t.Fatal(err)
		}
		deleted++
	}
	if deleted != 72 || !at.Now().Equal(began) { // 95% of 76 a minute
		t.Errorf("%d deletions in %s, want 72 at once", deleted, at.Now().Sub(began))
	}
	_ = at.Sleep(t.Context(), 61*time.Second)
	if err := gh.AffordsRemoval(org, ids[deleted]); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}
