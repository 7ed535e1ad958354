package db_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/migrations"
)

func TestMigrateFromNothingAndAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url := w.other("empty", w.value(`current_user`))

	empty, err := db.Open(w.ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	files, err := migrations.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	err = empty.CheckSchema(w.ctx)
	if want := fmt.Sprintf("the database lacks migration 001_roles.sql (it has 0 of %d): run muster migrate up", len(files)); err == nil || err.Error() != want {
		t.Errorf("CheckSchema of an empty database = %v, want %s", err, want)
	}

	ran, err := db.Migrate(w.ctx, url)
	if err != nil || len(ran) != len(files) {
		t.Fatalf("Migrate ran %q, %v, want all %d", ran, err, len(files))
	}
	if ran, err = db.Migrate(w.ctx, url); err != nil || len(ran) != 0 {
		t.Errorf("Migrate again ran %q, %v, want nothing", ran, err)
	}
	if err := empty.CheckSchema(w.ctx); err != nil {
		t.Errorf("CheckSchema after Migrate: %v", err)
	}
	// The connections from before have not become the role that was made.
	empty.Reset()
	if err := empty.Ping(w.ctx); err != nil || !empty.WorksAsApp() {
		t.Errorf("Ping after Reset: %v, role %q, want muster_app", err, empty.Role())
	}
}

func TestTwoMigrationsAtOnceAreOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url := w.other("race", w.value(`current_user`))
	ran := make([][]string, 4)
	var g errgroup.Group
	for i := range ran {
		g.Go(func() error {
			var err error
			ran[i], err = db.Migrate(w.ctx, url)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	files, err := migrations.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	if all := slices.Concat(ran...); len(all) != len(files) {
		t.Errorf("together they ran %q, want each of the %d once", all, len(files))
	}
}

// owned checks that muster works in a database whose owner may do nothing
// beyond it.
func owned(t *testing.T, url string) {
	t.Helper()
	ran, err := db.Migrate(t.Context(), url)
	if err != nil || len(ran) == 0 {
		t.Fatalf("Migrate ran %q, %v", ran, err)
	}
	w := openWorld(t, url)
	w.target()
	if w.db.WorksAsApp() || w.db.Role() == "" {
		t.Errorf("works as %q, which it must not be able to become", w.db.Role())
	}
	if trail, err := w.db.Trail(w.ctx, db.TrailFilter{}); err != nil || len(trail) != 1 {
		t.Errorf("%d events in the trail, %v, want 1", len(trail), err)
	}
	for _, sql := range []string{`UPDATE audit.event SET payload = payload`, `DELETE FROM audit.event`, `TRUNCATE audit.event`} {
		if _, err := w.sql.Exec(w.ctx, sql); code(err) != insufficientPrivilege {
			t.Errorf("%s by the owner: %v, want a refusal", sql, err)
		}
	}
}

func TestOwnerWithoutRightsToTheRolesMigrates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role, in := w.login()
	owned(t, in(w.other("owned", role)))
}

func TestMigrateWithoutRolesThatCannotBeMade(t *testing.T) {
	t.Parallel()
	server := dbtest.Server(t)
	w := &world{T: t, ctx: t.Context(), url: server.URL(), sql: connect(t, server.URL())}
	w.exec(`
		DROP SCHEMA api, muster, audit CASCADE;
		DROP TABLE public.muster_schema_version;
		DROP OWNED BY muster_app, muster_auditor, muster_audit_owner;
		DROP ROLE muster_app, muster_auditor, muster_audit_owner`)
	role, in := w.login()
	owned(t, in(w.other("owned", role)))
	w.want("0", `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'muster\_a%'`)
}

func TestEveryViewAndColumnIsExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rows, err := w.sql.Query(w.ctx, `
		SELECT c.relname || coalesce('.' || a.attname, ''), c.relkind::text, coalesce(d.description, '')
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'api'
		CROSS JOIN LATERAL (
			SELECT 0 AS attnum, NULL AS attname
			UNION ALL
			SELECT attnum, attname FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
		) a
		LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = a.attnum
		ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	var name, kind, comment string
	views := map[string]bool{}
	_, err = pgx.ForEachRow(rows, []any{&name, &kind, &comment}, func() error {
		if kind != "v" {
			t.Errorf("%s is of kind %s: schema api holds views only", name, kind)
		}
		if !strings.HasSuffix(comment, ".") {
			t.Errorf("%s is explained as %q", name, comment)
		}
		view, _, _ := strings.Cut(name, ".")
		views[view] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, view := range []string{"targets", "runners", "runner_history", "syncs", "policies", "decisions", "actions", "holds", "tokens", "hosts", "workflow_jobs", "pools", "leases", "findings", "ticks", "runs", "dead_letters", "audit"} {
		if !views[view] {
			t.Errorf("there is no api.%s", view)
		}
	}
}

func TestColumnsAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for view, columns := range map[string]string{
		"targets":        "target, scope, api_url, last_complete_sync_at, runners, online, busy, api_remaining, capabilities",
		"runners":        "target, runner_id, name, os, status, busy, labels, runner_group, ephemeral, version, first_seen_at, last_seen_at, status_since, offline_since, offline_for, last_busy_at, removed_at, removal_cause, host",
		"runner_history": "target, runner_id, name, at, change, before, after, sync_id",
		"syncs":          "sync_id, target, trigger_id, started_at, finished_at, outcome, pages, api_calls, not_modified, runners, added, changed, removed, suspect, error, unreadable, unreadable_items",
		"policies":       "policy, target, sha256, enforcement, state, reason, last_run_at",
		"decisions":      "decision_id, at, trigger_id, policy, policy_sha256, enforcement, target, runner_id, name, verdict, reasons, evidence",
		"actions":        "action_id, decision_id, trigger_id, target, runner_id, name, action, state, reason, http_status, intended_at, settled_at",
		"holds":          "target, runner_id, name, reason, by, at, until",
		"tokens":         "request_id, attempt, host, target, kind, outcome, code, requested_at, issued_at, expires_at, fingerprint, runner_id, count",
		"hosts":          "host, state, last_heartbeat_at, runners",
		"workflow_jobs":  "target, workflow_job_id, run_id, repository, labels, state, runner_id, runner_name, queued_at, started_at, completed_at, conclusion",
		"pools":          "pool, target, labels, min, max, desired, online, busy, booting, draining, queued, in_progress, demand_at, confidence, leases_expired, reason, decided_at",
		"leases":         "request_id, pool, host, state, attempt, requested_at, deadline, runner_id",
		"findings":       "kind, target, subject, since, detail",
		"ticks":          "schedule, tick_at, state, fired_at, trigger_id",
		"runs":           "trigger_id, job, name, source, attempt, state, started_at, finished_at, error, counts, joined_to",
		"dead_letters":   "id, subject, trigger_id, body, error, attempts, died_at",
		"audit":          "event_id, occurred_at, code, action, outcome, actor_type, actor, target, runner_id, runner_name, host, policy, trigger_id, reason, payload",
	} {
		w.want(columns, `
			SELECT string_agg(attname, ', ' ORDER BY attnum)
			FROM pg_attribute
			WHERE attrelid = ('api.' || $1)::regclass AND attnum > 0`, view)
	}
}

func TestAuditorReadsTheViewsAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	auditor := w.as("muster_auditor")
	relations, err := w.sql.Query(w.ctx, `
		SELECT n.nspname || '.' || c.relname
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S')
			AND (n.nspname IN ('api', 'muster', 'audit') OR c.relname LIKE 'muster%')`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(relations, pgx.RowTo[string])
	if err != nil || len(names) < 25 {
		t.Fatalf("relations %q, %v", names, err)
	}
	for _, name := range names {
		_, err := auditor.Exec(w.ctx, `SELECT * FROM `+name)
		if open := strings.HasPrefix(name, "api."); open != (err == nil) || !open && code(err) != insufficientPrivilege {
			t.Errorf("auditor reads %s: %v", name, err)
		}
		if _, err := auditor.Exec(w.ctx, `DELETE FROM `+name); err == nil {
			t.Errorf("auditor deletes from %s", name)
		}
	}
	var n int
	if err := auditor.QueryRow(w.ctx, `SELECT count(*) FROM api.audit WHERE code = $1`, string(fleet.AuditTargetNew)).Scan(&n); err != nil || n != 1 {
		t.Errorf("auditor sees %d events, %v, want 1", n, err)
	}
}

func TestConnectionsWorkAsTheRoleOfTheService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if w.db.WorksAsApp() || w.db.Role() != "" {
		t.Errorf("Role before the first connection = %q, want none", w.db.Role())
	}
	w.target()
	if !w.db.WorksAsApp() || w.db.Role() != "muster_app" {
		t.Errorf("Role = %q, want muster_app", w.db.Role())
	}
	table, err := w.db.ReadAPI(w.ctx, `SELECT current_user::text, current_setting('timezone')`)
	if err != nil || len(table.Rows) != 1 || strings.Join(table.Rows[0], " ") != "muster_app UTC" {
		t.Errorf("ReadAPI = %v, %v", table, err)
	}
	if _, err := w.db.ReadAPI(w.ctx, `DELETE FROM muster.target RETURNING name`); code(err) != "25006" {
		t.Errorf("ReadAPI writes: %v, want a refusal", err)
	}
}

func TestOpenSaysNothingOfTheURL(t *testing.T) {
	t.Parallel()
	_, err := db.Open(t.Context(), "postgres://muster:geheim@%zz/muster")
	if err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("Open of a URL that is none = %v", err)
	}
}

func TestMigrationsOfSeveralDatabasesShareTheirRoles(t *testing.T) {
	t.Parallel()
	server := dbtest.Server(t)
	w := &world{T: t, ctx: t.Context(), url: server.URL(), sql: connect(t, server.URL())}
	w.exec(`
		DROP SCHEMA api, muster, audit CASCADE;
		DROP TABLE public.muster_schema_version;
		DROP OWNED BY muster_app, muster_auditor, muster_audit_owner;
		DROP ROLE muster_app, muster_auditor, muster_audit_owner`)
	role, in := w.login()
	w.exec(`ALTER ROLE ` + role + ` CREATEROLE`)
	var g errgroup.Group
	for _, name := range []string{"one", "two", "three", "four", "five", "six"} {
		url := in(w.other(name, role))
		g.Go(func() error {
			_, err := db.Migrate(w.ctx, url)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	w.want("3", `SELECT count(*) FROM pg_roles WHERE rolname IN ('muster_app', 'muster_auditor', 'muster_audit_owner')`)
}
