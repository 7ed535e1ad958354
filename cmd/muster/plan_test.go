package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	store, env := withRecord(t)
	dir := inDir(t, map[string]string{
		"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: TOKEN}}, {name: octo, scope: org/octo, auth: {token_env: TOKEN}}, {name: bare, scope: org/bare, auth: {token_env: TOKEN}}]\npolicies: [reap.yaml]\n",
		"reap.yaml":   explained,
	})
	env["MUSTER_CONFIG"], env["TOKEN"] = filepath.Join(dir, "muster.yaml"), "x"
	now, err := store.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inTx(t, store, func(tx *db.Tx) error {
		if err := tx.EnsureTarget(t.Context(), fleet.Target{Name: "acme", Scope: acme, APIURL: fleet.DefaultAPIURL}, now); err != nil {
			return err
		}
		clock := db.TargetClock{ObservedUS: (400 * time.Hour).Microseconds(), CompleteSyncs: 400, LastCompleteSyncAt: now, LastWalkAt: now}
		var rows []db.RunnerRow
		for i := range 12 {
			row := db.RunnerRow{
				Runner:      fleet.Runner{ID: int64(i + 1), Name: fmt.Sprintf("build-%02d", i+1), OS: "linux", Status: fleet.StatusOnline, Labels: []string{"linux"}},
				FirstSeenAt: now.Add(-400 * time.Hour), SeenAt: now, StatusSince: now.Add(-300 * time.Hour),
			}
			if i < 7 {
				row.Status, row.OfflineSince = fleet.StatusOffline, now.Add(-300*time.Hour)
				row.OfflineFrom = db.OfflineFrom{At: now.Add(-300 * time.Hour), ObservedUS: (100 * time.Hour).Microseconds(), Sync: 100}
			}
			if i == 0 {
				row.Labels = []string{"keep"}
			}
			rows = append(rows, row)
		}
		// All that was ever tried with octo failed.
		if err := tx.EnsureTarget(t.Context(), fleet.Target{Name: "octo", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "octo"}, APIURL: fleet.DefaultAPIURL}, now); err != nil {
			return err
		}
		if err := tx.AddRunners(t.Context(), "acme", rows); err != nil {
			return err
		}
		return tx.SaveSync(t.Context(), fleet.Sync{
			ID: uuid.NewString(), Target: "acme", TriggerID: uuid.NewString(), StartedAt: now, FinishedAt: now, Outcome: fleet.SyncComplete,
		}, &clock)
	})

	r := muster(t, env, "plan")
	want := `reap on acme (enforce): act on 0, keep 12, 5 of them not matched, halt at 0
  max      0 of 5 in 1h used, 0 due now
  rate     0 of 10 in the last minute used, 0 due now
  VERDICT  REASONS       RUNNERS  SUCH AS
  keep     grace         6        build-02, build-03, build-04, build-05, build-06, …
  keep     exempt,grace  1        build-01
  keep     not_matched   5        build-08, build-09, build-10, build-11, build-12

`
	if diff := cmp.Diff(want, r.stdout); diff != "" || r.code != exitDone {
		t.Errorf("plan: exit %d, %s (-want +got):\n%s", r.code, r.stderr, diff)
	}
	if want := "reap on octo: never synced, so nothing is known: muster trigger sync octo\n"; r.stderr != want {
		t.Errorf("plan says %q, want %q", r.stderr, want)
	}

	r = muster(t, env, "plan", "--target", "acme", "-o", "json")
	rows := decode[[]planRow](t, r)
	if len(rows) != 12 || strings.Count(r.stdout, "\n") != 14 || rows[0].Name != "build-01" || rows[11].Reasons[0] != "not_matched" {
		t.Errorf("plan in JSON has %d rows in\n%s", len(rows), r.stdout)
	}
	if rows := decode[[]planRow](t, muster(t, env, "plan", "--target", "octo", "-o", "json")); rows == nil || len(rows) != 0 {
		t.Errorf("plan of nothing in JSON: %v, want []", rows)
	}
	if r := muster(t, env, "plan", "--target", "bare"); r.code != exitDone || r.stdout != "" || r.stderr != "no policy covers a target in question\n" {
		t.Errorf("plan where no policy is = %+v", r)
	}
}
