package main

import (
	"bytes"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/fleet"
)

// serveRefuses runs muster serve on a directory and wants exit status 2. It
// returns what it says, without the log.
func serveRefuses(t *testing.T, dir string) []string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args := []string{"serve", "--config", filepath.Join(dir, "muster.yaml")}
	code := run(t.Context(), args, variables(map[string]string{"HOME": dir}), strings.NewReader(""), &stdout, &stderr)
	if code != exitUsage {
		t.Errorf("exit status = %d, want %d: %s", code, exitUsage, &stderr)
	}
	if stdout.Len() > 0 {
		t.Errorf("stdout = %q, want nothing", &stdout)
	}
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(stderr.String()), "\n"), func(line string) bool {
		return strings.HasPrefix(line, "time=")
	})
}

func TestServeRefusesBadInputWithOneLinePerFault(t *testing.T) {
	t.Parallel()
	const good = `targets:
  - {name: acme, scope: org/acme, auth: {token_file: github.token}}
schedules:
  - {job: sync, targets: [acme], cron: "*/2 * * * *"}
policies: [policy.yaml]
`
	tests := []struct {
		name        string
		instead, by string // in the configuration, or where it lacks that in the policy
		want        string // pattern of the one line
	}{
		{"an unknown key", "policies:", "polices:", `/muster\.yaml:5:1: polices: unknown key, want one of .*policies`},
		{"a cron that is none", "*/2 * * * *", "*/2 * * *", `/muster\.yaml:4:\d+: schedules\[0\]\.cron: "\*/2 \* \* \*": .*want five fields`},
		{"a cron that never fires", "*/2 * * * *", "0 0 30 2 *", `/muster\.yaml:4:\d+: .*"0 0 30 2 \*": never fires`},
		{"CEL that does not compile", "runner.offline_for >=", "runner.offline_fro >=", `/policy\.yaml:7:\d+: spec\.match: .*offline_fro`},
		{"CEL of the wrong type", `duration("2s")`, `"2s"`, `/policy\.yaml:7:\d+: spec\.match: `},
		{"an unknown target in a schedule", "targets: [acme], cron", "targets: [amce], cron", `/muster\.yaml:4:\d+: schedules\[0\]\.targets\[0\]: target "amce" is unknown, there is acme`},
		{"an unknown target in a policy", "scope: {targets: [acme]}", "scope: {targets: [amce]}", `/policy\.yaml: policy reaper: .*target "amce" is unknown, there is acme`},
		{"a slug with ..", "scope: org/acme", "scope: org/..", `/muster\.yaml:2:\d+: targets\[0\]\.scope: scope "org/\.\.": ".." is not a GitHub name`},
		{"a delete without grace", "    grace: 1s\n", "", `/policy\.yaml:\d+:\d+: spec\.guards\.grace is missing: .*a deletion has no default`},
		{"a delete without max", "    max: {count: 1000, percent: 100}\n", "", `/policy\.yaml:\d+:\d+: spec\.guards\.max is missing: .*a deletion has no default`},
		{"no credential", "token_file: github.token", "token_file: other.token", `/muster\.yaml:2:\d+: targets\[0\]\.auth\.token_file: read .*other\.token: no such file or directory`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(good+reaper(), tt.instead) {
				t.Fatalf("there is no %q to replace", tt.instead)
			}
			mend := strings.NewReplacer(tt.instead, tt.by)
			dir := inDir(t, map[string]string{
				"muster.yaml": mend.Replace(good), "policy.yaml": mend.Replace(reaper()), "github.token": credential,
			})
			lines := serveRefuses(t, dir)
			if len(lines) != 1 || !regexp.MustCompile(tt.want).MatchString(lines[0]) {
				t.Errorf("stderr = %q, want one line like %s", lines, tt.want)
			}
		})
	}
	t.Run("much at once", func(t *testing.T) {
		t.Parallel()
		dir := inDir(t, map[string]string{
			"muster.yaml":  strings.NewReplacer("*/2 * * * *", "x", "org/acme", "org/..").Replace(good) + "nonsense: 1\n",
			"policy.yaml":  strings.NewReplacer("    grace: 1s\n", "", "offline_for >=", "offline_fro >=").Replace(reaper()),
			"github.token": credential,
		})
		if lines := serveRefuses(t, dir); len(lines) != 5 {
			t.Errorf("stderr = %q, want five lines", lines)
		}
	})
}

func TestATargetKeepsTheIdentityOfItsFirstCompleteSync(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head, "")
	p := w.serve().up()
	w.nats.publish("muster.v1.trigger.sync.acme", "")
	w.syncs(1)
	p.stop()

	for _, change := range []struct{ instead, by string }{
		{"scope: org/acme", "scope: org/other"},
		{`api_url: "API"`, `api_url: "http://127.0.0.1:1/api/v3"`},
	} {
		w.configure(strings.Replace(head, change.instead, change.by, 1), "")
		lines := serveRefuses(t, w.dir)
		if len(lines) != 1 || !regexp.MustCompile(`^muster: .*target acme .*org/acme.*muster target forget acme`).MatchString(lines[0]) {
			t.Errorf("with %s: stderr = %q, want one line that names the remedy", change.by, lines)
		}
	}
}

// serve migrates what it has started itself and nothing else.
func TestServeRefusesADatabaseWithoutItsSchema(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u, err := url.Parse(w.databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path += "_empty"
	if _, err := w.record.Exec(t.Context(), "CREATE DATABASE "+pgx.Identifier{u.Path[1:]}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	w.databaseURL = u.String()
	w.configure(head, "")
	lines := serveRefuses(t, w.dir)
	if len(lines) != 1 || !strings.Contains(lines[0], "muster migrate up") {
		t.Errorf("stderr = %q, want one line that names muster migrate up", lines)
	}
}

func TestTriggersAndRequestsFromAnywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: "octo"}
	if err := w.sim.AddScope(other); err != nil {
		t.Fatal(err)
	}
	w.configure(strings.Replace(head, "grants:",
		`  - {name: octo, scope: enterprise/octo, api_url: "API", auth: {token_file: github.token}}`+"\ngrants:", 1), "")
	p := w.serve().up()

	// An empty body is enough.
	w.nats.publish("muster.v1.trigger.sync.acme", "")
	w.becomes("1", `SELECT count(*) FROM api.runs WHERE job = 'sync' AND name = 'acme' AND source = 'nats' AND state = 'done'`)
	w.becomes("1", `SELECT count(*) FROM api.syncs WHERE target = 'acme' AND outcome = 'complete'`)

	// all stands for each.
	w.nats.publish("muster.v1.trigger.sync.all", `{"reason":"all of them"}`)
	w.becomes("1", `SELECT count(*) FROM api.runs WHERE name = 'all' AND source = 'nats' AND state = 'done' AND counts->>'triggers' = '2'`)
	w.becomes("acme,octo", `SELECT string_agg(r.name, ',' ORDER BY r.name) FROM api.runs r
		JOIN muster.run m USING (trigger_id) JOIN api.runs whole ON whole.trigger_id = m.parent
		WHERE whole.name = 'all' AND r.state = 'done'`)

	malformedTriggers(t, w)
	malformedRequests(t, w)
	p.stop()
}

// malformedTriggers are recorded, terminated, and never come again.
func malformedTriggers(t *testing.T, w *world) {
	terminated, err := w.nats.connect().SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.MUSTER_TRIGGER.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := terminated.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	stream, err := w.nats.connect().JetStream(nats.MaxWait(patience))
	if err != nil {
		t.Fatal(err)
	}

	all := []struct{ subject, body, want string }{
		{"sync.acme", `{`, "body"},
		{"sync.acme", `[]`, "body"},
		{"sync.acme", `{"reason":1}`, "reason"},
		{"sync.acme", `{"force":true}`, "force"},
		{"sync.nobody", ``, "nobody"},
		{"sync.acme.now", ``, "subject"},
		{"polish.acme", ``, "polish"},
		{"housekeep.acme", ``, "all"},
	}
	for _, m := range all {
		w.nats.publish("muster.v1.trigger."+m.subject, m.body)
	}

	// The stream itself refuses a body that is too large, and tells its publisher.
	large := `{"reason":"` + strings.Repeat("x", 17<<10) + `"}`
	_, err = stream.Publish("muster.v1.trigger.sync.acme", []byte(large))
	if err == nil || !strings.Contains(err.Error(), "message size exceeds maximum") {
		t.Errorf("publish a trigger of %d bytes = %v, want that it is too large", len(large), err)
	}

	w.becomes(fmt.Sprint(len(all)), `SELECT count(*) FROM api.dead_letters`)
	for _, m := range all {
		found := w.rows(`SELECT error FROM api.dead_letters WHERE subject = $1 AND body = $2`, "muster.v1.trigger."+m.subject, m.body)
		if len(found) != 1 || !strings.Contains(found[0][0], m.want) {
			t.Errorf("dead letter of %s %.40s = %q, want one that says %s", m.subject, m.body, found, m.want)
		}
	}
	for range all {
		if _, err := terminated.NextMsg(patience); err != nil {
			t.Fatalf("a malformed trigger was not terminated: %v", err)
		}
	}
	w.becomes(fmt.Sprint(len(all)), `SELECT count(*) FROM api.audit WHERE code = 'TR500E'`)
	eventually(t, "no consumer waits for a message or has one again", func() (string, bool) {
		for info := range stream.ConsumersInfo("MUSTER_TRIGGER") {
			if info.NumAckPending != 0 || info.NumRedelivered != 0 {
				return fmt.Sprintf("%s waits for %d and has %d again", info.Name, info.NumAckPending, info.NumRedelivered), false
			}
		}
		return "", true
	})
}

// malformedRequests are refused, and are an audit event and nothing else.
func malformedRequests(t *testing.T, w *world) {
	h := w.host("build-01")
	all := []string{
		``, `{`, `[]`, `"acme"`,
		`{"kind":"registration"}`,
		`{"target":"acme"}`,
		`{"target":"acme","kind":"root"}`,
		`{"target":"acme","kind":"registration","sudo":true}`,
		`{"target":"acme","kind":"registration","request_id":"1"}`,
		`{"v":2,"target":"acme","kind":"registration"}`,
	}
	for _, body := range all {
		r, err := h.ask(t.Context(), body)
		if err != nil || r.Code != 400 || r.Error != "bad_request" || r.Token != "" {
			t.Errorf("request %s = %+v, %v, want 400 bad_request", body, r, err)
		}
	}
	if n := w.value(`SELECT count(*) FROM api.audit WHERE code = 'TK108W' AND host = 'build-01'`); n != fmt.Sprint(len(all)) {
		t.Errorf("%s malformed requests are in the trail, want %d", n, len(all))
	}
	if n := w.value(`SELECT count(*) FROM api.tokens`); n != "0" {
		t.Errorf("%s malformed requests are rows of api.tokens", n)
	}
	if n := len(mints(w.sim)); n != 0 {
		t.Errorf("GitHub minted %d tokens", n)
	}
}
