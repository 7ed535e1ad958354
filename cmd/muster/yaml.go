package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/calendar"
)

// maxConfig bounds the configuration, in bytes: far above any real one.
const maxConfig = 1 << 20

// fault is one thing that is wrong with the configuration.
type fault struct {
	where     string // the file, or the variable of the environment
	line, col int    // from 1, in runes; 0 where there is no line
	text      string // one line: what, why, what to do
}

func (f fault) Error() string {
	if f.line == 0 {
		return f.where + ": " + f.text
	}
	return fmt.Sprintf("%s:%d:%d: %s", f.where, f.line, f.col, f.text)
}

// faults are all that is wrong, in the order of the file.
type faults []error

func (fs *faults) add(where string, line, col int, format string, args ...any) {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	*fs = append(*fs, fault{where, line, col, text})
}

// err joins the faults, one line each; those without a line stand last.
func (fs *faults) err() error {
	line := func(err error) fault {
		var f fault
		if !errors.As(err, &f) || f.line == 0 {
			f.line = maxConfig
		}
		return f
	}
	slices.SortStableFunc(*fs, func(a, b error) int {
		fa, fb := line(a), line(b)
		return cmp.Or(cmp.Compare(fa.line, fb.line), cmp.Compare(fa.col, fb.col))
	})
	return errors.Join(*fs...)
}

// node is a place in a YAML document: a value with its dotted path. The node
// of something absent has no value; reading it gives what the reader says.
type node struct {
	faults *faults
	file   string
	path   string
	value  ast.Node
}

// parseYAML reads a text of one document; an empty one gives an absent node.
func parseYAML(file string, text []byte, faults *faults) node {
	root := node{faults: faults, file: file}
	if len(text) > maxConfig {
		faults.add(file, 1, 1, "%d bytes are too long for a configuration, %d is the most", len(text), maxConfig)
		return root
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if !utf8.Valid(text) {
		faults.add(file, 1, 1, "the file is not UTF-8: save it as UTF-8")
		return root
	}
	// Repeated keys are reported by mapping, all of them.
	parsed, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, col, why := 1, 1, err.Error()
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			why = syntax.GetMessage()
			if tk := syntax.GetToken(); tk != nil && tk.Position != nil {
				line, col = tk.Position.Line, tk.Position.Column
			}
			if strings.Contains(why, `'	'`) { // which nobody sees in a message
				why = "a tab where only spaces may stand"
			}
		}
		lines := strings.Split(string(text), "\n")
		if hint := calendar.Unquoted(lines[min(max(line-1, 0), len(lines)-1)]); hint != "" {
			why = hint
		}
		faults.add(file, line, col, "not YAML: %s", why)
		return root
	}
	for _, doc := range parsed.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if root.value != nil {
			node{faults: faults, file: file, value: doc.Body}.fault("a second document: a configuration is one, join them")
			break
		}
		root.value = doc.Body
	}
	return root
}

func (n node) there() bool { return n.value != nil }

// fault reports something about the node, at its place in the file.
func (n node) fault(format string, args ...any) {
	line, col := n.position()
	text := fmt.Sprintf(format, args...)
	if n.path != "" {
		text = n.path + ": " + text
	}
	n.faults.add(n.file, line, col, "%s", text)
}

// position is where the node begins. A block mapping's own token is its first
// colon, so its first key counts.
func (n node) position() (line, col int) {
	v := n.value
	if m, ok := v.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		v = m.Values[0].Key
	}
	if m, ok := v.(*ast.MappingValueNode); ok {
		v = m.Key
	}
	if v == nil || v.GetToken() == nil || v.GetToken().Position == nil {
		return 1, 1
	}
	at := v.GetToken().Position
	return at.Line, at.Column
}

// mapping is a YAML mapping; each key that get did not ask for is a fault.
type mapping struct {
	node
	keys   []node // in the order of the file, path being the key's
	values map[string]ast.Node
	known  []string
}

// mapping reads a mapping; one that is absent, or something else, is empty.
func (n node) mapping() *mapping {
	m := &mapping{node: n, values: map[string]ast.Node{}}
	if !n.there() {
		return m
	}
	it, ok := n.value.(ast.MapNode)
	if !ok {
		n.fault("want keys with values, got %s", n.kind())
		return m
	}
	for iter := it.MapRange(); iter.Next(); {
		key := node{n.faults, n.file, n.path, iter.Key()}
		name, ok := iter.Key().(*ast.StringNode)
		if !ok {
			key.fault("want plain text as a key, got %s", key.kind())
			continue
		}
		key.path = n.join(name.Value)
		if _, twice := m.values[name.Value]; twice {
			key.fault("the key stands here a second time: keep one")
			continue
		}
		m.values[name.Value] = iter.Value()
		m.keys = append(m.keys, key)
	}
	return m
}

func (n node) join(key string) string {
	if n.path == "" {
		return key
	}
	return n.path + "." + key
}

// get gives the value of a key. A key without a value is a fault, and absent.
func (m *mapping) get(key string) node {
	m.known = append(m.known, key)
	child := node{m.faults, m.file, m.join(key), nil}
	v, ok := m.values[key]
	if !ok {
		return child
	}
	if v == nil || v.Type() == ast.NullType {
		m.key(child.path).fault("has no value: give it one or leave the key out")
		return child
	}
	child.value = v
	return child
}

// need is get for a key that has to be there.
func (m *mapping) need(key, remedy string) node {
	child := m.get(key)
	if _, ok := m.values[key]; !ok && m.there() {
		at := m.node
		at.path = child.path
		at.fault("is missing: %s", remedy)
	}
	return child
}

func (m *mapping) key(path string) node {
	for _, k := range m.keys {
		if k.path == path {
			return k
		}
	}
	return m.node
}

// close reports the keys that nobody asked for. Those in later are part of
// muster's configuration, and this version does not have them.
func (m *mapping) close(later ...string) {
	slices.Sort(m.known)
	m.known = slices.Compact(m.known)
	for _, k := range m.keys {
		name := k.value.(*ast.StringNode).Value
		switch {
		case slices.Contains(m.known, name):
		case slices.Contains(later, name):
			k.fault("`%s` is not there yet: leave it out", name)
		default:
			k.fault("unknown key, want one of %s", strings.Join(m.known, ", "))
		}
	}
}

// list gives the entries of a list; one that is absent has none.
func (n node) list() []node {
	if !n.there() {
		return nil
	}
	seq, ok := n.value.(*ast.SequenceNode)
	if !ok {
		n.fault("want a list, got %s", n.kind())
		return nil
	}
	entries := make([]node, len(seq.Values))
	for i, v := range seq.Values {
		entries[i] = node{n.faults, n.file, fmt.Sprintf("%s[%d]", n.path, i), v}
	}
	return entries
}

// texts reads a list of texts, leaving out what is none.
func (n node) texts() []string {
	var all []string
	for _, entry := range n.list() {
		if s := entry.text(""); s != "" {
			all = append(all, s)
		}
	}
	return all
}

// text reads a text that is not empty.
func (n node) text(otherwise string) string {
	switch v := n.value.(type) {
	case nil:
		return otherwise
	case *ast.StringNode:
		if v.Value == "" {
			n.fault("is empty: give it a value or leave the key out")
			return otherwise
		}
		return v.Value
	case *ast.LiteralNode:
		return v.Value.Value
	}
	n.fault("want text, got %s: put it in quotes", n.kind())
	return otherwise
}

func (n node) boolean(otherwise bool) bool {
	if !n.there() {
		return otherwise
	}
	b, ok := n.value.(*ast.BoolNode)
	if !ok {
		n.fault("want true or false, got %s", n.kind())
		return otherwise
	}
	return b.Value
}

// integer reads a whole number within bounds, both included.
func (n node) integer(otherwise, least, most int) int {
	if !n.there() {
		return otherwise
	}
	i, ok := n.value.(*ast.IntegerNode)
	if !ok {
		n.fault("want a whole number, got %s", n.kind())
		return otherwise
	}
	switch v := i.Value.(type) {
	case uint64:
		if v <= uint64(most) && int(v) >= least { //nolint:gosec // most is not negative
			return int(v) //nolint:gosec // not above most
		}
	case int64:
		if v >= int64(least) && v <= int64(most) {
			return int(v)
		}
	}
	n.fault("%v is out of bounds, want %d to %d", i.Value, least, most)
	return otherwise
}

func (n node) duration(otherwise time.Duration) time.Duration {
	if !n.there() {
		return otherwise
	}
	var s string
	if i, ok := n.value.(*ast.IntegerNode); ok {
		s = i.GetToken().Value // 0, or a number that lacks its unit
	} else if s = n.text(""); s == "" {
		return otherwise
	}
	d, err := fleet.ParseDuration(s)
	if err != nil {
		n.fault("%v", err)
		return otherwise
	}
	return d
}

// kind says in a user's words what the node is.
func (n node) kind() string {
	switch n.value.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "keys with values"
	case ast.SequenceType:
		return "a list"
	case ast.StringType, ast.LiteralType:
		return "text"
	case ast.IntegerType, ast.FloatType, ast.InfinityType, ast.NanType:
		return "a number"
	case ast.BoolType:
		return "true or false"
	case ast.NullType:
		return "nothing"
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType:
		return "an anchor or alias (there are none here: write it out)"
	case ast.TagType:
		return "a tag (there are none here: leave it out)"
	}
	return n.value.Type().String()
}
