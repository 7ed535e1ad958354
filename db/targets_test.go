package db_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestTargetIsNotedAtItsFirstUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var g errgroup.Group
	for range 4 { // replicas
		g.Go(func() error {
			return w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, acme, t0) })
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.want("TG302I acme org/acme https://ghes.example.com/api/v3", `
		SELECT string_agg(concat_ws(' ', code, target, payload->'details'->>'scope', payload->'details'->>'api_url'), ', ') FROM api.audit`)
	state, err := w.db.TargetState(w.ctx, acme.Name)
	if diff := cmp.Diff(fleet.TargetState{Target: acme}, state); err != nil || diff != "" {
		t.Errorf("TargetState: %v (-want +got):\n%s", err, diff)
	}
}

func TestObservationGapFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	version := w.value(`SELECT xmin FROM muster.target`)
	w.tx(func(tx *db.Tx) error { return tx.SetObservationGap(w.ctx, acme) })
	w.want(version, `SELECT xmin FROM muster.target`)
	changed := acme
	changed.MaxObservationGap = 90 * time.Minute
	w.tx(func(tx *db.Tx) error { return tx.SetObservationGap(w.ctx, changed) })
	if s, err := w.db.TargetStates(w.ctx); err != nil || len(s) != 1 || s[0].MaxObservationGap != 90*time.Minute {
		t.Errorf("TargetStates = %+v, %v", s, err)
	}
}

func TestCredentialIsNewsOnce(t *testing.T) {
	t.Parallel()
	refuse := func(what db.Refusal) func(*world, *db.Tx, time.Time) error {
		return func(w *world, tx *db.Tx, at time.Time) error {
			return tx.RefuseCredential(w.ctx, acme.Name, what, "no", at)
		}
	}
	accept := func(w *world, tx *db.Tx, at time.Time) error { return tx.AcceptCredential(w.ctx, acme.Name, at) }
	list, act := refuse(db.RefusedList), refuse(db.RefusedAct)
	unauthorized := func(w *world, tx *db.Tx, at time.Time) error {
		return tx.RefuseCredential(w.ctx, acme.Name, db.RefusedList, "list runners of org/acme: "+fleet.ErrUnauthorized.Error()+" (HTTP 401)", at)
	}
	answered := func(did db.Answered, ago time.Duration) func(*world, *db.Tx, time.Time) error {
		return func(w *world, tx *db.Tx, at time.Time) error {
			return tx.CredentialAnswered(w.ctx, acme.Name, did, at.Add(-ago), at)
		}
	}
	read, mint, deleted := answered(db.AnsweredRead, 0), answered(db.AnsweredMint, 0), answered(db.AnsweredDelete, 0)
	for _, tt := range []struct {
		name  string
		steps []func(*world, *db.Tx, time.Time) error // a minute apart
		want  string                                  // codes in their order
	}{
		{"accepted all along", []func(*world, *db.Tx, time.Time) error{accept, accept}, ""},
		{"refused twice", []func(*world, *db.Tx, time.Time) error{list, act}, "TG300E"},
		{"and back", []func(*world, *db.Tx, time.Time) error{list, accept, accept}, "TG300E TG301I"},
		{"a listing says nothing of acts", []func(*world, *db.Tx, time.Time) error{act, accept, act, accept}, "TG300E"},
		{"a token ends the refusal of a listing", []func(*world, *db.Tx, time.Time) error{list, mint, mint}, "TG300E TG301I"},
		{"a token says nothing of deletions", []func(*world, *db.Tx, time.Time) error{act, mint}, "TG300E"},
		{"a deletion ends any refusal", []func(*world, *db.Tx, time.Time) error{act, deleted, list, deleted}, "TG300E TG301I TG300E TG301I"},
		{"what was asked before a refusal is no answer to it", []func(*world, *db.Tx, time.Time) error{list, answered(db.AnsweredMint, 2*time.Minute)}, "TG300E"},
		{"what is shown ends the refusal of the credential itself", []func(*world, *db.Tx, time.Time) error{unauthorized, read}, "TG300E TG301I"},
		{"what is shown says nothing of a right to list runners", []func(*world, *db.Tx, time.Time) error{list, read}, "TG300E"},
		{"but not for ever", append([]func(*world, *db.Tx, time.Time) error{act}, slices.Repeat([]func(*world, *db.Tx, time.Time) error{accept}, 16)...), "TG300E TG301I"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.target()
			for i, step := range tt.steps {
				w.tx(func(tx *db.Tx) error { return step(w, tx, t0.Add(time.Duration(i)*time.Minute)) })
			}
			w.want(tt.want, `SELECT coalesce(string_agg(code, ' ' ORDER BY occurred_at), '') FROM api.audit WHERE action = 'target.credential'`)
		})
	}
}

func TestMarkRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	for id := range int64(3) {
		w.runner(id + 1)
	}
	mark := func(id int64, cause fleet.RemovalCause, at time.Time) bool {
		t.Helper()
		var news bool
		w.tx(func(tx *db.Tx) error {
			if err := tx.LockRunner(w.ctx, acme.Name, id); err != nil {
				return err
			}
			var err error
			news, err = tx.MarkRemoved(w.ctx, acme.Name, id, cause, at)
			return err
		})
		return news
	}
	at := func(minute int) time.Time { return t0.Add(time.Duration(minute) * time.Minute) }
	if !mark(1, fleet.CausePolicy, at(1)) || mark(1, fleet.CauseOperator, at(2)) {
		t.Error("a removal is news once")
	}
	// What a sync could not tell is told afterwards, at the time it had.
	if !mark(2, fleet.CauseUnknown, at(1)) || mark(2, fleet.CausePolicy, at(2)) {
		t.Error("a removal is news once, whoever noticed it")
	}
	w.want("1 policy 12:01, 2 policy 12:01, 3", `
		SELECT string_agg(concat_ws(' ', runner_id, removal_cause, to_char(removed_at AT TIME ZONE 'UTC', 'HH24:MI')), ', ' ORDER BY runner_id) FROM api.runners`)
	w.want("1 r1 removed, 2 r2 removed", `
		SELECT string_agg(concat_ws(' ', runner_id, name, change, after, sync_id), ', ' ORDER BY runner_id) FROM api.runner_history`)
	err := w.db.InTx(w.ctx, func(tx *db.Tx) error {
		_, err := tx.MarkRemoved(w.ctx, acme.Name, 9, fleet.CausePolicy, t0)
		return err
	})
	if !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("MarkRemoved of a runner never seen = %v, want fleet.ErrNotFound", err)
	}
	live, err := w.db.LiveRunners(w.ctx, acme.Name)
	if err != nil || len(live) != 1 || live[0].ID != 3 {
		t.Errorf("LiveRunners = %+v, %v", live, err)
	}
	gone, err := w.db.Runners(w.ctx, db.RunnerFilter{Removed: true})
	if err != nil || len(gone) != 2 || gone[0].RemovalCause != fleet.CausePolicy || gone[0].OfflineFor != 0 {
		t.Errorf("removed runners = %+v, %v", gone, err)
	}
}

func TestRunnerFilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.runner(1)
	w.runner(2)
	w.exec(`UPDATE muster.runner SET status = 'online', offline_since = NULL, labels = '{gpu,linux}' WHERE runner_id = 2`)
	w.exec(`UPDATE muster.runner SET offline_from_us = 0, offline_from_sync = 1, offline_from_at = $1 WHERE runner_id = 1`, t0)
	w.exec(`UPDATE muster.target SET observed_us = 3600000000, complete_syncs = 3, last_complete_sync_at = $1`, t0.Add(2*time.Hour))
	for _, tt := range []struct {
		name   string
		filter db.RunnerFilter
		want   string
	}{
		{"all", db.RunnerFilter{}, "r1 r2"},
		{"target", db.RunnerFilter{Target: "acme"}, "r1 r2"},
		{"another target", db.RunnerFilter{Target: "widgets"}, ""},
		{"status", db.RunnerFilter{Status: fleet.StatusOnline}, "r2"},
		{"name", db.RunnerFilter{Name: "r1"}, "r1"},
		{"part of a name", db.RunnerFilter{Name: "r"}, ""},
		{"labels", db.RunnerFilter{Labels: []string{"linux", "gpu"}}, "r2"},
		{"one label too many", db.RunnerFilter{Labels: []string{"linux", "gpu", "self-hosted"}}, ""},
		{"offline for as long", db.RunnerFilter{OfflineFor: time.Hour}, "r1"},
		{"offline for longer", db.RunnerFilter{OfflineFor: time.Hour + time.Microsecond}, ""},
	} {
		found, err := w.db.Runners(w.ctx, tt.filter)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, r := range found {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	r, err := w.db.Runner(w.ctx, acme.Name, 1)
	if err != nil || r.OfflineFor != time.Hour || r.OfflineListings != 3 || r.OfflineSpan != 2*time.Hour || !r.LastSeenAt.Equal(t0.Add(2*time.Hour)) {
		t.Errorf("Runner = %+v, %v", r, err)
	}
}

func TestGauges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.runner(1)
	w.runner(2)
	w.exec(`UPDATE muster.runner SET status = 'online', busy = true WHERE runner_id = 2`)
	w.exec(`UPDATE muster.target SET last_complete_sync_at = clock_timestamp() - interval '100 s'`)
	w.tx(func(tx *db.Tx) error {
		p := fleet.PolicyState{Policy: "reap", Target: "acme", Enforcement: fleet.EnforcementEnforce}
		if _, err := tx.LockPolicy(w.ctx, p); err != nil {
			return err
		}
		if _, err := tx.Halt(w.ctx, "reap", "acme", "over_max", "too many", t0); err != nil {
			return err
		}
		return tx.Intend(w.ctx, action(1), time.Minute, false)
	})
	w.enqueue(fleet.OutboxMessage{Subject: "x"})
	if err := (db.Runs{DB: w.db}).Reject(w.ctx, fleet.DeadLetter{Subject: "s", Error: "e"}); err != nil {
		t.Fatal(err)
	}
	w.tx(func(tx *db.Tx) error {
		if _, err := tx.LockPools(w.ctx, []fleet.Pool{linux, windows}); err != nil { // of which one was decided on
			return err
		}
		return tx.SavePools(w.ctx, []db.PoolState{decided()})
	})
	w.exec(`INSERT INTO muster.finding (kind, target, subject, since, detail) VALUES ('unserved_job', 'acme', 'gpu', $1, '{}')`, t0)
	all, err := w.db.Gauges(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, g := range all {
		got[strings.TrimSpace(g.Name+" "+g.Target+" "+g.Policy+g.Pool)] = g.Value
	}
	for _, moving := range []string{db.GaugeSyncAge + " acme", db.GaugeOutboxAge, db.GaugePoolDecisionAge + " acme linux"} {
		if got[moving] <= 0 {
			t.Errorf("%s = %v", moving, got[moving])
		}
		delete(got, moving)
	}
	want := map[string]float64{
		"runners acme": 2, "runners_online acme": 1, "runners_busy acme": 1, "policy_halted acme reap": 1, "dead_letters": 1, "open_intents": 1, "clock_steps": 0,
		"findings acme": 1, "pool_min acme linux": 1, "pool_max acme linux": 9, "pool_desired acme linux": 5, "pool_online acme linux": 1,
		"pool_busy acme linux": 1, "pool_booting acme linux": 1, "pool_draining acme linux": 1, "pool_queued acme linux": 2,
		"pool_in_progress acme linux": 1, "pool_leases_expired acme linux": 4,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Gauges (-want +got):\n%s", diff)
	}
}
