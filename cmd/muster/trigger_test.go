package main

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

func TestTheOutcomeOfARun(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for want, run := range map[string]fleet.Run{
		"scale linux done in 5ms desired=3 up=2": {
			Trigger: fleet.Trigger{Job: fleet.JobScale, Name: "linux"}, State: fleet.RunDone, Attempt: 1, Counts: fleet.Counts{"up": 2, "desired": 3},
		},
		"sync acme dead in 5ms, attempt 3: HTTP 502": {
			Trigger: fleet.Trigger{Job: fleet.JobSync, Name: "acme"}, State: fleet.RunDead, Attempt: 3, Error: "HTTP 502",
		},
		"scale linux done in 5ms no_inventory=1: nothing was decided, since there is no inventory yet: muster trigger sync brings one": {
			Trigger: fleet.Trigger{Job: fleet.JobScale, Name: "linux"}, State: fleet.RunDone, Attempt: 1, Counts: fleet.Counts{fleet.CountNoInventory: 1},
		},
	} {
		run.StartedAt, run.FinishedAt = begun, begun.Add(5*time.Millisecond)
		if got := outcome(run); got != want {
			t.Errorf("outcome = %q, want %q", got, want)
		}
	}
}
