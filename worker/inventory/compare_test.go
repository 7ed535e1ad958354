package inventory

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func runner(id int64, status fleet.Status) fleet.Runner {
	return fleet.Runner{ID: id, Name: "r", OS: "linux", Status: status, Labels: []string{"linux"}}
}

// as is what is known of a runner that was last seen like this.
func as(r fleet.Runner) db.KnownRunner {
	offline := r.Status == fleet.StatusOffline
	return db.KnownRunner{Fingerprint: fingerprint(r), Offline: offline, Counting: offline}
}

func prints(runners []fleet.Runner) []int64 {
	all := make([]int64, len(runners))
	for i, r := range runners {
		all[i] = fingerprint(r)
	}
	return all
}

// moved is the sight of a runner that is known as a live one, isNew of one that
// is not.
func moved(r fleet.Runner) sight { return sight{Runner: r, print: fingerprint(r), known: true} }
func isNew(r fleet.Runner) sight { return sight{Runner: r, print: fingerprint(r)} }

func TestCompare(t *testing.T) {
	t.Parallel()
	on, off := runner(1, fleet.StatusOnline), runner(1, fleet.StatusOffline)
	other := runner(2, fleet.StatusOnline)
	with := func(k db.KnownRunner, change func(*db.KnownRunner)) db.KnownRunner {
		change(&k)
		return k
	}
	type known = map[int64]db.KnownRunner
	tests := []struct {
		name    string
		known   known
		listed  []fleet.Runner
		partial bool
		looked  map[int64]look
		want    difference
	}{
		{"nothing at all", known{}, nil, false, nil, difference{}},
		{"new", known{}, []fleet.Runner{on}, false, nil, difference{changed: []sight{isNew(on)}}},
		{"as before", known{1: as(on)}, []fleet.Runner{on}, false, nil, difference{}},
		{"offline as before", known{1: as(off)}, []fleet.Runner{off}, false, nil, difference{}},
		{"went offline", known{1: as(on)}, []fleet.Runner{off}, false, nil, difference{changed: []sight{moved(off)}, newlyOffline: 1}},
		{"came online", known{1: as(off)}, []fleet.Runner{on}, false, nil, difference{changed: []sight{moved(on)}}},
		{"new and offline", known{}, []fleet.Runner{off}, false, nil, difference{changed: []sight{isNew(off)}}},
		{"seen again", known{1: with(as(on), func(k *db.KnownRunner) { k.Missing = true })}, []fleet.Runner{on}, false, nil, difference{changed: []sight{moved(on)}}},
		{"counting begins", known{1: with(as(off), func(k *db.KnownRunner) { k.Counting = false })}, []fleet.Runner{off}, false, nil, difference{changed: []sight{moved(off)}}},
		{"but not with a partial walk", known{1: with(as(off), func(k *db.KnownRunner) { k.Counting = false })}, []fleet.Runner{off}, true, nil, difference{}},
		{"missing", known{1: as(on), 2: as(other)}, []fleet.Runner{other}, false, nil, difference{missing: []int64{1}}},
		{"missing from a partial walk", known{1: as(on), 2: as(other)}, []fleet.Runner{other}, true, nil, difference{}},
		{"missing and found", known{1: as(on), 2: as(other)}, []fleet.Runner{other}, false, map[int64]look{1: {asked: true, found: true, runner: on}}, difference{}},
		{"missing and found offline", known{1: as(on), 2: as(other)}, []fleet.Runner{other}, false, map[int64]look{1: {asked: true, found: true, runner: off}},
			difference{changed: []sight{moved(off)}, newlyOffline: 1}},
		{"missing and gone", known{1: as(on)}, nil, false, map[int64]look{1: {asked: true, gone: true}}, difference{missing: []int64{1}}},
		{"missing without an answer", known{1: as(on)}, nil, false, map[int64]look{1: {asked: true}}, difference{missing: []int64{1}}},
		{"several missing, in order", known{9: as(on), 1: as(on), 5: as(on)}, nil, false, nil, difference{missing: []int64{1, 5, 9}}},
		{"being deleted", known{1: with(as(on), func(k *db.KnownRunner) { k.Intended = true })}, nil, false, nil, difference{}},
		{"being deleted and seen offline", known{1: with(as(on), func(k *db.KnownRunner) { k.Intended = true })}, []fleet.Runner{off}, false, nil,
			difference{changed: []sight{moved(off)}, newlyOffline: 1}},
		{"removed since", known{1: {Removed: true}}, []fleet.Runner{on}, false, nil, difference{}},
		{"removed since and not listed", known{1: {Removed: true}}, nil, false, nil, difference{}},
		{"one new, one missing", known{1: as(on)}, []fleet.Runner{other}, false, nil, difference{changed: []sight{isNew(other)}, missing: []int64{1}}},
	}
	for _, tt := range tests {
		got, _ := compare(tt.known, github.Listing{Runners: tt.listed, Complete: !tt.partial}, prints(tt.listed), tt.looked)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(difference{}, sight{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestSuspect(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                  string
		online, offline       int // known
		missing, newlyOffline int
		partial               bool
		want                  fleet.Suspect
	}{
		{"as before", 100, 0, 0, 0, false, fleet.SuspectNot},
		{"a fleet that is empty and was", 0, 0, 0, 0, false, fleet.SuspectNot},
		{"one runner that is gone", 1, 0, 1, 0, false, fleet.SuspectEmpty},
		{"all gone", 100, 0, 100, 0, false, fleet.SuspectEmpty},
		{"all gone from a partial walk", 100, 0, 100, 0, true, fleet.SuspectNot},
		{"nine of twelve gone", 12, 0, 9, 0, false, fleet.SuspectNot},
		{"ten of twelve gone", 12, 0, 10, 0, false, fleet.SuspectShrunk},
		{"ten of fifty gone", 40, 10, 10, 0, false, fleet.SuspectShrunk},
		{"ten of fifty-one gone", 41, 10, 10, 0, false, fleet.SuspectNot},
		{"nine of twelve offline", 12, 0, 0, 9, false, fleet.SuspectNot},
		{"ten of fifty online offline", 50, 500, 0, 10, false, fleet.SuspectMassOffline},
		{"ten of fifty-one online offline", 51, 0, 0, 10, false, fleet.SuspectNot},
		{"all offline from a partial walk", 100, 0, 0, 100, true, fleet.SuspectNot},
		{"half gone, the other half offline", 100, 0, 50, 50, false, fleet.SuspectShrunk},
	}
	for _, tt := range tests {
		live := tt.online + tt.offline
		listing := github.Listing{Complete: !tt.partial, Count: live - tt.missing}
		got := suspect(listing, difference{newlyOffline: tt.newlyOffline}, census{live: live, online: tt.online, listed: live - tt.missing})
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFingerprintsTellRunnersApart(t *testing.T) {
	t.Parallel()
	base := fleet.Runner{ID: 1, Name: "a", OS: "b", Status: "online", Labels: []string{"x", "y"}, Group: "1", Version: "2"}
	seen := map[int64]string{fingerprint(base): "base"}
	for name, change := range map[string]func(*fleet.Runner){
		"name":            func(r *fleet.Runner) { r.Name = "ab" },
		"name into os":    func(r *fleet.Runner) { r.Name, r.OS = "ab", "" },
		"os":              func(r *fleet.Runner) { r.OS = "c" },
		"status":          func(r *fleet.Runner) { r.Status = "offline" },
		"busy":            func(r *fleet.Runner) { r.Busy = true },
		"one label":       func(r *fleet.Runner) { r.Labels = []string{"xy"} },
		"no label":        func(r *fleet.Runner) { r.Labels = nil },
		"label more":      func(r *fleet.Runner) { r.Labels = []string{"x", "y", "z"} },
		"group":           func(r *fleet.Runner) { r.Group = "2" },
		"group to label":  func(r *fleet.Runner) { r.Labels, r.Group = []string{"x", "y", "1"}, "" },
		"ephemeral":       func(r *fleet.Runner) { r.Ephemeral = fleet.Yes },
		"version":         func(r *fleet.Runner) { r.Version = "3" },
		"group, version":  func(r *fleet.Runner) { r.Group, r.Version = "12", "" },
		"busy, ephemeral": func(r *fleet.Runner) { r.Busy, r.Ephemeral = true, fleet.Yes },
	} {
		r := base
		change(&r)
		if other, again := seen[fingerprint(r)]; again {
			t.Errorf("%s looks like %s", name, other)
		}
		seen[fingerprint(r)] = name
	}
	other := base
	other.ID = 2
	if fingerprint(other) != fingerprint(base) {
		t.Error("the id is part of the fingerprint")
	}
}

func TestTick(t *testing.T) {
	t.Parallel()
	start := db.TargetClock{ObservedUS: 5, CompleteSyncs: 3, LastCompleteSyncAt: t0}
	tests := []struct {
		name  string
		start db.TargetClock
		after time.Duration
		want  int64
	}{
		{"the first sync", db.TargetClock{}, 0, 0},
		{"an interval", start, time.Minute, 5 + 60e6},
		{"the longest that counts", start, time.Hour, 5 + 3600e6},
		{"one that is too long", start, time.Hour + 1, 5},
		{"a clock that went back", start, -time.Minute, 5},
		{"a clock that stands", start, 0, 5},
	}
	for _, tt := range tests {
		at := t0.Add(tt.after)
		want := db.TargetClock{ObservedUS: tt.want, CompleteSyncs: tt.start.CompleteSyncs + 1, LastCompleteSyncAt: at}
		if got := tick(tt.start, at, time.Hour); got != want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, want)
		}
	}
	if got := tick(start, t0.Add(1), 0); got.ObservedUS != 5 {
		t.Errorf("with no gap allowed: %+v, want that nothing counts", got)
	}
}

func TestMiss(t *testing.T) {
	t.Parallel()
	marked := t0.Add(-time.Minute)
	fresh := db.RunnerRow{SeenAt: t0.Add(-time.Hour), OfflineFrom: db.OfflineFrom{At: t0.Add(-time.Hour), ObservedUS: 7, Sync: 2}}
	before := fresh
	before.MissingSince = marked
	tests := []struct {
		name    string
		was     db.RunnerRow
		look    look
		suspect bool
		gone    bool
	}{
		{"404", fresh, look{asked: true, gone: true}, false, true},
		{"404 of a suspect listing", fresh, look{asked: true, gone: true}, true, true},
		{"no answer, first time", fresh, look{asked: true}, false, false},
		{"no answer, second time", before, look{asked: true}, false, true},
		{"no answer, second time, suspect", before, look{asked: true}, true, false},
		{"not asked, first time", fresh, look{}, false, false},
		{"not asked, second time", before, look{}, false, false},
	}
	for _, tt := range tests {
		row, gone := miss(tt.was, tt.look, observation{at: t0, complete: true, before: t0.Add(-time.Minute), counted: 60, suspect: tt.suspect})
		if gone != tt.gone || gone != !row.RemovedAt.IsZero() || gone != (row.RemovalCause == fleet.CauseUnknown) {
			t.Errorf("%s: gone %v, row %+v, want gone %v", tt.name, gone, row, tt.gone)
		}
		if want := (db.OfflineFrom{At: t0.Add(-time.Hour), ObservedUS: 67, Sync: 3}); !gone && row.OfflineFrom != want {
			t.Errorf("%s: counts from %+v, want %+v", tt.name, row.OfflineFrom, want)
		}
		if since := map[bool]time.Time{true: t0, false: marked}[tt.was.MissingSince.IsZero()]; !row.MissingSince.Equal(since) {
			t.Errorf("%s: missing since %v, want %v", tt.name, row.MissingSince, since)
		}
	}
}

func TestTransitionsInOrder(t *testing.T) {
	t.Parallel()
	row := func(name string, status fleet.Status, busy bool, labels ...string) db.RunnerRow {
		return db.RunnerRow{Runner: fleet.Runner{ID: 1, Name: name, Status: status, Busy: busy, Labels: labels}}
	}
	was := row("a", fleet.StatusOnline, false, "x")
	tests := []struct {
		name string
		now  db.RunnerRow
		want string
	}{
		{"nothing", was, ""},
		{"all", row("b", fleet.StatusOffline, true, "y"), "renamed offline busy relabelled"},
		{"a status that GitHub does not have", row("a", "sleeping", false, "x"), "offline"},
		{"no labels", row("a", fleet.StatusOnline, false), "relabelled"},
	}
	for _, tt := range tests {
		var got []string
		for _, h := range transitions(was, tt.now, t0) {
			if h.RunnerID != 1 || h.Name != tt.now.Name || !h.At.Equal(t0) || len(h.Before) != 1 || len(h.After) != 1 {
				t.Errorf("%s: %+v", tt.name, h)
			}
			got = append(got, string(h.Change))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
	back := transitions(row("a", fleet.StatusOffline, true, "x"), was, t0)
	if len(back) != 2 || back[0].Change != fleet.ChangeOnline || back[1].Change != fleet.ChangeIdle {
		t.Errorf("back again: %+v", back)
	}
}
