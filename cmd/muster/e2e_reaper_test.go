package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// The life of a fleet under muster serve, and what is left of it in the
// record.
func TestServeReapsWhoIsLongOffline(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head+often, reaper())
	alive := w.runners("alive-", 20, githubsim.RunnerSpec{Online: true})
	kept := w.runners("kept-", 2, githubsim.RunnerSpec{Online: true, Labels: []string{"keep"}})
	working := w.runners("working-", 2, githubsim.RunnerSpec{Online: true, Busy: true})
	doomed := w.runners("doomed-", 5, githubsim.RunnerSpec{Online: true})

	p := w.serve().up()
	w.becomes("29", `SELECT count(*) FROM api.runners WHERE status = 'online' AND removed_at IS NULL`)
	if got := w.value(`SELECT count(*) FROM api.runners WHERE offline_since IS NOT NULL`); got != "0" {
		t.Errorf("%s online runners have offline_since", got)
	}

	w.kill(doomed...)
	w.kill(kept...)
	w.becomes("7", `SELECT count(*) FROM api.runners WHERE status = 'offline' AND offline_since IS NOT NULL`)
	w.becomes("5", `SELECT count(*) FROM api.runners WHERE removal_cause = 'policy'`)
	builder := w.host("build-01")
	for range 2 {
		builder.gets(t, "registration")
		builder.gets(t, "removal")
	}
	w.syncs(2) // nobody else follows
	checkMetrics(t, p)
	p.stop()

	got := reconcile(t, w)
	if want := (reconciled{deleted: len(doomed), minted: 4}); got != want {
		t.Errorf("reconcile = %+v, want %+v", got, want)
	}
	for _, e := range deletions(w.sim) {
		if !strings.HasPrefix(e.RunnerName, "doomed-") || e.Online || e.Busy {
			t.Errorf("GitHub deleted %s, online %t, busy %t", e.RunnerName, e.Online, e.Busy)
		}
	}
	if n := len(w.sim.Snapshot(acme)); n != len(alive)+len(kept)+len(working) {
		t.Errorf("GitHub has %d runners left, want %d", n, len(alive)+len(kept)+len(working))
	}
	// Both guards of time held: offline for two seconds of observed time, and
	// matched for one.
	if n := w.value(`SELECT count(*) FROM api.decisions WHERE verdict = 'act'
		AND (evidence->>'offline_for_seconds')::int >= 2 AND at >= (evidence->>'grace_until')::timestamptz`); n != fmt.Sprint(len(doomed)) {
		t.Errorf("%s decisions to act rest on the time that the policy asks for, want %d", n, len(doomed))
	}
	if n := w.value(`SELECT count(DISTINCT runner_id) FROM api.decisions WHERE verdict = 'keep' AND reasons @> '{exempt}'`); n != fmt.Sprint(len(kept)) {
		t.Errorf("%s runners were kept as exempt, want %d", n, len(kept))
	}
}

// checkMetrics wants every figure that the contract promises, of a fleet that
// has seen everything but trouble, in lines that Prometheus can read.
func checkMetrics(t *testing.T, p *process) {
	t.Helper()
	code, body := p.get("/metrics")
	if code != http.StatusOK {
		t.Fatalf("/metrics = %d %s", code, body)
	}
	sample := regexp.MustCompile(`^(muster_[a-z_]+)(\{([a-z]+="[^"\n]*",?)+\})? [-+0-9.eE]+$`)
	for line := range strings.Lines(body) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "# ") && !sample.MatchString(line) {
			t.Errorf("/metrics has the line %q", line)
		}
	}
	for _, want := range []string{
		`muster_sync_age_seconds{target="acme"} `,
		`muster_sync_duration_seconds_count{target="acme"} [1-9]`,
		`muster_syncs_total{outcome="complete",reason="",target="acme"} [1-9]`,
		`muster_runners{target="acme"} 24`,
		`muster_runners_online{target="acme"} 22`,
		`muster_runners_busy{target="acme"} 2`,
		`muster_github_calls_total{code="2xx",kind="list_runners",target="acme"} [1-9]`,
		`muster_github_calls_total{code="2xx",kind="delete_runner",target="acme"} 5`,
		`muster_github_call_duration_seconds_count{kind="get_runner",target="acme"} [1-9]`,
		`muster_decisions_total{outcome="act",policy="reaper",target="acme"} [1-9]`,
		`muster_actions_total{outcome="done",policy="reaper",target="acme"} 5`,
		`muster_policy_halted{policy="reaper",target="acme"} 0`,
		`muster_tokens_total{kind="registration",outcome="issued"} 2`,
		`muster_token_duration_seconds_count{kind="removal"} 2`,
		`muster_triggers_total{job="sync",outcome="done",target="acme"} [1-9]`,
		`muster_trigger_lag_seconds_count{job="enforce"} [1-9]`,
		`muster_ticks_total{job="sync",outcome="fired",target="acme"} [1-9]`,
		`muster_tick_lateness_seconds_count{job="sync"} [1-9]`,
		`muster_dead_letters 0`,
		`muster_outbox_age_seconds `,
		`muster_database_up 1`,
		`muster_build_info{`,
	} {
		if !regexp.MustCompile(`(?m)^` + strings.NewReplacer("{", `\{`, "}", `\}`).Replace(want)).MatchString(body) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}
