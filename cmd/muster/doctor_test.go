package main

import (
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// levels are the levels of what doctor said, by target and check.
func levels(checks []check) map[string]level {
	all := map[string]level{}
	for _, c := range checks {
		all[strings.TrimSpace(deref(c.Target)+" "+c.Check)] = c.Level
	}
	return all
}

// found is what doctor found, with its mend.
func found(checks []check) map[string]string {
	all := map[string]string{}
	for _, c := range checks {
		text := c.Found
		if c.Mend != nil {
			text += "; " + *c.Mend
		}
		all[strings.TrimSpace(deref(c.Target)+" "+c.Check)] = text
	}
	return all
}

// checks decodes what doctor -o json printed, whatever its exit status.
func checks(t testing.TB, r result) []check {
	t.Helper()
	r.code = exitDone
	return decode[[]check](t, r)
}

// closed is an address that nobody listens on.
func closed(t testing.TB) string {
	t.Helper()
	port, err := dbtest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", port)
}

// Every target is checked, whatever is wrong with the others.
func TestDoctorOnCredentialsOfEveryKind(t *testing.T) {
	t.Parallel()
	s := running(t)
	for _, scope := range []string{"org/readonly", "org/narrow", "org/ending", "org/ended", "org/lost", "org/spent"} {
		parsed, err := fleet.ParseScope(scope)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.sim.AddScope(parsed); err != nil {
			t.Fatal(err)
		}
	}
	text := pemKey()
	err := s.sim.AddApp(githubsim.App{
		ID: 11, PublicKey: publicKey(t, text), Permissions: map[string]string{"organization_self_hosted_runners": "read"},
		Installations: []githubsim.Installation{{ID: 22, Account: "readonly"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.sim.SetScopes("ghp_narrow", "gist", "repo")
	s.sim.SetExpiry("ghp_ending", now.Add(5*24*time.Hour+time.Hour))
	s.sim.SetExpiry("ghp_ended", now.Add(-time.Hour))
	s.sim.Grant("ghp_lost", fleet.Scope{Kind: fleet.ScopeOrg, Owner: "lost"}, githubsim.AccessInvisible)

	api := s.sim.APIURL()
	dir := inDir(t, map[string]string{"key": text, "garbage": "-----BEGIN", "muster.yaml": `
targets:
  - {name: acme, scope: org/acme, api_url: "` + api + `", auth: {token_env: GOOD}}
  - {name: missing, scope: org/missing, api_url: "` + api + `", auth: {token_file: nowhere}}
  - {name: empty, scope: org/empty, api_url: "` + api + `", auth: {token_env: EMPTY}}
  - {name: garbage, scope: org/garbage, api_url: "` + api + `", auth: {app: {id: 1, installation_id: 2, private_key_file: garbage}}}
  - {name: readonly, scope: org/readonly, api_url: "` + api + `", auth: {app: {id: 11, installation_id: 22, private_key_file: key}}}
  - {name: stranger, scope: org/stranger, api_url: "` + api + `", auth: {app: {id: 12, installation_id: 22, private_key_file: key}}}
  - {name: narrow, scope: org/narrow, api_url: "` + api + `", auth: {token_env: NARROW}}
  - {name: ending, scope: org/ending, api_url: "` + api + `", auth: {token_env: ENDING}}
  - {name: ended, scope: org/ended, api_url: "` + api + `", auth: {token_env: ENDED}}
  - {name: lost, scope: org/lost, api_url: "` + api + `", auth: {token_env: LOST}}
  - {name: away, scope: org/away, api_url: "http://` + closed(t) + `/api/v3", auth: {token_env: GOOD}, webhook_secret_file: nohook}
grants:
  - {hosts: [build-01], targets: [readonly], kinds: [registration], per_hour: 2}
`})
	env := maps.Clone(s.env)
	maps.Copy(env, map[string]string{
		"MUSTER_CONFIG": filepath.Join(dir, "muster.yaml"), "GOOD": "ghp_good", "NARROW": "ghp_narrow",
		"ENDING": "ghp_ending", "ENDED": "ghp_ended", "LOST": "ghp_lost",
	})
	r := muster(t, env, "doctor", "-o", "json")
	if r.code != exitFailed || !strings.HasPrefix(r.stderr, "muster: doctor: of ") {
		t.Errorf("doctor: exit %d, %q, want 1 and a summary", r.code, r.stderr)
	}
	got := levels(checks(t, r))
	for name, l := range got {
		if l == levelOK || strings.HasSuffix(name, " sync") { // none was ever synced
			delete(got, name)
		}
	}
	want := map[string]level{
		"missing credential": levelFail, "empty credential": levelFail, "garbage credential": levelFail,
		"readonly permission": levelFail, "stranger credential": levelFail, "narrow scope": levelFail,
		"ending credential": levelWarn, "ended credential": levelFail, "lost scope": levelFail, "away scope": levelFail,
		"away webhook": levelFail,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("doctor (-want +got):\n%s", diff)
	}
	said := found(checks(t, r))
	for name, text := range map[string]string{
		"acme credential":     "classic token with admin:org, admin:enterprise, repo; GitHub names no end of it",
		"missing credential":  "read the token of target missing from " + filepath.Join(dir, "nowhere") + ": no such file or directory; put it there",
		"empty credential":    "the credential is empty: variable EMPTY; put it there",
		"garbage credential":  "the private key cannot be used: not a private key in PEM",
		"readonly permission": "organization_self_hosted_runners is read: neither deletions nor tokens; give the App write access",
		"narrow scope":        "the token has none of the OAuth scopes admin:org, manage_runners:org",
		"narrow credential":   "classic token with gist, repo",
		"ending credential":   "it ends in 5d",
		"lost scope":          "not found (HTTP 404)",
		"away scope":          "unavailable",
		"away webhook":        "put the webhook secret of target away there; until then muster serve neither starts nor",
	} {
		if !strings.Contains(said[name], text) {
			t.Errorf("doctor on %s = %q, want %q in it", name, said[name], text)
		}
	}
	if mend := said["ending credential"]; !strings.HasSuffix(mend, "; put a new token into the variable ENDING") {
		t.Errorf("doctor on a token that ends = %q, want where the new one goes", mend)
	}
	for _, secret := range []string{"ghp_", "ghs_", "-----BEGIN RSA", "MII"} {
		if strings.Contains(r.stdout+r.stderr, secret) {
			t.Errorf("%q shows in %s%s", secret, r.stdout, r.stderr)
		}
	}
	for _, e := range s.sim.Log() {
		if e.Method != http.MethodGet && e.Method != "" && !strings.HasSuffix(e.Path, "/access_tokens") {
			t.Errorf("doctor sent %s %s", e.Method, e.Path)
		}
	}
}

func TestDoctorInATable(t *testing.T) {
	t.Parallel()
	s := running(t)
	s.create(t, "gpu-1", true)
	if r := muster(t, s.env, "trigger", "sync", "--wait"); r.code != exitDone {
		t.Fatalf("trigger sync = %+v", r)
	}
	r := muster(t, s.env, "doctor")
	if r.code != exitDone || r.stderr != "" {
		t.Fatalf("doctor = %+v, want exit 0 and nothing on stderr", r)
	}
	var rows []string
	for line := range strings.Lines(r.stdout) {
		rows = append(rows, strings.Join(strings.Fields(line)[:3], " "))
	}
	want := []string{
		"LEVEL TARGET CHECK", "ok - postgres", "ok - clock", "ok - replicas", "ok - dead-letters", "ok - outbox", "ok - intents", "ok - ticks", "ok - nats",
		"ok acme credential", "ok acme scope", "ok acme permission", "ok acme clock", "ok acme rate",
		"ok acme server", "ok acme capabilities", "ok acme sync", "ok acme policy",
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("doctor (-want +got):\n%s", diff)
	}
	for _, text := range []string{
		"GitHub Enterprise Server 3.1.0, which sends no workflow_job event (3.3 and later do)",
		"lacks jit, name_filter, runner_groups, ephemeral, version; answers 500 to the deletion of a busy runner",
		"runners in org/acme: 1\n", "streams MUSTER_TRIGGER, MUSTER_GITHUB, MUSTER_PROVISION, MUSTER_EVENT, MUSTER_PROBE\n",
	} {
		if !strings.Contains(r.stdout, text) {
			t.Errorf("doctor = %s, want %q in it", r.stdout, text)
		}
	}
}

// Where nobody answers, doctor says so of each and ends with 4; one that
// answers is enough for 1.
func TestDoctorWhereNobodyIs(t *testing.T) {
	t.Parallel()
	sim, stop, err := githubsim.Start(t.Context(), githubsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	for _, tt := range []struct {
		name, api string
		want      int
		scope     string
	}{
		{"no GitHub either", "http://" + closed(t) + "/api/v3", exitUnreachable, "unavailable"},
		{"only GitHub", sim.APIURL(), exitFailed, "not found (HTTP 404)"},
	} {
		dir := inDir(t, map[string]string{"muster.yaml": `
database_url: postgres://m:hunter2@` + closed(t) + `/m?sslmode=disable
nats: {url: "nats://m:hunter2@` + closed(t) + `"}
targets:
  - {name: acme, scope: org/acme, api_url: "` + tt.api + `", auth: {token_env: TOKEN}}
`})
		env := map[string]string{"MUSTER_CONFIG": filepath.Join(dir, "muster.yaml"), "TOKEN": "ghp_x", "HOME": dir}
		r := muster(t, env, "doctor", "-o", "json")
		if r.code != tt.want || strings.Contains(r.stdout+r.stderr, "hunter2") {
			t.Errorf("%s: doctor = %+v, want exit %d and no password", tt.name, r, tt.want)
		}
		said := found(checks(t, r))
		for name, text := range map[string]string{
			"postgres": "reach Postgres", "nats": "unavailable; is it running, and is its address (nats.url or MUSTER_NATS_URL) right?", "acme scope": tt.scope,
		} {
			if !strings.Contains(said[name], text) {
				t.Errorf("%s: doctor on %s = %q, want %q in it", tt.name, name, said[name], text)
			}
		}
	}
}

func TestDoctorWithABadConfiguration(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"muster.yaml": "targets: {}\n"})
	r := muster(t, map[string]string{"MUSTER_CONFIG": filepath.Join(dir, "muster.yaml"), "HOME": dir}, "doctor")
	if r.code != exitUsage || r.stdout != "" {
		t.Errorf("doctor = %+v, want exit 2", r)
	}
}
