package policies_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// Each bound of a file is taken at it, and refused one beyond it.
func TestBoundsOfFiles(t *testing.T) {
	t.Parallel()
	joined := func(n int, entry string) string {
		var all []string
		for i := range n {
			all = append(all, strings.ReplaceAll(entry, "N", fmt.Sprint(i)))
		}
		return strings.Join(all, ", ")
	}
	for _, tt := range []struct {
		name string
		text func(n int) string
		most int
		want string
	}{
		{"exemptions", func(n int) string {
			return document(longOffline + "\n  exempt: {" + joined(n, `eN: '"xN" in runner.labels'`) + "}")
		}, 100, "spec.exempt: 101 entries are too many"},
		{"freezes", func(n int) string {
			return freezing("freeze: [" + joined(n, `{cron: "N 3 * * *", duration: 1m}`) + "]")
		}, 20, "spec.guards.freeze: 21 freezes are too many"},
		{"a list among the params", func(n int) string {
			return document("runner.name in params.names && " + longOffline + "\n  params: {names: [" + joined(n, `nN`) + "]}")
		}, 100, "spec.params.names: 101 entries are too many"},
		{"a text among the params", func(n int) string {
			return document("runner.name == params.name && " + longOffline + "\n  params: {name: " + strings.Repeat("x", n) + "}")
		}, 256, "spec.params.name: 257 bytes are too long"},
		{"an expression", func(n int) string {
			const begin = "runner.offline_for > duration('168h') && runner.name != '"
			return document(begin + strings.Repeat("x", n-len(begin)-1) + "'")
		}, 16 << 10, "spec.match: 16385 bytes are too long"},
		{"documents", func(n int) string { return strings.Repeat("---\n"+bare+"\n", n) }, 200, "more than 200 documents"},
		{"bytes", func(n int) string {
			text := document(longOffline)
			return text + "#" + strings.Repeat("x", n-len(text)-1)
		}, 256 << 10, "p.yaml:1:1: 262145 bytes are too long"},
	} {
		_, err := policies.Load("p.yaml", []byte(tt.text(tt.most)))
		if err != nil && strings.Contains(err.Error(), "too many") || err != nil && strings.Contains(err.Error(), "too long") {
			t.Errorf("%s: at the bound of %d: %.200v", tt.name, tt.most, err)
		}
		_, err = policies.Load("p.yaml", []byte(tt.text(tt.most+1)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: beyond the bound of %d: %.200v, want %q", tt.name, tt.most, err, tt.want)
		}
	}
}

// bare is a document that is none of a policy: its faults do not matter here.
const bare = "apiVersion: muster/v1"

// Expressions see the host as heartbeats and tokens show it.
func TestExpressionsSeeTheHost(t *testing.T) {
	t.Parallel()
	silent := due(1)
	silent.HostSays = fleet.HostReport{SeenAt: now.Add(-5 * time.Minute)}
	running := due(1)
	running.HostSays = fleet.HostReport{SeenAt: now.Add(-time.Minute)}
	ahead := due(1)
	ahead.HostSays = fleet.HostReport{SeenAt: now.Add(time.Minute)}
	for _, tt := range []struct {
		name   string
		runner fleet.Observed
		match  string
		want   string
	}{
		{"nothing known", due(1), `host.known`, "no"},
		{"nothing known", due(1), `host.silent_for > duration("1m")`, "unknown"},
		{"silent", silent, `host.known && host.state == "silent" && host.silent_for == duration("5m")`, "yes"},
		{"running", running, `host.known && host.state == "running" && host.silent_for == duration("1m")`, "yes"},
		{"seen in the future", ahead, `has(host.silent_for) && host.silent_for == duration("0s")`, "yes"},
	} {
		if got := matches(t, tt.match, tt.runner); got != tt.want {
			t.Errorf("%s: %s = %s, want %s", tt.name, tt.match, got, tt.want)
		}
	}
}

// The tests of a policy meet the rules that hold for every deletion, and the
// target that they run on.
func TestTestsOfPoliciesMeetTheRules(t *testing.T) {
	t.Parallel()
	deletes := document(quote(longOffline))
	drains := strings.Replace(draining(), `runner.status == "online" && !runner.busy`, quote(`has(runner.status) && !runner.busy`), 1)
	for _, tt := range []struct{ text, test, want string }{
		{deletes, `{name: t, runner: {status: offline, busy: true, offline_for: 200h}, want: act}`, "a deletion keeps every runner that is busy"},
		{deletes, `{name: t, runner: {status: offline, offline_for: 200h}, want: keep}`, "match is true and nothing exempts"},
		{deletes, `{name: t, runner: {status: offline}, want: act}`, "match rests on runner.offline_for, which is unknown"},
		{deletes, `{name: t, runner: {status: offline, offline_for: 200h}, want: act}`, ""},
		{drains, `{name: t, runner: {status: offline}, want: act}`, "a drain keeps every runner that is not online"},
		{drains, `{name: t, runner: {status: online}, want: act}`, ""},
		{document(quote(longOffline + ` && target.name == "acme"`)), `{name: t, runner: {status: offline, offline_for: 200h}, want: act}`, ""},
		{document(quote(longOffline + ` && host.silent_for > duration("1h")`)), `{name: t, runner: {status: offline, offline_for: 200h}, host: {silent_for: 2h}, want: act}`, ""},
		{document(quote(longOffline + ` && host.silent_for > duration("1h")`)), `{name: t, runner: {status: offline, offline_for: 200h}, host: {silent_for: 1h}, want: act}`, "match is false"},
	} {
		_, err := policies.Load("p.yaml", []byte(tt.text+"  tests: ["+tt.test+"]\n"))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot %v, want %q", tt.test, err, tt.want)
		}
	}
}

// A reading names what it knows, numbers included, and what it does not.
func TestAReadingNamesItsFields(t *testing.T) {
	t.Parallel()
	p := load(t, reporting(`runner.newer_registrations > 1 && runner.group != "x" && runner.name == "a" && runner.name != "b"`))
	r := due(1)
	r.Host = "build-01"
	clauses := p.Read(&r, 12, healthy(), now)[0].Clauses
	for i, want := range []string{"runner.newer_registrations = 12", "runner.group = unknown", `runner.name = "runner-1"`} {
		if got := strings.Join(clauses[i].Known, "; "); got != want {
			t.Errorf("clause %d: %s, want %s", i, got, want)
		}
	}
	r.Host = ""
	if got := strings.Join(p.Read(&r, 12, healthy(), now)[0].Clauses[0].Known, "; "); got != "runner.newer_registrations = unknown" {
		t.Errorf("without a host: %s", got)
	}
	twice := load(t, reporting(`runner.name == "a" || runner.name == "b"`))
	reading := twice.Read(&r, 0, healthy(), now)[0]
	for _, c := range reading.Clauses {
		if !c.Decides {
			t.Errorf("of an || that is false, %s does not decide", c.Text)
		}
	}
	both := load(t, reporting(`[runner.name, runner.name] == ["a", "b"]`)).Read(&r, 0, healthy(), now)[0]
	if got := strings.Join(both.Clauses[0].Known, "; "); got != `runner.name = "runner-1"` {
		t.Errorf("a field named twice: %s, want it once", got)
	}
}
