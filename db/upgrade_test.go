package db_test

import (
	"slices"
	"testing"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/migrations"
)

// A schema that is in use is brought up to date with all that is in it: what runs
// in one transaction must not stumble over rows that it has just changed.
func TestMigrateASchemaInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	url := w.other("inuse", w.value(`current_user`))
	old := connect(t, url)
	files, err := migrations.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	const before = 28
	mustExec(t, old, `CREATE TABLE public.muster_schema_version (version int4 NOT NULL); INSERT INTO public.muster_schema_version VALUES (28)`)
	for _, f := range files[:before] {
		text, err := migrations.FS.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, old, string(text))
	}
	for _, sql := range []string{
		// Another role may migrate: then the default privileges of 008 hold no more.
		`ALTER DEFAULT PRIVILEGES IN SCHEMA muster REVOKE ALL ON TABLES FROM muster_app`,
		`INSERT INTO muster.target (name, scope, api_url, first_used_at, max_observation_gap) VALUES ('acme', 'org/acme', 'https://api.github.com', now(), '1h')`,
		`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, ephemeral, fingerprint, first_seen_at, seen_at, status_since)
			SELECT 'acme', n, 'r' || n, 'unknown', 'offline', false, '{linux}', n = 2, 1, now(), now(), now() FROM generate_series(1, 2) AS n`,
		`INSERT INTO muster.hold VALUES ('acme', 1, 'disk', 'ada', now(), NULL)`,
		`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, conclusion, changed_at)
			VALUES ('acme', 5, 1, 1, 'acme/widgets', '{}', 'in_progress', 2, 'R2', '', now())`,
		`INSERT INTO muster.sync VALUES (gen_random_uuid(), 'acme', gen_random_uuid(), now(), now(), 'complete', 1, 1, 0, 2, 0, 0, 0, NULL, NULL)`,
		`INSERT INTO muster.page (target, number, etag, credential, sha256, total, last, shown, runner_ids) VALUES ('acme', 1, '', '', sha256(''), 2, 1, 0, '{}')`,
		`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at)
			VALUES ('build-01', gen_random_uuid(), 1, 'acme', 'registration', 'denied', '', now())`,
		`INSERT INTO muster.run (trigger_id, job, name, source, state, queued_at) VALUES (gen_random_uuid(), 'sync', 'acme', 'cron', 'queued', now())`,
		`INSERT INTO muster.outbox (id, subject, headers, body) VALUES (gen_random_uuid(), 'muster.v1.trigger.sync.acme', '{}', '{}')`,
		`INSERT INTO muster.finding VALUES ('unserved_job', 'acme', 'gpu', now(), '{}')`,
	} {
		mustExec(t, old, sql)
	}

	ran, err := db.Migrate(w.ctx, url)
	if err != nil || len(ran) != len(files)-before {
		t.Fatalf("Migrate ran %q, %v, want all after %s", ran, err, files[before-1].Name())
	}
	now := openWorld(t, url)
	first, err := now.db.Runner(now.ctx, "acme", 1)
	if err != nil || first.Hold.Reason != "disk" || first.OS != "" || !slices.Equal(first.Labels, []string{"linux"}) {
		t.Errorf("runner with a hold = %+v, %v", first, err)
	}
	second, err := now.db.Runner(now.ctx, "acme", 2)
	if err != nil || second.Work.OpenJob != 5 {
		t.Errorf("runner with a workflow job = %+v, %v", second, err)
	}
	now.want("trigger", `SELECT lane FROM muster.outbox`)
	now.want("1", `SELECT count FROM api.tokens`)
	now.want("", `
		SELECT coalesce(string_agg(relname || ' ' || privilege, ', '), '')
		FROM pg_class c
		CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p (privilege)
		WHERE relnamespace = 'muster'::regnamespace AND relkind = 'r' AND NOT has_table_privilege('muster_app', c.oid, privilege)`)
}
