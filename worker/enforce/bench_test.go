package enforce_test

import (
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// tenPolicies are the samples and three more. All of them decide and act on
// nobody: what is measured is what muster makes of a fleet.
func tenPolicies(t testing.TB) []string {
	t.Helper()
	names, err := fs.Glob(policies.Samples(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, name := range names {
		text, err := fs.ReadFile(policies.Samples(), name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	for _, name := range []string{"one", "two", "three"} {
		texts = append(texts, sample(name, "HOURS", "24h", "GRACE", "1h", "EXTRA", ""))
	}
	for i, text := range texts {
		texts[i] = strings.Replace(text, "enforcement: enforce", "enforcement: audit", 1)
	}
	if len(texts) != 10 {
		t.Fatalf("%d policies, want ten", len(texts))
	}
	return texts
}

// largeFleet puts n runners into the record as if syncs had seen them: of each
// hundred three are long dead, seven have just gone, the others are at work;
// four on each host, all of which send heartbeats; and ten workflow jobs that
// each of them has done.
func (w *world) largeFleet(n int) {
	w.Helper()
	w.sync(0)
	w.sync(time.Minute)
	at := w.clock()
	for _, statement := range []string{
		`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, runner_group, ephemeral, version, fingerprint, host,
			first_seen_at, seen_at, status_since, offline_since, last_online_at, last_busy_at, offline_from_us, offline_from_sync, offline_from_at)
		SELECT 'acme', i, 'build-' || i, 'linux', CASE WHEN i % 100 < 10 THEN 'offline' ELSE 'online' END, false,
			ARRAY['linux', 'self-hosted', 'team-' || i % 40, 'x64'], '1', false, '2.321.0', i, 'host-' || i / 4,
			since - interval '90 days', $1, since, CASE WHEN i % 100 < 10 THEN since END, since, since,
			CASE WHEN i % 100 < 10 THEN -1e6 * extract(epoch FROM $1 - since) END, CASE WHEN i % 100 < 10 THEN 1 END, CASE WHEN i % 100 < 10 THEN since END
		FROM generate_series(1, $2::bigint) i
		CROSS JOIN LATERAL (SELECT $1::timestamptz - CASE WHEN i % 100 < 3 THEN interval '12 days' ELSE interval '1 hour' END AS since) s`,
		`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name,
			queued_at, started_at, completed_at, conclusion, changed_at)
		SELECT 'acme', i, i, 1, 'acme/widgets', '{linux}', 'completed', 1 + (i * 7919) % $2, 'build-' || 1 + (i * 7919) % $2,
			done - interval '2 min', done - interval '1 min', done, 'success', done
		FROM generate_series(1, 10 * $2::bigint) i CROSS JOIN LATERAL (SELECT $1::timestamptz - interval '20 days' + i * interval '1 s' AS done) d`,
		`INSERT INTO muster.host (host, last_heartbeat_at) SELECT 'host-' || i, $1::timestamptz FROM generate_series(0, $2::bigint / 4) i`,
		`INSERT INTO muster.host_runner (host, target, name, state, at)
		SELECT 'host-' || i / 4, 'acme', 'build-' || i, CASE WHEN i % 100 < 10 THEN 'stopped' ELSE 'idle' END, $1::timestamptz FROM generate_series(1, $2::bigint) i`,
		`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at, issued_at, expires_at)
		SELECT 'host-' || i, gen_random_uuid(), 1, 'acme', 'registration', 'issued', '', past, past, past + interval '1 h'
		FROM generate_series(0, $2::bigint / 4) i CROSS JOIN LATERAL (SELECT $1::timestamptz - interval '90 days' AS past) p`,
	} {
		if _, err := w.sql.Exec(w.ctx, statement, at, n); err != nil {
			w.Fatalf("%s: %v", statement, err)
		}
	}
	for _, table := range []string{"runner", "workflow_job", "host", "host_runner", "token"} {
		if _, err := w.sql.Exec(w.ctx, `VACUUM ANALYZE muster.`+table); err != nil {
			w.Fatal(err)
		}
	}
}

// BenchmarkLargeFleet enforces ten policies on 100,000 runners with 1,000,000
// workflow jobs behind them: first on a fleet that no policy has seen, then
// again. The bounds are 5 s on two cores, counted as processor time of muster's
// own so that a machine with other things to do changes nothing, 500 MB, and no
// row for what was decided before.
func BenchmarkLargeFleet(b *testing.B) {
	const n = 100_000
	w := newWorld(b, tenPolicies(b)...)
	w.largeFleet(n)
	usage := func() (time.Duration, int64) {
		var u syscall.Rusage
		w.ok(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Maxrss >> 10
	}
	const decisions = `SELECT count(*) FROM muster.decision`
	run := func(name string) {
		processor, _ := usage()
		began := time.Now()
		counts := w.run()
		wall := time.Since(began)
		after, peak := usage()
		processor = after - processor
		if counts[policies.CountEvaluated] != 10*n {
			b.Fatalf("%s run: evaluated %d runners, want ten times %d", name, counts[policies.CountEvaluated], n)
		}
		b.ReportMetric(wall.Seconds(), name+"-s")
		b.ReportMetric(processor.Seconds(), name+"-cpu-s")
		b.ReportMetric(float64(peak), "peak-MB")
		if processor > 2*5*time.Second || peak > 500 {
			b.Errorf("%s run: %v of processor time and a peak of %d MB, want 10 s and 500 MB at most", name, processor, peak)
		}
	}
	for b.Loop() {
		_, err := w.sql.Exec(w.ctx, `TRUNCATE muster.decision, muster.last_decision, muster.grace_mark`)
		w.ok(err)
		run("first")
		before := w.value(decisions)
		run("second")
		if after := w.value(decisions); after != before {
			b.Errorf("the second run wrote decision rows: %s before, %s after", before, after)
		}
	}
}
