package main

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"path/filepath"

	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// Four targets: one is well, one has an App that is suspended, one a token that
// is revoked, and one is lost to a token that still sees the first. Each of the
// three degrades alone, nobody of theirs is taken for removed, and /readyz and
// muster doctor name them and what mends them.
func TestTargetsDegradeAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text := pemKey()
	const revoked = "ghp_canary0b77ad1c52"
	w.sim.Accept(revoked)
	err := w.sim.AddApp(githubsim.App{ID: 11, PublicKey: publicKey(t, text), Installations: []githubsim.Installation{{ID: 22, Account: "beta"}}})
	if err != nil {
		t.Fatal(err)
	}
	w.write("app.pem", text)
	w.write("gamma.token", revoked)
	w.configure(`
database_url: "DATABASE"
nats: {url: "NATS", allow_shared_inbox: true}
listen: 127.0.0.1:0
targets:
  - {name: acme, scope: org/acme, api_url: "API", auth: {token_file: github.token}}
  - {name: beta, scope: org/beta, api_url: "API", auth: {app: {id: 11, installation_id: 22, private_key_file: app.pem}}}
  - {name: gamma, scope: repo/gamma/widgets, api_url: "API", auth: {token_file: gamma.token}}
  - {name: delta, scope: enterprise/delta, api_url: "API", auth: {token_file: github.token}}
`, "")
	delta := fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: "delta"}
	for _, scope := range []fleet.Scope{acme, {Kind: fleet.ScopeOrg, Owner: "beta"}, {Kind: fleet.ScopeRepo, Owner: "gamma", Repo: "widgets"}, delta} {
		if scope != acme { // which is there already
			if err := w.sim.AddScope(scope); err != nil {
				t.Fatal(err)
			}
		}
		for i, online := range []bool{true, false} {
			if _, err := w.sim.Create(scope, githubsim.RunnerSpec{Name: fmt.Sprintf("%s-%d", scope.Owner, i), Online: online}); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := w.serve().up()
	sync := func() { w.nats.publish("muster.v1.trigger.sync.all", "") }
	const (
		outcomes = `SELECT string_agg(target || ' ' || outcome, ', ' ORDER BY target) FROM (
			SELECT DISTINCT ON (target) target, outcome FROM api.syncs ORDER BY target, started_at DESC) newest`
		targets = `SELECT string_agg(concat_ws(' ', target, runners, online, busy, last_complete_sync_at), ', ' ORDER BY target) FROM api.targets WHERE target <> 'acme'`
		runners = `SELECT string_agg(concat_ws(' ', target, name, status, busy, labels, last_seen_at, offline_for, removed_at), ', ' ORDER BY target, name)
			FROM api.runners WHERE target <> 'acme'`
	)
	sync()
	w.becomes("acme complete, beta complete, delta complete, gamma complete", outcomes)
	if diff := cmp.Diff(map[string]map[string]level{}, w.doctor(exitDone).ill()); diff != "" {
		t.Errorf("doctor while all is well (-want +got):\n%s", diff)
	}
	wasTargets, wasRunners := w.value(targets), w.value(runners)

	if err := w.sim.Suspend(22, true); err != nil {
		t.Fatal(err)
	}
	w.sim.Revoke(revoked)
	w.sim.Grant(credential, delta, githubsim.AccessInvisible)
	before := w.value(`SELECT last_complete_sync_at FROM api.targets WHERE target = 'acme'`)
	for range 2 { // and not at the second look either
		was := w.value(`SELECT count(*) FROM api.syncs WHERE outcome = 'failed'`)
		sync()
		w.becomes("true", `SELECT count(*) >= $1::bigint + 3 FROM api.syncs WHERE outcome = 'failed'`, was)
	}
	w.becomes("acme complete, beta failed, delta failed, gamma failed", outcomes)
	w.becomes("true", `SELECT last_complete_sync_at > $1::timestamptz FROM api.targets WHERE target = 'acme'`, before)
	w.becomes("beta, delta, gamma", `SELECT string_agg(DISTINCT target, ', ' ORDER BY target) FROM api.audit WHERE code = 'TG300E'`)
	nobodyRemoved(t, w, "degraded")
	if got := w.value(targets); got != wasTargets {
		t.Errorf("api.targets = %s, want %s as before", got, wasTargets)
	}
	if got := w.value(runners); got != wasRunners {
		t.Errorf("api.runners = %s, want %s as before", got, wasRunners)
	}
	status, readiness := p.get("/readyz")
	for _, name := range []string{"beta", "gamma", "delta"} {
		if !strings.Contains(readiness, "target "+name+": ") {
			t.Errorf("/readyz = %q, want a line on %s", readiness, name)
		}
	}
	if status != http.StatusOK || strings.Contains(readiness, "target acme") {
		t.Errorf("/readyz = %d %q, want it not to fail, and nothing against acme", status, readiness)
	}
	report := w.doctor(exitFailed)
	want := map[string]map[string]level{
		"beta":  {"credential": levelFail, "refusal": levelFail, "sync": levelFail},
		"gamma": {"credential": levelFail, "refusal": levelFail, "sync": levelFail},
		"delta": {"scope": levelFail, "refusal": levelFail, "sync": levelFail},
	}
	if diff := cmp.Diff(want, report.ill()); diff != "" {
		t.Errorf("doctor (-want +got):\n%s", diff)
	}
	for check, text := range map[string]string{
		"beta credential":  "installation 22 of App 11: This installation has been suspended; it may be suspended: see the installed Apps of its account",
		"gamma credential": "Bad credentials; check that the token is the right one and has not expired",
		"delta scope":      "not found (HTTP 404): Not Found; the scope does not exist or the token cannot see it",
	} {
		if !strings.Contains(report[check].Found, text) {
			t.Errorf("doctor on %s = %q, want %q in it", check, report[check].Found, text)
		}
	}

	// All that was wrong is mended, without a restart.
	if err := w.sim.Suspend(22, false); err != nil {
		t.Fatal(err)
	}
	w.sim.Accept(revoked)
	w.sim.Grant(credential, delta, githubsim.AccessFull)
	eventually(t, "all targets sync again", func() (string, bool) {
		got := w.value(outcomes)
		if !strings.Contains(got, "failed") {
			return "", true
		}
		sync()
		return got, false
	})
	nobodyRemoved(t, w, "mended")
	report = w.doctor(exitDone)
	if diff := cmp.Diff(map[string]map[string]level{}, report.ill()); diff != "" {
		t.Errorf("doctor when all is mended (-want +got):\n%s\n%+v", diff, report["beta sync"])
	}
	if _, readiness := p.get("/readyz"); strings.Contains(readiness, "target ") {
		t.Errorf("/readyz = %q, want nothing against any target", readiness)
	}
	p.stop()
}

// publicKey belongs to a private key as GitHub gives it.
func publicKey(t testing.TB, text string) *rsa.PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

// report is what muster doctor said, by target (empty: all of muster) and
// check, with a blank between.
type report map[string]check

// doctor runs muster doctor on the configuration.
func (w *world) doctor(status int) report {
	w.t.Helper()
	r := muster(w.t, map[string]string{"MUSTER_CONFIG": filepath.Join(w.dir, "muster.yaml")}, "doctor", "-o", "json")
	if r.code != status {
		w.t.Errorf("doctor: exit %d, want %d: %s\n%s", r.code, status, r.stderr, r.stdout)
	}
	r.code = exitDone
	all := report{}
	for _, c := range decode[[]check](w.t, r) {
		all[strings.TrimSpace(deref(c.Target)+" "+c.Check)] = c
	}
	return all
}

// ill are the levels of what is not ok, by target and check.

func (r report) ill() map[string]map[string]level {
	ill := map[string]map[string]level{}
	for name, c := range r {
		if c.Level == levelOK {
			continue
		}
		target, _, _ := strings.Cut(name, " ")
		if ill[target] == nil {
			ill[target] = map[string]level{}
		}
		ill[target][c.Check] = c.Level
	}
	return ill
}
