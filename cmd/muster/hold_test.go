package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestHoldAndUnhold(t *testing.T) {
	t.Parallel()
	store, env := withRecord(t)
	dir := inDir(t, map[string]string{"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: TOKEN}}]\n"})
	env["MUSTER_CONFIG"], env["TOKEN"] = filepath.Join(dir, "muster.yaml"), "x"
	now, err := store.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inTx(t, store, func(tx *db.Tx) error {
		target := fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}, APIURL: fleet.DefaultAPIURL}
		if err := tx.EnsureTarget(t.Context(), target, now); err != nil {
			return err
		}
		var rows []db.RunnerRow
		for id := range int64(3) {
			rows = append(rows, db.RunnerRow{
				Runner:      fleet.Runner{ID: id + 7, Name: fmt.Sprintf("build-%02d", id+7), OS: "linux", Status: fleet.StatusOffline, Labels: []string{"linux"}},
				FirstSeenAt: now, SeenAt: now, StatusSince: now, OfflineSince: now,
			})
		}
		if err := tx.AddRunners(t.Context(), "acme", rows); err != nil {
			return err
		}
		_, err := tx.MarkRemoved(t.Context(), "acme", 9, fleet.CauseUnknown, now)
		return err
	})
	holds := func() []string {
		t.Helper()
		table, err := store.ReadAPI(t.Context(), `SELECT runner_id, name, reason, (until IS NULL)::text FROM api.holds ORDER BY runner_id`)
		if err != nil {
			t.Fatal(err)
		}
		var rows []string
		for _, row := range table.Rows {
			rows = append(rows, strings.Join(row, " "))
		}
		return rows
	}
	for _, tt := range []struct {
		args           string
		code           int
		stdout, stderr string
		holds          []string
	}{
		{"hold acme build-77 --reason r", exitFailed, "", "muster: hold runner acme/build-77: muster has never seen one of that name, did you mean build-07, build-08, build-09?\n", nil},
		{"hold acme #9 --reason r", exitFailed, "", "muster: hold runner acme/#9: it is no longer registered, there was acme/#9 (build-09, removed " + moment(now) + ")\n", nil},
		{"unhold acme #7 --reason r", exitFailed, "", "muster: unhold runner acme/7 (build-07): there is no hold on it\n", nil},
		{"hold acme build-07 --reason disk", exitDone, "runner acme/7 (build-07) is held until muster unhold\n", "", []string{"7 build-07 disk true"}},
		{"hold acme #8 --reason cpu --until 2999-01-02T08:00:00Z", exitDone, "runner acme/8 (build-08) is held until 2999-01-02T08:00:00Z\n", "", []string{"7 build-07 disk true", "8 build-08 cpu false"}},
		{"hold acme #7 --reason fan --until 2999-01-02T09:00:00+01:00", exitDone, "runner acme/7 (build-07) is held until 2999-01-02T08:00:00Z\n", "", []string{"7 build-07 fan false", "8 build-08 cpu false"}},
		{"unhold acme build-07 --reason mended", exitDone, "the hold on runner acme/7 (build-07) is lifted\n", "", []string{"8 build-08 cpu false"}},
	} {
		r := muster(t, env, strings.Fields(tt.args)...)
		if r != (result{tt.code, tt.stdout, tt.stderr}) {
			t.Errorf("muster %s = %+v, want exit %d, %q, %q", tt.args, r, tt.code, tt.stdout, tt.stderr)
		}
		if diff := cmp.Diff(tt.holds, holds()); diff != "" {
			t.Errorf("api.holds after %s (-want +got):\n%s", tt.args, diff)
		}
	}
	if r := muster(t, env, "hold", "acme", "#7", "--reason", "r", "--until", "2001-01-01T00:00:00Z"); r.code != exitUsage || !strings.HasPrefix(r.stderr, "muster: --until 2001-01-01T00:00:00Z is over: it is ") {
		t.Errorf("a hold that is over = %+v", r)
	}

	r := muster(t, env, "hold", "acme", "#7", "--reason", "r", "--until", "3d")
	if r.code != exitDone {
		t.Fatalf("hold for three days = %+v", r)
	}
	held, err := store.Runner(t.Context(), "acme", 7)
	if life := held.Hold.Until.Sub(held.Hold.At); err != nil || life != 72*time.Hour || held.Hold.By != operator().Name {
		t.Errorf("hold for three days = %+v, %v", held.Hold, err)
	}
	if !held.Hold.Stands(held.Hold.Until.Add(-1)) || held.Hold.Stands(held.Hold.Until) {
		t.Error("it does not stand for just three days")
	}

	var trail []string
	for _, e := range decode[[]auditRow](t, muster(t, env, "audit", "--runner", "#7", "-o", "json")) {
		trail = append(trail, string(e.Code)+" "+string(e.ActorType)+" "+deref(e.Reason))
	}
	want := []string{"RN120I cli disk", "RN120I cli fan", "RN121I cli mended", "RN120I cli r"}
	if diff := cmp.Diff(want, trail); diff != "" {
		t.Errorf("trail (-want +got):\n%s", diff)
	}
}

// A hold that comes while somebody is deleting the runner says so.
func TestHoldThatMayBeTooLateSaysSo(t *testing.T) {
	t.Parallel()
	store, env := withRecord(t)
	dir := inDir(t, map[string]string{"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: TOKEN}}]\n"})
	env["MUSTER_CONFIG"], env["TOKEN"] = filepath.Join(dir, "muster.yaml"), "x"
	now := time.Now()
	inTx(t, store, func(tx *db.Tx) error {
		target := fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}, APIURL: fleet.DefaultAPIURL}
		if err := tx.EnsureTarget(t.Context(), target, now); err != nil {
			return err
		}
		err := tx.AddRunners(t.Context(), "acme", []db.RunnerRow{{
			Runner: fleet.Runner{ID: 7, Name: "build-07", Status: fleet.StatusOffline, Labels: []string{}}, FirstSeenAt: now, SeenAt: now, StatusSince: now,
		}})
		if err != nil {
			return err
		}
		const id = "0199b1c2-0000-7000-8000-000000000001"
		return tx.Intend(t.Context(), fleet.Action{
			ID: id, DecisionID: id, TriggerID: id, Policy: "reap", Target: "acme", RunnerID: 7, Name: "build-07",
			Kind: fleet.ActionDeleteRunner, State: fleet.ActionIntended, IntendedAt: now,
		}, time.Minute, false)
	})
	r := muster(t, env, "hold", "acme", "#7", "--reason", "wait")
	if r.code != exitDone || !strings.Contains(r.stderr, "a deletion of runner acme/7 (build-07) is under way: the hold may be too late") {
		t.Errorf("hold during a deletion = %+v", r)
	}
}
