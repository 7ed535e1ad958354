package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// GitHub shows half of the fleet offline. Nobody is deleted, the halt outlives
// the process, every door says the same, and a person ends it.
func TestBrakeHoldsUntilAPersonResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(strings.Replace(head, "brake: {percent: 100}", "brake: {percent: 20, window: 1h}", 1)+often, reaper())
	env := map[string]string{"MUSTER_CONFIG": filepath.Join(w.dir, "muster.yaml")}
	dead := w.runners("dead-", 2, githubsim.RunnerSpec{Online: true})
	alive := w.runners("alive-", 38, githubsim.RunnerSpec{Online: true})
	p := w.serve().up()
	w.becomes("40", `SELECT count(*) FROM api.runners WHERE status = 'online'`)
	// For so many listings that a pass comes meanwhile, however slow.
	if err := w.sim.ShowOffline(acme, 10, alive[:18]...); err != nil {
		t.Fatal(err)
	}
	w.kill(dead...)
	w.becomes("halted", `SELECT state FROM api.policies WHERE policy = 'reaper'`)
	reason := w.value(`SELECT reason FROM api.policies WHERE policy = 'reaper'`)
	if !regexp.MustCompile(`^brake: (18|19|20) of 40 runners went dark since \S+ \((18|19|20) offline\); at most 9, below the brake.s min of 10, may within 1h$`).MatchString(reason) {
		t.Errorf("halted because %q", reason)
	}
	p.metric(t, `muster_policy_halted{policy="reaper",target="acme"} 1`)
	p.stop()

	p = w.serve().up()
	w.becomes("38", `SELECT count(*) FROM api.runners WHERE status = 'online'`)
	w.syncs(4) // longer than the policy waits
	w.becomes("2", `SELECT count(DISTINCT name) FROM api.decisions WHERE reasons = '{halted}' AND name LIKE 'dead-%'`)
	if _, body := p.get("/readyz"); !strings.Contains(body, "policy reaper on acme is halted: "+reason) {
		t.Errorf("/readyz does not tell of it:\n%s", body)
	}
	if r := muster(t, env, "plan"); !strings.Contains(r.stdout, "it is halted: "+reason) {
		t.Errorf("plan says %q", r.stdout)
	}

	// Those that came back are no reason to refuse an operator. What stays dark
	// is: 9 and the 2 are more than a fifth.
	w.kill(alive[:9]...)
	w.becomes("11", `SELECT count(*) FROM api.runners WHERE status = 'offline'`)
	r := muster(t, env, "remove", "acme", "dead-0", "--reason", "scrapped")
	if r.code != exitRefused || !strings.Contains(r.stderr, "(dead-0) was not deleted: deletions by hand are halted: brake: 11 of 40 runners went dark since ") ||
		!strings.HasSuffix(r.stderr, "; when you have looked: muster policy resume operator --target acme --reason WHY\n") {
		t.Errorf("remove = %+v", r)
	}
	if n := len(deletions(w.sim)); n != 0 {
		t.Errorf("%d deletions", n)
	}
	if n := w.value(`SELECT string_agg(concat_ws(' ', code, policy), ', ' ORDER BY event_id) FROM api.audit WHERE code IN ('PL220W', 'RN105W')`); n != "PL220W reaper, PL220W operator, RN105W operator" {
		t.Errorf("the trail says %s", n)
	}

	for _, policy := range []string{"operator", "reaper"} {
		if r := muster(t, env, "policy", "resume", policy, "--reason", "a switch was down"); r.code != exitDone || r.stdout != policy+" resumed on acme\n" {
			t.Errorf("resume %s = %+v", policy, r)
		}
	}
	w.becomes("11", `SELECT count(*) FROM api.runners WHERE removal_cause = 'policy'`)
	p.stop()
	if got, want := reconcile(t, w), (reconciled{deleted: 11}); got != want {
		t.Errorf("reconcile = %+v, want %+v", got, want)
	}
}

// metric wants a line of /metrics.
func (p *process) metric(t *testing.T, line string) {
	t.Helper()
	if _, body := p.get("/metrics"); !strings.Contains(body, line+"\n") {
		t.Errorf("/metrics lacks %s", line)
	}
}
