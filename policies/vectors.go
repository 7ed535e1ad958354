package policies

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/muster-fleet/muster/fleet"
)

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
		f.testHost(path+".host", a, f.mapping(path+".host", m.take("host")))
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
// for every deletion; the other guards are left out. A deletion without a drain
// was shown to match offline runners alone.
func (p *Policy) testVerdict(a *activation) (fleet.Verdict, string) {
	wants, why := p.wants(a)
	switch {
	case !wants:
		return fleet.VerdictKeep, why
	case p.Action != fleet.ActionDeleteRunner:
		return fleet.VerdictAct, why
	case p.Drain && a.runner.Status != string(fleet.StatusOnline):
		return fleet.VerdictKeep, "a drain keeps every runner that is not online"
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

// bareLabels are the labels of a test's runner that names none: every
// self-hosted runner has this one. An empty list says that they are not known.
var bareLabels = []string{"self-hosted"}

// testRunner reads the runner of a test, by the names that expressions use.
func (f *file) testRunner(path string, a *activation, m *mapping) {
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
	}{{"busy", &r.Busy}, {"never_online", &r.NeverOnline}} {
		*field.into, _ = f.boolean(path+"."+field.name, m.take(field.name))
	}
	ephemeral, told := f.boolean(path+".ephemeral", m.take("ephemeral"))
	if told {
		r.Ephemeral = &ephemeral
	}
	labels := m.take("labels")
	if labels == nil {
		r.Labels = bareLabels
	}
	for _, entry := range f.list(path+".labels", labels) {
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
	if n, ok := f.integer(path+".newer_registrations", m.take("newer_registrations"), 0, math.MaxInt32); ok {
		a.newer = int64(n)
		r.NewerRegistrations = &a.newer
	}
	m.done()
}

// testHost reads the host of a test, likewise; absent, nothing is known of it.
func (f *file) testHost(path string, a *activation, m *mapping) {
	h := &a.host
	h.Known, _ = f.boolean(path+".known", m.take("known"))
	h.State, _ = f.word(path+".state", m.take("state"), hostStates...)
	if d, ok := f.duration(path+".silent_for", m.take("silent_for")); ok {
		a.silentFor = d
		h.SilentFor = &a.silentFor
	}
	m.done()
}
