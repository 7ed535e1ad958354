package db_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, err := w.db.Health(w.ctx)
	if err != nil || h.Server == "" {
		t.Fatalf("Health = %+v, %v", h, err)
	}
	if h.Server = ""; h != (db.Health{}) {
		t.Errorf("Health of nothing = %+v", h)
	}
	w.target()
	w.exec(`
		INSERT INTO muster.dead_letter (id, subject, body, error, attempts, died_at) VALUES (gen_random_uuid(), 's', '', 'e', 1, now());
		INSERT INTO muster.outbox (id, subject, body, created_at)
		VALUES (gen_random_uuid(), 's', '', clock_timestamp() - interval '90 s'), (gen_random_uuid(), 's', '', clock_timestamp());
		INSERT INTO muster.action (action_id, decision_id, trigger_id, policy, target, runner_id, name, action, state, intended_at, lease_until)
		VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'p', 'acme', 1, 'r', 'delete_runner', 'intended', clock_timestamp() - interval '1 h', now())`)
	if h, err = w.db.Health(w.ctx); err != nil {
		t.Fatal(err)
	}
	if h.DeadLetters != 1 || h.Waiting != 2 || h.OldestWait.Round(time.Minute) != 2*time.Minute || h.OpenIntents != 1 || h.OldestOpen.Round(time.Minute) != time.Hour {
		t.Errorf("Health = %+v", h)
	}
}

func TestScheduleStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`
		INSERT INTO muster.schedule (schedule, sha256, anchored_at) VALUES ('sync/acme', 'x', $1), ('sync/new', 'x', $1)`, t0)
	w.exec(`
		INSERT INTO muster.tick (schedule, tick_at, state, fired_at)
		VALUES ('sync/acme', $1, 'fired', $1::timestamptz + interval '2 s'), ('sync/acme', $1::timestamptz + interval '1 h', 'fired', $1::timestamptz + interval '61 min'),
			('sync/acme', $1::timestamptz + interval '2 h', 'skipped', NULL),
			('sync/acme', clock_timestamp() - interval '1 h', 'missed', NULL), ('sync/acme', clock_timestamp() - interval '3 d', 'missed', NULL)`, t0)
	got, err := w.db.ScheduleStates(w.ctx)
	if err != nil || len(got) != 2 {
		t.Fatalf("ScheduleStates = %+v, %v", got, err)
	}
	if since := time.Since(got[0].After); since < 59*time.Minute || since > 2*time.Hour {
		t.Errorf("newest tick of sync/acme = %s", got[0].After)
	}
	got[0].After = time.Time{}
	got[1].After = got[1].After.UTC()
	want := []db.ScheduleState{{Schedule: "sync/acme", Lateness: time.Minute, Missed: 1}, {Schedule: "sync/new", After: t0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ScheduleStates (-want +got):\n%s", diff)
	}
}

func TestTargetHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	all, err := w.db.TargetHealth(w.ctx)
	if err != nil || len(all) != 1 || all["acme"].Name != "acme" || all["acme"].Capabilities != (fleet.Capabilities{}) || !all["acme"].LastActAt.IsZero() {
		t.Fatalf("TargetHealth of a target without a past = %+v, %v", all, err)
	}
	can := fleet.Capabilities{
		ServerVersion: "3.11.0", JIT: fleet.Yes, NameFilter: fleet.No, Ephemeral: fleet.Yes, DeleteBusy: 422, ProbedAt: t0,
	}
	sync := fleet.Sync{
		ID: "0199b1c2-0000-7000-8000-000000000001", Target: "acme", TriggerID: "0199b1c2-0000-7000-8000-000000000002",
		StartedAt: t0, FinishedAt: t0, Outcome: fleet.SyncFailed, Error: "502", APIRemaining: -1,
		Unreadable: 2, UnreadableItems: []string{"runner 1 a: labels is missing", "item 2 of page 1: it is null or has no id"},
	}
	err = w.db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.RefuseCredential(w.ctx, "acme", db.RefusedAct, "403", t0); err != nil {
			return err
		}
		clock, err := tx.LockTarget(w.ctx, acme)
		if err != nil {
			return err
		}
		clock.Capabilities, clock.LastWalkAt = can, t0
		if err := tx.SaveSync(w.ctx, sync, &clock); err != nil {
			return err
		}
		late := sync // which came too late to count
		late.ID, late.StartedAt, late.Outcome, late.Error = "0199b1c2-0000-7000-8000-000000000003", t0.Add(time.Minute), fleet.SyncPartial, "late"
		return tx.SaveSync(w.ctx, late, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`
		INSERT INTO muster.action (action_id, decision_id, trigger_id, policy, target, runner_id, name, action, state, intended_at, lease_until, settled_at)
		VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'p', 'acme', 1, 'r', 'delete_runner', 'done', $1, $1, $1)`, t0.Add(time.Hour))
	if all, err = w.db.TargetHealth(w.ctx); err != nil {
		t.Fatal(err)
	}
	got := all["acme"]
	want := db.TargetHealth{
		TargetState: got.TargetState, FaultOf: db.RefusedAct, Capabilities: can, LastError: "502", LastActAt: t0.Add(time.Hour),
		Unreadable: 2, UnreadableItems: sync.UnreadableItems,
	}
	if diff := cmp.Diff(want, got); diff != "" || got.CredentialFault != "403" || got.LastOutcome != fleet.SyncFailed {
		t.Errorf("TargetHealth = %+v (-want +got):\n%s", got, diff)
	}
}
