package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// dark is a target of which 400 of 1,000 runners went dark.
func dark(in policies.Input) policies.Input {
	in.Alarm = fleet.Alarm{
		Offline: 350, Missing: 40, Removed: 10, Of: 1000,
		Since: now.Add(-15 * time.Minute), First: now.Add(-time.Minute),
	}
	return in
}

const darkness = "brake: 400 of 1000 runners went dark since 2026-03-14T09:25:53Z (350 offline, 40 missing, 10 removed, not by muster); " +
	"at most 20%, which is 200, may within 15m"

func TestBrakeHaltsWhoeverDeletes(t *testing.T) {
	t.Parallel()
	reap := load(t, document(longOffline))
	frozen := load(t, freezing(`freeze: [{cron: "0 9 * * *", duration: 2h}]`))
	busy := due(2)
	busy.Busy = true
	online := due(3)
	online.Status = fleet.StatusOnline
	for _, tt := range []struct {
		name   string
		policy *policies.Policy
		in     policies.Input
		want   string
	}{
		{"those that are due", reap, input(due(1), busy, online), "1 halt brake; 2 keep busy"},
		{"nobody is due", reap, input(online), ""},
		{"no runner at all", reap, input(), ""},
		{"more are due than max allows", reap, input(due(1), due(3), due(4), due(5), due(6), due(7)),
			"1 halt brake; 3 halt brake; 4 halt brake; 5 halt brake; 6 halt brake; 7 halt brake"},
		{"within a freeze", frozen, input(due(1)), "1 halt brake"},
		{"by hand", policies.Operator(), input(due(1)), "1 halt brake"},
	} {
		plan := policies.Decide(tt.policy, dark(tt.in), now)
		if got := verdicts(plan); got != tt.want || plan.Halt != darkness || plan.HaltedBy != policies.ReasonBrake {
			t.Errorf("%s: %q, halted by %q: %q, want %q by the brake: %q", tt.name, got, plan.HaltedBy, plan.Halt, tt.want, darkness)
		}
	}
}

func TestBrakeLeavesBe(t *testing.T) {
	t.Parallel()
	reap := load(t, document(longOffline))
	halted := dark(input(due(1)))
	halted.State.Halted, halted.State.Reason = true, "looked into"
	mild := dark(input(due(1)))
	mild.Brake = fleet.Brake{Percent: 40, Min: 10, Window: time.Hour}
	for _, tt := range []struct {
		name   string
		policy *policies.Policy
		in     policies.Input
		want   string
	}{
		{"a policy that is halted already", reap, halted, "1 halt halted"},
		{"a target with a milder brake", reap, mild, "1 act matched"},
		{"a report", load(t, strings.NewReplacer("delete_runner", "report", "grace: 24h, ", "").Replace(document(longOffline))), dark(input(due(1))), "1 act matched+report"},
	} {
		plan := policies.Decide(tt.policy, tt.in, now)
		if got := verdicts(plan); got != tt.want || plan.Halt != "" || plan.HaltedBy != "" {
			t.Errorf("%s: %q with Halt %q, want %q and none", tt.name, got, plan.Halt, tt.want)
		}
	}
}

func TestBrakeTellsItsNumbers(t *testing.T) {
	t.Parallel()
	reap := load(t, document(longOffline))
	e := policies.Decide(reap, dark(input(due(1))), now).Decisions[0].Evidence
	for key, want := range map[string]any{
		"newly_offline": 350, "newly_missing": 40, "newly_removed": 10, "newly_of": 1000, "newly_since": "2026-03-14T09:11:53Z",
		"brake_percent": 20, "brake_min": 10, "brake_window_seconds": int64(900), "halt": darkness,
	} {
		if e[key] != want {
			t.Errorf("evidence %s = %#v, want %#v", key, e[key], want)
		}
	}
	// Of a small target the least number decides, not the share.
	small := dark(input(due(1)))
	small.Alarm = fleet.Alarm{Offline: 13, Of: 29, Since: now.Add(-15 * time.Minute), First: now.Add(-time.Minute)}
	const want = "brake: 13 of 29 runners went dark since 2026-03-14T09:25:53Z (13 offline); at most 9, below the brake's min of 10, may within 15m"
	if got := policies.Decide(reap, small, now).Halt; got != want {
		t.Errorf("Halt of a small target = %q, want %q", got, want)
	}
	quiet := policies.Decide(reap, input(due(1)), now).Decisions[0].Evidence
	if _, there := quiet["newly_of"]; there {
		t.Errorf("evidence of a quiet target: %v", quiet)
	}
}
