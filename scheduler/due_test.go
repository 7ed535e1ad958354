package scheduler

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
)

func every(t testing.TB, cron string, change func(*Spec)) Schedule {
	t.Helper()
	spec := Spec{Job: fleet.JobSync, Name: "acme", Cron: cron, Deadline: 10 * time.Minute}
	if change != nil {
		change(&spec)
	}
	s, err := Parse(spec)
	if err != nil {
		t.Fatalf("Parse(%+v): %v", spec, err)
	}
	return s
}

func clock(text string) time.Time {
	t, err := time.Parse(time.TimeOnly, text)
	if err != nil {
		panic(err)
	}
	return t.AddDate(2026, 0, 0)
}

func TestDue(t *testing.T) {
	t.Parallel()
	const fire, miss = true, false
	skip := func(s *Spec) { s.Misfire = "skip" }
	tests := []struct {
		name       string
		cron       string
		change     func(*Spec)
		after, now string
		want       []decision
	}{
		{"nothing yet", "0 * * * *", nil, "06:00:00", "06:59:59", nil},
		{"on the dot", "0 * * * *", nil, "06:00:00", "07:00:00", []decision{{clock("07:00:00"), fire}}},
		{"at the deadline", "0 * * * *", nil, "06:00:00", "07:10:00", []decision{{clock("07:00:00"), fire}}},
		{"past it, once", "0 * * * *", nil, "06:00:00", "07:10:01", []decision{{clock("07:00:00"), fire}}},
		{"past it, skip", "0 * * * *", skip, "06:00:00", "07:10:01", []decision{{clock("07:00:00"), miss}}},
		{"a long night, once", "0 * * * *", nil, "06:00:00", "09:30:00",
			[]decision{{clock("07:00:00"), miss}, {clock("08:00:00"), miss}, {clock("09:00:00"), fire}}},
		{"a long night, skip", "0 * * * *", skip, "06:00:00", "09:30:00",
			[]decision{{clock("07:00:00"), miss}, {clock("08:00:00"), miss}, {clock("09:00:00"), miss}}},
		{"the young one makes up for the old ones", "0 * * * *", nil, "06:00:00", "08:05:00",
			[]decision{{clock("07:00:00"), miss}, {clock("08:00:00"), fire}}},
		{"all that are young", "*/4 * * * *", nil, "06:00:00", "06:13:00",
			[]decision{{clock("06:04:00"), fire}, {clock("06:08:00"), fire}, {clock("06:12:00"), fire}}},
		{"a clock that went back", "0 * * * *", nil, "09:00:00", "07:00:00", nil},
	}
	for _, tt := range tests {
		got, more := due(every(t, tt.cron, tt.change), clock(tt.after), clock(tt.now))
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(decision{})); diff != "" || more {
			t.Errorf("%s: more = %v, decisions (-want +got):\n%s", tt.name, more, diff)
		}
	}
}

func TestDueIsBoundedAndGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	for _, extra := range []int{0, 1, 500} { // beyond two full rounds
		s := every(t, "* * * * * *", nil)
		after, fired, total := clock("00:00:00"), 0, 0
		now := after.Add(time.Duration(2*maxDue+extra) * time.Second).Add(11 * time.Minute)
		// Ticks within the deadline fire; keep them out of this.
		s.spec.Deadline = time.Nanosecond
		for rounds := 0; ; rounds++ {
			decisions, more := due(s, after, now.Add(time.Millisecond))
			if len(decisions) > maxDue {
				t.Fatalf("%d decisions at once", len(decisions))
			}
			for _, d := range decisions {
				if !d.tick.Equal(after.Add(time.Second)) {
					t.Fatalf("tick %v after %v", d.tick, after)
				}
				after = d.tick
				total++
				if d.fire {
					fired++
				}
			}
			if !more {
				break
			}
			if rounds > 10 {
				t.Fatal("does not come to an end")
			}
		}
		if want := 2*maxDue + extra + 11*60; total != want || fired != 1 {
			t.Errorf("%d ticks, %d fired, want %d and 1", total, fired, want)
		}
	}
}

func TestExactlyAFullRoundStillMakesUpForWhatWasMissed(t *testing.T) {
	t.Parallel()
	s := every(t, "* * * * * *", func(s *Spec) { s.Deadline = time.Nanosecond })
	after := clock("00:00:00")
	decisions, more := due(s, after, after.Add(maxDue*time.Second+time.Millisecond))
	if len(decisions) != maxDue || more || !decisions[maxDue-1].fire {
		t.Errorf("%d decisions, more = %v, last %+v", len(decisions), more, decisions[len(decisions)-1])
	}
}

func TestJitterIsStableBoundedAndDelaysOnlyTheFiring(t *testing.T) {
	t.Parallel()
	s := every(t, "0 * * * *", func(s *Spec) { s.Jitter = 30 * time.Second })
	same := every(t, "0 * * * *", func(s *Spec) { s.Jitter = 30 * time.Second })
	distinct := map[time.Duration]bool{}
	tick := clock("00:00:00")
	for range 24 {
		tick = s.Next(tick)
		if tick.Minute() != 0 || tick.Second() != 0 {
			t.Fatalf("tick %v is off the grid", tick)
		}
		d := s.fireAt(tick).Sub(tick)
		if d < 0 || d >= 30*time.Second || !s.fireAt(tick).Equal(same.fireAt(tick)) {
			t.Errorf("jitter of %v is %v", tick, d)
		}
		distinct[d] = true
		if got, _ := due(s, tick.Add(-time.Second), s.fireAt(tick).Add(-time.Nanosecond)); len(got) != 0 {
			t.Errorf("%v is due before its jitter is over", tick)
		}
		if got, _ := due(s, tick.Add(-time.Second), s.fireAt(tick)); len(got) != 1 || !got[0].fire {
			t.Errorf("%v is not due when its jitter is over", tick)
		}
	}
	if len(distinct) < 12 {
		t.Errorf("24 ticks share %d delays", len(distinct))
	}
}

func TestDueMatchesNextOneByOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		spec := Spec{Job: fleet.JobSync, Name: "acme", TimeZone: "America/Los_Angeles", DST: dstRunOnce,
			Cron:     rapid.SampledFrom([]string{"*/7 * * * *", "0 */3 * * *", "30 1,2 * * *"}).Draw(t, "cron"),
			Deadline: time.Duration(rapid.IntRange(1, 600).Draw(t, "deadline")) * time.Minute,
			Jitter:   time.Duration(rapid.IntRange(0, 900).Draw(t, "jitter")) * time.Second,
			Misfire:  rapid.SampledFrom([]string{misfireOnce, misfireSkip}).Draw(t, "misfire"),
		}
		s, err := Parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		after := time.Date(2026, 10, 31, 20, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 1440).Draw(t, "after")) * time.Minute)
		now := after.Add(time.Duration(rapid.IntRange(0, 2880).Draw(t, "elapsed")) * time.Minute)
		decisions, more := due(s, after, now)
		if more {
			t.Fatal("more than a round")
		}
		expired, fired := 0, 0
		for i, d := range decisions {
			if next := s.Next(after); !d.tick.Equal(next) {
				t.Fatalf("decision %d is on %v, want %v", i, d.tick, next)
			}
			after = d.tick
			late := now.Sub(s.fireAt(d.tick))
			if late < 0 {
				t.Fatalf("%v is decided on before its time", d.tick)
			}
			if late > spec.Deadline {
				expired++
			} else if !d.fire {
				t.Fatalf("%v is within its deadline and missed", d.tick)
			}
			if d.fire {
				fired++
			}
		}
		if s.fireAt(s.Next(after)).Before(now) {
			t.Fatalf("%v was left out", s.Next(after))
		}
		want := len(decisions) - expired
		if want == 0 && expired > 0 && spec.Misfire == misfireOnce {
			want = 1
		}
		if fired != want {
			t.Fatalf("%d of %d fired, %d expired, want %d", fired, len(decisions), expired, want)
		}
	})
}
