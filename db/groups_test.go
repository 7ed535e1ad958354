package db_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestWhoseJobsRunnersTakeIsWhatWasLastTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.runner(1)
	has := func(want bool) {
		t.Helper()
		w.tx(func(tx *db.Tx) error {
			got, err := tx.HasGroups(w.ctx, "acme")
			if got != want {
				t.Errorf("HasGroups = %v", got)
			}
			return err
		})
	}
	has(false)
	w.exec(`UPDATE muster.runner SET runner_group = '1'`)
	has(true)

	state := decided()
	w.tx(func(tx *db.Tx) error {
		if _, err := tx.LockPools(w.ctx, []fleet.Pool{linux, windows}); err != nil {
			return err
		}
		if err := tx.SavePools(w.ctx, []db.PoolState{state}); err != nil {
			return err
		}
		return tx.ListRepositories(w.ctx, "acme", []string{"acme/Site", "acme/widgets", "acme/was-public"}, []string{"acme/Site", "acme/was-public"}, t0)
	})
	w.tx(func(tx *db.Tx) error {
		return tx.ListRepositories(w.ctx, "acme", []string{"acme/Site", "acme/widgets", "acme/was-public"}, []string{"acme/Site"}, t0)
	})
	want := func(want db.Access) {
		t.Helper()
		got, err := w.db.Access(w.ctx, "acme")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Access: %v (-want +got):\n%s", err, diff)
		}
	}
	// Without a group that is known nobody is closed to anybody.
	want(db.Access{Groups: []fleet.RunnerGroup{}})
	all := fleet.RunnerGroup{ID: "1", Name: "Default", Visibility: fleet.GroupAll, Selected: []string{}}
	gone := fleet.RunnerGroup{ID: "3", Name: "gone", Visibility: fleet.GroupPrivate}
	some := fleet.RunnerGroup{ID: "7", Name: "gpu", Visibility: fleet.GroupSelected, Public: true, Selected: []string{"acme/widgets"}}
	save := func(groups ...fleet.RunnerGroup) {
		w.tx(func(tx *db.Tx) error { return tx.SaveGroups(w.ctx, "acme", groups) })
	}
	save(all, gone, some)
	some.Selected = []string{"acme/gadgets", "acme/widgets"}
	save(all, some)
	want(db.Access{
		Groups: []fleet.RunnerGroup{all, some}, Pools: map[string][]string{"linux": {"1", "7"}}, Public: []string{"acme/site"},
	})
	before := w.value(`SELECT string_agg(xmin::text, ' ') FROM muster.runner_group`)
	save(all, some)
	w.want(before, `SELECT string_agg(xmin::text, ' ') FROM muster.runner_group`)
	save()
	want(db.Access{Groups: []fleet.RunnerGroup{}})
}
