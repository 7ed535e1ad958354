package inventory_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/inventory"
)

// life is one fleet as the property sees it: what is true is in the simulator,
// what any sync could have seen is kept here.
type life struct {
	*world
	t      *rapid.T
	scope  fleet.Scope
	names  int
	before time.Time       // of the complete sync before
	saw    map[int64]bool  // what that one saw offline
	run    map[int64]int64 // observed offline time of the unbroken run, in minutes
	exact  map[int64]bool  // no listing lied about the run
}

// TestRecordFollowsTheFleet lets random fleets live through random syncs, some
// of which are lied to, and checks after each that offline time is only what
// was observed, and at the end that the record is the truth.
func TestRecordFollowsTheFleet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var lives atomic.Int64
	targets := map[string]inventory.Target{}
	w.syncer.Targets = func() map[string]inventory.Target { return targets }
	rapid.Check(t, func(t *rapid.T) {
		w.sim.Intercept(nil)
		name := fmt.Sprintf("life%d", lives.Add(1))
		l := &life{
			world: w, t: t, scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: name},
			saw: map[int64]bool{}, run: map[int64]int64{}, exact: map[int64]bool{},
		}
		if err := w.sim.AddScope(l.scope); err != nil {
			t.Fatal(err)
		}
		targets = map[string]inventory.Target{name: w.target(l.scope)}
		for range rapid.IntRange(1, 10).Draw(t, "syncs") {
			l.change()
			w.pass(time.Duration(rapid.SampledFrom([]int{1, 30, 60, 61, 300}).Draw(t, "minutes")) * time.Minute)
			l.lieAndSync()
			l.checkOffline()
		}
		w.pass(time.Minute)
		if _, err := w.syncer.Handle(w.ctx, trigger(name)); err != nil {
			t.Fatal(err)
		}
		l.checkTruth()
	})
}

func (l *life) change() {
	for range rapid.IntRange(0, 4).Draw(l.t, "changes") {
		states := l.sim.Snapshot(l.scope)
		if len(states) < 3 || len(states) < 20 && rapid.IntRange(0, 3).Draw(l.t, "grow") == 0 {
			l.names++
			_, err := l.sim.Create(l.scope, githubsim.RunnerSpec{
				Name: fmt.Sprintf("r%d", l.names), Online: rapid.Bool().Draw(l.t, "online"), Busy: rapid.IntRange(0, 4).Draw(l.t, "busy") == 0,
			})
			if err != nil {
				l.t.Fatal(err)
			}
			continue
		}
		s := rapid.SampledFrom(states).Draw(l.t, "runner")
		var err error
		switch do := rapid.SampledFrom([]string{"kill", "kill", "connect", "assign", "finish", "remove"}).Draw(l.t, "do"); {
		case do == "kill":
			err = l.sim.Kill(l.scope, s.ID)
		case do == "connect":
			err = l.sim.Connect(l.scope, s.ID)
		case do == "assign" && !s.Busy:
			err = l.sim.Assign(l.scope, s.ID)
		case do == "finish" && s.Busy:
			err = l.sim.Finish(l.scope, s.ID)
		case do == "remove":
			err = l.sim.Remove(l.scope, s.ID)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

// lieAndSync syncs under one kind of fault and works out what the sync can
// have seen of whom.
func (l *life) lieAndSync() {
	states := l.sim.Snapshot(l.scope)
	var some []int64
	for _, s := range states {
		if rapid.IntRange(0, 2).Draw(l.t, "hit") == 0 {
			some = append(some, s.ID)
		}
	}
	known := map[int64]bool{}
	live, err := l.db.LiveRunners(l.ctx, l.scope.Owner)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, r := range live {
		known[r.ID] = true
	}
	listing, lookups := true, true // complete; answered
	hidden, silenced := map[int64]bool{}, map[int64]bool{}
	lie := func(err error, into map[int64]bool, ids []int64) {
		if err != nil {
			l.t.Fatal(err)
		}
		for _, id := range ids {
			into[id] = true
		}
	}
	all := make([]int64, len(states))
	for i, s := range states {
		all[i] = s.ID
	}
	switch rapid.SampledFrom([]string{"", "", "", "hide", "hide and break", "empty", "empty and break", "silence", "part", "down"}).Draw(l.t, "fault") {
	case "hide":
		lie(l.sim.Hide(l.scope, 1, some...), hidden, some)
	case "hide and break":
		lie(l.sim.Hide(l.scope, 1, some...), hidden, some)
		lookups = false
	case "empty":
		lie(l.sim.EmptyListing(l.scope, 1), hidden, all)
	case "empty and break":
		lie(l.sim.EmptyListing(l.scope, 1), hidden, all)
		lookups = false
	case "silence":
		if len(some) > 0 {
			lie(l.sim.ShowOffline(l.scope, 1, some...), silenced, some)
		}
	case "part":
		lie(nil, hidden, some)
		listing = false
		defer l.editListings(func(runners []wireRunner, total int) ([]wireRunner, int) {
			return slices.DeleteFunc(runners, func(r wireRunner) bool { return hidden[int64(r["id"].(float64))] }), total + 1
		})()
	case "down":
		l.sim.Maintenance(true)
		if _, err := l.syncer.Handle(l.ctx, trigger(l.scope.Owner)); err == nil {
			l.t.Fatal("a sync of a server under maintenance succeeds")
		}
		l.sim.Maintenance(false)
		return
	}
	if !lookups {
		defer l.breakLookups()()
	}
	if _, err := l.syncer.Handle(l.ctx, trigger(l.scope.Owner)); err != nil {
		l.t.Fatal(err)
	}

	gap := int64(l.clock().Sub(l.before) / time.Minute)
	counts := !l.before.IsZero() && gap <= 60
	saw := map[int64]bool{}
	for _, s := range states {
		seen := !hidden[s.ID] || listing && lookups && known[s.ID]
		offline := s.Shown == fleet.StatusOffline || silenced[s.ID] && !hidden[s.ID]
		switch {
		case !seen && !known[s.ID]:
		case !seen:
			if listing {
				l.exact[s.ID] = false
			}
		case !offline:
			l.run[s.ID], l.exact[s.ID] = 0, true
		case listing:
			saw[s.ID] = true
			if counts && l.saw[s.ID] {
				l.run[s.ID] += gap
			}
			if _, known := l.exact[s.ID]; !known {
				l.exact[s.ID] = true
			}
		}
		if seen && !offline && !listing {
			delete(l.saw, s.ID) // the run was broken in between
		}
	}
	if listing {
		l.before, l.saw = l.clock(), saw
	}
}

func (l *life) checkOffline() {
	live, err := l.db.LiveRunners(l.ctx, l.scope.Owner)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, r := range live {
		got := int64(r.OfflineFor / time.Minute)
		if got > l.run[r.ID] || got != l.run[r.ID] && l.exact[r.ID] {
			l.t.Fatalf("%s of %s is offline for %d minutes, observed were %d (listed truly: %v)", r.Name, l.scope.Owner, got, l.run[r.ID], l.exact[r.ID])
		}
		if r.Status == fleet.StatusOnline && !r.OfflineSince.IsZero() {
			l.t.Fatalf("%+v is online and offline since", r)
		}
	}
}

// checkTruth compares the record with the simulator's own, after a sync that
// nobody disturbed.
func (l *life) checkTruth() {
	type row struct {
		Name   string
		Status fleet.Status
		Busy   bool
	}
	want, got := map[int64]row{}, map[int64]row{}
	for _, s := range l.sim.Snapshot(l.scope) {
		want[s.ID] = row{s.Name, s.Shown, s.Busy}
	}
	live, err := l.db.LiveRunners(l.ctx, l.scope.Owner)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, r := range live {
		got[r.ID] = row{r.Name, r.Status, r.Busy}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		l.t.Fatalf("record of %s (-truth +record):\n%s", l.scope.Owner, diff)
	}
}
