package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/muster-fleet/muster/fleet"
)

const (
	apiVersion = "muster/v1"
	policyKind = "RunnerPolicy"
)

// Load reads the policies of one file: one or more YAML documents, strict and
// complete. path is where it came from, for messages. The expressions are compiled and
// the policies' own tests run. The error joins every *[Fault] found; then no
// policy comes back.
func Load(path string, text []byte) ([]*Policy, error) {
	f := &file{path: path}
	var loaded []*Policy
	names := map[string]bool{}
	for _, doc := range f.parse(text) {
		p := f.policy(doc)
		if p == nil {
			continue
		}
		if p.Name != "" && names[p.Name] {
			f.fault(doc, "metadata.name: a policy %s stands further up: give each its own name", p.Name)
		}
		names[p.Name] = true
		loaded = append(loaded, p)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return loaded, nil
}

// policy reads one document; nil where it is not a policy at all.
func (f *file) policy(doc ast.Node) *Policy {
	before := len(f.faults)
	m := f.mapping("", doc)
	if m == nil {
		return nil
	}
	_, versionOK := f.word("apiVersion", m.need("apiVersion", "write apiVersion: "+apiVersion), apiVersion)
	_, kindOK := f.word("kind", m.need("kind", "write kind: "+policyKind), policyKind)
	if !versionOK || !kindOK {
		return nil // another kind of document has other keys
	}
	p := &Policy{}
	meta := f.mapping("metadata", m.need("metadata", "write metadata: {name: …}"))
	nameNode := meta.need("name", "give the policy a name")
	p.Name, _ = f.name("metadata.name", nameNode)
	if p.Name == OperatorName {
		f.fault(nameNode, "metadata.name: %s is built in (muster remove): choose another name", OperatorName)
	}
	p.Owner, _ = f.text("metadata.owner", meta.take("owner"))
	meta.done()
	if spec := f.mapping("spec", m.need("spec", "say what the policy does")); spec != nil {
		f.spec(p, spec)
	}
	m.done()
	if len(f.faults) == before {
		p.SHA256 = digest(doc)
	}
	return p
}

func (f *file) spec(p *Policy, spec *mapping) {
	enforcement := spec.need("enforcement", "write disabled, audit (decide and record only) or enforce")
	scope := f.mapping("spec.scope", spec.need("scope", "write scope: {targets: [NAME]}"))
	matchNode := spec.need("match", "say which runners, such as runner.status == \"offline\" && runner.offline_for > duration(\"168h\")")
	exempt := f.mapping("spec.exempt", spec.take("exempt"))
	guards := f.mapping("spec.guards", spec.take("guards"))
	actions := spec.need("actions", actionsRemedy)
	tests := f.list("spec.tests", spec.take("tests"))
	spec.done("params")

	f.enforcement(p, enforcement)
	f.action(p, actions)
	deletes := p.Action == fleet.ActionDeleteRunner
	if scope != nil {
		f.targets(p, scope)
		scope.done()
	}
	p.match = f.compile("spec.match", matchNode, true)
	if p.match != nil && p.match.always && deletes {
		f.fault(matchNode, "spec.match: the expression is true for every runner, which no deletion may be: name a condition")
		p.match = nil
	}
	exemptOK := exempt == nil || f.exemptions(p, exempt)
	f.guards(p, guards, spec)
	if p.match != nil && exemptOK && p.Action != "" {
		f.vectors(p, matchNode)
		f.tests(p, tests)
	}
}

func (f *file) enforcement(p *Policy, n ast.Node) {
	if s, ok := f.text("spec.enforcement", n); ok && s == "approve" {
		f.fault(n, "spec.enforcement: approve is not there yet: use audit or enforce")
		return
	}
	e, _ := f.word("spec.enforcement", n, string(fleet.EnforcementDisabled), string(fleet.EnforcementAudit), string(fleet.EnforcementEnforce))
	p.Enforcement = fleet.Enforcement(e)
}

const actionsRemedy = "write actions: [{delete_runner: {}}] or [{report: {}}]"

func (f *file) action(p *Policy, n ast.Node) {
	actions := f.list("spec.actions", n)
	if n != nil && len(actions) != 1 {
		if _, ok := n.(*ast.SequenceNode); ok {
			f.fault(n, "spec.actions: %d actions, a policy has exactly one: %s", len(actions), actionsRemedy)
		}
		return
	}
	for _, entry := range actions {
		m := f.mapping("spec.actions[0]", entry)
		if m == nil {
			return
		}
		for _, kind := range []fleet.ActionKind{fleet.ActionDeleteRunner, fleet.ActionReport} {
			if body := m.take(string(kind)); m.has(string(kind)) {
				if p.Action != "" {
					f.fault(entry, "spec.actions[0]: two actions in one entry, a policy has exactly one: %s", actionsRemedy)
				}
				p.Action = kind
				f.mapping("spec.actions[0]."+string(kind), body).done()
			}
		}
		before := len(f.faults)
		m.done("drain_host", "release_host")
		if p.Action == "" && len(f.faults) == before {
			f.fault(entry, "spec.actions[0]: no action: %s", actionsRemedy)
		}
	}
}

func (f *file) targets(p *Policy, scope *mapping) {
	n := scope.need("targets", "name the targets the policy is for")
	list := f.list("spec.scope.targets", n)
	if _, ok := n.(*ast.SequenceNode); ok && len(list) == 0 {
		f.fault(n, "spec.scope.targets is empty: name the targets the policy is for")
	}
	for _, entry := range list {
		t, ok := f.text("spec.scope.targets", entry)
		switch {
		case !ok:
		case t == fleet.All && p.Action == fleet.ActionReport:
			p.Targets = append(p.Targets, t)
		case t == fleet.All, strings.ContainsAny(t, "*?"):
			f.fault(entry, "spec.scope.targets: %q is a wildcard: name each target (only a report may say %s)", t, fleet.All)
		case !fleet.ValidName(t):
			f.fault(entry, "spec.scope.targets: %q cannot be a target: names are lower-case letters, digits and '-', 63 at most", t)
		case slices.Contains(p.Targets, t):
			f.fault(entry, "spec.scope.targets: %s stands here a second time: keep one", t)
		default:
			p.Targets = append(p.Targets, t)
		}
	}
}

// exemptions reports whether all of them can be evaluated.
func (f *file) exemptions(p *Policy, m *mapping) bool {
	ok := true
	for _, key := range m.keys {
		name := key.(*ast.StringNode).Value
		if !fleet.ValidName(name) {
			f.fault(key, "spec.exempt: %q cannot be a name: names are lower-case letters, digits and '-', 63 at most", name)
		}
		c := f.compile("spec.exempt."+name, m.take(name), false)
		if c == nil {
			ok = false
			continue
		}
		p.exempt = append(p.exempt, exemption{name, c})
	}
	slices.SortFunc(p.exempt, func(a, b exemption) int { return strings.Compare(a.name, b.name) })
	return ok
}

func (f *file) name(path string, n ast.Node) (string, bool) {
	name, ok := f.text(path, n)
	if ok && !fleet.ValidName(name) {
		f.fault(n, "%s: %q cannot be a name: names are lower-case letters, digits and '-', 63 at most", path, name)
		return "", false
	}
	return name, ok
}

// digest hashes the content of a document: its mappings, lists and scalars as
// JSON with sorted keys.
func digest(doc ast.Node) string {
	text, err := json.Marshal(content(doc))
	if err != nil {
		panic("policies: what was read from YAML is not JSON: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func content(n ast.Node) any {
	switch n := n.(type) {
	case ast.MapNode:
		m := map[string]any{}
		for it := n.MapRange(); it.Next(); {
			m[it.Key().(*ast.StringNode).Value] = content(it.Value())
		}
		return m
	case *ast.SequenceNode:
		list := make([]any, len(n.Values))
		for i, v := range n.Values {
			list[i] = content(v)
		}
		return list
	case *ast.LiteralNode:
		return n.Value.Value
	case ast.ScalarNode:
		return n.GetValue()
	}
	return nil
}
