package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/common/types"
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
	p.Name = f.name("metadata.name", nameNode)
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
	params := f.mapping("spec.params", spec.take("params"))
	matchNode := spec.need("match", "say which runners, such as runner.status == \"offline\" && runner.offline_for > duration(\"168h\")")
	exempt := f.mapping("spec.exempt", spec.take("exempt"))
	guards := f.mapping("spec.guards", spec.take("guards"))
	actions := spec.need("actions", actionsRemedy)
	tests := f.list("spec.tests", spec.take("tests"))
	spec.done()

	f.enforcement(p, enforcement)
	f.action(p, actions)
	deletes := p.Action == fleet.ActionDeleteRunner
	if scope != nil {
		f.targets(p, scope)
		scope.done()
	}
	f.guards(p, guards, spec)
	in, ok := f.language(params)
	if !ok {
		return // no expression can be told right from wrong
	}
	p.match = f.compile("spec.match", matchNode, in, true)
	exemptOK := exempt == nil || f.exemptions(p, exempt, in)
	if p.match == nil || !exemptOK {
		return
	}
	f.unused(in)
	switch {
	case p.match.constant == types.True && deletes:
		f.fault(matchNode, "spec.match: the expression is true for every runner, which no deletion may be: name a condition")
		return
	case p.match.constant == types.False:
		f.fault(matchNode, "spec.match: the expression is false for every runner: name a condition, or turn the policy off with enforcement: disabled")
		return
	}
	if p.Action != "" && f.decided(p, matchNode) {
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

const actionsRemedy = "write actions: [{delete_runner: {}}], [{report: {}}] or, to drain hosts, [{drain_host: {}}, {delete_runner: {}}, {release_host: {}}]"

// actionKinds are those that a policy may name.
var actionKinds = []fleet.ActionKind{fleet.ActionDeleteRunner, fleet.ActionReport, fleet.ActionDrainHost, fleet.ActionReleaseHost}

// action reads spec.actions: a report, or a deletion with what comes before and
// after it.
func (f *file) action(p *Policy, n ast.Node) {
	entries := f.list("spec.actions", n)
	before := len(f.faults)
	var kinds []fleet.ActionKind
	for i, entry := range entries {
		kinds = append(kinds, f.actionKind(fmt.Sprintf("spec.actions[%d]", i), entry))
	}
	has := func(kind fleet.ActionKind) bool { return slices.Contains(kinds, kind) }
	switch {
	case has(fleet.ActionDeleteRunner):
		p.Action, p.Drain, p.Release = fleet.ActionDeleteRunner, has(fleet.ActionDrainHost), has(fleet.ActionReleaseHost)
	case has(fleet.ActionReport):
		p.Action = fleet.ActionReport
	}
	if _, ok := n.(*ast.SequenceNode); !ok || len(f.faults) > before {
		return
	}
	switch {
	case len(kinds) == 0:
		f.fault(n, "spec.actions is empty: %s", actionsRemedy)
	case has(fleet.ActionReport) && len(kinds) > 1:
		f.fault(n, "spec.actions: a report stands alone: %s", actionsRemedy)
	case has(fleet.ActionReleaseHost) && !has(fleet.ActionDrainHost):
		f.fault(n, "spec.actions: release_host without drain_host, and nobody would have asked whether the host is at work: %s", actionsRemedy)
	case has(fleet.ActionDrainHost) && !has(fleet.ActionDeleteRunner):
		f.fault(n, "spec.actions: drain_host without delete_runner, and the host would take workflow jobs again: %s", actionsRemedy)
	case len(kinds) > 1 && !slices.Equal(kinds, drained) && !slices.Equal(kinds, drained[:2]):
		f.fault(n, "spec.actions: an action twice, or in an order that is not theirs: %s", actionsRemedy)
	}
	if len(f.faults) > before {
		p.Action = "" // what it should be cannot be told
	}
}

// drained is the order of a drain: the last may be left out.
var drained = []fleet.ActionKind{fleet.ActionDrainHost, fleet.ActionDeleteRunner, fleet.ActionReleaseHost}

// actionKind reads one entry of spec.actions; empty where it has a fault.
func (f *file) actionKind(path string, entry ast.Node) fleet.ActionKind {
	m := f.mapping(path, entry)
	if m == nil {
		return ""
	}
	var found fleet.ActionKind
	before := len(f.faults)
	for _, kind := range actionKinds {
		if body := m.take(string(kind)); m.has(string(kind)) {
			if found != "" {
				f.fault(entry, "%s: two actions in one entry, each has its own: %s", path, actionsRemedy)
			}
			found = kind
			f.mapping(path+"."+string(kind), body).done()
		}
	}
	m.done()
	if found == "" && len(f.faults) == before {
		f.fault(entry, "%s: no action: %s", path, actionsRemedy)
	}
	return found
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

// maxExempt bounds a policy's exemptions, far above any use.
const maxExempt = 100

// exemptions reports whether all of them can be evaluated.
func (f *file) exemptions(p *Policy, m *mapping, in language) bool {
	if len(m.keys) > maxExempt {
		f.fault(m.node, "spec.exempt: %d entries are too many, %d is the most: join some", len(m.keys), maxExempt)
		return false
	}
	ok := true
	for _, key := range m.keys {
		name := key.(*ast.StringNode).Value
		if !fleet.ValidName(name) {
			f.fault(key, "spec.exempt: %q cannot be a name: names are lower-case letters, digits and '-', 63 at most", name)
		}
		value := m.take(name)
		c := f.compile("spec.exempt."+name, value, in, false)
		if c == nil {
			ok = false
			continue
		}
		if c.constant != nil {
			f.fault(value, "spec.exempt.%s: the expression is %v for every runner: name a condition, or leave it out", name, c.constant)
			ok = false
		}
		p.exempt = append(p.exempt, exemption{name, c})
	}
	slices.SortFunc(p.exempt, func(a, b exemption) int { return strings.Compare(a.name, b.name) })
	return ok
}

func (f *file) name(path string, n ast.Node) string {
	name, ok := f.text(path, n)
	if ok && !fleet.ValidName(name) {
		f.fault(n, "%s: %q cannot be a name: names are lower-case letters, digits and '-', 63 at most", path, name)
	}
	return name
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
