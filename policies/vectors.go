package policies

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/muster-fleet/muster/fleet"
)

// longAgo is a time by which the built-in vectors are old, in every respect in
// which they are.
const longAgo = 10 * 365 * 24 * time.Hour

// builtIn are the runners that no deletion may match, with what to do about a
// policy that does. Labels are left out: an expression may ask for any.
var builtIn = []struct {
	what, remedy string
	runner       func(a *activation)
}{
	{
		"a runner of which nothing is known", "ask for what must be known, such as runner.offline_for",
		func(*activation) {},
	},
	{
		"a runner that is online", "add runner.status == \"offline\"",
		func(a *activation) {
			a.runner.Status = string(fleet.StatusOnline)
			a.age, a.idleFor, a.onlineSeen = longAgo, longAgo, 0
			a.runner.Age, a.runner.IdleFor, a.runner.OnlineSeen = &a.age, &a.idleFor, &a.onlineSeen
		},
	},
	{
		"a runner that is busy", "add !runner.busy",
		func(a *activation) { a.runner.Busy, a.runner.Status = true, string(fleet.StatusOnline) },
	},
	{
		"a runner that went offline this moment", "add runner.offline_for > duration(\"168h\")",
		func(a *activation) {
			a.runner.Status = string(fleet.StatusOffline)
			a.age, a.offlineFor, a.onlineSeen = longAgo, 0, 0
			a.runner.Age, a.runner.OfflineFor, a.runner.OnlineSeen = &a.age, &a.offlineFor, &a.onlineSeen
		},
	},
}

// vectors runs the built-in vectors against a policy that deletes, up to the
// first that it matches: the others mostly have the same cause.
func (f *file) vectors(p *Policy, match ast.Node) {
	if p.Action != fleet.ActionDeleteRunner {
		return
	}
	for _, v := range builtIn {
		a := p.activation()
		v.runner(a)
		if wants, _ := p.wants(a); wants {
			f.fault(match, "spec.match: it matches %s, which no deletion may: %s", v.what, v.remedy)
			return
		}
	}
}

// tests runs the policy's own tests.
func (f *file) tests(p *Policy, entries []ast.Node) {
	names := map[string]bool{}
	for i, entry := range entries {
		path := fmt.Sprintf("spec.tests[%d]", i)
		m := f.mapping(path, entry)
		if m == nil {
			continue
		}
		before := len(f.faults)
		nameNode := m.need("name", "say what the test shows")
		name, ok := f.text(path+".name", nameNode)
		if ok && names[name] {
			f.fault(nameNode, "%s.name: a test %q stands further up: give each its own name", path, name)
		}
		names[name] = true
		a := p.activation()
		f.testRunner(path+".runner", a, f.mapping(path+".runner", m.need("runner", "describe the runner; what is left out is unknown")))
		want, _ := f.word(path+".want", m.need("want", "write act or keep"), string(fleet.VerdictAct), string(fleet.VerdictKeep))
		m.done()
		if len(f.faults) > before {
			continue
		}
		got, why := p.testVerdict(a)
		if string(got) != want {
			f.fault(entry, "%s: the test %q got %s, want %s: %s", path, name, got, want, why)
		}
	}
}

// testVerdict is what the expressions say of a runner, and the rules that hold
// for every deletion; the other guards are left out.
func (p *Policy) testVerdict(a *activation) (fleet.Verdict, string) {
	wants, why := p.wants(a)
	switch {
	case !wants:
		return fleet.VerdictKeep, why
	case p.Action != fleet.ActionDeleteRunner:
		return fleet.VerdictAct, why
	case a.runner.Status != string(fleet.StatusOffline):
		return fleet.VerdictKeep, "a deletion keeps every runner that is not offline"
	case a.runner.Busy:
		return fleet.VerdictKeep, "a deletion keeps every runner that is busy"
	}
	return fleet.VerdictAct, why
}

// wants reports whether match is true and no exemption holds, with the reason.
func (p *Policy) wants(a *activation) (wants bool, why string) {
	answer, what, err := evaluate(p.match.program, a)
	switch {
	case err != nil:
		return false, fmt.Sprintf("match has the error %q", err)
	case answer == unknown:
		return false, "match rests on " + what + ", which is unknown"
	case answer == no:
		return false, "match is false"
	}
	for _, x := range p.exempt {
		answer, what, err := evaluate(x.program, a)
		switch {
		case err != nil:
			return false, fmt.Sprintf("exempt.%s has the error %q", x.name, err)
		case answer == unknown:
			return false, "exempt." + x.name + " rests on " + what + ", which is unknown"
		case answer == yes:
			return false, "exempt." + x.name + " is true"
		}
	}
	return true, "match is true and nothing exempts"
}

// activation is one with the first target and a runner of which nothing is
// known yet.
func (p *Policy) activation() *activation {
	a := &activation{}
	if len(p.Targets) > 0 && p.Targets[0] != fleet.All {
		a.target.Name = p.Targets[0]
	}
	return a
}

// testRunner reads the runner of a test, by the names that expressions use.
func (f *file) testRunner(path string, a *activation, m *mapping) {
	if m == nil {
		return
	}
	r := &a.runner
	for _, field := range []struct {
		name string
		into *string
	}{{"name", &r.Name}, {"os", &r.OS}, {"group", &r.Group}, {"version", &r.Version}} {
		*field.into, _ = f.text(path+"."+field.name, m.take(field.name))
	}
	r.Status, _ = f.word(path+".status", m.take("status"), string(fleet.StatusOnline), string(fleet.StatusOffline))
	for _, field := range []struct {
		name string
		into *bool
	}{{"busy", &r.Busy}, {"ephemeral", &r.Ephemeral}, {"never_online", &r.NeverOnline}} {
		*field.into, _ = f.boolean(path+"."+field.name, m.take(field.name))
	}
	for _, entry := range f.list(path+".labels", m.take("labels")) {
		if label, ok := f.text(path+".labels", entry); ok {
			r.Labels = append(r.Labels, strings.ToLower(label))
		}
	}
	for _, field := range []struct {
		name string
		into **time.Duration
	}{{"offline_for", &r.OfflineFor}, {"idle_for", &r.IdleFor}, {"age", &r.Age}, {"online_seen", &r.OnlineSeen}} {
		if d, ok := f.duration(path+"."+field.name, m.take(field.name)); ok {
			*field.into = &d
		}
	}
	m.done()
}
