package policies

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
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

// maxText, in bytes, and maxDocuments bound a file: far above any use, far
// below what would keep the parser busy.
const (
	maxText      = 256 << 10
	maxDocuments = 200
)

// parse splits a text into its YAML documents, without the empty ones.
func (f *file) parse(text []byte) []ast.Node {
	if len(text) > maxText {
		f.faultAt(1, 1, "%d bytes are too long for a file of policies: %d is the most, split it", len(text), maxText)
		return nil
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	f.lines = strings.Split(string(text), "\n")
	for i, line := range f.lines {
		if !utf8.ValidString(line) {
			f.faultAt(i+1, 1, "the line is not UTF-8: save the file as UTF-8")
			return nil
		}
	}
	var docs []ast.Node
	count := 0
	for first := 0; first < len(f.lines); {
		if count++; count > maxDocuments {
			f.faultAt(first+1, 1, "more than %d documents are too many for a file of policies: split it", maxDocuments)
			break
		}
		end := first + 1
		for end < len(f.lines) && !documentMark.MatchString(f.lines[end]) {
			end++
		}
		docs = append(docs, f.documents(first, end)...)
		first = end
	}
	if len(docs) == 0 && len(f.faults) == 0 {
		f.faultAt(1, 1, "the file holds no policy: start one with apiVersion: muster/v1")
	}
	return docs
}

// documentMark is a line that ends a document or begins one. The parser gets
// each document alone: given all at once, it drops whatever follows an empty
// one.
var documentMark = regexp.MustCompile(`^(---|\.\.\.)(\s|$)`)

// documents parses the lines from first up to end, from 0.
func (f *file) documents(first, end int) []ast.Node {
	// The empty lines keep the numbers of the others.
	text := strings.Repeat("\n", first) + strings.Join(f.lines[first:end], "\n") + "\n"
	// Repeated keys are reported by mapping below, all of them.
	parsed, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, col, why := first+1, 1, err.Error()
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
		if hint := calendar.Unquoted(f.lines[min(max(line-1, 0), len(f.lines)-1)]); hint != "" {
			f.faultAt(line, col, "not YAML: %s", hint)
			return nil
		}
		f.faultAt(line, col, "not YAML: %s: mind indentation and brackets, and put single quotes around an expression that begins with a quote, ! or [", why)
		return nil
	}
	var docs []ast.Node
	for _, doc := range parsed.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.NullType {
			docs = append(docs, doc.Body)
		}
	}
	return docs
}

// start is where a node begins. A block mapping's own token is its first
// colon, so its first key counts.
func start(n ast.Node) (line, col int) {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	at := n.GetToken().Position
	return at.Line, at.Column
}

// mapping is a YAML mapping of which each key is taken once. Its methods may be
// called on nil, the mapping that was not there: they find nothing.
type mapping struct {
	f      *file
	path   string // dotted, "" at the top
	node   ast.Node
	keys   []ast.Node
	values map[string]ast.Node
	taken  []string
}

// mapping reads n, reporting keys that repeat or are no text; nil where n is
// nil or no mapping.
func (f *file) mapping(path string, n ast.Node) *mapping {
	if n == nil {
		return nil
	}
	it, ok := n.(ast.MapNode)
	if !ok {
		f.fault(n, "%s: want a mapping, got %s", orDocument(path), kind(n))
		return nil
	}
	m := &mapping{f: f, path: path, node: n, values: map[string]ast.Node{}}
	for iter := it.MapRange(); iter.Next(); {
		key, ok := iter.Key().(*ast.StringNode)
		if !ok {
			f.fault(iter.Key(), "%s: want plain text as a key, got %s", orDocument(path), kind(iter.Key()))
			continue
		}
		if _, twice := m.values[key.Value]; twice {
			f.fault(key, "%s: the key stands here a second time: keep one", join(path, key.Value))
			continue
		}
		m.keys = append(m.keys, key)
		m.values[key.Value] = iter.Value()
	}
	return m
}

// take gives the value of a key, nil where it is absent. A key without a value
// is a fault and counts as absent.
func (m *mapping) take(key string) ast.Node {
	if m == nil {
		return nil
	}
	m.taken = append(m.taken, key)
	v, ok := m.values[key]
	if !ok {
		return nil
	}
	if v == nil || v.Type() == ast.NullType {
		m.f.fault(m.key(key), "%s is empty: give it a value or leave it out", join(m.path, key))
		return nil
	}
	return v
}

// need is take for a key that must be there.
func (m *mapping) need(key, remedy string) ast.Node {
	v := m.take(key)
	if m != nil && m.values[key] == nil {
		m.f.fault(m.node, "%s is missing: %s", join(m.path, key), remedy)
	}
	return v
}

func (m *mapping) has(key string) bool {
	return m != nil && m.values[key] != nil
}

func (m *mapping) key(name string) ast.Node {
	for _, k := range m.keys {
		if k.(*ast.StringNode).Value == name {
			return k
		}
	}
	return m.node
}

// done reports the keys that nobody took.
func (m *mapping) done() {
	if m == nil {
		return
	}
	for _, k := range m.keys {
		name := k.(*ast.StringNode).Value
		switch {
		case slices.Contains(m.taken, name):
		case len(m.taken) == 0:
			m.f.fault(k, "%s: unknown key, here is none: leave it out", join(m.path, name))
		default:
			m.f.fault(k, "%s: unknown key%s want one of %s", join(m.path, name), cmp.Or(meant(name, m.taken), ","), strings.Join(m.taken, ", "))
		}
	}
}

// list gives the entries of a sequence; a missing one has none.
func (f *file) list(path string, n ast.Node) []ast.Node {
	if n == nil {
		return nil
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		f.fault(n, "%s: want a list, got %s", path, kind(n))
		return nil
	}
	return seq.Values
}

// text reads a string. The answer is false where n is nil or something else,
// which is then reported.
func (f *file) text(path string, n ast.Node) (string, bool) {
	switch n := n.(type) {
	case nil:
		return "", false
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	}
	remedy := ""
	switch n.Type() {
	case ast.IntegerType, ast.FloatType, ast.InfinityType, ast.NanType, ast.BoolType:
		remedy = ": put it in quotes"
	}
	f.fault(n, "%s: want text, got %s%s", path, kind(n), remedy)
	return "", false
}

// word reads a string that must be one of a few.
func (f *file) word(path string, n ast.Node, words ...string) (string, bool) {
	value, ok := f.text(path, n)
	if ok && !slices.Contains(words, value) {
		f.fault(n, "%s: %q is unknown, want %s", path, value, strings.Join(words, " or "))
		return "", false
	}
	return value, ok
}

func (f *file) boolean(path string, n ast.Node) (bool, bool) {
	if n == nil {
		return false, false
	}
	b, is := n.(*ast.BoolNode)
	if !is {
		f.fault(n, "%s: want true or false, got %s", path, kind(n))
		return false, false
	}
	return b.Value, true
}

// integer reads a whole number within bounds, both included.
func (f *file) integer(path string, n ast.Node, least, most int) (int, bool) {
	if n == nil {
		return 0, false
	}
	i, is := n.(*ast.IntegerNode)
	if !is {
		f.fault(n, "%s: want a whole number, got %s", path, kind(n))
		return 0, false
	}
	// The parser gives a negative number as an int64, and no bound is negative.
	if v, ok := i.Value.(uint64); ok && v >= uint64(least) && v <= uint64(most) { //nolint:gosec // bounds are small and not negative
		return int(v), true
	}
	f.fault(n, "%s: %v is out of bounds, want %d to %d", path, i.Value, least, most)
	return 0, false
}

func (f *file) duration(path string, n ast.Node) (time.Duration, bool) {
	var s string
	if i, is := n.(*ast.IntegerNode); is {
		s = i.GetToken().Value // "0", or a number that lacks its unit
	} else if text, ok := f.text(path, n); ok {
		s = text
	} else {
		return 0, false
	}
	d, err := fleet.ParseDuration(s)
	if err != nil {
		f.fault(n, "%s: %v", path, err)
		return 0, false
	}
	return d, true
}

// kind says in a user's words what a node is.
func kind(n ast.Node) string {
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	case ast.StringType, ast.LiteralType:
		return "text"
	case ast.IntegerType, ast.FloatType, ast.InfinityType, ast.NanType:
		return "the number " + n.GetToken().Value
	case ast.BoolType:
		return n.GetToken().Value
	case ast.NullType:
		return "nothing"
	case ast.MappingKeyType:
		return "a compound key"
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType:
		return "an anchor or alias (policies have none: write it out)"
	case ast.DirectiveType:
		return "a directive (policies have none: leave it out)"
	case ast.TagType:
		return "a tag (policies have none: leave it out)"
	}
	return fmt.Sprintf("%v", n.Type())
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func orDocument(path string) string {
	if path == "" {
		return "the document"
	}
	return path
}
