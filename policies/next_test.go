package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// A decision that is held back knows when that ends (issue 10).
func TestSizeKnowsWhenWhatHoldsItBackEnds(t *testing.T) {
	t.Parallel()
	bounds := sized(0, 100, 0)
	bounds.Step.Down = fleet.Portion{Count: 5}
	pool := checked(t, bounds)
	jobs := func(queued int) fleet.Demand {
		return fleet.Demand{Queued: queued, Confidence: fleet.ConfidenceKnown, At: monday}
	}
	old := fleet.SizeMemory{Since: monday.Add(-time.Hour)}
	for name, tt := range map[string]struct {
		supply fleet.Supply
		demand fleet.Demand
		memory fleet.SizeMemory
		want   time.Duration // from now; 0: nothing ends
	}{
		"as many as desired":   {fleet.Supply{Online: 3}, jobs(3), old, 0},
		"grows at once":        {fleet.Supply{}, jobs(3), old, 0},
		"step up":              {fleet.Supply{}, jobs(11), old, 30 * time.Second},
		"cool-down up":         {fleet.Supply{}, jobs(3), fleet.SizeMemory{Since: old.Since, UpAt: monday.Add(-10 * time.Second)}, 20 * time.Second},
		"back-off":             {fleet.Supply{RetryAt: monday.Add(time.Minute)}, jobs(3), old, time.Minute},
		"shrinks at once":      {fleet.Supply{Online: 5}, jobs(3), old, 0},
		"step down":            {fleet.Supply{Online: 20}, jobs(3), old, time.Minute},
		"cool-down down":       {fleet.Supply{Online: 5}, jobs(3), fleet.SizeMemory{Since: old.Since, DownAt: monday.Add(-20 * time.Second)}, 40 * time.Second},
		"young":                {fleet.Supply{Online: 5}, jobs(3), fleet.SizeMemory{Since: monday.Add(-time.Minute)}, 9 * time.Minute},
		"demand is not known":  {fleet.Supply{Online: 5}, fleet.Demand{}, old, 0},
		"as many were desired": {fleet.Supply{Online: 5}, jobs(3), fleet.SizeMemory{Since: old.Since, Spans: []fleet.DesiredSpan{{Desired: 5, Until: monday.Add(-4 * time.Minute)}, {Desired: 3, Until: monday.Add(-time.Minute)}}}, 6*time.Minute + time.Microsecond},
	} {
		got := pool.Size(tt.supply, tt.demand, tt.memory, monday)
		want := time.Time{}
		if tt.want != 0 {
			want = monday.Add(tt.want)
		}
		if !got.NextAt.Equal(want) {
			t.Errorf("%s: next look at %s (%v), want %s", name, got.NextAt, got.Reasons, want)
		}
	}
}

// Hosts that nobody can ask are not said to leave (issue 10).
func TestOnlyAsManyAreToLeaveAsCanBeGivenUp(t *testing.T) {
	t.Parallel()
	before := fleet.SizeMemory{Since: monday.Add(-time.Hour), DownAt: monday.Add(-time.Hour)}
	bounds := sized(0, 1000, 0)
	d := checked(t, bounds).Size(fleet.Supply{Online: 600}, known(0, 0), before, monday)
	if d.Direction != fleet.SizeDown || d.Change != 60 {
		t.Fatalf("%s %d, want down 60", d.Direction, d.Change)
	}
	for free, want := range map[int]struct {
		direction fleet.SizeDirection
		change    int
		downAt    time.Time
		says      string
	}{
		600: {fleet.SizeDown, 60, monday, "60 of those without work are chosen to leave"},
		60:  {fleet.SizeDown, 60, monday, "60 of those without work are chosen to leave"},
		7:   {fleet.SizeDown, 7, monday, "7 of those without work may be given up: the others are new, held, or on a host that muster does not know and cannot ask; 0 are desired: 7 of those without work are chosen to leave"},
		0:   {fleet.SizeHold, 0, before.DownAt, "0 of those without work may be given up: the others are new, held, or on a host that muster does not know and cannot ask; 0 are desired: nothing to do now"},
	} {
		got := policies.GiveUp(d, free, before)
		if got.Direction != want.direction || got.Change != want.change || !got.Memory.DownAt.Equal(want.downAt) {
			t.Errorf("%d free: %s %d, last shrunk at %s, want %+v", free, got.Direction, got.Change, got.Memory.DownAt, want)
		}
		said := strings.Join(policies.TellSize(got), "; ")
		if !strings.HasSuffix(said, want.says) {
			t.Errorf("%d free: %q, want %q at the end", free, said, want.says)
		}
	}
}
