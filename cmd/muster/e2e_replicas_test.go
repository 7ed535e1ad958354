package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// Two services on one record and one NATS share the work and do none of it
// twice: ten schedules of a second make a hundred ticks in ten.
func TestTwoReplicasFireAndDeleteOnce(t *testing.T) {
	t.Parallel()
	const targets, doomed, ticks = 10, 20, 100
	w := newWorld(t)
	var entries, names []string
	for i := range targets {
		name := fmt.Sprintf("r%d", i)
		scope := fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: name}
		if err := w.sim.AddScope(scope); err != nil {
			t.Fatal(err)
		}
		for prefix, spec := range map[string]githubsim.RunnerSpec{"doomed": {}, "alive": {Online: true}} {
			_, err := w.sim.CreateMany(scope, doomed, func(i int) githubsim.RunnerSpec {
				spec.Name = fmt.Sprintf("%s-%d", prefix, i)
				return spec
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		entries = append(entries, fmt.Sprintf(`  - {name: %s, scope: %s, api_url: "API", auth: {token_file: github.token}}`, name, scope))
		names = append(names, name)
	}
	all := "[" + strings.Join(names, ", ") + "]"
	w.configure(`
database_url: "DATABASE"
nats: {url: "NATS"}
listen: 127.0.0.1:0
targets:
`+strings.Join(entries, "\n")+`
schedules:
  - {job: sync, targets: `+all+`, cron: "* * * * * *", overlap: queue}
`, reaper("[acme]", all))

	first, second := w.serve(), w.serve()
	first.up()
	second.up()
	w.becomes(fmt.Sprint(targets*doomed), `SELECT count(*) FROM api.runners WHERE removed_at IS NOT NULL`)
	w.becomes("true", `(SELECT count(*) FROM api.ticks WHERE state = 'fired') >= $1`, ticks)
	last := w.value(`SELECT max(tick_at) FROM api.ticks WHERE schedule LIKE 'sync/%'`)
	w.becomes("0", `SELECT count(*) FROM api.ticks k LEFT JOIN api.runs r USING (trigger_id)
		WHERE k.tick_at <= $1::timestamptz AND (r.state IN ('done', 'joined')) IS NOT TRUE`, last)
	w.becomes("0", `SELECT count(*) FROM api.runs WHERE state = 'running'`)
	first.stop()
	second.stop()

	// Each second of each schedule is there once, and has one run, which made one
	// walk or is joined to a run that did.
	for _, row := range w.rows(`
		SELECT schedule, count(*)::text, count(DISTINCT trigger_id)::text,
			(extract(epoch FROM max(tick_at) - min(tick_at)) + 1)::bigint::text,
			(SELECT count(*) FROM api.runs r JOIN api.ticks k USING (trigger_id)
				WHERE k.schedule = t.schedule AND k.tick_at <= $1::timestamptz AND r.source = 'cron' AND r.attempt <= 1)::text,
			(SELECT count(*) FROM api.runs r JOIN api.ticks k USING (trigger_id)
				WHERE k.schedule = t.schedule AND k.tick_at <= $1::timestamptz
				AND (r.state = 'joined' OR EXISTS (SELECT FROM api.syncs s WHERE s.trigger_id = r.trigger_id)))::text
		FROM api.ticks t
		WHERE schedule LIKE 'sync/%' AND tick_at <= $1::timestamptz AND state = 'fired'
		GROUP BY schedule`, last) {
		if n := row[1]; n != row[2] || n != row[3] || n != row[4] || n != row[5] {
			t.Errorf("%s: %s ticks, %s triggers, %s seconds, %s runs of one attempt, %s runs with a walk or joined, want the same number", row[0], row[1], row[2], row[3], row[4], row[5])
		}
	}
	asked := map[string]int{}
	for _, e := range w.sim.Log() {
		if e.Method == "DELETE" {
			asked[fmt.Sprintf("%s/%d", e.Scope, e.RunnerID)]++
		}
	}
	for runner, n := range asked {
		if n != 1 {
			t.Errorf("GitHub was asked %d times to delete %s", n, runner)
		}
	}
	if got, want := reconcile(t, w), (reconciled{deleted: targets * doomed}); got != want {
		t.Errorf("reconcile = %+v, want %+v", got, want)
	}
	for i, p := range []*process{first, second} {
		if !strings.Contains(p.log.String(), "result=done") {
			t.Errorf("replica %d did none of the work", i+1)
		}
	}
}
