package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// soundPool is a pool without a fault.
func soundPool() fleet.Pool {
	return fleet.Pool{
		Name: "linux", Target: "acme", Labels: []string{"linux"}, PoolBounds: fleet.PoolBounds{Min: 1, Max: 20}, TargetUtilisation: 1,
		BootDeadline: 10 * time.Minute, Step: fleet.PoolStep{Up: fleet.Portion{Count: 1}, Down: fleet.Portion{Percent: 10}},
	}
}

// Each bound of a pool is refused one beyond it, and taken at it.
func TestBoundsOfPools(t *testing.T) {
	t.Parallel()
	const week = 7 * 24 * time.Hour
	many := func(n int) []fleet.PoolPeriod {
		var all []fleet.PoolPeriod
		for i := range n {
			all = append(all, period("0 0 "+string(rune('1'+i%9))+" "+string(rune('1'+i/9))+" *", "UTC", time.Hour, 1, 5, 0))
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		change func(*fleet.Pool)
		want   string // the key at fault; empty: none
	}{
		{"as it is", func(*fleet.Pool) {}, ""},
		{"min below 0", func(p *fleet.Pool) { p.Min = -1 }, "min: -1 is out of bounds, want 0 to 100000"},
		{"min 0", func(p *fleet.Pool) { p.Min = 0 }, ""},
		{"max at most", func(p *fleet.Pool) { p.Max = 100_000 }, ""},
		{"max beyond", func(p *fleet.Pool) { p.Max = 100_001 }, "max: "},
		{"max 1", func(p *fleet.Pool) { p.Max = 1 }, ""},
		{"min at max", func(p *fleet.Pool) { p.Min = 20 }, ""},
		{"idle below 0", func(p *fleet.Pool) { p.Idle = -1 }, "idle: "},
		{"idle at max", func(p *fleet.Pool) { p.Idle = 20 }, ""},
		{"utilisation 0", func(p *fleet.Pool) { p.TargetUtilisation = 0 }, "target_utilisation: "},
		{"utilisation tiny", func(p *fleet.Pool) { p.TargetUtilisation = 0.001 }, ""},
		{"boot deadline least", func(p *fleet.Pool) { p.BootDeadline = 30 * time.Second }, ""},
		{"boot deadline short", func(p *fleet.Pool) { p.BootDeadline = 30*time.Second - 1 }, "boot_deadline: "},
		{"boot deadline longest", func(p *fleet.Pool) { p.BootDeadline = week }, ""},
		{"boot deadline long", func(p *fleet.Pool) { p.BootDeadline = week + 1 }, "boot_deadline: "},
		{"lifetime below 0", func(p *fleet.Pool) { p.MinLifetime = -1 }, "min_lifetime: "},
		{"cooldown up below 0", func(p *fleet.Pool) { p.Cooldown.Up = -1 }, "cooldown.up: "},
		{"cooldown down below 0", func(p *fleet.Pool) { p.Cooldown.Down = -1 }, "cooldown.down: "},
		{"step at most", func(p *fleet.Pool) { p.Step.Up.Count = 100_000 }, ""},
		{"step beyond", func(p *fleet.Pool) { p.Step.Up.Count = 100_001 }, "step.up: "},
		{"step of 1%", func(p *fleet.Pool) { p.Step.Up = fleet.Portion{Percent: 1} }, ""},
		{"step of 100%", func(p *fleet.Pool) { p.Step.Up = fleet.Portion{Percent: 100} }, ""},
		{"step of 101%", func(p *fleet.Pool) { p.Step.Up = fleet.Portion{Percent: 101} }, "step.up: 101% is out of bounds"},
		{"step of -1%", func(p *fleet.Pool) { p.Step.Up = fleet.Portion{Percent: -1} }, "step.up: -1% is out of bounds"},
		{"step of both", func(p *fleet.Pool) { p.Step.Up = fleet.Portion{Count: 1, Percent: 50} }, "step.up: "},
		{"20 periods", func(p *fleet.Pool) { p.Periods = many(20) }, ""},
		{"21 periods", func(p *fleet.Pool) { p.Periods = many(21) }, "periods: 21 periods are too many, 20 is the most"},
		{"the shortest period", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0 8 * * *", "UTC", 15*time.Minute, 1, 5, 0)}
		}, ""},
		{"too short a period", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0 8 * * *", "UTC", 15*time.Minute-1, 1, 5, 0)}
		}, "periods[0].duration: "},
		{"the longest period", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0 0 1 1 *", "UTC", 92*24*time.Hour, 1, 5, 0)}
		}, ""},
		{"too long a period", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0 0 1 1 *", "UTC", 92*24*time.Hour+1, 1, 5, 0)}
		}, "periods[0].duration: "},
		{"periods that touch", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0 8 * * *", "UTC", 2*time.Hour, 1, 5, 0), period("0 10 * * *", "UTC", time.Hour, 1, 5, 0)}
		}, ""},
		{"periods that touch, the later first", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0 10 * * *", "UTC", time.Hour, 1, 5, 0), period("0 8 * * *", "UTC", 2*time.Hour, 1, 5, 0)}
		}, ""},
		{"periods together, the later first", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("59 9 * * *", "UTC", time.Hour, 1, 5, 0), period("0 8 * * *", "UTC", 2*time.Hour, 1, 5, 0)}
		}, "periods[1].cron: holds together with periods[0], such as on 2026-01-01 09:59 UTC"},
		{"periods together once a year", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0 8 31 12 *", "UTC", time.Hour, 1, 5, 0), period("30 8 31 * *", "UTC", time.Hour, 1, 5, 0)}
		}, "periods[1].cron: holds together with periods[0], such as on 2026-12-31 08:30 UTC"},
		{"together with two others", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{
				period("0 8 * * *", "UTC", time.Hour, 1, 5, 0), period("0 10 * * *", "UTC", time.Hour, 1, 5, 0), period("0 8 * * *", "UTC", 4*time.Hour, 1, 5, 0),
			}
		}, "periods[2].cron: holds together with periods[0]"},
		{"one that begins again before its end", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0 8 * * *", "UTC", 15*time.Minute, 1, 5, 0), period("0,10 8 * * *", "UTC", 20*time.Minute, 1, 5, 0)}
		}, "periods[1].cron: holds together with periods[0]"},
		{"beside one that begins again before its end", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{period("0,10 8 * * *", "UTC", 20*time.Minute, 1, 5, 0), period("25 8 * * *", "UTC", 15*time.Minute, 1, 5, 0)}
		}, "periods[1].cron: holds together with periods[0], such as on 2026-01-01 08:25 UTC"},
	} {
		p := soundPool()
		tt.change(&p)
		checked, faults := policies.NewPool(p)
		var got []string
		for _, f := range faults {
			got = append(got, f.Key+": "+f.Text)
		}
		said := strings.Join(got, "\n")
		if len(got) > 1 || !strings.HasPrefix(said, tt.want) || (said == "") != (tt.want == "") || (checked == nil) != (tt.want != "") {
			t.Errorf("%s: faults %q, want one that begins with %q", tt.name, got, tt.want)
		}
	}
}

// The bounds of what a pool's size rests on, each just at it and just beyond.
func TestBoundsOfTheWindowAndOfDemand(t *testing.T) {
	t.Parallel()
	p := soundPool()
	p.Min, p.Cooldown.Down = 0, 10*time.Minute
	p.Step.Down = fleet.Portion{Count: 5}
	pool, faults := policies.NewPool(p)
	if faults != nil {
		t.Fatal(faults)
	}
	at := now
	supply := fleet.Supply{Online: 9}
	demand := fleet.Demand{Confidence: fleet.ConfidenceKnown, At: at}
	old := fleet.SizeMemory{Since: at.Add(-time.Hour)}
	for _, tt := range []struct {
		name   string
		supply fleet.Supply
		demand fleet.Demand
		memory fleet.SizeMemory
		want   string // direction and last reason
	}{
		{"watched for the cool-down", supply, demand, fleet.SizeMemory{Since: at.Add(-10 * time.Minute)}, "down step_down"},
		{"watched for less", supply, demand, fleet.SizeMemory{Since: at.Add(-10*time.Minute + 1)}, "hold window_unknown"},
		{"demand ten minutes old", supply, fleet.Demand{Confidence: fleet.ConfidenceKnown, At: at.Add(-10 * time.Minute)}, old, "down step_down"},
		{"demand older", supply, fleet.Demand{Confidence: fleet.ConfidenceKnown, At: at.Add(-10*time.Minute - 1)}, old, "hold demand_stale"},
		{"wanted at the window's begin", supply, demand, fleet.SizeMemory{Since: old.Since, At: at.Add(-time.Minute),
			Spans: []fleet.DesiredSpan{{Desired: 9, Until: at.Add(-10 * time.Minute)}, {Desired: 1, Until: at.Add(-time.Minute)}}}, "hold cooldown_window"},
		{"wanted before", supply, demand, fleet.SizeMemory{Since: old.Since, At: at.Add(-time.Minute),
			Spans: []fleet.DesiredSpan{{Desired: 9, Until: at.Add(-10*time.Minute - 1)}, {Desired: 1, Until: at.Add(-time.Minute)}}}, "down step_down"},
		{"one more than was wanted", supply, demand, fleet.SizeMemory{Since: old.Since, At: at.Add(-time.Minute),
			Spans: []fleet.DesiredSpan{{Desired: 8, Until: at.Add(-time.Minute)}}}, "down cooldown_window"},
		{"one boots", fleet.Supply{Booting: 1}, fleet.Demand{Queued: 1, Confidence: fleet.ConfidenceKnown, At: at}, old, "hold hosts_booting"},
	} {
		d := pool.Size(tt.supply, tt.demand, tt.memory, at)
		if got := string(d.Direction) + " " + d.Reasons[len(d.Reasons)-1]; got != tt.want {
			t.Errorf("%s: %s %v, want %s", tt.name, got, d.Reasons, tt.want)
		}
		if !d.Memory.At.Equal(at) {
			t.Errorf("%s: memory of %v, want of %v", tt.name, d.Memory.At, at)
		}
	}
	evidence := pool.Size(fleet.Supply{Expired: 1, Dark: 1}, demand, old, at).Evidence
	if evidence["leases_expired"] != 1 || evidence["dark"] != 1 {
		t.Errorf("evidence %v, want one expired lease and one dark host", evidence)
	}
	evidence = pool.Size(fleet.Supply{}, demand, old, at).Evidence
	for _, key := range []string{"leases_expired", "dark", "period"} {
		if value, there := evidence[key]; there {
			t.Errorf("evidence %s = %v of a pool without", key, value)
		}
	}
}

// A period is told with its end.
func TestAPeriodIsTold(t *testing.T) {
	t.Parallel()
	p := soundPool()
	p.Periods = []fleet.PoolPeriod{period("0 9 * * *", "UTC", time.Hour, 2, 5, 0)}
	pool, faults := policies.NewPool(p)
	if faults != nil {
		t.Fatal(faults)
	}
	d := pool.Size(fleet.Supply{}, fleet.Demand{}, fleet.SizeMemory{}, now)
	if d.Evidence["period"] != "0 9 * * *" || d.Evidence["period_until"] != "2026-03-14T10:00:00Z" || d.Bounds.Min != 2 {
		t.Errorf("evidence %v with bounds %+v, want the period", d.Evidence, d.Bounds)
	}
}

func TestBackoffDoublesUpToItsMost(t *testing.T) {
	t.Parallel()
	for rounds, want := range map[int]time.Duration{
		-1: 0, 0: 0, 1: 30 * time.Second, 2: time.Minute, 3: 2 * time.Minute, 5: 8 * time.Minute, 6: 15 * time.Minute, 11: 15 * time.Minute, 1000: 15 * time.Minute,
	} {
		if got := policies.LeaseBackoff(rounds); got != want {
			t.Errorf("LeaseBackoff(%d) = %v, want %v", rounds, got, want)
		}
	}
}
