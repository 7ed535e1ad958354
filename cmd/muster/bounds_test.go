package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// A bound on offline_for below three syncs of a target is a warning wherever the
// configuration is read (issue 10).
func TestBoundsBelowThreeSyncsAreWarnedOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, bound, cron, gap, want string }{
		{"below", `runner.offline_for > duration("5m59s")`, "*/2 * * * *", "1h",
			"policy reap may match a runner that has been offline for 5m59s, and syncs of target acme are 2m apart: a reboot or a hiccup of the network lasts as long: ask for offline_for of at least 6m, which is three syncs"},
		{"three syncs", `runner.offline_for >= duration("6m")`, "*/2 * * * *", "1h", ""},
		{"a second", `runner.offline_for > duration("1s")`, "*/10 * * * * *", "1h", "offline for 1s, and syncs of target acme are 10s apart"},
		{"hardly any time", `runner.offline_for > duration("0s")`, "*/10 * * * * *", "1h", "offline for less than a second, and"},
		{"nights do not count as observed", `runner.offline_for > duration("3h")`, "0 9-17 * * *", "1h", ""},
		{"nor does more than the gap", `runner.offline_for > duration("2h59m")`, "0 9-17 * * *", "1h", "of target acme are 1h apart"},
		{"no schedule", `runner.offline_for > duration("1s")`, "", "1h", ""},
	} {
		schedules := "[]"
		if tt.cron != "" {
			schedules = `[{job: sync, targets: [acme], cron: "` + tt.cron + `"}]`
		}
		dir := inDir(t, map[string]string{
			"reap.yaml": strings.Replace(goodPolicy, `runner.offline_for > duration("168h")`, tt.bound, 1),
			"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: T}, max_observation_gap: " + tt.gap + "}]\n" +
				"schedules: " + schedules + "\npolicies: [reap.yaml]\n",
		})
		c, err := loadConfig(filepath.Join(dir, "muster.yaml"), variables(map[string]string{"T": "x", "HOME": "/h"}))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []string
		for _, w := range c.warnings {
			if strings.HasPrefix(w, "policy ") {
				got = append(got, w)
			}
		}
		if said := strings.Join(got, "\n"); !strings.Contains(said, tt.want) || (said == "") != (tt.want == "") {
			t.Errorf("%s: warnings\n got %q\nwant %q", tt.name, said, tt.want)
		}
		judged := (&targetExam{targetConfig: c.targets[0]})
		s := &sheet{target: "acme"}
		judged.judgeBounds(s, c)
		if tt.want == "" {
			if len(s.checks) != 0 {
				t.Errorf("%s: doctor says %+v, want nothing", tt.name, s.checks)
			}
			continue
		}
		if len(s.checks) != 1 || s.checks[0].Level != levelWarn || s.checks[0].Found+": "+*s.checks[0].Mend != got[0] {
			t.Errorf("%s: doctor says %+v, want the warning %q", tt.name, s.checks, got)
		}
	}
}

func TestShortBoundsAreForDeletionsInForce(t *testing.T) {
	t.Parallel()
	short := strings.Replace(goodPolicy, `"168h"`, `"1s"`, 1)
	for _, tt := range []struct{ name, text, args string }{
		{"off", strings.Replace(short, "enforcement: enforce", "enforcement: disabled", 1), ""},
		{"a report", strings.Replace(short, "delete_runner", "report", 1), ""},
	} {
		dir := inDir(t, map[string]string{"reap.yaml": tt.text})
		r := muster(t, nil, "policy", "check", filepath.Join(dir, "reap.yaml"))
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%s: policy check = %+v, want no warning", tt.name, r)
		}
	}
}

func TestPolicyCheckWarnsOfShortBounds(t *testing.T) {
	t.Parallel()
	dir := inDir(t, map[string]string{
		"reap.yaml": strings.Replace(goodPolicy, `"168h"`, `"2m"`, 1),
		"muster.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: T}}]\n" +
			"schedules: [{job: sync, targets: [acme], cron: \"*/10 * * * * *\"}]\n",
		"seldom.yaml": "targets: [{name: acme, scope: org/acme, auth: {token_env: T}}]\n" +
			"schedules: [{job: sync, targets: [acme], cron: \"*/5 * * * *\"}]\n",
		"other.yaml": "targets: [{name: other, scope: org/acme, auth: {token_env: T}}]\n",
	})
	file := filepath.Join(dir, "reap.yaml")
	for config, want := range map[string]string{
		"":            "syncs of target acme are 1m apart: a reboot or a hiccup of the network lasts as long: ask for offline_for of at least 3m",
		"muster.yaml": "",
		"seldom.yaml": "syncs of target acme are 5m apart",
		"other.yaml":  "syncs of target acme are 1m apart",
	} {
		args := []string{"policy", "check", file, "-o", "json"}
		if config != "" {
			args = append(args, "--config", filepath.Join(dir, config))
		}
		r := muster(t, nil, args...)
		if r.code != 0 || !strings.Contains(r.stderr, want) || (r.stderr == "") != (want == "") {
			t.Errorf("with %q: policy check = %+v, want exit 0 and on stderr %q", config, r, want)
		}
		if want != "" && !strings.HasPrefix(r.stderr, "warning: policy reap may match") {
			t.Errorf("with %q: stderr = %q, want a warning", config, r.stderr)
		}
		if rows := decode[[]policyRow](t, r); len(rows) != 1 {
			t.Errorf("with %q: rows = %+v, want one", config, rows)
		}
	}
}
