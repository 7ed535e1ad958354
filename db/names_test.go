package db_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

var byHand = fleet.Actor{Type: fleet.ActorCLI, Name: "ada"}

// seed has a target with something in every table that is about targets.
func (w *world) seed() {
	w.Helper()
	w.target()
	w.completed("acme")
	w.runner(1)
	w.runner(2)
	w.exec(`UPDATE muster.runner SET offline_from_us = 0, offline_from_sync = 1, offline_from_at = $1`, t0)
	w.exec(`UPDATE muster.target SET observed_us = 7200000000, complete_syncs = 9`)
	for _, sql := range []string{
		`INSERT INTO muster.hold VALUES ('acme', 1, 'disk', 'ada', now(), NULL)`,
		`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, conclusion, changed_at)
			VALUES ('acme', 5, 1, 1, 'acme/widgets', '{}', 'in_progress', 2, 'r2', '', now())`,
		`INSERT INTO muster.runner_history VALUES ('acme', 1, 'r1', now(), 'offline', NULL, NULL, NULL)`,
		`INSERT INTO muster.sync VALUES (gen_random_uuid(), 'acme', gen_random_uuid(), now(), now(), 'complete', 1, 1, 0, 2, 0, 0, 0, NULL, NULL)`,
		`INSERT INTO muster.page (target, number, etag, credential, sha256, total, last, shown, runner_ids) VALUES ('acme', 1, '', '', sha256(''), 2, 1, 0, '{}')`,
		`INSERT INTO muster.policy (policy, target, enforcement, halted_at) VALUES ('reap', 'acme', 'enforce', now())`,
		`INSERT INTO muster.grace_mark VALUES ('reap', 'acme', 1, 'x', now())`,
		`INSERT INTO muster.decision (decision_id, at, policy, enforcement, target, runner_id, name, verdict, reasons, evidence)
			VALUES (gen_random_uuid(), now(), 'reap', 'enforce', 'acme', 1, 'r1', 'keep', '{}', '{}')`,
		`INSERT INTO muster.last_decision VALUES ('reap', 'acme', 1, NULL, 'keep', '{}')`,
		`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at)
			VALUES ('build-01', gen_random_uuid(), 1, 'acme', 'registration', 'issued', '', now())`,
		`INSERT INTO muster.delivery VALUES ('acme', 'd1', now())`,
		`INSERT INTO muster.host VALUES ('build-01', now())`,
		`INSERT INTO muster.host_runner VALUES ('build-01', 'acme', 'r2', 'busy', now())`,
		`INSERT INTO muster.pool (name, target, labels) VALUES ('linux', 'acme', '{}')`,
		`INSERT INTO muster.lease (request_id, pool, target, state, attempt, requested_at, deadline) VALUES (gen_random_uuid(), 'linux', 'acme', 'requested', 1, now(), now())`,
		`INSERT INTO muster.finding VALUES ('unserved_job', 'acme', 'gpu', now(), '{}')`,
		`INSERT INTO muster.repository (target, repository) VALUES ('acme', 'acme/widgets')`,
		`INSERT INTO muster.reconciliation (target, due_at) VALUES ('acme', now())`,
		`INSERT INTO muster.hook VALUES ('acme', 1, 'org/acme', now(), now(), now())`,
		`INSERT INTO muster.runner_group VALUES ('acme', '1', 'Default', 'all', false, '{}')`,
		`INSERT INTO muster.run (trigger_id, job, name, source, state, queued_at) VALUES ('0199b1c2-0000-7000-8000-00000000000a', 'sync', 'acme', 'cron', 'queued', now())`,
	} {
		w.exec(sql)
	}
	a := action(2)
	w.tx(func(tx *db.Tx) error { return tx.Intend(w.ctx, a, time.Minute, false) })
	a.State, a.SettledAt = fleet.ActionSpared, t0
	w.tx(func(tx *db.Tx) error { return tx.Settle(w.ctx, a) })
}

// rowsOf counts the rows of a target by table, in all tables that are about
// targets.
func (w *world) rowsOf(target string) map[string]string {
	w.Helper()
	counts := map[string]string{}
	tables := w.value(`SELECT string_agg(table_name, ' ' ORDER BY table_name)
		FROM information_schema.columns WHERE table_schema = 'muster' AND column_name = 'target'`)
	for _, table := range strings.Fields(tables) {
		if n := w.value(`SELECT count(*) FROM muster.`+table+` WHERE target = $1`, target); n != "0" {
			counts[table] = n
		}
	}
	return counts
}

func renamed(to string) db.Rename {
	target := acme
	target.Name = to
	return db.Rename{From: "acme", To: target, Actor: byHand, Reason: "the company has a new name"}
}

func TestRenameCarriesEverythingOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed()
	before := w.rowsOf("acme")
	if len(before) < 21 {
		t.Errorf("seed wrote to %d tables about targets: %v", len(before), before)
	}
	runner, err := w.db.Runner(w.ctx, "acme", 1)
	if err != nil || runner.OfflineFor != 2*time.Hour || runner.Hold.Reason != "disk" {
		t.Fatalf("Runner before = %+v, %v", runner, err)
	}

	carried, err := w.db.RenameTarget(w.ctx, renamed("octo"))
	if err != nil || carried.Runners != 2 || carried.Holds != 1 || carried.Jobs != 1 {
		t.Fatalf("RenameTarget = %+v, %v", carried, err)
	}
	if left := w.rowsOf("acme"); len(left) > 0 {
		t.Errorf("rows under the old name: %v", left)
	}
	after := w.rowsOf("octo")
	for table, n := range before {
		if after[table] != n {
			t.Errorf("%s: %q rows under the new name, want %s", table, after[table], n)
		}
	}
	moved, err := w.db.Runner(w.ctx, "octo", 1)
	if err != nil || moved.OfflineFor != runner.OfflineFor || moved.Hold != runner.Hold {
		t.Errorf("runner with a hold = %+v, %v, want the clock and the hold of before", moved, err)
	}
	working, err := w.db.Runner(w.ctx, "octo", 2)
	if err != nil || working.Work.OpenJob != 5 || working.HostSays.BusyAt.IsZero() {
		t.Errorf("runner with a workflow job = %+v, %v, want both witnesses", working, err)
	}
	w.want("octo ada acme the company has a new name 2 1 1", `
		SELECT concat_ws(' ', target, actor, payload->'details'->>'from', reason, payload->'details'->>'runners',
			payload->'details'->>'holds', payload->'details'->>'workflow_jobs')
		FROM api.audit WHERE code = 'TG304I'`)
	w.want("done", `SELECT state FROM muster.run`)

	// The old name is no other target until somebody makes it one.
	to := acme
	to.Name = "octo"
	if err := w.db.CheckIdentity(w.ctx, to); err != nil {
		t.Errorf("the new name: %v", err)
	}
	if err := w.db.CheckIdentity(w.ctx, acme); err == nil || !strings.Contains(err.Error(), "target acme is called octo since it was renamed") {
		t.Errorf("the old name: %v", err)
	}
	back := db.Rename{From: "octo", To: acme, Actor: byHand}
	if _, err := w.db.RenameTarget(w.ctx, back); err != nil {
		t.Errorf("rename back: %v", err)
	}
	if err := w.db.CheckIdentity(w.ctx, acme); err != nil {
		t.Errorf("the old name after it was taken back: %v", err)
	}
}

// Hosts and webhook receivers go on naming the target as they know it.
func TestWitnessesUnderAFormerNameCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed()
	if _, err := w.db.RenameTarget(w.ctx, renamed("octo")); err != nil {
		t.Fatal(err)
	}
	job := fleet.WorkflowJob{Target: "acme", ID: 6, RunID: 1, RunAttempt: 1, State: fleet.WorkflowJobInProgress, RunnerID: 1, RunnerName: "r1", StartedAt: t0}
	w.tx(func(tx *db.Tx) error {
		if news, err := tx.AddDelivery(w.ctx, "acme", "d1", t0); err != nil || news {
			t.Errorf("AddDelivery of one before = %t, %v", news, err)
		}
		if news, err := tx.AddDelivery(w.ctx, "acme", "d2", t0); err != nil || !news {
			t.Errorf("AddDelivery = %t, %v", news, err)
		}
		_, added, err := tx.AddWorkflowJob(w.ctx, job, t0)
		if err != nil || !added {
			return fmt.Errorf("AddWorkflowJob = %t, %w", added, err)
		}
		known, added, err := tx.AddWorkflowJob(w.ctx, job, t0)
		if err != nil || added || known.RunnerID != 1 {
			return fmt.Errorf("AddWorkflowJob again = %+v, %t, %w", known, added, err)
		}
		job.RunAttempt = 2
		return tx.SaveWorkflowJob(w.ctx, job, t0)
	})
	w.want("octo 5 1, octo 6 2", `SELECT string_agg(concat_ws(' ', target, workflow_job_id, run_attempt), ', ' ORDER BY workflow_job_id) FROM muster.workflow_job`)

	w.tx(func(tx *db.Tx) error {
		return tx.SaveHeartbeats(w.ctx, []fleet.Heartbeat{{Host: "build-01", At: time.Now().Add(time.Minute), Runners: []fleet.HostRunner{
			{Target: "acme", Name: "r2", State: fleet.HostRunnerBusy}, {Target: "octo", Name: "r2", State: fleet.HostRunnerIdle}, {Target: "acme", Name: "r1", State: fleet.HostRunnerIdle},
		}}})
	})
	w.want("octo r1 idle, octo r2 busy", `SELECT string_agg(concat_ws(' ', target, name, state), ', ' ORDER BY name) FROM muster.host_runner`)

	// Once the name is another target's, it means that one.
	other := fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "elsewhere"}, APIURL: fleet.DefaultAPIURL}
	w.tx(func(tx *db.Tx) error {
		if err := tx.EnsureTarget(w.ctx, other, t0); err != nil {
			return err
		}
		_, err := tx.AddDelivery(w.ctx, "acme", "d3", t0)
		return err
	})
	w.want("acme", `SELECT target FROM muster.delivery WHERE delivery_id = 'd3'`)
}

// A partial listing under the new name may have shown a runner that was held there.
func TestRenameKeepsHoldsOfTheNewName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed()
	alias := acme
	alias.Name, alias.APIURL = "octo", "https://ghes.alias.example.com/api/v3"
	w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, alias, t0) })
	w.exec(`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, fingerprint, first_seen_at, seen_at, status_since)
		SELECT 'octo', runner_id, name, os, status, busy, labels, fingerprint, first_seen_at, seen_at, status_since FROM muster.runner`)
	w.exec(`INSERT INTO muster.hold VALUES ('octo', 1, 'other', 'bob', now(), NULL), ('octo', 2, 'disk full', 'bob', now(), NULL)`)

	if _, err := w.db.RenameTarget(w.ctx, db.Rename{From: "acme", To: alias, Actor: byHand}); err != nil {
		t.Fatal(err)
	}
	w.want("1 disk, 2 disk full", `SELECT string_agg(concat_ws(' ', runner_id, reason), ', ' ORDER BY runner_id) FROM muster.hold WHERE target = 'octo'`)
}

// A runner that only the new name listed, and that is held there, stays held.
func TestRenameKeepsAHeldRunnerThatOnlyTheNewNameListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed()
	alias := acme
	alias.Name, alias.APIURL = "octo", "https://ghes.alias.example.com/api/v3"
	w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, alias, t0) })
	w.exec(`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, fingerprint, first_seen_at, seen_at, status_since, offline_since, offline_from_us, offline_from_sync, offline_from_at)
		SELECT 'octo', n, 'r' || n, 'linux', 'offline', false, '{}', 1, $1, $1, $1, $1, 0, 1, $1 FROM generate_series(76, 77) n`, t0)
	w.exec(`INSERT INTO muster.hold VALUES ('octo', 77, 'disk full', 'bob', now(), NULL)`)
	if _, err := w.db.RenameTarget(w.ctx, db.Rename{From: "acme", To: alias, Actor: byHand}); err != nil {
		t.Fatal(err)
	}
	w.want("1 disk, 77 disk full", `SELECT string_agg(concat_ws(' ', runner_id, reason), ', ' ORDER BY runner_id) FROM muster.hold WHERE target = 'octo'`)
	w.want("1 2 77", `SELECT string_agg(runner_id::text, ' ' ORDER BY runner_id) FROM muster.runner WHERE target = 'octo'`)
	held, err := w.db.Runner(w.ctx, "octo", 77)
	if err != nil || held.Hold.Reason != "disk full" || held.OfflineFor != 0 {
		t.Errorf("the held runner: %+v, %v, want its hold and no offline time by the clock of another name", held, err)
	}
}

// A job that is known under both names counts as work for every runner that was
// named under either, and the account that has come further stays.
func TestRenameJoinsTheRunnersOfAJobKnownUnderBothNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed()
	alias := acme
	alias.Name, alias.APIURL = "octo", "https://ghes.alias.example.com/api/v3"
	w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, alias, t0) })
	w.exec(`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, started_at, conclusion, runners, changed_at)
		VALUES ('octo', 5, 1, 1, 'acme/widgets', '{}', 'in_progress', 1, 'r1', $1, '', '[{"id": 9, "name": "r9", "state": "in_progress"}]', now() + interval '1 minute'),
			('octo', 6, 1, 1, 'acme/widgets', '{}', 'queued', 0, '', NULL, '', '[]', now() + interval '1 minute'),
			('acme', 6, 1, 1, 'acme/widgets', '{}', 'in_progress', 2, 'r2', $1, '', '[]', now())`, t0)
	if _, err := w.db.RenameTarget(w.ctx, db.Rename{From: "acme", To: alias, Actor: byHand}); err != nil {
		t.Fatal(err)
	}
	w.want("1 r1, 2 r2, 9 r9", `SELECT string_agg(DISTINCT concat_ws(' ', runner_id, runner_name), ', ') FROM muster.job_runner WHERE workflow_job_id = 5 AND target = 'octo'`)
	w.want("in_progress 2", `SELECT concat_ws(' ', state, runner_id) FROM muster.workflow_job WHERE workflow_job_id = 6`)
	for id := range int64(2) {
		r, err := w.db.Runner(w.ctx, "octo", id+1)
		if err != nil || r.Work.OpenJob == 0 {
			t.Errorf("runner %d: %+v, %v, want a witness of its work", id+1, r.Work, err)
		}
	}
	jobs, err := w.db.WorkflowJobs(w.ctx, "octo", []int64{5})
	if err != nil || len(jobs[5].Runners) != 3 || !jobs[5].Runners[0].StartedAt.Equal(t0) {
		t.Errorf("workflow jobs: %+v, %v, want three runners, of which the first began at %s", jobs, err, t0)
	}
}

// A name under which the first listing was refused has received events since.
func TestRenameJoinsWhatTheNewNameHeard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed()
	alias := acme
	alias.Name, alias.APIURL = "octo", "https://ghes.alias.example.com/api/v3"
	w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, alias, t0) })
	w.exec(`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, conclusion, changed_at)
		VALUES ('octo', 5, 1, 1, 'acme/widgets', '{}', 'completed', 2, 'r2', 'success', now() + interval '1 minute'),
			('octo', 6, 1, 1, 'acme/widgets', '{}', 'in_progress', 1, 'r1', '', now())`)
	w.exec(`INSERT INTO muster.host_runner VALUES ('build-01', 'octo', 'r2', 'idle', now())`)
	w.exec(`INSERT INTO muster.sync VALUES (gen_random_uuid(), 'octo', gen_random_uuid(), now(), now(), 'failed', 1, 1, 0, 2, 0, 0, 0, NULL, 'twin')`)
	w.exec(`INSERT INTO muster.reconciliation (target, due_at) VALUES ('octo', now())`)

	if _, err := w.db.RenameTarget(w.ctx, db.Rename{From: "acme", To: alias, Actor: byHand}); err != nil {
		t.Fatal(err)
	}
	w.want("5 completed, 6 in_progress", `SELECT string_agg(concat_ws(' ', workflow_job_id, state), ', ' ORDER BY workflow_job_id) FROM muster.workflow_job WHERE target = 'octo'`)
	w.want("https://ghes.alias.example.com/api/v3 2 0", `SELECT concat_ws(' ', api_url, runners, (SELECT count(*) FROM muster.page)) FROM api.targets WHERE target = 'octo'`)
	if err := w.db.CheckIdentity(w.ctx, alias); err != nil {
		t.Errorf("CheckIdentity of the new address: %v", err)
	}
}

func TestRenameIsRefused(t *testing.T) {
	t.Parallel()
	octo := fleet.Target{Name: "octo", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "octo"}, APIURL: fleet.DefaultAPIURL}
	for _, tt := range []struct {
		name   string
		before func(*world)
		rename db.Rename
		want   string
	}{
		{"of a target that is not recorded", func(w *world) { w.exec(`DELETE FROM muster.target WHERE name = 'nobody'`) },
			db.Rename{From: "nobody", To: renamed("x").To, Actor: byHand}, "not found"},
		{"to a name in use", func(w *world) {
			w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, octo, t0) })
			w.completed("octo")
		}, renamed("octo"), "the name octo is a target's that was completely synced"},
		{"to a scope in use", func(w *world) {
			w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, octo, t0) })
		}, db.Rename{From: "acme", To: fleet.Target{Name: "new", Scope: octo.Scope, APIURL: octo.APIURL}, Actor: byHand}, "which the record has as target octo"},
		{"with a deletion under way", func(w *world) {
			a := action(1)
			a.ID = uuid.NewString()
			w.tx(func(tx *db.Tx) error { return tx.Intend(w.ctx, a, time.Minute, false) })
		}, renamed("new"), "1 deletions are not settled"},
		{"with a sync running", func(w *world) {
			w.exec(`UPDATE muster.run SET state = 'running', lease_until = now() + interval '1 minute'`)
		}, renamed("new"), "a sync or enforce is running"},
		{"while others write", func(w *world) {
			other := connect(w.T, w.url)
			mustExec(w.T, other, `BEGIN; UPDATE muster.workflow_job SET changed_at = changed_at`)
		}, renamed("new"), "others write to the record without a pause"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seed()
			tt.before(w)
			before := w.rowsOf("acme")
			_, err := w.db.RenameTarget(w.ctx, tt.rename)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("RenameTarget = %v, want %q in it", err, tt.want)
			}
			for table, n := range w.rowsOf("acme") {
				if before[table] != n {
					t.Errorf("%s: %s rows, want %s as before", table, n, before[table])
				}
			}
			w.want("0", `SELECT count(*) FROM api.audit WHERE code = 'TG304I'`)
		})
	}
}

// An event that is being recorded when the name changes is carried over with the
// rest.
func TestRenameWaitsForWhatIsBeingWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed()
	other := connect(t, w.url)
	mustExec(t, other, `BEGIN; INSERT INTO muster.delivery VALUES ('acme', 'late', now())`)
	done := make(chan error, 1)
	go func() {
		_, err := w.db.RenameTarget(context.WithoutCancel(w.ctx), renamed("octo"))
		done <- err
	}()
	for w.value(`SELECT count(*) FROM pg_locks WHERE NOT granted`) == "0" {
		select {
		case err := <-done:
			t.Fatalf("RenameTarget ended before the event: %v", err)
		default:
		}
	}
	mustExec(t, other, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.want("octo", `SELECT target FROM muster.delivery WHERE delivery_id = 'late'`)
}

// A foreign key that is not deferrable would refuse every renaming.
func TestForeignKeysOfTargetsAreDeferrable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("<null>", `
		SELECT string_agg(c.conname, ', ')
		FROM pg_constraint c
		JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey) AND a.attname = 'target'
		WHERE c.contype = 'f' AND c.connamespace = 'muster'::regnamespace AND NOT c.condeferrable`)
}

func TestForget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seed()
	wish := db.Forget{Target: "acme", Actor: byHand, Reason: "it was a typing error"}
	refused := func(want string) {
		t.Helper()
		_, err := w.db.ForgetTarget(w.ctx, wish)
		var guard *db.GuardError
		if !errors.As(err, &guard) || !strings.Contains(guard.Why, want) {
			t.Errorf("ForgetTarget = %v, want a guard that says %q", err, want)
		}
	}
	refused("1 holds and 1 workflow jobs in progress protect its runners")
	wish.Protection = true
	replica := uuid.NewString()
	if _, err := (db.Replicas{DB: w.db}).Present(w.ctx, replica, []string{"acme"}); err != nil {
		t.Fatal(err)
	}
	refused("1 muster serve work with it")
	if _, err := (db.Replicas{DB: w.db}).Present(w.ctx, replica, nil); err != nil {
		t.Fatal(err)
	}

	dropped, err := w.db.ForgetTarget(w.ctx, wish)
	if err != nil || dropped.Runners != 2 || dropped.Holds != 1 || dropped.Scope != acme.Scope {
		t.Fatalf("ForgetTarget = %+v, %v", dropped, err)
	}
	if left := w.rowsOf("acme"); len(left) != 1 || left["token"] != "1" {
		t.Errorf("rows left: %v, want the token alone", left)
	}
	w.want("ada org/acme 2 1 1 it was a typing error", `
		SELECT concat_ws(' ', actor, payload->'details'->>'scope', payload->'details'->>'runners', payload->'details'->>'holds',
			payload->'details'->>'workflow_jobs', reason)
		FROM api.audit WHERE code = 'TG305W'`)
	if _, err := w.db.ForgetTarget(w.ctx, wish); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("ForgetTarget again = %v", err)
	}
	other := fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "elsewhere"}, APIURL: fleet.DefaultAPIURL}
	w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, other, t0) })
}
