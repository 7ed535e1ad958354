package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/token"
)

// variables is an environment.
func variables(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

// inDir writes files below a new directory, which it returns.
func inDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const goodPolicy = `
apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: reap}
spec:
  enforcement: enforce
  scope: {targets: [acme]}
  match: runner.status == "offline" && runner.offline_for > duration("168h")
  guards: {grace: 24h, max: {count: 25, percent: 10}}
  actions: [{delete_runner: {}}]
`

const everything = `
database_url: postgres://muster@db/muster
migrate_url: postgres://owner@db/muster
nats: {url: "nats://a:4222,nats://b:4222", creds_file: nats.creds, replicas: 3, allow_shared_inbox: true}
data_dir: data
embedded: {nats_listen: 127.0.0.1:5222, postgres_port: 5555}
listen: 0.0.0.0:9000
targets:
  - name: acme
    scope: org/acme
    api_url: https://ghes.example.com/api/v3/
    auth: {token_file: acme.token}
    max_observation_gap: 2h
    brake: {percent: 30, min: 5, window: 1h}
    tokens: {share_registration: false, min_validity: 5m}
  - name: octo
    scope: enterprise/octo
    auth: {token_env: OCTO_TOKEN}
schedules:
  - {job: sync, targets: [acme, octo], cron: "*/2 * * * *"}
  - {job: enforce, targets: [acme], cron: "0 6 * * *", time_zone: Europe/London, dst: run-once, misfire: skip, deadline: 5m, overlap: queue, jitter: 30s}
policies: [policies/*.yaml]
grants:
  - {hosts: [build-01], targets: [acme], kinds: [registration, removal], per_hour: 20}
  - {host_prefix: gpu-, targets: [octo], kinds: [jit], labels: [GPU, linux], per_hour: 60, max_live: 40}
  - {hosts: [janitor], targets: [acme, octo], kinds: [removal], per_hour: 20}
retain_days: 30
`

func everyFile() map[string]string {
	return map[string]string{
		"muster.yaml": everything, "nats.creds": "creds", "acme.token": "  acme-secret\n",
		"policies/reap.yaml": goodPolicy,
	}
}

func TestEveryKeyArrives(t *testing.T) {
	t.Parallel()
	dir := inDir(t, everyFile())
	c, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(map[string]string{"OCTO_TOKEN": "octo-secret"}))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.databaseURL.Reveal(), "postgres://muster@db/muster"; got != want {
		t.Errorf("databaseURL = %q, want %q", got, want)
	}
	if got, want := c.migrateURL.Reveal(), "postgres://owner@db/muster"; got != want {
		t.Errorf("migrateURL = %q, want %q", got, want)
	}
	if got, want := c.nats.url.Reveal(), "nats://a:4222,nats://b:4222"; got != want {
		t.Errorf("nats.url = %q, want %q", got, want)
	}
	if c.nats.credsFile != filepath.Join(dir, "nats.creds") || c.nats.replicas != 3 || !c.nats.allowSharedInbox {
		t.Errorf("nats = %+v", c.nats)
	}
	if want := filepath.Join(dir, "data"); c.dataDir != want {
		t.Errorf("dataDir = %q, want %q", c.dataDir, want)
	}
	if want := (embeddedConfig{"127.0.0.1:5222", 5555}); c.embedded != want {
		t.Errorf("embedded = %+v, want %+v", c.embedded, want)
	}
	if c.listen != "0.0.0.0:9000" || c.retain != 30*24*time.Hour {
		t.Errorf("listen = %q, retain = %s", c.listen, c.retain)
	}

	acme, _ := c.target("acme")
	want := fleet.Target{
		Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"},
		APIURL: "https://ghes.example.com/api/v3", MaxObservationGap: 2 * time.Hour,
		Brake: fleet.Brake{Percent: 30, Min: 5, Window: time.Hour},
		Hosts: fleet.HostNames{Names: []string{"build-01"}},
	}
	if diff := cmp.Diff(want, acme.Target); diff != "" {
		t.Errorf("target acme (-want +got):\n%s", diff)
	}
	if acme.shareRegistration || acme.minValidity != 5*time.Minute {
		t.Errorf("tokens of acme = %v, %s", acme.shareRegistration, acme.minValidity)
	}
	octo, _ := c.target("octo")
	if diff := cmp.Diff(fleet.HostNames{Prefixes: []string{"gpu-"}}, octo.Hosts); diff != "" {
		t.Errorf("hosts of octo (-want +got):\n%s", diff)
	}
	if octo.APIURL != fleet.DefaultAPIURL || octo.MaxObservationGap != time.Hour || octo.Brake != fleet.DefaultBrake || !octo.shareRegistration || octo.minValidity != 20*time.Minute {
		t.Errorf("defaults of octo = %+v", octo)
	}
	for name, want := range map[string]string{"acme": "acme-secret", "octo": "octo-secret"} {
		target, _ := c.target(name)
		if got, err := target.auth.secret(t.Context()); err != nil || got.Reveal() != want {
			t.Errorf("token of %s = %q, %v, want %q", name, got.Reveal(), err, want)
		}
	}

	var ids []string
	for _, s := range c.schedules {
		ids = append(ids, s.ID())
	}
	if diff := cmp.Diff([]string{"sync/acme", "sync/octo", "enforce/acme", "housekeep/all"}, ids); diff != "" {
		t.Errorf("schedules (-want +got):\n%s", diff)
	}
	spec := c.schedules[2].Spec()
	if spec.TimeZone != "Europe/London" || spec.DST != "run-once" || spec.Misfire != "skip" || spec.Overlap != "queue" ||
		spec.Deadline != 5*time.Minute || spec.Jitter != 30*time.Second {
		t.Errorf("schedule enforce/acme = %+v", spec)
	}
	if len(c.policies) != 1 || c.policies[0].Name != "reap" {
		t.Errorf("policies = %v", c.policies)
	}
	if diff := cmp.Diff([]token.Grant{
		{Hosts: []string{"build-01"}, Targets: []string{"acme"}, Kinds: []fleet.TokenKind{"registration", "removal"}, PerHour: 20},
		{HostPrefix: "gpu-", Targets: []string{"octo"}, Kinds: []fleet.TokenKind{"jit"}, Labels: []string{"gpu", "linux"}, PerHour: 60, MaxLive: 40},
		{Hosts: []string{"janitor"}, Targets: []string{"acme", "octo"}, Kinds: []fleet.TokenKind{"removal"}, PerHour: 20},
	}, c.grants); diff != "" {
		t.Errorf("grants (-want +got):\n%s", diff)
	}
}

func TestWithoutAFileEverythingIsByDefault(t *testing.T) {
	t.Parallel()
	c, err := loadConfig("", variables(map[string]string{"XDG_DATA_HOME": "/data", "HOME": "/home/jo"}))
	if err != nil {
		t.Fatal(err)
	}
	wantDir := "/data/muster"
	if os.Getuid() == 0 {
		wantDir = "/var/lib/muster"
	}
	if c.dataDir != wantDir || c.listen != "127.0.0.1:8425" || c.embedded != (embeddedConfig{"127.0.0.1:4222", 54329}) || c.retain != 400*24*time.Hour {
		t.Errorf("defaults = %+v", c)
	}
	if !c.databaseURL.IsZero() || !c.nats.url.IsZero() || c.nats.replicas != 1 || !c.nats.allowSharedInbox {
		t.Errorf("connections by default = %+v", c.nats)
	}
	if len(c.schedules) != 1 || c.schedules[0].ID() != "housekeep/all" || c.schedules[0].Spec().Cron != "0 3 * * *" {
		t.Errorf("schedules = %v, want housekeep/all at 03:00", c.schedules)
	}
}

func TestSharedInboxIsOffWithANATSOfOnesOwn(t *testing.T) {
	t.Parallel()
	c, err := loadConfig("", variables(map[string]string{"MUSTER_NATS_URL": "nats://n:4222", "HOME": "/home/jo"}))
	if err != nil || c.nats.allowSharedInbox || c.nats.replicas != 1 {
		t.Errorf("nats = %+v, %v, want no shared inbox and one replica", c.nats, err)
	}
}

func TestEnvironmentBeatsFile(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"muster.yaml": "database_url_file: db.url\nmigrate_url: postgres://file/m\nnats: {url: nats://file:1}\n",
		"db.url":      "postgres://file/d\n",
		"env.url":     "postgres://envfile/d\n",
	}
	tests := []struct {
		name                  string
		env                   map[string]string
		database, migrate, nc string
	}{
		{"nothing set", nil, "postgres://file/d", "postgres://file/m", "nats://file:1"},
		{"values", map[string]string{"MUSTER_DATABASE_URL": "postgres://env/d", "MUSTER_MIGRATE_URL": "postgres://env/m", "MUSTER_NATS_URL": "nats://env:1"},
			"postgres://env/d", "postgres://env/m", "nats://env:1"},
		{"a file of the environment", map[string]string{"MUSTER_DATABASE_URL_FILE": "DIR/env.url"},
			"postgres://envfile/d", "postgres://file/m", "nats://file:1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := inDir(t, files)
			env := func(name string) string { return strings.ReplaceAll(tt.env[name], "DIR", dir) }
			c, err := loadConfig(filepath.Join(dir, "muster.yaml"), env)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{c.databaseURL.Reveal(), c.migrateURL.Reveal(), c.nats.url.Reveal()}
			if diff := cmp.Diff([]string{tt.database, tt.migrate, tt.nc}, got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnEmptyAddressIsNone(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"muster.yaml": "database_url: \"\"\nmigrate_url: \"\"\nnats: {url: \"\"}\n"})
	c, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(map[string]string{"HOME": "/home/jo"}))
	if err != nil || !c.databaseURL.IsZero() || !c.migrateURL.IsZero() || !c.nats.url.IsZero() {
		t.Errorf("loadConfig = %v, want no addresses", err)
	}
}

// The documented example holds every key and is taken as it stands, but for
// the files that only a real machine has.
func TestTheDocumentedConfigurationIsGood(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	text, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/configuration.md has no example")
	}
	dir := inDir(t, map[string]string{
		"nats.creds": "creds", "acme": "token", "acme-hook": "secret", "muster-app.pem": pemKey(), "policies/reap.yaml": goodPolicy,
		"muster.yaml": strings.NewReplacer("/etc/muster/", "", "/run/secrets/", "").Replace(text),
	})
	c, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.targets) != 2 || len(c.schedules) != 4 || len(c.policies) != 1 || len(c.pools) != 1 || len(c.grants) != 2 {
		t.Errorf("%d targets, %d schedules, %d policies, %d grants, %d pools, want 2, 4, 1, 2 and 1", len(c.targets), len(c.schedules), len(c.policies), len(c.grants), len(c.pools))
	}
}

func TestFindConfig(t *testing.T) {
	dir := inDir(t, map[string]string{"muster.yaml": ""})
	set := variables(map[string]string{"MUSTER_CONFIG": "/from/env.yaml"})
	t.Chdir(dir)
	for _, tt := range []struct {
		asked string
		env   func(string) string
		want  string
	}{
		{"asked.yaml", set, "asked.yaml"},
		{"", set, "/from/env.yaml"},
		{"", variables(nil), "muster.yaml"},
	} {
		if got, err := findConfig(tt.asked, tt.env); err != nil || got != tt.want {
			t.Errorf("findConfig(%q) = %q, %v, want %q", tt.asked, got, err, tt.want)
		}
	}
}

func TestAFileThatIsNotThereIsAFault(t *testing.T) {
	t.Parallel()
	_, err := loadConfig("/nowhere/muster.yaml", variables(nil))
	if want := "/nowhere/muster.yaml: read the configuration: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("loadConfig = %v, want %q", err, want)
	}
}

func TestPlainHTTPIsWarnedOf(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"muster.yaml": `
targets:
  - {name: far, scope: org/a, api_url: "http://ghes.example.com/api/v3", auth: {token_env: T}}
  - {name: near, scope: org/b, api_url: "http://127.0.0.1:8080/api/v3", auth: {token_env: T}}
`})
	c, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(map[string]string{"T": "x", "HOME": "/h"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.warnings) != 1 || !strings.Contains(c.warnings[0], "target far") {
		t.Errorf("warnings = %q, want one, of target far", c.warnings)
	}
}

func TestTargetsThatNobodyLooksAtAreWarnedOf(t *testing.T) {
	t.Parallel()
	const never = "target acme: policies cover it and no schedule syncs it"
	seldom := func(gap, max string) string {
		return "target acme: schedule sync/acme leaves " + gap + " without a sync, and beyond max_observation_gap (" + max + ") "
	}
	for _, tt := range []struct{ name, schedule, gap, policies, want string }{
		{"often enough", `"*/2 * * * *"`, "1h", "[reap.yaml]", ""},
		{"just often enough", `"0 * * * *"`, "1h", "[reap.yaml]", ""},
		{"once a day", `"0 6 * * *"`, "1h", "[reap.yaml]", seldom("1d", "1h")},
		{"once a day is meant", `"0 6 * * *"`, "25h", "[reap.yaml]", ""},
		{"every half hour is too seldom", `"*/30 * * * *"`, "29m", "[]", seldom("30m", "29m")},
		{"not at night", `"*/10 * 9-17 * * *"`, "1h", "[reap.yaml]", seldom("15h", "1h")},
		{"not at weekends", `"0 */2 * * 1-5"`, "2h", "[reap.yaml]", seldom("2d2h", "2h")},
		{"never, with a policy", "", "1h", "[reap.yaml]", never},
		{"never, and nobody minds", "", "1h", "[]", ""},
		{"never, with a policy that is off", "", "1h", "[off.yaml]", ""},
	} {
		schedules := "[]"
		if tt.schedule != "" {
			schedules = "[{job: sync, targets: [acme], cron: " + tt.schedule + "}]"
		}
		dir := inDir(t, map[string]string{
			"reap.yaml": goodPolicy, "off.yaml": strings.Replace(goodPolicy, "enforce\n", "disabled\n", 1),
			"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: T}, max_observation_gap: " + tt.gap + "}]\n" +
				"schedules: " + schedules + "\npolicies: " + tt.policies + "\n",
		})
		c, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(map[string]string{"T": "x", "HOME": "/h"}))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := strings.Join(c.warnings, "\n"); !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: warnings\n got %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

// Commands that do not speak to GitHub work for people who may not read its
// credentials.
func TestReadingNeedsNoCredentials(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"muster.yaml": "targets: [{name: a, scope: org/a, auth: {token_file: gone}}]\n"})
	path := filepath.Join(dir, "muster.yaml")
	env := variables(map[string]string{"HOME": "/h"})
	if _, err := loadForReading(path, env); err != nil {
		t.Errorf("loadForReading = %v, want nil", err)
	}
	_, err := loadConfig(path, env)
	if want := "token of target a from " + filepath.Join(dir, "gone") + ": no such file"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("loadConfig = %v, want %q in it", err, want)
	}
	if exitCode(err) != exitUsage {
		t.Errorf("exit status = %d, want %d", exitCode(err), exitUsage)
	}
}

// Who speaks to the GitHub of one target needs that target's credential, and
// neither those of others nor what webhooks are signed with.
func TestOneTargetNeedsItsCredentialAlone(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{"here": "token", "muster.yaml": `targets:
  - {name: a, scope: org/a, auth: {token_file: here}, webhook_secret_file: hook}
  - {name: b, scope: org/b, auth: {token_file: gone}}
`})
	path := filepath.Join(dir, "muster.yaml")
	env := variables(map[string]string{"HOME": "/h"})
	const credential, hook = "token of target b from", "webhook secret of target a from"
	for target, want := range map[string]string{"a": "", "b": credential} {
		_, err := loadForTarget(path, env, target)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), hook)) {
			t.Errorf("loadForTarget(%s) = %v, want %q alone", target, err, want)
		}
	}
	_, err := loadConfig(path, env)
	if err == nil || !strings.Contains(err.Error(), credential) || !strings.Contains(err.Error(), hook) {
		t.Errorf("loadConfig = %v, want %q and %q in it", err, credential, hook)
	}
}

func TestNoSecretInAnyFault(t *testing.T) {
	t.Parallel()
	const canary = "hunter2"
	dir := inDir(t, map[string]string{
		"muster.yaml": `
database_url: "mysql://u:hunter2@db/muster"
migrate_url: "postgres://u:hunter2%zz@db/muster"
nats: {url: "http://u:hunter2@nats"}
targets:
  - {name: a, scope: org/a, api_url: "ftp://u:hunter2@h/", auth: {token_file: a}}
  - {name: b, scope: org/b, api_url: "https://u:hunter2@h/", auth: {token_file: b}}
`,
		"a": canary, "b": canary,
	})
	_, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(nil))
	if got := len(lines(errors.Unwrap(err))); got < 5 {
		t.Errorf("%d faults, want at least 5:\n%v", got, err)
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("a secret shows in:\n%v", err)
	}
}
