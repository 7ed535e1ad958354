package inventory_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/github/githubsim"
)

// What users see of a fleet's life does not tell which version of GitHub it is
// registered with, but for what that version does not say.
func TestEveryVersionShowsTheSameFleet(t *testing.T) {
	t.Parallel()
	lives := map[string]told{}
	for _, version := range githubsim.Versions() {
		lives[version] = live(t, version)
	}
	want := lives[githubsim.Version[:3]]
	if want.runners == "" || want.history == "" || want.audit == "" {
		t.Fatalf("the life on %s = %+v", githubsim.Version, want)
	}
	said := map[string]string{
		"3.1": "<null>, false, <null>", "3.4": "<null>, false, <null>",
		"3.7": "1, false, <null>", "3.10": "1, false, <null>", "3.11": "1, false, <null>",
		"3.19": "1, false, 2.329.0|1, false, <null>|1, true, 2.329.0|1, true, <null>",
	}
	said[githubsim.DotCom] = said["3.19"]
	for version, got := range lives {
		if got.said != said[version] {
			t.Errorf("%s: group, ephemeral and version of runners = %s, want %s", version, got.said, said[version])
		}
		got.said = want.said
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(told{})); diff != "" {
			t.Errorf("a life on %s (-%s +%s):\n%s", version, githubsim.Version, version, diff)
		}
	}
}

// told is what the record says after a while.
type told struct {
	runners, history, audit, syncs, totals string
	said                                   string // what not every version says
}

func live(t *testing.T, version string) told {
	w := newWorldOf(t, version, nil)
	systems := []string{"linux", "windows", "macos"}
	// More than a page, and names that run against ids.
	ids, err := w.sim.CreateMany(acme, 130, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{
			Name: fmt.Sprintf("r%03d", 200-i), OS: systems[i%3], Labels: []string{"GPU", "Zeta"},
			Online: i%5 != 0, Busy: i%7 == 1 && i%5 != 0, Ephemeral: i%11 == 0,
		}
	})
	w.ok(err)
	w.wantSync("complete +130 ~0 -0")
	w.wantSync("complete +0 ~0 -0")
	w.ok(w.sim.Kill(acme, ids[3]))
	w.ok(w.sim.Assign(acme, ids[4]))
	w.ok(w.sim.Connect(acme, ids[5]))
	w.ok(w.sim.Remove(acme, ids[6]))
	_, err = w.sim.Create(acme, githubsim.RunnerSpec{Name: "r194", OS: "linux"}) // the name of the removed one
	w.ok(err)
	w.wantSync("complete +1 ~3 -1")
	w.ok(w.sim.Hide(acme, 1, ids[7:10]...)) // GET by id finds them
	w.wantSync("complete +0 ~0 -0")
	w.ok(w.sim.Remove(acme, ids[129]))
	w.pass(5 * time.Minute)
	w.wantSync("complete +0 ~0 -1")

	text := func(columns, from string) string {
		return w.value(`SELECT string_agg(concat_ws(', ', ` + columns + `), E'\n' ORDER BY ` + from)
	}
	return told{
		runners: text(`runner_id, name, os, status, busy, labels, first_seen_at, last_seen_at, status_since, offline_since, offline_for, last_busy_at, removed_at, removal_cause`,
			`runner_id) FROM api.runners`),
		history: text(`runner_id, name, at, change, before, after`, `runner_id, at, change) FROM api.runner_history`),
		audit:   text(`code, occurred_at, target, runner_id, runner_name, reason`, `occurred_at, runner_id) FROM api.audit WHERE code <> 'TG302I'`),
		syncs:   text(`outcome, pages, api_calls, runners, added, changed, removed, suspect, error`, `started_at) FROM api.syncs`),
		totals:  w.value(`SELECT concat_ws(', ', target, scope, last_complete_sync_at, runners, online, busy) FROM api.targets`),
		said: w.value(`
			SELECT string_agg(said, '|' ORDER BY said)
			FROM (SELECT DISTINCT concat_ws(', ', coalesce(runner_group, '<null>'), CASE WHEN ephemeral THEN 'true' ELSE 'false' END, coalesce(version, '<null>')) AS said FROM api.runners) s`),
	}
}
