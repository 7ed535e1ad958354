package policies_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// draining is a policy that takes online runners.
func draining() string {
	return strings.Replace(document(`runner.status == "online" && !runner.busy`),
		"actions: [{delete_runner: {}}]", "actions: [{drain_host: {}}, {delete_runner: {}}, {release_host: {}}]", 1)
}

// idle is a runner that the policies here drain unless something is changed.
func idle(id int64) fleet.Observed {
	name := fmt.Sprintf("runner-%d", id)
	return fleet.Observed{
		Runner: fleet.Runner{ID: id, Name: name, Status: fleet.StatusOnline, Labels: []string{"linux"}},
		Target: "acme", Host: name, FirstSeenAt: now.Add(-1000 * time.Hour), LastSeenAt: now.Add(-time.Minute),
		LastOnlineAt: now.Add(-time.Minute), LastBusyAt: now.Add(-10 * time.Hour),
	}
}

func TestLoadReadsADrain(t *testing.T) {
	t.Parallel()
	p := load(t, draining())
	want := policies.Guards{
		Complete: true, MaxAge: 10 * time.Minute, Grace: 24 * time.Hour, Rate: 10,
		Max: policies.Max{Count: 5, Percent: 10, Window: time.Hour},
	}
	if diff := cmp.Diff(want, p.Guards); diff != "" || p.Action != fleet.ActionDeleteRunner || !p.Drain || !p.Release {
		t.Errorf("Load = %+v, guards want (-) got (+):\n%s", p, diff)
	}
	if got, want := p.Actions(), []fleet.ActionKind{"drain_host", "delete_runner", "release_host"}; !cmp.Equal(got, want) {
		t.Errorf("Actions = %v, want %v", got, want)
	}
	if got, want := load(t, document(longOffline)).Actions(), []fleet.ActionKind{"delete_runner"}; !cmp.Equal(got, want) {
		t.Errorf("Actions of a policy that deletes = %v, want %v", got, want)
	}
	p = load(t, strings.Replace(draining(), ", {release_host: {}}", "", 1))
	if !p.Drain || p.Release {
		t.Errorf("without release_host: %+v", p)
	}
}

func TestADrainIsKeptByEachGuard(t *testing.T) {
	t.Parallel()
	p := policies.MatchingAll(load(t, draining()))
	for _, tt := range []struct {
		name   string
		change func(*policies.Input, *fleet.Observed)
		want   string
	}{
		{"nothing against it", func(*policies.Input, *fleet.Observed) {}, "1 act matched"},
		{"offline", func(_ *policies.Input, r *fleet.Observed) { r.Status = fleet.StatusOffline }, "1 keep offline"},
		{"neither online nor offline", func(_ *policies.Input, r *fleet.Observed) { r.Status = "" }, "1 keep offline"},
		{"busy", func(_ *policies.Input, r *fleet.Observed) { r.Busy = true }, "1 keep busy"},
		{"on nobody's host", func(_ *policies.Input, r *fleet.Observed) { r.Host = "" }, "1 keep no_host"},
		{"on a host by heartbeats", func(_ *policies.Input, r *fleet.Observed) { r.Host, r.HostSays.Name = "", "h1" }, "1 act matched"},
		{"on two hosts by heartbeats", func(_ *policies.Input, r *fleet.Observed) { r.HostSays.Name, r.HostSays.Stranger = r.Host, "h1" }, "1 keep no_host"},
		{"on another host by heartbeats", func(_ *policies.Input, r *fleet.Observed) { r.HostSays.Stranger = "h1" }, "1 keep no_host"},
		{"a workflow job on it", func(_ *policies.Input, r *fleet.Observed) { r.Work = fleet.Work{OpenJob: 7, OpenSince: now} }, "1 keep open_job"},
		{"its host says busy", says(fleet.HostRunnerBusy, 0), "1 keep host_busy"},
		{"its host says idle", says(fleet.HostRunnerIdle, 0), "1 act matched"},
		{"held", func(_ *policies.Input, r *fleet.Observed) { r.Hold = fleet.Hold{At: now} }, "1 keep hold"},
		{"missing", func(_ *policies.Input, r *fleet.Observed) { r.MissingSince = now }, "1 keep missing"},
		{"spared since the last sync", func(_ *policies.Input, r *fleet.Observed) { r.SparedAt = now }, "1 keep spared"},
		{"spared a while ago", func(_ *policies.Input, r *fleet.Observed) { r.SparedAt = now.Add(-10*time.Minute + 1) }, "1 keep spared"},
		{"spared ten minutes ago", func(_ *policies.Input, r *fleet.Observed) { r.SparedAt = now.Add(-10 * time.Minute) }, "1 act matched"},
		{"credential refused", func(in *policies.Input, _ *fleet.Observed) { in.Target.CredentialFault = "401" }, "1 keep credential"},
		{"inventory too old", func(in *policies.Input, _ *fleet.Observed) { in.Target.LastCompleteSyncAt = now.Add(-time.Hour) }, "1 keep inventory_stale"},
		{"grace not over", func(in *policies.Input, _ *fleet.Observed) { in.MatchedSince[1] = now }, "1 keep grace"},
		{"much of the target dark", func(in *policies.Input, _ *fleet.Observed) { in.Alarm = fleet.Alarm{Offline: 300, Of: 1000} }, "1 halt brake"},
		{"halted", func(in *policies.Input, _ *fleet.Observed) { in.State.Halted = true }, "1 halt halted"},
		{"more than max", func(in *policies.Input, _ *fleet.Observed) { in.Acted = 5 }, "1 halt over_max"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := idle(1)
			in := input(r)
			tt.change(&in, &in.Runners[0])
			if got := verdicts(policies.Decide(p, in, now)); got != tt.want {
				t.Errorf("Decide = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestThePoolsDrainHasNoCapsButALeastAge(t *testing.T) {
	t.Parallel()
	pool, wrong := policies.NewPool(fleet.Pool{
		Name: "linux", Target: "acme", Labels: []string{"linux"}, PoolBounds: fleet.PoolBounds{Max: 20}, TargetUtilisation: 1,
		BootDeadline: 10 * time.Minute, MinLifetime: 10 * time.Minute,
		Step: fleet.PoolStep{Up: fleet.Portion{Count: 1}, Down: fleet.Portion{Count: 1}},
	})
	if wrong != nil {
		t.Fatal(wrong)
	}
	p := policies.ScaleDown(pool)
	young, old, offline := idle(1), idle(2), idle(3)
	young.FirstSeenAt, old.FirstSeenAt, offline.Status = now.Add(-10*time.Minute+1), now.Add(-10*time.Minute), fleet.StatusOffline
	in := input(young, old, offline)
	in.MatchedSince, in.Acted, in.ActedLastMinute = nil, 1000, 1000
	if got, want := verdicts(policies.Decide(p, in, now)), "1 keep young; 2 act matched; 3 keep offline"; got != want {
		t.Errorf("Decide = %s, want %s", got, want)
	}
	in.Alarm = fleet.Alarm{Offline: 300, Of: 1000}
	if got, want := verdicts(policies.Decide(p, in, now)), "1 keep young; 2 halt brake; 3 keep offline"; got != want {
		t.Errorf("Decide with much of the target dark = %s, want %s", got, want)
	}
	in.Target.Name = "beta"
	if got := policies.Decide(p, in, now).Decisions; got != nil {
		t.Errorf("Decide for another target = %v", got)
	}
}

// Whoever waits for the next run has had work more recently than whoever does
// not.
func TestTheLongestIdleGoFirst(t *testing.T) {
	t.Parallel()
	p := policies.MatchingAll(load(t, strings.Replace(draining(), "{grace: 1d, max: {count: 5, percent: 10}}", "{grace: 1d, max: {count: 50, percent: 100}, rate: 2/m}", 1)))
	a, b, c, fresh := idle(1), idle(2), idle(3), idle(4)
	a.LastBusyAt, b.LastBusyAt, c.LastBusyAt = now.Add(-3*time.Hour), now.Add(-time.Hour), now.Add(-5*time.Hour)
	b.Work.LastDoneAt = now.Add(-time.Minute)
	fresh.LastBusyAt, fresh.FirstSeenAt = time.Time{}, now.Add(-4*time.Hour)
	if got, want := verdicts(policies.Decide(p, input(a, b, c, fresh), now)), "1 keep rate; 2 keep rate; 3 act matched; 4 act matched"; got != want {
		t.Errorf("Decide = %s, want %s", got, want)
	}
	// Hosts that were asked in vain do not keep the others from being asked.
	c.SparedAt, fresh.SparedAt = now.Add(-time.Hour), now.Add(-2*time.Hour)
	if got, want := verdicts(policies.Decide(p, input(a, b, c, fresh), now)), "1 act matched; 2 act matched; 3 keep rate; 4 keep rate"; got != want {
		t.Errorf("Decide after two were spared = %s, want %s", got, want)
	}
	b.SparedAt = now.Add(-time.Hour - 1)
	if got, want := verdicts(policies.Decide(p, input(b, c, fresh), now)), "2 act matched; 3 keep rate; 4 act matched"; got != want {
		t.Errorf("Decide after three were spared = %s, want %s", got, want)
	}
}

func TestChooseIdle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var all []fleet.Observed
		for i := range rapid.IntRange(0, 12).Draw(t, "runners") {
			r := idle(int64(i + 1))
			r.LastBusyAt = now.Add(-time.Duration(rapid.IntRange(0, 5).Draw(t, "idle for")) * time.Hour)
			r.FirstSeenAt = now.Add(-time.Duration(rapid.IntRange(0, 20).Draw(t, "age")) * time.Minute)
			switch rapid.IntRange(0, 14).Draw(t, "change") {
			case 0:
				r.Busy = true
			case 1:
				r.Status = fleet.StatusOffline
			case 2:
				r.Host = ""
			case 3:
				r.Work = fleet.Work{OpenJob: 1, OpenSince: now}
			case 4:
				r.HostSays.BusyAt = now
			case 5:
				r.Hold.At = now
			case 6:
				r.MissingSince = now
			case 7:
				r.RemovedAt = now
			case 8:
				r.HostSays.IdleAt = now
			}
			all = append(all, r)
		}
		n := rapid.IntRange(-1, 12).Draw(t, "n")
		chosen := policies.ChooseIdle(all, n, now, 10*time.Minute)
		if len(chosen) > max(n, 0) {
			t.Fatalf("%d chosen, want at most %d", len(chosen), n)
		}
		taken := map[int64]bool{}
		for i, r := range chosen {
			taken[r.ID] = true
			switch {
			case r.Busy, r.Status != fleet.StatusOnline, r.Host == "", r.Work.OpenJob != 0, !r.HostSays.BusyAt.IsZero(),
				!r.Hold.At.IsZero(), !r.MissingSince.IsZero(), !r.RemovedAt.IsZero():
				t.Fatalf("chose %+v", r)
			case now.Sub(r.FirstSeenAt) < 10*time.Minute:
				t.Fatalf("chose one of %v", now.Sub(r.FirstSeenAt))
			case i > 0 && r.LastBusyAt.Before(chosen[i-1].LastBusyAt):
				t.Fatalf("%d comes after %d, and has been idle for longer", r.ID, chosen[i-1].ID)
			}
		}
		if len(chosen) == max(n, 0) {
			return
		}
		// Fewer than wanted: every other one is kept by something.
		for _, r := range all {
			if !taken[r.ID] && len(policies.ChooseIdle([]fleet.Observed{r}, 1, now, 10*time.Minute)) > 0 {
				t.Fatalf("left out %+v", r)
			}
		}
	})
}
