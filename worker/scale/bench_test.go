package scale_test

import (
	"fmt"
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

// A thousand pools of a target with 10,000 runners and 50,000 open workflow jobs,
// with all that is read and written for it: one decision on one pool, and the
// round after a sync, in which each pool is decided on and a tenth of them ask
// for five hosts.
func BenchmarkDecide(b *testing.B) {
	const pools = 1000
	w := thousand(b, pools, 10_000, 50_000)
	b.Run("one", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			w.decide(w.pools[n%pools].Name)
		}
	})
	b.Run("all", func(b *testing.B) {
		names := make([]string, pools)
		for i, p := range w.pools {
			names[i] = p.Name
		}
		for b.Loop() {
			b.StopTimer()
			w.exec(`TRUNCATE muster.lease`)
			w.exec(`DELETE FROM muster.pool`)
			w.exec(`VACUUM ANALYZE`)
			w.wait(names[1:]...)
			b.StartTimer()
			w.decide(names[0])
			b.StopTimer()
			w.want("1000 500", `SELECT concat_ws(' ', (SELECT count(*) FROM api.pools), (SELECT count(*) FROM api.leases))`)
			w.want("0", `SELECT count(*) FROM muster.run WHERE state = 'queued'`)
			b.StartTimer()
		}
	})
}

// thousand is a target with so much in it, spread evenly over its pools.
func thousand(b *testing.B, pools, runners, jobs int) *world {
	all := make([]fleet.Pool, pools)
	for i := range all {
		all[i] = pool(fmt.Sprintf("size-%d", i), func(p *fleet.Pool) {
			p.Max = runners / pools
			if i%10 == 0 {
				p.Max += 5
			}
		})
	}
	w := newWorld(b, all...)
	w.sync(everybody)
	w.exec(`
		INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, fingerprint, first_seen_at, seen_at, status_since)
		SELECT 'acme', i, 'r' || i, 'linux', 'online', false, ARRAY['self-hosted', 'size-' || i % $1], i, $2::timestamptz, $2, $2
		FROM generate_series(1, $3) AS i`, pools, t0, runners)
	w.exec(`
		INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id,
			runner_name, conclusion, changed_at, queued_at)
		SELECT 'acme', i, 0, 0, 'acme/widgets', ARRAY['self-hosted', 'size-' || i % $1], 'queued', 0, '', '', $2::timestamptz, $2
		FROM generate_series(1, $3) AS i`, pools, t0, jobs)
	w.exec(`ANALYZE`)
	return w
}
