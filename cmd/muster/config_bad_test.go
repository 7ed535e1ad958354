package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/policies"
)

// Every fault is one line with its place, and all are told at once.
func TestBadConfigurations(t *testing.T) {
	const target = "targets: [{name: acme, scope: org/acme, auth: {token_env: TOKEN}}]\n"
	tests := []struct {
		name string
		text string
		want []string
	}{
		{"unknown key", "listen: 127.0.0.1:1\nlistne: x\n",
			[]string{"muster.yaml:2:1: listne: unknown key, want one of data_dir, database_url, database_url_file, embedded, grants, listen, migrate_url, migrate_url_file, nats, policies, pools, retain_days, schedules, targets"}},
		{"unknown key deep down", "targets:\n  - name: acme\n    scope: org/acme\n    auth: {token_env: TOKEN, user: x}\n",
			[]string{"muster.yaml:4:30: targets[0].auth.user: unknown key, want one of app, token_env, token_file"}},
		{"a key twice", "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n",
			[]string{"muster.yaml:2:1: listen: the key stands here a second time: keep one"}},
		{"a key without a value", "listen:\n",
			[]string{"muster.yaml:1:1: listen: has no value: give it one or leave the key out"}},
		{"no YAML", "targets: [\n",
			[]string{"muster.yaml:1:10: not YAML: sequence end token ']' not found"}},
		{"a tab", "targets:\n\t- name: acme\n", []string{"muster.yaml:2:1: not YAML: a tab where only spaces may stand"}},
		{"not even keys", "hello\n", []string{"muster.yaml:1:1: want keys with values, got text"}},
		{"two documents", "listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n",
			[]string{"muster.yaml:3:1: a second document: a configuration is one, join them"}},
		{"an alias", "listen: &l 127.0.0.1:1\n",
			[]string{"muster.yaml:1:9: listen: want text, got an anchor or alias (there are none here: write it out): put it in quotes"}},
		{"keys of later versions", "audit: {retain_months: 13}\ntargets:\n  - name: acme\n    scope: org/acme\n    auth: {token_env: TOKEN}\n    tokens: {require_sealed: true}\n",
			[]string{
				"muster.yaml:1:1: audit: `audit` is not there yet: leave it out",
				"muster.yaml:6:14: targets[0].tokens.require_sealed: `require_sealed` is not there yet: leave it out",
			}},

		{"bad connections", "database_url: db\nnats: {url: nats, replicas: 9}\nlisten: here\nembedded: {nats_listen: \"x:99999\", postgres_port: -1}\nretain_days: 0\n",
			[]string{
				"muster.yaml:1:15: database_url: not the address of a Postgres database: want postgres://USER@HOST/DATABASE",
				"muster.yaml:2:13: nats.url: not the address of a NATS server: want nats://HOST:PORT, several with commas between",
				"muster.yaml:2:29: nats.replicas: 9 is out of bounds, want 1 to 5",
				"muster.yaml:3:9: listen: \"here\" is not HOST:PORT, such as 127.0.0.1:8425",
				"muster.yaml:4:25: embedded.nats_listen: \"x:99999\" is not HOST:PORT, such as 127.0.0.1:4222",
				"muster.yaml:4:51: embedded.postgres_port: -1 is out of bounds, want 0 to 65535",
				"muster.yaml:5:14: retain_days: 0 is out of bounds, want 1 to 36500",
			}},
		{"both forms of a secret", "database_url: postgres://db/m\ndatabase_url_file: f\n",
			[]string{
				"muster.yaml:2:20: database_url_file: database_url is set too: keep one of them",
				"muster.yaml:2:20: database_url_file: read DIR/f: no such file or directory",
			}},
		{"embedded NATS with credentials", "nats: {creds_file: f, replicas: 3}\n",
			[]string{
				"muster.yaml:1:20: nats.creds_file: the embedded NATS has a login of its own: set nats.url too, or leave this out",
				"muster.yaml:1:33: nats.replicas: the embedded NATS is one server: set nats.url, or leave this out",
			}},

		{"targets", `targets:
  - {name: all, scope: org/a, auth: {token_env: TOKEN}}
  - {name: Acme, scope: org/b, auth: {token_env: TOKEN}}
  - {name: dots, scope: org/a..b, auth: {token_env: TOKEN}}
  - {name: form, scope: acme, auth: {token_env: TOKEN}}
  - {name: dots, scope: org/c, auth: {token_env: TOKEN}}
  - {name: same, scope: org/C, auth: {token_env: TOKEN}}
  - {name: web, scope: org/d, api_url: https://github.com, auth: {token_env: TOKEN}}
  - {name: gap, scope: org/e, auth: {token_env: TOKEN}, max_observation_gap: 0}
  - {name: long, scope: org/f, auth: {token_env: TOKEN}, tokens: {min_validity: 1h}}
  - {name: unit, scope: org/g, auth: {token_env: TOKEN}, max_observation_gap: 90}
  - {name: none, scope: org/h}
  - {name: both, scope: org/i, auth: {token_env: TOKEN, token_file: f}}
  - {name: unset, scope: org/j, auth: {token_env: UNSET}}
  - {name: empty, scope: org/k, auth: {token_file: empty}}
`,
			[]string{
				`muster.yaml:2:12: targets[0].name: "all" stands for all targets: choose another name`,
				`muster.yaml:3:12: targets[1].name: "Acme" cannot be a name: want lower-case letters, digits and -, at most 63, beginning with a letter or digit`,
				`muster.yaml:4:25: targets[2].scope: scope "org/a..b": "a..b" is not a GitHub name (letters, digits, '.', '_' and '-', not only dots, no '..')`,
				`muster.yaml:5:25: targets[3].scope: scope "acme": want enterprise/SLUG, org/ORG or repo/OWNER/REPO`,
				`muster.yaml:6:12: targets[4].name: a target dots stands further up: give each its own name`,
				`muster.yaml:7:25: targets[5].scope: target dots is org/C too: one scope is one target`,
				`muster.yaml:8:40: targets[6].api_url: github.com is the web site, not the API: write https://api.github.com or leave the key out`,
				`muster.yaml:9:78: targets[7].max_observation_gap: has to be more than 0: else no time counts as observed, and no runner is ever long offline`,
				`muster.yaml:10:81: targets[8].tokens.min_validity: 1h0m0s is as long as a registration token lives, which is 1h0m0s: want less`,
				`muster.yaml:11:79: targets[9].max_observation_gap: duration "90": want a number with a unit, such as 90s, 15m, 36h, 7d or 2w`,
				`muster.yaml:12:5: targets[10].auth: is missing: write auth: {token_file: FILE}, {token_env: NAME} or {app: {id: N, installation_id: N, private_key_file: FILE}}`,
				`muster.yaml:13:38: targets[11].auth: want one of token_file, token_env and app`,
				`muster.yaml:14:51: targets[12].auth.token_env: the variable UNSET is empty or not set: put the token of target unset there`,
				`muster.yaml:15:52: targets[13].auth.token_file: read the token of target empty from DIR/empty: the file is empty: put the token of target empty there`,
			}},

		{"addresses", `targets:
  - {name: bare, scope: org/a, api_url: https://ghes.example.com, auth: {token_env: TOKEN}}
  - {name: port, scope: org/b, api_url: "https://ghes.example.com:8443/", auth: {token_env: TOKEN}}
  - {name: path, scope: org/c, api_url: https://ghes.example.com/api/v3, auth: {token_env: TOKEN}}
  - {name: cloud, scope: org/d, api_url: https://api.octo.ghe.com, auth: {token_env: TOKEN}}
  - {name: here, scope: org/e, api_url: "https://127.0.0.1:9480", auth: {token_env: TOKEN}}
  - {name: data, scope: org/f, api_url: "https://acme.ghe.com", auth: {token_env: TOKEN}}
  - {name: data3, scope: org/g, api_url: "https://Acme.ghe.com/api/v3", auth: {token_env: TOKEN}}
  - {name: root, scope: org/h, api_url: "https://api.github.com/api/v3", auth: {token_env: TOKEN}}
  - {name: gate, scope: org/i, api_url: "https://gateway/ghe", auth: {token_env: TOKEN}}
  - {name: gated, scope: org/j, api_url: "https://gateway/ghe", web_url: "https://ghes.example.com", auth: {token_env: TOKEN}}
  - {name: site, scope: org/k, web_url: "ghes.example.com", auth: {token_env: TOKEN}}
  - {name: same, scope: org/C, api_url: "https://GHES.example.com:443/api/v3/", auth: {token_env: TOKEN}}
`,
			[]string{
				`muster.yaml:2:41: targets[0].api_url: https://ghes.example.com is the web site of an Enterprise Server, not its API: write https://ghes.example.com/api/v3`,
				`muster.yaml:3:41: targets[1].api_url: https://ghes.example.com:8443/ is the web site of an Enterprise Server, not its API: write https://ghes.example.com:8443/api/v3`,
				`muster.yaml:7:41: targets[5].api_url: acme.ghe.com is the web site, not the API: write https://api.acme.ghe.com`,
				`muster.yaml:8:42: targets[6].api_url: Acme.ghe.com is the web site, not the API: write https://api.acme.ghe.com`,
				`muster.yaml:9:41: targets[7].api_url: api.github.com has the API at its root: write https://api.github.com`,
				`muster.yaml:10:41: targets[8].api_url: the web site cannot be told from https://gateway/ghe, which is neither https://api.HOST nor ADDRESS/api/v3: write web_url: https://HOST too`,
				`muster.yaml:12:41: targets[10].web_url: not an absolute http or https address: want the address that people open, such as https://ghes.example.com`,
				`muster.yaml:13:25: targets[11].scope: target path is org/C too: one scope is one target`,
			}},

		{"brakes", `targets:
  - {name: a, scope: org/a, auth: {token_env: TOKEN}, brake: {percent: 0}}
  - {name: b, scope: org/b, auth: {token_env: TOKEN}, brake: {percent: 101, min: 0, window: 30s}}
  - {name: c, scope: org/c, auth: {token_env: TOKEN}, brake: {percent: 20%, window: 2d}}
  - {name: d, scope: org/d, auth: {token_env: TOKEN}, brake: {min_count: 10, window: 15}}
  - {name: e, scope: org/e, auth: {token_env: TOKEN}, brake: off}
`,
			[]string{
				`muster.yaml:2:72: targets[0].brake.percent: 0 is out of bounds, want 1 to 100`,
				`muster.yaml:3:72: targets[1].brake.percent: 101 is out of bounds, want 1 to 100`,
				`muster.yaml:3:82: targets[1].brake.min: 0 is out of bounds, want 1 to 1000000`,
				`muster.yaml:3:93: targets[1].brake.window: 30s is out of bounds, want 1m to 24h`,
				`muster.yaml:4:72: targets[2].brake.percent: want a whole number, got text`,
				`muster.yaml:4:85: targets[2].brake.window: 48h0m0s is out of bounds, want 1m to 24h`,
				`muster.yaml:5:63: targets[3].brake.min_count: unknown key, want one of min, percent, window`,
				`muster.yaml:5:86: targets[3].brake.window: duration "15": want a number with a unit, such as 90s, 15m, 36h, 7d or 2w`,
				`muster.yaml:6:62: targets[4].brake: want keys with values, got text`,
			}},

		{"cron without quotes", target + `schedules:
  - {job: sync, targets: [acme], cron: */2 * * * *}
`,
			[]string{`muster.yaml:3:44: not YAML: a value that begins with * needs quotes in YAML: write cron: "*/2 * * * *"`}},

		{"cron that surprises", target + `schedules:
  - {job: sync, targets: [acme], cron: "*/90 * * * *"}
`,
			[]string{`muster.yaml:3:40: schedules[0].cron: "*/90 * * * *": the field minute: "*/90": a step of 90 goes beyond 0 to 59, so that it would mean 0 alone: write 0 if that is meant`}},

		{"schedules", target + `schedules:
  - {job: sync, targets: [acme], cron: "61 * * * *"}
  - {job: enforce, targets: [acme], cron: "0 0 31 2 *"}
  - {job: sync, targets: [amce], cron: "* * * * *"}
  - {job: sync, targets: [acme], cron: "* * * * *"}
  - {job: scale, pools: [p], cron: "* * * * *"}
  - {job: clean, cron: "* * * * *"}
  - {job: enforce, cron: "* * * * *"}
  - {job: housekeep, targets: [acme], cron: "@daily"}
  - {job: sync, targets: [], cron: "* * * * *"}
  - {targets: [acme], cron: "* * * * *"}
  - {job: sync, targets: [acme]}
`,
			[]string{
				`muster.yaml:3:40: schedules[0].cron: "61 * * * *": end of range (61) above maximum (59): 61; want five fields (minute hour day month weekday), or six with leading seconds`,
				`muster.yaml:4:43: schedules[1].cron: "0 0 31 2 *": never fires: no year has such a day, name one that comes`,
				`muster.yaml:5:27: schedules[2].targets[0]: target "amce" is unknown, there is acme`,
				`muster.yaml:6:5: schedules[3]: a schedule sync/acme stands further up: there is one for each job and name`,
				`muster.yaml:7:26: schedules[4].pools[0]: pool "p" is unknown: there is none under pools: in muster.yaml`,
				`muster.yaml:8:11: schedules[5].job: "clean" is unknown, want sync, enforce, scale or housekeep`,
				`muster.yaml:9:5: schedules[6]: a schedule of enforce wants targets: say which`,
				`muster.yaml:10:31: schedules[7].targets: housekeeping is for all of muster: leave the key out`,
				`muster.yaml:10:45: schedules[7].cron: "@daily": want five fields, or six with leading seconds, not @`,
				`muster.yaml:11:26: schedules[8].targets: names no target: want at least one`,
				`muster.yaml:12:5: schedules[9].job: is missing: write sync, enforce, scale or housekeep`,
				`muster.yaml:13:5: schedules[10].cron: is missing: write five fields, such as "*/2 * * * *"`,
				`muster.yaml:13:5: schedules[10]: a schedule sync/acme stands further up: there is one for each job and name`,
			}},
		{"schedules of pools", target + `pools: [{name: linux, target: acme, labels: [linux], max: 9}]
schedules:
  - {job: scale, pools: [linux], cron: "* * * * *"}
  - {job: scale, pools: [linus], cron: "* * * * *"}
  - {job: scale, cron: "* * * * *"}
  - {job: scale, pools: [linux], targets: [acme], cron: "* * * * *"}
  - {job: sync, targets: [acme], pools: [linux], cron: "* * * * *"}
  - {job: scale, pools: [], cron: "* * * * *"}
`,
			[]string{
				`muster.yaml:5:26: schedules[1].pools[0]: pool "linus" is unknown, there is linux`,
				`muster.yaml:6:5: schedules[2]: a schedule of scale wants pools: say which`,
				`muster.yaml:7:5: schedules[3]: a schedule scale/linux stands further up: there is one for each job and name`,
				`muster.yaml:7:43: schedules[3].targets: pools know their target: leave the key out`,
				`muster.yaml:8:41: schedules[4].pools: pools are for scale: leave the key out`,
				`muster.yaml:9:25: schedules[5].pools: names no pool: want at least one`,
			}},
		{"a schedule's own keys", target + `schedules:
  - job: sync
    targets: [acme]
    cron: "0 2 * * *"
    time_zone: Europe/London
    misfire: later
    overlap: both
    deadline: 0
  - {job: enforce, targets: [acme], cron: "* * * * *", time_zone: Mars/Base, jitter: 5}
`,
			[]string{
				`muster.yaml:5:11: schedules[0].cron: "0 2 * * *" names hours, and the clocks of Europe/London change: some day an hour is missing or comes twice; set dst: run-once (missing: the first moment after; twice: the first only), or an hour of *, or time_zone: UTC`,
				`muster.yaml:7:14: schedules[0].misfire: "later": want once or skip`,
				`muster.yaml:8:14: schedules[0].overlap: "both": want skip or queue`,
				`muster.yaml:9:15: schedules[0].deadline: 0s: want more than 0, such as 10m`,
				`muster.yaml:10:67: schedules[1].time_zone: "Mars/Base" is not known: want UTC or an IANA name such as Europe/London`,
				`muster.yaml:10:86: schedules[1].jitter: duration "5": want a number with a unit, such as 90s, 15m, 36h, 7d or 2w`,
			}},

		{"grants", target + `grants:
  - {hosts: [build-01], host_prefix: b, targets: [acme], kinds: [removal], per_hour: 1}
  - {hosts: [build-*], targets: [amce], kinds: [admin], per_hour: 0}
  - {host_prefix: "*", targets: [acme], kinds: [], per_hour: 1}
  - {hosts: [], kinds: [jit]}
`,
			[]string{
				`muster.yaml:3:5: grants[0]: want one of hosts and host_prefix`,
				`muster.yaml:4:14: grants[1].hosts[0]: "build-*" cannot be the name of a host: want lower-case letters, digits and -, at most 63, beginning with a letter or digit; for many hosts there is host_prefix`,
				`muster.yaml:4:34: grants[1].targets[0]: target "amce" is unknown, there is acme`,
				`muster.yaml:4:49: grants[1].kinds[0]: "admin" is unknown, want registration, removal or jit`,
				`muster.yaml:4:67: grants[1].per_hour: 0 is out of bounds, want 1 to 1000000`,
				`muster.yaml:5:19: grants[2].host_prefix: "*" cannot begin the name of a host: it is taken literally, want lower-case letters, digits and -, at most 63, beginning with a letter or digit`,
				`muster.yaml:5:48: grants[2].kinds: names no kind of token: want at least one`,
				`muster.yaml:6:5: grants[3].targets: is missing: say for which targets`,
				`muster.yaml:6:5: grants[3].per_hour: is missing: say how many tokens each host may have in an hour`,
				`muster.yaml:6:13: grants[3].hosts: names no host: want at least one`,
			}},

		{"policies", target + "policies: [gone/*.yaml, policies/elsewhere.yaml, policies/twice.yaml]\n",
			[]string{
				`muster.yaml:2:12: policies[0]: no file matches "gone/*.yaml": mend the path (relative ones start at DIR) or leave it out`,
				`policies/elsewhere.yaml: policy elsewhere: spec.scope.targets: target "octo" is unknown, there is acme`,
				`policies/twice.yaml: policy elsewhere stands in policies/elsewhere.yaml too: give each its own name`,
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			elsewhere := strings.NewReplacer("name: reap", "name: elsewhere", "targets: [acme]", "targets: [octo]").Replace(goodPolicy)
			dir := inDir(t, map[string]string{
				"muster.yaml":             tt.text,
				"empty":                   " \n",
				"policies/elsewhere.yaml": elsewhere,
				"policies/twice.yaml":     elsewhere,
			})
			t.Chdir(dir)
			_, err := loadConfig("muster.yaml", variables(map[string]string{"TOKEN": "x", "HOME": "/home/jo"}))
			if err == nil {
				t.Fatal("loadConfig = nil, want faults")
			}
			got := strings.Split(strings.ReplaceAll(err.Error(), dir, "DIR"), "\n")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// What is wrong with a policy is for package policies to say.
func TestFaultsOfPoliciesPassThrough(t *testing.T) {
	t.Parallel()
	bad := strings.NewReplacer("runner.status ==", "status ==", "grace: 24h, ", "").Replace(goodPolicy)
	dir := inDir(t, map[string]string{"muster.yaml": "policies: [bad.yaml]\n", "bad.yaml": bad})
	_, want := policies.Load(filepath.Join(dir, "bad.yaml"), []byte(bad))
	if len(lines(want)) != 2 {
		t.Fatalf("the policy has faults %v, want two", want)
	}
	_, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(map[string]string{"HOME": "/home/jo"}))
	if err == nil || err.Error() != want.Error() {
		t.Errorf("loadConfig = %v, want %v", err, want)
	}
}

// A cap counts the deletions that are remembered.
func TestACapCannotOutlastTheRecord(t *testing.T) {
	t.Parallel()
	for days, want := range map[string]string{
		"7": "bad.yaml: policy reap: spec.guards.max.window: 192h is longer than deletions are remembered (retain_days: 7): shorten it, or raise retain_days", "8": "",
	} {
		dir := inDir(t, map[string]string{
			"muster.yaml": "retain_days: " + days + "\ntargets: [{name: acme, scope: org/acme, auth: {token_env: TOKEN}}]\npolicies: [bad.yaml]\n",
			"bad.yaml":    strings.Replace(goodPolicy, "max: {", "max: {window: 8d, ", 1),
		})
		_, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(map[string]string{"HOME": "/home/jo", "TOKEN": "x"}))
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.HasSuffix(got, want) {
			t.Errorf("retain_days: %s: %s, want %q", days, got, want)
		}
	}
}

func FuzzConfigNeverPanics(f *testing.F) {
	f.Add([]byte(everything))
	f.Add([]byte("targets: [{name: a, scope: [1], auth: {token_file: {}}}]\n? x\n"))
	f.Add([]byte("a: &x [*x]\n---\n"))
	f.Fuzz(func(_ *testing.T, text []byte) {
		r := &reader{env: variables(nil), config: &config{file: "muster.yaml", dir: "/nonexistent"}}
		r.read(parseYAML("muster.yaml", text, &r.faults))
		_ = r.faults.err()
	})
}
