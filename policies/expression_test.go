package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// reporting is a policy that reports, so that nothing but the expression
// decides. The match goes in as a block.
func reporting(match string) string {
	block := strings.ReplaceAll(match, "\n", "\n    ")
	return `apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: look}
spec:
  enforcement: audit
  scope: {targets: [acme]}
  match: |
    ` + block + `
  actions: [{report: {}}]
`
}

// matches says what becomes of a runner: "yes", "no", "unknown" or "error".
func matches(t *testing.T, match string, r fleet.Observed) string {
	t.Helper()
	p := load(t, reporting(match))
	plan := policies.Decide(p, policies.Input{Target: healthy(), Runners: []fleet.Observed{r}}, now)
	switch {
	case plan.Counts["errors"] > 0:
		return "error"
	case plan.Counts["unknown"] > 0:
		return "unknown"
	case len(plan.Marks) == 1:
		return "yes"
	}
	return "no"
}

func TestWhatIsUnknownIsNeverAYes(t *testing.T) {
	t.Parallel()
	nothing := fleet.Observed{Runner: fleet.Runner{ID: 1, Busy: true}}
	tests := []struct{ match, want string }{
		{`runner.offline_for > duration("1h")`, "unknown"},
		{`!(runner.offline_for > duration("1h"))`, "unknown"},
		{`runner.offline_for != duration("1h")`, "unknown"},
		{`runner.offline_for == duration("0s")`, "unknown"},
		{`has(runner.offline_for) && runner.offline_for < duration("1h")`, "no"},
		{`has(runner.offline_for) ? runner.offline_for < duration("1h") : false`, "no"},
		{`!has(runner.offline_for)`, "yes"},
		{`duration("1h") > duration("2h") - runner.age`, "unknown"},
		{`runner.idle_for == runner.idle_for`, "unknown"},
		{`runner.status != "online"`, "unknown"},
		{`runner.status == "offline" || true`, "yes"},
		{`runner.status == "offline" && runner.ephemeral`, "unknown"},
		{`runner.group != "prod"`, "unknown"},
		{`!(runner.group in ["prod"])`, "unknown"},
		{`!runner.os.startsWith("linux")`, "unknown"},
		{`runner.os.size() < 3`, "unknown"},
		{`!version_at_least(runner.version, "2.300.0")`, "unknown"},
		{`version_at_least(runner.version, "2.300.0")`, "unknown"},
		{`has(runner.version)`, "no"},
		{`[runner].exists(r, r.age != duration("1h"))`, "unknown"},
		{`[runner][0].age != duration("1h")`, "unknown"},
		{`(runner.busy ? runner : runner).age != duration("1h")`, "unknown"},
		{`{"a": runner}["a"].age != duration("1h")`, "unknown"},
		{`!([runner.group] == ["prod"])`, "unknown"},
		{`runner.group + "x" != "prodx"`, "unknown"},
		{`runner.newer_registrations > 0`, "unknown"},
		{`runner.newer_registrations != 0`, "unknown"},
		{`runner.newer_registrations + 1 < 3`, "unknown"},
		{`!has(runner.newer_registrations)`, "yes"},
		{`host.known`, "no"},
		{`host.known && host.state == "gone"`, "no"},
		{`host.state != "running"`, "unknown"},
		{`!(host.silent_for > duration("1h"))`, "unknown"},
		{`has(host.state) || has(host.silent_for)`, "no"},
		{`runner.never_online`, "no"},
		{`runner.ephemeral`, "unknown"},
		{`runner.busy`, "yes"},
		{`runner.labels == []`, "unknown"},
		{`runner.labels.all(l, l == "x")`, "unknown"},
		{`string(runner.age) != "1h"`, "unknown"},
		{`runner.age.getHours() == 0`, "unknown"},
		{`runner.labels[0] == "x"`, "unknown"},
		{`runner.labels[0] == "x" || runner.busy`, "yes"},
		{`!("keep" in runner.labels)`, "unknown"},
		{`!runner.ephemeral`, "unknown"},
		{`!(runner.labels[0] == "x")`, "unknown"},
		{`1 / (runner.busy ? 0 : 1) == 1`, "error"},
		{`duration(runner.labels.size() == 0 ? "x" : "1h") > duration("1h")`, "unknown"},
	}
	for _, tt := range tests {
		if got := matches(t, tt.match, nothing); got != tt.want {
			t.Errorf("%s = %s, want %s", tt.match, got, tt.want)
		}
	}
}

// An empty list of labels is as unknown as none: GitHub shows it where it does
// not know (issue 10), and Postgres gives it for what was never known.
func TestAnEmptyListOfLabelsIsUnknown(t *testing.T) {
	t.Parallel()
	for _, labels := range [][]string{nil, {}} {
		r := due(1)
		r.Labels = labels
		if got := matches(t, `!("keep" in runner.labels)`, r); got != "unknown" {
			t.Errorf("labels %#v: %s, want unknown", labels, got)
		}
		p := load(t, document(longOffline)+"  exempt: {keep: '\"keep\" in runner.labels'}\n")
		plan := policies.Decide(p, input(r), now)
		if got := verdicts(plan); got != "1 keep exempt_error" {
			t.Errorf("labels %#v: %q, want it kept", labels, got)
		}
	}
}

func TestExpressionSeesTheRunnerAsItIs(t *testing.T) {
	t.Parallel()
	offline := fleet.Observed{
		Runner: fleet.Runner{
			ID: 7, Name: "build-7", OS: "Linux", Status: fleet.StatusOffline, Labels: []string{"gpu", "linux"},
			Group: "3", Ephemeral: fleet.Yes, Version: "2.321.0",
		},
		FirstSeenAt: now.Add(-10 * time.Hour), OfflineSince: now.Add(-5 * time.Hour), OfflineFor: 4 * time.Hour,
		LastOnlineAt: now.Add(-6 * time.Hour), LastBusyAt: now.Add(-7 * time.Hour),
	}
	never := offline
	never.LastOnlineAt = time.Time{}
	online := offline
	online.Status, online.OfflineSince, online.OfflineFor, online.LastOnlineAt = fleet.StatusOnline, time.Time{}, 0, now
	busy := online
	busy.Busy, busy.LastBusyAt = true, now
	future := offline
	future.FirstSeenAt, future.LastOnlineAt, future.LastBusyAt = now.Add(time.Hour), now.Add(time.Hour), now.Add(time.Hour)
	tests := []struct {
		name   string
		runner fleet.Observed
		match  string
	}{
		{"offline", offline, `runner.name == "build-7" && runner.os == "Linux" && runner.status == "offline" && !runner.busy`},
		{"offline", offline, `runner.labels == ["gpu", "linux"] && runner.group == "3" && runner.ephemeral && runner.version == "2.321.0"`},
		{"offline", offline, `runner.offline_for == duration("4h") && runner.idle_for == duration("7h")`},
		{"offline", offline, `runner.age == duration("10h") && runner.online_seen == duration("6h") && !runner.never_online`},
		{"offline", offline, `target.name == "acme" && target.scope == "org/acme"`},
		{"never online", never, `runner.never_online && !has(runner.online_seen)`},
		{"online", online, `!has(runner.offline_for) && !runner.never_online && runner.online_seen == duration("0s") && has(runner.online_seen)`},
		{"busy", busy, `runner.busy && !has(runner.idle_for)`},
		{"seen in the future", future, `runner.age == duration("0s") && runner.online_seen == duration("0s") && runner.idle_for == duration("0s")`},
	}
	for _, tt := range tests {
		if got := matches(t, tt.match, tt.runner); got != "yes" {
			t.Errorf("%s: %s = %s, want yes", tt.name, tt.match, got)
		}
	}
}

func TestVersionAtLeast(t *testing.T) {
	t.Parallel()
	tests := []struct{ version, least, want string }{
		{"2.320.0", "2.320.0", "yes"},
		{"2.319.9", "2.320.0", "no"},
		{"2.1000.0", "2.320.0", "yes"},
		{"3", "2.320.0", "yes"},
		{"2", "2.0.0", "yes"},
		{"2.320.0.1", "2.320.0", "yes"},
		{"", "2.320.0", "unknown"},
		{"2.320.0-beta", "2.320.0", "unknown"},
		{"v2.320.0", "2.320.0", "unknown"},
		{"2.320.0.1.1", "2.320.0", "unknown"},
		{"2..0", "2.320.0", "unknown"},
		{"99999999999999999999.0.0", "2.320.0", "unknown"},
		{"2.a", "2.0", "unknown"},
		{"4294967295", "4294967295", "yes"},
		{"4294967296", "2.320.0", "unknown"},
	}
	for _, tt := range tests {
		r := fleet.Observed{Runner: fleet.Runner{ID: 1, Version: tt.version}}
		if got := matches(t, `version_at_least(runner.version, "`+tt.least+`")`, r); got != tt.want {
			t.Errorf("version_at_least(%q, %q) = %s, want %s", tt.version, tt.least, got, tt.want)
		}
	}
	r := fleet.Observed{Runner: fleet.Runner{ID: 1, Version: "2.320.0", Name: "x"}}
	if got := matches(t, `version_at_least(runner.version, runner.name)`, r); got != "error" {
		t.Errorf("with a least version that is none: %s, want error", got)
	}
}

func TestUsualExpressionsAreWithinTheCost(t *testing.T) {
	t.Parallel()
	for _, match := range []string{
		`runner.labels.exists(l, l.contains("gpu"))`,
		`runner.labels.exists(l, l.matches("^team-[a-z]+$"))`,
		`!runner.labels.exists(l, l.startsWith("team-") || l.startsWith("squad-") || l in ["shared", "pool", "lab"])`,
		`runner.labels.all(l, l in ["self-hosted", "linux", "x64", "gpu", "large", "small"])`,
		`runner.name.matches("^(build|test)-[0-9]{3,}$") && runner.os.contains("inux")`,
		`["keep", "hold", "golden"].exists(k, k in runner.labels)`,
		`"a" in runner.labels || "b" in runner.labels || "c" in runner.labels || "d" in runner.labels || "e" in runner.labels`,
		`runner.labels.filter(l, l.startsWith("team-")).size() != 1`,
		`runner.labels.exists_one(l, l.startsWith("team-"))`,
		`has(runner.age) && runner.age < duration("1h") && runner.age > duration("1m")`,
		`runner.labels.exists(l, l.matches("^team-\\S+$"))`,
		`runner.labels.exists(l, l.matches("(?i)^TEAM-"))`,
	} {
		if _, err := policies.Load("p.yaml", []byte(reporting(match))); err != nil {
			t.Errorf("%s: %v", match, err)
		}
	}
}

func TestLintLeavesAloneWhatIsNoLabel(t *testing.T) {
	t.Parallel()
	for _, match := range []string{
		`runner.name.startsWith("BUILD") || runner.os == "Linux" || runner.group in ["Prod"]`,
		`runner.labels.exists(l, l == runner.name)`,
		`["A"].exists(x, x == runner.name)`,
		`runner.labels.size() > 3 && runner.os.contains("Linux")`,
		`runner.labels.exists(l, l.startsWith("x") && runner.name == "Y")`,
		`{"A": 1}["A"] == 1 && Target{name: "A"}.name == "A"`,
	} {
		if _, err := policies.Load("p.yaml", []byte(reporting(match))); err != nil {
			t.Errorf("%s: %v", match, err)
		}
	}
}

func TestShortDurationsMayExempt(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline+"\n  exempt: {young: runner.age < duration(\"1h\")}"))
	r := due(1)
	r.FirstSeenAt = time.Time{}
	if got := verdicts(policies.Decide(p, input(r), now)); got != "1 keep exempt_error" {
		t.Errorf("a runner of unknown age: %q, want it kept", got)
	}
}
