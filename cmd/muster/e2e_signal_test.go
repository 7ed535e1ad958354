package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestSIGHUPTakesOverAllOrNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const slow = `
schedules:
  - {job: sync, targets: [acme], cron: "* * * * * *", overlap: queue}
`
	w.configure(head+slow, reaper("enforcement: enforce", "enforcement: audit"))
	w.runners("alive-", 10, githubsim.RunnerSpec{Online: true})
	w.runners("doomed-", 3, githubsim.RunnerSpec{})
	p := w.serve().up()
	w.becomes("3", `SELECT count(DISTINCT runner_id) FROM api.decisions WHERE verdict = 'act' AND enforcement = 'audit'`)

	reload := func(outcome string) {
		t.Helper()
		before := strings.Count(p.log.String(), outcome)
		p.signal(syscall.SIGHUP)
		eventually(t, "muster logs "+outcome, func() (string, bool) {
			return tail(p.log.String(), 3), strings.Count(p.log.String(), outcome) > before
		})
	}
	const taken, refused = `msg="configuration taken over"`, `msg="configuration not taken over"`

	// Each of these would let the policy act, were it not for a fault
	// elsewhere.
	for _, fault := range []struct{ instead, by, why string }{
		{"grants:", "grnats:", "grnats: unknown key"},
		{"org/acme", "org/other", "org/other"},
		{"127.0.0.1:0", "127.0.0.1:1", "listen has changed, which takes a restart"},
	} {
		w.configure(strings.Replace(head, fault.instead, fault.by, 1)+slow, reaper())
		reload(refused)
		if log := tail(p.log.String(), 50); !strings.Contains(log, fault.why) {
			t.Errorf("the log does not give the reason %q: %s", fault.why, log)
		}
	}
	w.configure(head+slow, strings.Replace(reaper(), "grace: 1s", "", 1))
	reload(refused)
	if status, body := p.get("/readyz"); status != 200 || !strings.Contains(body, "configuration: not taken over") || !strings.Contains(body, "spec.guards.grace is missing") {
		t.Errorf("/readyz = %d %q, want 200 and the fault as a detail", status, body)
	}
	if _, body := p.get("/metrics"); !strings.Contains(body, "\nmuster_config_load_failed 1\n") {
		t.Errorf("/metrics = %q, want muster_config_load_failed 1", body)
	}
	w.becomes("4 t", `SELECT concat_ws(' ', count(*), bool_or(reason LIKE '%spec.guards.grace is missing%')) FROM api.audit WHERE code = 'CF700E' AND outcome = 'denied'`)
	w.syncs(3)
	if n := len(deletions(w.sim)); n != 0 {
		t.Errorf("%d runners were deleted by a configuration that was refused", n)
	}

	// A policy that acts, and a schedule that was not there.
	w.configure(head+often, reaper())
	reload(taken)
	if _, body := p.get("/readyz"); strings.Contains(body, "configuration:") {
		t.Errorf("/readyz = %q, want nothing against a configuration that was taken over", body)
	}
	if _, body := p.get("/metrics"); !strings.Contains(body, "\nmuster_config_load_failed 0\n") {
		t.Errorf("/metrics = %q, want muster_config_load_failed 0", body)
	}
	w.becomes("1", `
		SELECT count(*) FROM api.audit e JOIN api.policies p ON e.payload->'details'->>'policies' = p.policy || ' ' || p.sha256
		WHERE e.code = 'CF701I'`)
	w.becomes("3", `SELECT count(*) FROM api.runners WHERE removal_cause = 'policy'`)
	w.becomes("true", `SELECT count(*) > 1 FROM api.ticks WHERE schedule = 'enforce/acme' AND state = 'fired'`)

	// And a schedule that is gone.
	w.configure(head+slow, reaper())
	reload(taken)
	last := w.value(`SELECT max(tick_at) FROM api.ticks WHERE schedule = 'enforce/acme'`)
	w.syncs(3)
	if n := w.value(`SELECT count(*) FROM api.ticks WHERE schedule = 'enforce/acme' AND tick_at > $1::timestamptz + interval '1 s'`, last); n != "0" {
		t.Errorf("a schedule that was taken out ticked %s times more", n)
	}
	p.stop()
	if got, want := reconcile(t, w), (reconciled{deleted: 3}); got != want {
		t.Errorf("reconcile = %+v, want %+v", got, want)
	}
}

// A stop waits for what runs: each deletion that GitHub saw has its outcome,
// each run its end, and no lease keeps the next process waiting.
func TestSIGTERMInTheMiddleLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const doomed = 30
	w.configure(head+often, reaper())
	w.runners("alive-", 60, githubsim.RunnerSpec{Online: true})
	w.runners("doomed-", doomed, githubsim.RunnerSpec{})
	stopped := make(chan *process, 1)
	var seen atomic.Int64
	off := w.sim.Before(func(r githubsim.Request) {
		if r.Method == "DELETE" && seen.Add(1) == 5 {
			_ = (<-stopped).cmd.Process.Signal(syscall.SIGTERM) // of a process that is gone, the status tells
		}
	})
	p := w.serve()
	stopped <- p
	if code := p.exit(); code != 0 {
		t.Errorf("exit status after SIGTERM = %d, want 0", code)
	}
	off()
	got := reconcile(t, w)
	if got.deleted < 5 {
		t.Errorf("reconcile = %+v, want at least the 5 deletions before the stop", got)
	}
	if n := w.value(`SELECT count(*) FROM api.runs WHERE state = 'running'`); n != "0" {
		t.Errorf("%s runs were left running", n)
	}

	again := w.serve().up()
	w.becomes(fmt.Sprint(doomed), `SELECT count(*) FROM api.runners WHERE removal_cause = 'policy'`)
	again.stop()
	if got, want := reconcile(t, w), (reconciled{deleted: doomed}); got != want {
		t.Errorf("reconcile = %+v, want %+v", got, want)
	}
}

// A stop does not wait for servers that are not there.
func TestSIGTERMWhileWaitingForServers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, missing := range []struct{ instead, by, says string }{
		{"DATABASE", "postgres://muster@127.0.0.1:1/muster", `msg="waiting for Postgres"`},
		{"NATS", "nats://127.0.0.1:1", `msg="waiting for NATS"`},
	} {
		w.configure(strings.Replace(head, missing.instead, missing.by, 1), "")
		p := w.serve()
		p.says(missing.says)
		p.stop()
	}
}
