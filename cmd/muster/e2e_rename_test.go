package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// named is a configuration in which the target acme is called otherwise, at
// another spelling of the same server's address.
func named(text, name, api string) string {
	text = strings.NewReplacer("{name: acme", "{name: "+name, "[acme]", "["+name+"]").Replace(text)
	return strings.ReplaceAll(text, "API", api)
}

// A target under another name keeps what protects its runners: under an alias of
// its server's address it is refused by what the server lists, and once renamed
// its holds, its workflow jobs and its clocks are there.
func TestARenamedTargetKeepsWhatProtectsItsRunners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := map[string]string{"HOME": w.dir, "MUSTER_CONFIG": filepath.Join(w.dir, "muster.yaml")}
	policy := func(target, enforcement string) string {
		return reaper("[acme]", "["+target+"]", "enforcement: enforce", "enforcement: "+enforcement)
	}
	w.configure(head+often, policy("acme", "audit"))
	held := w.runners("held-", 1, githubsim.RunnerSpec{Online: true})
	working := w.runners("working-", 1, githubsim.RunnerSpec{Online: true})
	doomed := w.runners("doomed-", 1, githubsim.RunnerSpec{Online: true})
	w.runners("alive-", 3, githubsim.RunnerSpec{Online: true})
	p := w.serve().up()
	w.becomes("6", `SELECT count(*) FROM api.runners WHERE status = 'online'`)
	if r := muster(t, env, "hold", "acme", "held-0", "--reason", "disk"); r.code != exitDone {
		t.Fatalf("hold = %+v", r)
	}
	w.rows(`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, started_at, conclusion, changed_at)
		VALUES ('acme', 5, 1, 1, 'acme/widgets', '{}', 'in_progress', $1::bigint, 'working-0', now(), '', now())`, working[0])
	w.kill(held[0], working[0], doomed[0])
	w.becomes("3", `SELECT count(*) FROM api.runners WHERE offline_for > interval '2 s'`)

	// The name alone: refused by name, with the way, and the old goes on.
	w.configure(named(head+often, "octo", "API"), policy("octo", "enforce"))
	p.signal(syscall.SIGHUP)
	p.says(`configuration not taken over.*muster target rename acme octo`)
	w.syncs(1)

	// The name and an alias of the server: nothing in the strings tells.
	p.stop()
	alias := strings.Replace(w.sim.APIURL(), "127.0.0.1", "localhost", 1)
	w.configure(named(head+often, "octo", alias), policy("octo", "enforce"))
	p = w.serve().up()
	w.becomes("true", `SELECT count(*) > 1 FROM api.syncs WHERE target = 'octo' AND outcome = 'failed' AND error LIKE '%muster target rename acme octo%'`)
	w.becomes("0", `SELECT count(*) FROM api.syncs WHERE target = 'octo' AND outcome <> 'failed'`)

	r := muster(t, env, "target", "rename", "acme", "octo", "--reason", "a new name")
	if want := "target acme is octo, org/acme of " + alias + ": carried over 6 runners, 1 hold and 1 workflow job in progress\n"; r.code != exitDone || r.stdout != want {
		t.Fatalf("target rename = %+v, want %q", r, want)
	}
	w.becomes("doomed-0", `SELECT string_agg(name, ', ') FROM api.runners WHERE removal_cause = 'policy'`)
	w.becomes("true", `SELECT count(*) > 2 FROM api.syncs WHERE target = 'octo' AND outcome = 'complete'`)
	w.becomes("held-0 hold, working-0 open_job", `
		SELECT string_agg(name || ' ' || reason, ', ' ORDER BY name)
		FROM (SELECT DISTINCT ON (name) name, reasons[1] AS reason FROM api.decisions WHERE target = 'octo' AND verdict = 'keep' AND enforcement = 'enforce' AND name <> 'doomed-0'
			ORDER BY name, at DESC) newest`)
	if n := len(deletions(w.sim)); n != 1 {
		t.Errorf("%d runners were deleted, want the one that nothing protects", n)
	}
	p.stop()
}

// A typing error in scope or api_url is mended by editing the file: the name
// stands for nothing before the first complete sync.
func TestATypingErrorCostsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.runners("alive-", 2, githubsim.RunnerSpec{Online: true})
	w.configure(strings.Replace(head+often, "org/acme", "org/acmee", 1), "")
	p := w.serve().up()
	failed := func(more string) {
		t.Helper()
		was := w.value(`SELECT count(*) FROM api.syncs WHERE outcome = 'failed'`)
		w.becomes("true", `SELECT count(*) > $1::bigint FROM api.syncs WHERE outcome = 'failed' AND error LIKE $2`, was, more)
	}
	failed("%not found%")
	for wrong, says := range map[string]string{"http://127.0.0.1:1/api/v3": "%connection refused%"} {
		w.configure(strings.Replace(head+often, "API", wrong, 1), "")
		p.signal(syscall.SIGHUP)
		failed(says)
	}
	w.configure(head+often, "")
	p.signal(syscall.SIGHUP)
	w.syncs(1)
	w.becomes("2", `SELECT count(*) FROM api.runners`)
	p.stop()
	w.becomes("TG302I TG303I TG303I", `SELECT string_agg(code, ' ' ORDER BY occurred_at) FROM api.audit WHERE code LIKE 'TG30_I' AND code >= 'TG302I'`)
}

// A target that is not what it was meant to be is forgotten once nobody uses it.
func TestAWrongFleetIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	env := map[string]string{"HOME": w.dir, "MUSTER_CONFIG": filepath.Join(w.dir, "muster.yaml")}
	other := acme
	other.Owner = "wrong"
	if err := w.sim.AddScope(other); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Create(other, githubsim.RunnerSpec{Name: "wrong-1", Online: true}); err != nil {
		t.Fatal(err)
	}
	w.runners("alive-", 2, githubsim.RunnerSpec{Online: true})
	w.configure(strings.Replace(head+often, "org/acme", "org/wrong", 1), "")
	p := w.serve().up()
	w.syncs(1)
	want := func(code int, text string, args ...string) {
		t.Helper()
		if r := muster(t, env, args...); r.code != code || !strings.Contains(r.stdout+r.stderr, text) {
			t.Errorf("muster %v = %+v, want exit %d and %q", args, r, code, text)
		}
	}
	want(exitRefused, "muster.yaml has it", "target", "forget", "acme")

	w.configure(head+often, "")
	p.signal(syscall.SIGHUP)
	p.says(`configuration not taken over.*muster target forget acme`)
	want(exitRefused, "1 muster serve work with it", "target", "forget", "acme")
	want(exitRefused, "nothing shows that org/acme", "target", "rename", "acme", "acme")
	p.stop()
	want(exitFailed, "none of that name is recorded; there is acme", "target", "forget", "nobody")
	want(exitDone, "target acme, org/wrong of", "target", "forget", "acme", "--reason", "the wrong organisation")
	p = w.serve().up()
	w.becomes("alive-0, alive-1", `SELECT string_agg(name, ', ' ORDER BY name) FROM api.runners`)
	p.stop()
}
