package policies_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

func period(cron, zone string, d time.Duration, lowest, highest, idle int) fleet.PoolPeriod {
	return fleet.PoolPeriod{Cron: cron, TimeZone: zone, Duration: d, PoolBounds: fleet.PoolBounds{Min: lowest, Max: highest, Idle: idle}}
}

func TestPoolsThatAreNone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*fleet.Pool)
		want   []string
	}{
		{"no label", func(p *fleet.Pool) { p.Labels = []string{" "} },
			[]string{"labels: names no label: a job that asks for none could not be told to wait for this pool"}},
		{"min above max", func(p *fleet.Pool) { p.Min = 21 },
			[]string{"min: 21 is more than max, which is 20: lower the one or raise the other"}},
		{"idle above max", func(p *fleet.Pool) { p.Idle = 21 },
			[]string{"idle: 21 is out of bounds, want 0 to max, which is 20"}},
		{"nobody ever", func(p *fleet.Pool) { p.Max = 0 },
			[]string{"max: 0 is out of bounds, want 1 to 100000"}},
		{"numbers", func(p *fleet.Pool) {
			p.TargetUtilisation, p.BootDeadline, p.MinLifetime, p.Cooldown.Down = 1.5, time.Second, -1, 30*24*time.Hour
			p.Step = fleet.PoolStep{Down: fleet.Portion{Percent: 101}}
		}, []string{
			"target_utilisation: 1.5 is out of bounds, want more than 0 and at most 1, such as 0.75",
			"boot_deadline: 1s is too short, 30s is the least",
			"min_lifetime: -1ns is too short, 0s is the least",
			"cooldown.down: 720h is too long, 168h is the most",
			"step.up: 0 is out of bounds, want 1 to 100000, or a percentage such as 10%",
			"step.down: 101% is out of bounds, want 1% to 100%",
		}},
		{"periods", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{
				period("0 8 * *", "UTC", 10*time.Hour, 1, 5, 0),
				period("0 8 * * *", "Local", 10*time.Minute, 5, 1, 0),
				period("0 8 * * *", "UTC", 24*time.Hour, 1, 5, 0),
			}
		}, []string{
			`periods[0].cron: "0 8 * *": expected 5 to 6 fields, found 4: [0 8 * *]; want five fields (minute hour day month weekday), or six with leading seconds`,
			`periods[1].time_zone: time_zone "Local" is not known: want UTC or an IANA name such as Europe/London`,
			"periods[1].duration: 10m is too short, 15m is the least: write how long, such as 10h",
			"periods[1].min: 5 is more than max, which is 1: lower the one or raise the other",
			"periods[2].duration: the next time of the period begins before this one ends, so the pool's own min, max and idle would never hold: make it shorter, or write its numbers in the pool itself",
		}},
		{"two at once", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{
				period("0 8 * * 1-5", "UTC", 10*time.Hour, 1, 5, 0),
				period("0 18 * * *", "UTC", 2*time.Hour, 1, 5, 0), // begins as the first ends
				period("0 9 1 * *", "UTC", time.Hour, 1, 5, 0),    // the first of a month may be a Monday
			}
		}, []string{"periods[2].cron: holds together with periods[0], such as on 2026-01-01 09:00 UTC: let one end before the other begins"}},
		{"two at once in one night of the year", func(p *fleet.Pool) {
			p.Periods = []fleet.PoolPeriod{
				period("0 22 * * *", "UTC", 3*time.Hour, 1, 5, 0),
				period("0 2 * * *", "Europe/London", 2*time.Hour, 1, 5, 0), // 01:00 UTC in summer
				period("30 23 28 3 *", "Europe/London", time.Hour, 1, 5, 0),
			}
		}, []string{"periods[2].cron: holds together with periods[0], such as on 2026-03-28 23:30 UTC: let one end before the other begins"}},
		{"too many", func(p *fleet.Pool) { p.Periods = make([]fleet.PoolPeriod, 21) },
			[]string{"periods: 21 periods are too many, 20 is the most: join some"}},
	}
	for _, tt := range tests {
		p := sized(0, 20, 0)
		tt.change(&p)
		c, faults := policies.NewPool(p)
		var got []string
		for _, f := range faults {
			got = append(got, f.Key+": "+f.Text)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || c != nil {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestPeriodsHold(t *testing.T) {
	t.Parallel()
	p := sized(0, 20, 0)
	p.Periods = []fleet.PoolPeriod{
		period("0 8 * * 1-5", "Europe/London", 10*time.Hour, 4, 40, 2),
		period("0 22 * * *", "Europe/London", 4*time.Hour, 1, 10, 0),
	}
	c := checked(t, p)
	for at, want := range map[string]string{
		"2026-03-02T07:59:59Z": "0 20 0", // Monday, winter
		"2026-03-02T08:00:00Z": "4 40 2", // the moment it begins belongs to it
		"2026-03-02T17:59:59Z": "4 40 2", //
		"2026-03-02T18:00:00Z": "0 20 0", // the moment it ends does not
		"2026-07-06T07:00:00Z": "4 40 2", // Monday, summer
		"2026-03-07T09:00:00Z": "0 20 0", // Saturday
		"2026-03-08T01:59:59Z": "1 10 0", // past midnight
		"2026-03-29T01:59:59Z": "1 10 0", // 02:59:59 on the wall: the night is an hour short, the period is not
		"2026-03-29T02:00:00Z": "0 20 0", //
		"2026-10-25T00:59:59Z": "1 10 0", // 01:59:59 on the wall, the first time
		"2026-10-25T01:00:00Z": "0 20 0", // and four hours are over
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		d := c.Size(fleet.Supply{}, fleet.Demand{}, fleet.SizeMemory{}, now)
		got := fmt.Sprint(d.Bounds.Min, d.Bounds.Max, d.Bounds.Idle)
		if got != want {
			t.Errorf("at %s the bounds are %s, want %s", at, got, want)
		}
		if in := d.Reasons[0] == policies.SizeForPeriod; in != (want != "0 20 0") {
			t.Errorf("at %s the reasons are %v", at, d.Reasons)
		}
	}
}

// Every reason can be told; what cannot is found by whoever needs it most.
func TestEveryReasonOfASizeHasWords(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "size_reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		n++
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		told := policies.TellSize(fleet.SizeDecision{Direction: fleet.SizeHold, Reasons: []string{code}})
		if len(told) != 2 || strings.TrimSpace(told[0]) == "" {
			t.Errorf("the reason %s is told as %q", code, told)
		}
		return true
	})
	if n < 15 {
		t.Errorf("size_reasons.go has %d reasons, want 15 or more", n)
	}
}
