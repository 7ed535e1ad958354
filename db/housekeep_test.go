package db_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestHousekeepDeletesWhatIsOldAndKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	before := t0.Add(-400 * 24 * time.Hour)
	old, young := before.Add(-time.Second), before
	ids := func() []string {
		return []string{uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()}
	}

	// The newest tick of a schedule says where it goes on.
	w.exec(`INSERT INTO muster.tick (schedule, tick_at, state) VALUES
		('sync/acme', $1::timestamptz - interval '1 h', 'missed'), ('sync/acme', $1, 'missed'), ('sync/acme', $2, 'missed'),
		('yearly', $1::timestamptz - interval '1 h', 'missed'), ('yearly', $1, 'missed')`, old, young)
	w.exec(`INSERT INTO muster.schedule (schedule, sha256, anchored_at) VALUES
		('sync/gone', '', $1::timestamptz - interval '1 year'), ('sync/acme', '', $1::timestamptz - interval '2 years'),
		('yearly', '', $1::timestamptz - interval '2 years'), ('sync/new', '', $1)`, old)
	w.exec(`INSERT INTO muster.policy (policy, target, enforcement, last_run_at) VALUES
		('gone', 'acme', 'audit', $1), ('reap', 'acme', 'audit', $2), ('fresh', 'acme', 'audit', NULL)`, old, young)
	w.exec(`INSERT INTO muster.grace_mark (policy, target, runner_id, sha256, since)
		SELECT policy, 'acme', 1, '', $1 FROM muster.policy`, old)
	left, waiting := ids(), trigger()
	w.tx(func(tx *db.Tx) error { return tx.Queue(w.ctx, waiting) })
	w.exec(`UPDATE muster.run SET queued_at = $1`, old)
	w.exec(`INSERT INTO muster.run (trigger_id, job, name, source, state, queued_at, lease_until) VALUES
		($1, 'sync', 'acme', 'nats', 'queued', $4, NULL), ($2, 'sync', 'acme', 'nats', 'running', $4, $4),
		($3, 'sync', 'acme', 'nats', 'running', $4, $5)`, left[0], left[1], left[2], old, young)
	run := ids()
	w.exec(`INSERT INTO muster.run (trigger_id, job, name, source, state, queued_at) VALUES
		($1, 'sync', 'acme', 'nats', 'done', $5), ($2, 'sync', 'acme', 'nats', 'dead', $5),
		($3, 'sync', 'acme', 'nats', 'failed', $5), ($4, 'sync', 'acme', 'nats', 'done', $6)`, run[0], run[1], run[2], run[3], old, young)
	w.exec(`INSERT INTO muster.sync (sync_id, target, trigger_id, started_at, finished_at, outcome, pages, api_calls, runners, added, changed, removed)
		SELECT gen_random_uuid(), 'acme', gen_random_uuid(), at, at, 'complete', 1, 1, 0, 0, 0, 0 FROM unnest($1::timestamptz[]) AS at`, []time.Time{old, young})
	w.exec(`INSERT INTO muster.runner_history (target, runner_id, name, at, change)
		SELECT 'acme', 1, 'r1', at, 'online' FROM unnest($1::timestamptz[]) AS at`, []time.Time{old, young})
	w.exec(`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at) VALUES
		('h', gen_random_uuid(), 1, 'acme', 'registration', 'issued', '', $1), ('h', gen_random_uuid(), 1, 'acme', 'registration', 'denied', '', $1),
		('h', gen_random_uuid(), 1, 'acme', 'registration', 'requested', '', $1), ('h', gen_random_uuid(), 1, 'acme', 'registration', 'issued', '', $2)`, old, young)

	// Runners: live and long known, removed long ago, removed lately, removed
	// long ago under an intent that nobody settled yet.
	for id := range int64(4) {
		w.runner(id + 1)
	}
	w.exec(`UPDATE muster.runner SET first_seen_at = $1, seen_at = $1`, old)
	w.exec(`UPDATE muster.runner SET removed_at = CASE runner_id WHEN 3 THEN $2::timestamptz ELSE $1 END, removal_cause = 'policy' WHERE runner_id > 1`, old, young)
	open, settled := action(4), action(2)
	keep := decision(1, fleet.VerdictKeep, "grace")
	again := decision(3, fleet.VerdictKeep, "grace")
	carried, done := decision(4, fleet.VerdictAct, "matched"), decision(2, fleet.VerdictAct, "matched")
	for _, d := range []*fleet.Decision{&keep, &again, &carried, &done} {
		d.At = old
	}
	again.At = young
	stored := []fleet.Decision{keep, again, carried, done}
	w.tx(func(tx *db.Tx) error {
		if err := tx.SaveDecisions(w.ctx, stored); err != nil {
			return err
		}
		open.DecisionID, settled.DecisionID = stored[2].ID, stored[3].ID
		for _, a := range []fleet.Action{open, settled} {
			if err := tx.Intend(w.ctx, a, 0, false); err != nil {
				return err
			}
		}
		settled.State, settled.SettledAt = fleet.ActionDone, old
		return tx.Settle(w.ctx, settled)
	})
	w.exec(`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, conclusion, changed_at)
		SELECT 'acme', id, 0, 0, '', '{}', 'queued', 0, '', '', at FROM (VALUES (1, $1::timestamptz), (2, $2)) AS x (id, at)`, old, young)
	w.exec(`INSERT INTO muster.host (host, last_heartbeat_at) VALUES ('h', $1), ('build-01', $2)`, old, young)
	w.exec(`INSERT INTO muster.host_runner (host, target, name, state, at) SELECT host, 'acme', 'r1', 'idle', $1 FROM muster.host`, old)
	w.exec(`INSERT INTO muster.hold (target, runner_id, reason, by, at, until) VALUES ('acme', 1, '', '', $1, $1), ('acme', 3, '', '', $1, $2), ('acme', 4, '', '', $1, NULL)`, old, young)
	// GitHub repeats no delivery after a week, whatever else is kept.
	w.exec(`INSERT INTO muster.delivery (target, delivery_id, at) VALUES ('acme', 'old', $1), ('acme', 'young', $2)`,
		t0.AddDate(0, 0, -8).Add(-time.Second), t0.AddDate(0, 0, -8))
	w.exec(`INSERT INTO muster.refused_delivery (target, delivery_id, at, reason) VALUES ('gone', 'old', $1, ''), ('acme', 'young', $2, '')`,
		t0.AddDate(0, 0, -8).Add(-time.Second), t0.AddDate(0, 0, -8))
	w.exec(`INSERT INTO muster.repository (target, repository, heard_at, compared_at) VALUES ('acme', 'acme/old', $1, $1), ('acme', 'acme/cold', $1, $2), ('acme', 'acme/new', NULL, NULL), ('gone', 'gone/new', NULL, NULL)`, old, young)
	w.exec(`INSERT INTO muster.runner_group (target, group_id, name, visibility, public, selected) VALUES ('gone', '1', '', 'all', false, '{}'), ('acme', '1', '', 'all', false, '{}')`)
	w.exec(`INSERT INTO muster.reconciliation (target, due_at) VALUES ('gone', $1), ('acme', $2)`, old, young)
	w.exec(`INSERT INTO muster.hook (target, hook_id, scope, heard_at, due_at, swept_to) VALUES ('acme', 1, 'org/acme', $1, $1, $1), ('acme', 2, 'org/acme', $2, $1, $1)`, old, young)
	w.exec(`INSERT INTO muster.github_pause (credential, until, told_at, reason) VALUES ('old', $1, $1, ''), ('new', $2, $1, '')`,
		t0.Add(-time.Second), t0.Add(time.Second))
	w.exec(`INSERT INTO muster.replica (replica, seen_at) VALUES (gen_random_uuid(), $1), (gen_random_uuid(), $2)`,
		t0.Add(-time.Hour-time.Second), t0.Add(-time.Hour))
	w.exec(`INSERT INTO muster.lease (request_id, pool, target, state, attempt, requested_at, deadline)
		SELECT gen_random_uuid(), 'linux', 'acme', 'expired', 1, at, at FROM unnest($1::timestamptz[]) AS at`, []time.Time{old, young})
	w.exec(`INSERT INTO muster.pool (name, target, labels, decided_at) VALUES ('gone', 'gone', '{}', $1), ('linux', 'acme', '{}', $2), ('new', 'new', '{}', NULL)`, old, young)
	// What nobody has looked at for a day may be wrong no more. Of replicas whose
	// configurations differ, one may still decide on what another does not have.
	w.exec(`INSERT INTO muster.pool (name, target, labels, decided_at) VALUES ('left', 'left', '{}', $1), ('idle', 'idle', '{}', $1), ('arm', 'acme', '{}', $2)`,
		t0.Add(-24*time.Hour-time.Second), t0.Add(-24*time.Hour))
	w.exec(`INSERT INTO muster.finding (kind, target, subject, since, detail)
		VALUES ('unserved_job', 'acme', 'gpu', $1, '{}'), ('unserved_job', 'gone', 'gpu', $1, '{}'), ('unserved_job', 'left', 'gpu', $2, '{}')`, old, t0)
	trail := w.value(`SELECT count(*) FROM audit.event`)

	var counts fleet.Counts
	keepHouse := func() {
		w.tx(func(tx *db.Tx) error {
			var err error
			counts, err = tx.Housekeep(w.ctx, t0, before, []string{"idle", "linux", "new"})
			return err
		})
	}
	keepHouse()
	want := fleet.Counts{
		"ticks": 3, "runs": 5, "schedules": 1, "grace_marks": 1, "syncs": 1, "actions": 1, "decisions": 2, "tokens": 2, "history": 1, "last_decisions": 2, "runners": 1,
		"workflow_jobs": 1, "hosts": 1, "holds": 1, "deliveries": 1, "refusals": 1, "pauses": 1, "replicas": 1, "leases": 1, "pools": 2, "findings": 2,
		"repositories": 2, "comparisons": 1, "hooks": 1, "runner_groups": 1,
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("Housekeep (-want +got):\n%s", diff)
	}
	w.want("sync/acme 1, yearly 1", `
		SELECT string_agg(schedule || ' ' || n, ', ' ORDER BY schedule) FROM (SELECT schedule, count(*) AS n FROM muster.tick GROUP BY schedule) x`)
	w.want("1 3 4", `SELECT string_agg(runner_id::text, ' ' ORDER BY runner_id) FROM muster.runner`)
	w.want("4 intended", `SELECT string_agg(runner_id || ' ' || state, ', ') FROM muster.action`)
	w.want("3 4", `SELECT string_agg(runner_id::text, ' ' ORDER BY runner_id) FROM muster.decision`)
	// A decision that is gone is news when it is taken again.
	w.want("3 4", `SELECT string_agg(runner_id::text, ' ' ORDER BY runner_id) FROM muster.last_decision`)
	// What the outbox still holds, and what somebody is at, is not over.
	w.want("done queued running", `SELECT string_agg(state, ' ' ORDER BY state) FROM muster.run`)
	w.want("sync/acme sync/new yearly", `SELECT string_agg(schedule, ' ' ORDER BY schedule) FROM muster.schedule`)
	w.want("fresh reap", `SELECT string_agg(policy, ' ' ORDER BY policy) FROM muster.grace_mark`)
	w.want("3 4", `SELECT string_agg(runner_id::text, ' ' ORDER BY runner_id) FROM muster.hold`)
	w.want("1", `SELECT count(*) FROM muster.token WHERE outcome = 'requested'`)
	w.want("2 build-01 young", `SELECT concat_ws(' ', (SELECT workflow_job_id FROM muster.workflow_job), (SELECT host FROM muster.host_runner), (SELECT delivery_id FROM muster.delivery))`)
	w.want("acme/cold acme/new", `SELECT string_agg(repository, ' ' ORDER BY repository) FROM muster.repository`)
	w.want("acme", `SELECT string_agg(target, ' ') FROM muster.runner_group`)
	w.want("arm idle linux new", `SELECT string_agg(name, ' ' ORDER BY name) FROM muster.pool`)
	w.want("acme", `SELECT string_agg(target, ' ') FROM muster.finding`)
	w.want(trail, `SELECT count(*) FROM audit.event`)

	// A job that may still run is kept, however little else is.
	w.exec(`UPDATE muster.workflow_job SET changed_at = $1`, t0.AddDate(0, 0, -5))
	before = t0.AddDate(0, 0, -1)
	if keepHouse(); counts["workflow_jobs"] != 0 {
		t.Errorf("Housekeep deleted %d workflow jobs of five days ago", counts["workflow_jobs"])
	}

	keepHouse()
	for what, n := range counts {
		if n != 0 {
			t.Errorf("a second time %d %s go", n, what)
		}
	}
}
