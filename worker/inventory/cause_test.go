package inventory_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestWhyARunnerIsGone(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, "dotcom", nil)
	ids := w.create(6, githubsim.RunnerSpec{Online: true})
	w.create(60, githubsim.RunnerSpec{Name: "stays", Online: true})
	once := w.create(3, githubsim.RunnerSpec{Name: "once", Online: true, Ephemeral: true})
	w.sync()
	w.ok(w.sim.Kill(acme, ids[4]))
	w.ok(w.sim.Assign(acme, once[1]))
	w.sync()

	// What others than the listing say, of all but a few.
	at := w.clock()
	w.exec(`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, completed_at, conclusion, changed_at)
		VALUES ('acme', 1, 1, 1, '', '{}', 'completed', $1, 'once1', $3, '', $3), ('acme', 2, 1, 1, '', '{}', 'completed', $2, 'r1', $3, '', $3),
			('acme', 3, 1, 1, '', '{}', 'completed', $4, 'GitHub Actions 9', $3, '', $3)`, once[0], ids[0], at, once[2])
	w.exec(`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at, issued_at, expires_at) VALUES
		('r2', gen_random_uuid(), 1, 'acme', 'removal', 'issued', '', $1, $1, $1::timestamptz + interval '1 h'),
		('r3', gen_random_uuid(), 1, 'acme', 'registration', 'issued', '', $1, $1, $1::timestamptz + interval '1 h'),
		('r6', gen_random_uuid(), 1, 'acme', 'removal', 'denied', '', $1, NULL, NULL)`, at)
	w.exec(`INSERT INTO muster.host (host, last_heartbeat_at) VALUES ('rack', $1)`, at)
	w.exec(`INSERT INTO muster.host_runner (host, target, name, state, at) VALUES ('rack', 'acme', 'r4', 'stopped', $1), ('rack', 'acme', 'r1', 'idle', $1), ('rack', 'acme', 'r3', 'stopped', $1)`, at)
	w.exec(`UPDATE muster.runner SET host = 'r3' WHERE name = 'r3'`) // no other host speaks for it
	w.exec(`UPDATE muster.runner SET last_online_at = $1 WHERE name = 'r5'`, at.Add(-14*24*time.Hour))
	for _, id := range append(ids, once...) {
		w.ok(w.sim.Remove(acme, id))
	}
	s := w.wantSync("complete +0 ~0 -9")
	const causes = `SELECT string_agg(name || ' ' || removal_cause, ', ' ORDER BY name) FROM api.runners WHERE removed_at IS NOT NULL`
	const want = "once1 ephemeral, once2 ephemeral, once3 unknown, r1 unknown, r2 host, r3 unknown, r4 host, r5 github, r6 unknown"
	w.want(want, causes)
	w.want(want, `SELECT string_agg(runner_name || ' ' || (payload->'details'->>'removal_cause'), ', ' ORDER BY runner_name)
		FROM api.audit WHERE code = 'RN110I' AND trigger_id = $1`, s.TriggerID)
	w.want(want, `SELECT string_agg((m->'data'->>'name') || ' ' || (m->'data'->>'removal_cause'), ', ' ORDER BY m->'data'->>'name')
		FROM (SELECT convert_from(body, 'UTF8')::jsonb AS m FROM muster.outbox WHERE subject = 'muster.v1.event.runner.removed') sent`)
	// A later sync has nothing to add.
	w.wantSync("complete +0 ~0 -0")
	w.want(want, causes)
}
