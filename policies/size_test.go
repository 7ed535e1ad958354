package policies_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

var monday = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// sized is a pool with the defaults of muster.yaml.
func sized(lowest, highest, idle int) fleet.Pool {
	return fleet.Pool{
		Name: "linux", Target: "acme", Labels: []string{"linux"},
		PoolBounds:        fleet.PoolBounds{Min: lowest, Max: highest, Idle: idle},
		TargetUtilisation: 0.75, BootDeadline: 10 * time.Minute, MinLifetime: 10 * time.Minute,
		Cooldown: fleet.PoolCooldown{Up: 30 * time.Second, Down: 10 * time.Minute},
		Step:     fleet.PoolStep{Up: fleet.Portion{Count: 10}, Down: fleet.Portion{Percent: 10}},
	}
}

func checked(t testing.TB, p fleet.Pool) *policies.Pool {
	t.Helper()
	c, faults := policies.NewPool(p)
	if len(faults) > 0 {
		t.Fatalf("NewPool(%+v): %v", p, faults)
	}
	return c
}

// known is demand that was counted just now.
func known(queued, inProgress int) fleet.Demand {
	return fleet.Demand{Queued: queued, InProgress: inProgress, At: monday, Confidence: fleet.ConfidenceKnown}
}

// watched is the memory of a pool that wanted so many until long ago.
func watched(until time.Duration, desired int) fleet.SizeMemory {
	return fleet.SizeMemory{
		Since: monday.Add(-24 * time.Hour), At: monday.Add(-time.Second),
		Spans: []fleet.DesiredSpan{{Desired: desired, Until: monday.Add(-until)}, {Desired: 0, Until: monday.Add(-time.Second)}},
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	grew := watched(time.Hour, 0)
	grew.UpAt = monday.Add(-29 * time.Second)
	shrank := watched(time.Hour, 0)
	shrank.DownAt = monday.Add(-59 * time.Second)
	stale := known(0, 0)
	stale.At = monday.Add(-10*time.Minute - time.Second)
	long := watched(time.Hour, 0)
	wanted := watched(9*time.Minute, 20)
	wanted.DownAt = shrank.DownAt
	lower := sized(2, 20, 0)
	lower.Max = 5

	tests := []struct {
		name    string
		pool    fleet.Pool
		supply  fleet.Supply
		demand  fleet.Demand
		memory  fleet.SizeMemory
		desired int
		want    string // direction, change, reasons
	}{
		{"nothing of nothing", sized(0, 20, 0), fleet.Supply{}, known(0, 0), long, 0, "hold 0 demand enough"},
		{"from nothing", sized(0, 20, 0), fleet.Supply{}, known(3, 0), long, 3, "up 3 demand"},
		{"never decided on", sized(0, 20, 0), fleet.Supply{}, known(3, 0), fleet.SizeMemory{}, 3, "up 3 demand"},
		{"those that boot count", sized(0, 20, 0), fleet.Supply{Booting: 3}, known(3, 0), long, 3, "hold 0 demand hosts_booting"},
		{"those being taken away do not", sized(0, 20, 0), fleet.Supply{Draining: 3}, known(3, 0), long, 3, "up 3 demand"},
		{"but they take room", sized(0, 5, 0), fleet.Supply{Online: 1, Busy: 1, Draining: 3}, known(3, 1), long, 4, "up 1 demand no_room"},
		{"no room at all", sized(0, 5, 0), fleet.Supply{Online: 2, Busy: 2, Draining: 5}, known(3, 2), long, 5, "hold 0 demand no_room"},
		{"those gone dark serve nobody", sized(0, 20, 0), fleet.Supply{Online: 1, Dark: 5}, known(3, 0), long, 3, "up 2 demand"},
		{"but may come back", sized(0, 6, 0), fleet.Supply{Online: 1, Dark: 4}, known(3, 0), long, 3, "up 1 demand no_room hosts_dark"},
		{"one that went dark may come back", sized(0, 3, 0), fleet.Supply{Online: 1, Dark: 1}, known(3, 0), long, 3, "up 1 demand no_room hosts_dark"},
		{"a whole step", sized(0, 50, 0), fleet.Supply{}, known(10, 0), long, 10, "up 10 demand"},
		{"wanted a moment ago, and shrunk", sized(0, 50, 0), fleet.Supply{Online: 20}, known(0, 0), wanted, 0, "hold 0 demand cooldown_window"},
		{"all of max went dark", sized(0, 6, 0), fleet.Supply{Dark: 6}, known(3, 0), long, 3, "hold 0 demand no_room hosts_dark"},
		{"too many at once to be believed", sized(0, 20, 0), fleet.Supply{Online: 1, Dark: 5, Doubtful: true}, known(3, 0), long, 3, "hold 0 demand listing_doubtful"},
		{"others' hosts are", sized(0, 20, 0), fleet.Supply{Online: 1, Doubtful: true}, known(3, 0), long, 3, "up 2 demand"},
		{"hosts to wait for work", sized(0, 20, 2), fleet.Supply{Online: 1, Busy: 1}, known(0, 1), long, 4, "up 3 utilisation"},
		{"busy without a job that is known", sized(0, 20, 0), fleet.Supply{Online: 9, Busy: 9}, known(0, 0), long, 12, "up 3 utilisation"},
		{"min", sized(2, 20, 0), fleet.Supply{}, known(0, 0), long, 2, "up 2 demand min"},
		{"max", sized(0, 5, 0), fleet.Supply{}, known(9, 0), long, 5, "up 5 demand max"},
		{"leases count for max", sized(0, 5, 0), fleet.Supply{Booting: 5}, known(9, 0), long, 5, "hold 0 demand max hosts_booting"},
		{"in steps", sized(0, 50, 0), fleet.Supply{}, known(30, 0), long, 30, "up 10 demand step_up"},
		{"not again so soon", sized(0, 50, 0), fleet.Supply{}, known(3, 0), grew, 3, "hold 0 demand cooldown_up"},
		{"nobody boots", sized(0, 50, 0), fleet.Supply{Expired: 4, RetryAt: monday.Add(time.Second)}, known(3, 0), long, 3, "hold 0 demand lease_backoff"},
		{"time to try again", sized(0, 50, 0), fleet.Supply{Expired: 4, RetryAt: monday}, known(3, 0), long, 3, "up 3 demand"},
		{"unknown demand lets grow", sized(0, 20, 0), fleet.Supply{}, fleet.Demand{Queued: 3}, long, 3, "up 3 demand"},

		{"a step down", sized(0, 50, 0), fleet.Supply{Online: 20}, known(0, 0), long, 0, "down 2 demand step_down"},
		{"the last one", sized(0, 50, 0), fleet.Supply{Online: 1}, known(0, 0), long, 0, "down 1 demand"},
		{"not again so soon, down", sized(0, 50, 0), fleet.Supply{Online: 20}, known(0, 0), shrank, 0, "hold 0 demand cooldown_down"},
		{"unknown demand", sized(0, 50, 0), fleet.Supply{Online: 20}, fleet.Demand{Confidence: fleet.ConfidenceUnknown}, long, 0, "hold 0 demand demand_unknown"},
		{"nothing said of demand", sized(0, 50, 0), fleet.Supply{Online: 20}, fleet.Demand{}, long, 0, "hold 0 demand demand_unknown"},
		{"stale demand", sized(0, 50, 0), fleet.Supply{Online: 20}, stale, long, 0, "hold 0 demand demand_stale"},
		{"never decided on, down", sized(0, 50, 0), fleet.Supply{Online: 20}, known(0, 0), fleet.SizeMemory{}, 0, "hold 0 demand window_unknown"},
		{"wanted a moment ago", sized(0, 50, 0), fleet.Supply{Online: 20}, known(0, 0), watched(9*time.Minute, 25), 0, "hold 0 demand cooldown_window"},
		{"only to what was wanted", sized(0, 50, 0), fleet.Supply{Online: 20}, known(0, 0), watched(9*time.Minute, 19), 0, "down 1 demand cooldown_window"},
		{"wanted too long ago", sized(0, 50, 0), fleet.Supply{Online: 20}, known(0, 0), watched(11*time.Minute, 25), 0, "down 2 demand step_down"},
		{"all at work", sized(0, 50, 0), fleet.Supply{Online: 4, Busy: 4, Booting: 4}, known(0, 4), long, 6, "hold 0 utilisation hosts_in_use"},
		{"jobs wait while others boot", sized(0, 50, 0), fleet.Supply{Online: 10, Booting: 10}, known(10, 0), long, 10, "hold 0 demand hosts_in_use"},
		{"max was lowered, as work allows", lower, fleet.Supply{Online: 9, Busy: 3}, known(5, 3), long, 5, "down 1 demand max hosts_in_use"},
		{"max was lowered, and all is needed", lower, fleet.Supply{Online: 9, Busy: 3}, known(6, 3), long, 5, "hold 0 demand max hosts_in_use"},
	}
	for _, tt := range tests {
		d := checked(t, tt.pool).Size(tt.supply, tt.demand, tt.memory, monday)
		got := fmt.Sprintf("%s %d %s", d.Direction, d.Change, strings.Join(d.Reasons, " "))
		if got != tt.want || d.Desired != tt.desired {
			t.Errorf("%s: %s, %d desired, want %s, %d desired", tt.name, got, d.Desired, tt.want, tt.desired)
		}
		for _, line := range policies.TellSize(d) {
			if line == "" || strings.ContainsAny(line, "{}") {
				t.Errorf("%s: a line reads %q", tt.name, line)
			}
		}
	}
}

// What bounds a decision says when it ends.
func TestAWindowSaysWhenItEnds(t *testing.T) {
	t.Parallel()
	d := checked(t, sized(0, 50, 0)).Size(fleet.Supply{Online: 20}, known(0, 0), watched(9*time.Minute, 19), monday)
	if want := monday.Add(time.Minute + time.Microsecond); d.Change != 1 || !d.NextAt.Equal(want) {
		t.Errorf("%d fewer, next at %v, want 1 fewer and %v", d.Change, d.NextAt, want)
	}
}

// The memory holds no span that a later one as high makes useless.
func TestMemoryKeepsTheNewestOfEqualSpans(t *testing.T) {
	t.Parallel()
	m := watched(5*time.Minute, 3)
	d := checked(t, sized(0, 50, 0)).Size(fleet.Supply{Online: 3}, known(3, 0), m, monday)
	want := []fleet.DesiredSpan{{Desired: 3, Until: monday}}
	if diff := cmp.Diff(want, d.Memory.Spans); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// As many runners as a decision wants to give up are enough, and the decision
// that was given stays as it was.
func TestGiveUpBoundsWhatIsGivenUp(t *testing.T) {
	t.Parallel()
	down := fleet.SizeDecision{Direction: fleet.SizeDown, Change: 2, Reasons: []string{policies.SizeForDemand}, Evidence: fleet.Evidence{"queued": 0}}
	enough := policies.GiveUp(down, 2, fleet.SizeMemory{})
	if diff := cmp.Diff(down, enough); diff != "" {
		t.Errorf("with as many as it wants (-want +got):\n%s", diff)
	}
	fewer := policies.GiveUp(down, 1, fleet.SizeMemory{})
	if fewer.Change != 1 || fewer.Direction != fleet.SizeDown || fewer.Evidence["free"] != 1 || !slices.Contains(fewer.Reasons, policies.SizeNotOurs) {
		t.Errorf("with one fewer: %+v, want one given up and why", fewer)
	}
	if len(down.Evidence) != 1 || len(down.Reasons) != 1 {
		t.Errorf("the decision before has become %+v", down)
	}
}

// A gap for which the evidence has nothing stays to be seen.
func TestAGapWithoutEvidenceStays(t *testing.T) {
	t.Parallel()
	told := policies.TellSize(fleet.SizeDecision{Reasons: []string{policies.SizeCooldownUp}})
	if len(told) == 0 || !strings.Contains(told[0], "{cooldown_until}") {
		t.Errorf("TellSize = %q, want its gap", told)
	}
}

func TestSizeIsTold(t *testing.T) {
	t.Parallel()
	d := checked(t, sized(0, 40, 2)).Size(fleet.Supply{Online: 5, Busy: 3, Booting: 1}, known(20, 3), fleet.SizeMemory{}, monday)
	want := []string{
		"20 workflow jobs wait and 3 run; with 2 hosts to wait for work, 25 are wanted",
		"step.up bounds what is asked for at once; the rest follows",
		"25 are desired: 10 more are asked for",
	}
	if diff := cmp.Diff(want, policies.TellSize(d)); diff != "" {
		t.Errorf("TellSize (-want +got):\n%s", diff)
	}
}

// A number and its words agree.
func TestSizeOfOneIsTold(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]fleet.SizeDecision{
		"1 workflow job waits and 0 run; with 0 hosts to wait for work, 1 is wanted; 1 is desired: 1 more is asked for": {
			Direction: fleet.SizeUp, Desired: 1, Change: 1, Reasons: []string{policies.SizeForDemand},
			Evidence: fleet.Evidence{"queued": 1, "in_progress": 0, "wanted": 1},
		},
		"2 workflow jobs wait and 1 runs; with 1 host to wait for work, 4 are wanted; 1 is online and 1 boots; 4 are desired: nothing to do now": {
			Direction: fleet.SizeHold, Desired: 4, Reasons: []string{policies.SizeForDemand, policies.SizeBooting},
			Bounds:   fleet.PoolBounds{Idle: 1},
			Evidence: fleet.Evidence{"queued": 2, "in_progress": 1, "wanted": 4, "online": 1, "booting": 1},
		},
		"1 host is at work, more than the jobs known and target_utilisation account for; with 0 to wait for work, 2 are wanted; 2 are desired: 1 of those without work is chosen to leave": {
			Direction: fleet.SizeDown, Desired: 2, Change: 1, Reasons: []string{policies.SizeForUtilisation},
			Evidence: fleet.Evidence{"busy": 1, "wanted": 2},
		},
	} {
		if got := strings.Join(policies.TellSize(d), "; "); got != want {
			t.Errorf("TellSize\n got %q\nwant %q", got, want)
		}
	}
}

func TestLeaseBackoff(t *testing.T) {
	t.Parallel()
	for rounds, want := range map[int]time.Duration{
		-1: 0, 0: 0, 1: 30 * time.Second, 2: time.Minute, 5: 8 * time.Minute, 6: 15 * time.Minute, 1000: 15 * time.Minute,
	} {
		if got := policies.LeaseBackoff(rounds); got != want {
			t.Errorf("LeaseBackoff(%d) = %s, want %s", rounds, got, want)
		}
	}
}

// Whatever there is and is wanted, decision after decision: bounds, steps and
// pauses hold, and memory knows the window as a list of all decisions does.
func TestSizeKeepsItsPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := sized(rapid.IntRange(0, 5).Draw(t, "min"), rapid.IntRange(5, 40).Draw(t, "max"), rapid.IntRange(0, 5).Draw(t, "idle"))
		p.TargetUtilisation = rapid.Float64Range(0.3, 1).Draw(t, "target_utilisation")
		p.Step.Up.Count = rapid.IntRange(1, 20).Draw(t, "step.up")
		pool, faults := policies.NewPool(p)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		now := monday
		type decided struct {
			at      time.Time
			desired int
		}
		var all []decided
		var memory fleet.SizeMemory
		var lastUp, lastDown time.Time
		for range rapid.IntRange(1, 40).Draw(t, "decisions") {
			now = now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
			supply := fleet.Supply{
				Online: rapid.IntRange(0, 50).Draw(t, "online"), Booting: rapid.IntRange(0, 20).Draw(t, "booting"),
				Draining: rapid.IntRange(0, 5).Draw(t, "draining"), Dark: rapid.IntRange(0, 5).Draw(t, "dark"),
				Doubtful: rapid.Bool().Draw(t, "doubtful"),
			}
			supply.Busy = rapid.IntRange(0, supply.Online).Draw(t, "busy")
			demand := fleet.Demand{
				Queued: rapid.IntRange(0, 30).Draw(t, "queued"), InProgress: rapid.IntRange(0, 30).Draw(t, "in progress"),
				At:         now.Add(-time.Duration(rapid.IntRange(0, 900).Draw(t, "age")) * time.Second),
				Confidence: rapid.SampledFrom([]fleet.Confidence{fleet.ConfidenceKnown, fleet.ConfidenceKnown, fleet.ConfidenceUnknown}).Draw(t, "confidence"),
			}
			d := pool.Size(supply, demand, memory, now)
			memory = d.Memory
			all = append(all, decided{now, d.Desired})

			highest := 0
			for i, a := range all {
				if i+1 == len(all) || !all[i+1].at.Before(now.Add(-p.Cooldown.Down)) {
					highest = max(highest, a.desired)
				}
			}
			if memory.Spans[0].Desired != highest {
				t.Fatalf("memory has %d as the highest of the window, want %d: %v", memory.Spans[0].Desired, highest, all)
			}
			if d.Desired < p.Min || d.Desired > p.Max || (d.Direction == fleet.SizeHold) != (d.Change == 0) || d.Change < 0 {
				t.Fatalf("%+v is no decision of %+v", d, p)
			}
			switch d.Direction {
			case fleet.SizeUp:
				if supply.Online+supply.Booting+supply.Draining+supply.Dark+d.Change > p.Max {
					t.Fatalf("%d more than %+v are above max, which is %d", d.Change, supply, p.Max)
				}
				if supply.Doubtful && supply.Dark > 0 {
					t.Fatalf("grows on %+v", supply)
				}
				if d.Change > p.Step.Up.Count || now.Sub(lastUp) < p.Cooldown.Up {
					t.Fatalf("grows by %d, %s after the last time", d.Change, now.Sub(lastUp))
				}
				lastUp = now
			case fleet.SizeDown:
				left := supply.Online - d.Change
				switch {
				case demand.Confidence != fleet.ConfidenceKnown || now.Sub(demand.At) > 10*time.Minute:
					t.Fatalf("shrinks without knowing demand: %+v", demand)
				case left < demand.Queued+demand.InProgress || left < supply.Busy:
					t.Fatalf("%d of %+v leave too few for %+v", d.Change, supply, demand)
				case left+supply.Booting < highest:
					t.Fatalf("%d of %+v leave too few for %d, desired within the window", d.Change, supply, highest)
				case now.Sub(all[0].at) < p.Cooldown.Down, now.Sub(lastDown) < time.Minute:
					t.Fatalf("shrinks too soon: last %s ago, first decision %s ago", now.Sub(lastDown), now.Sub(all[0].at))
				case d.Change > max(supply.Size()/10, 1):
					t.Fatalf("shrinks by %d of %d", d.Change, supply.Size())
				}
				lastDown = now
			case fleet.SizeHold:
			}
		}
	})
}

// Five completions that arrive late beside one new job are no reason to have
// nobody for it: counters would make one and five minus four of them.
func TestLateCompletionsLeaveOneRunner(t *testing.T) {
	t.Parallel()
	batch := []fleet.WorkflowJob{{Target: "acme", ID: 6, State: fleet.WorkflowJobQueued, Labels: []string{"linux"}}}
	for id := range int64(5) {
		batch = append(batch, fleet.WorkflowJob{Target: "acme", ID: id, State: fleet.WorkflowJobCompleted, Labels: []string{"linux"}})
	}
	rapid.Check(t, func(t *rapid.T) {
		p, _ := policies.NewPool(sized(0, 20, 0))
		d := policies.NewMatcher([]fleet.Pool{p.Pool}).Match(rapid.Permutation(batch).Draw(t, "order"), policies.Outside{}).Demand["linux"]
		d.At, d.Confidence = monday, fleet.ConfidenceKnown
		if got := p.Size(fleet.Supply{}, d, watched(time.Hour, 0), monday); got.Direction != fleet.SizeUp || got.Change != 1 {
			t.Fatalf("the batch makes %s %d of %+v, want up 1", got.Direction, got.Change, d)
		}
	})
}

// A matrix with max-parallel shows all its jobs as queued, and lets two run at
// a time. None of the hosts that wait for the others is taken away, and those
// that went by themselves are made good.
func TestMatrixWithMaxParallelDoesNotStarve(t *testing.T) {
	t.Parallel()
	pool := checked(t, sized(0, 20, 0))
	matcher := policies.NewMatcher([]fleet.Pool{pool.Pool})
	var jobs []fleet.WorkflowJob
	for id := range int64(8) {
		jobs = append(jobs, fleet.WorkflowJob{Target: "acme", ID: id, State: fleet.WorkflowJobQueued, Labels: []string{"linux"}})
	}
	var memory fleet.SizeMemory
	online := 0
	now := monday
	for done := 0; done < len(jobs); done += 2 {
		// An hour each, and half of the hosts expire meanwhile.
		for range 60 {
			now = now.Add(time.Minute)
			for i := range jobs {
				switch {
				case i < done:
					jobs[i].State = fleet.WorkflowJobCompleted
				case i < done+2 && online > 0:
					jobs[i].State = fleet.WorkflowJobInProgress
				}
			}
			demand := matcher.Match(jobs, policies.Outside{}).Demand["linux"]
			demand.At, demand.Confidence = now, fleet.ConfidenceKnown
			d := pool.Size(fleet.Supply{Online: online, Busy: min(online, 2)}, demand, memory, now)
			memory = d.Memory
			switch d.Direction {
			case fleet.SizeUp:
				online += d.Change
			case fleet.SizeDown:
				online -= d.Change
			case fleet.SizeHold:
			}
			if left := len(jobs) - done; online < left {
				t.Fatalf("%d jobs of the matrix are left, and %d hosts for them: %v", left, online, d.Reasons)
			}
		}
		online -= online / 2
	}
	if !slices.ContainsFunc(memory.Spans, func(s fleet.DesiredSpan) bool { return s.Desired >= 2 }) {
		t.Errorf("the last two jobs wanted nobody: %+v", memory)
	}
}
