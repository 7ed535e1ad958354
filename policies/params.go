package policies

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/goccy/go-yaml/ast"
)

// maxParam bounds a text among the params, in characters, and maxParams a list
// of them: what sizes assumes of a runner.
const (
	maxParam  = maxShown
	maxParams = maxLabels
)

// language is what the expressions of one policy are written in: CEL's
// environment and the policy's params.
type language struct {
	env    *cel.Env
	params map[string]param // by name, without "params."
	used   map[string]bool  // the params that an expression names, by name
}

type param struct {
	key   ast.Node
	kind  *cel.Type
	value ref.Val
}

var paramName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// reserved are names that CEL's grammar takes for something else.
var reserved = map[string]bool{"true": true, "false": true, "null": true, "in": true}

// language reads spec.params, absent where m is nil. Each param is a constant
// of the type that its value has, so that an expression is checked as if the
// value stood in it. The answer is false where no expression can be compiled.
func (f *file) language(m *mapping) (language, bool) {
	in := language{params: map[string]param{}, used: map[string]bool{}}
	before := len(f.faults)
	if m != nil {
		for _, key := range m.keys {
			name := key.(*ast.StringNode).Value
			value := m.take(name)
			switch {
			case !paramName.MatchString(name) || reserved[name]:
				f.fault(key, "spec.params: %q cannot be a name: names of params are lower-case letters, digits and '_', and begin with a letter", name)
			case value != nil:
				p := f.param("spec.params."+name, value)
				p.key = key
				in.params[name] = p
			}
		}
	}
	if len(f.faults) > before {
		return in, false
	}
	env, err := environment()
	if err == nil && len(in.params) > 0 {
		var constants []cel.EnvOption
		for name, p := range in.params {
			constants = append(constants, cel.Constant("params."+name, p.kind, p.value))
		}
		env, err = env.Extend(constants...)
	}
	if err != nil {
		f.faultAt(1, 1, "set up CEL: %v", err)
	}
	in.env = env
	return in, err == nil
}

// param reads the value of one. What comes of a value with a fault is of no use.
func (f *file) param(path string, n ast.Node) param {
	switch v := n.(type) {
	case *ast.BoolNode:
		return param{kind: cel.BoolType, value: types.Bool(v.Value)}
	case *ast.IntegerNode:
		switch i := v.Value.(type) {
		case int64:
			return param{kind: cel.IntType, value: types.Int(i)}
		case uint64:
			if i < 1<<63 {
				return param{kind: cel.IntType, value: types.Int(i)}
			}
		}
		f.fault(n, "%s: %s is too large a number", path, n.GetToken().Value)
		return param{}
	case *ast.FloatNode:
		return param{kind: cel.DoubleType, value: types.Double(v.Value)}
	case *ast.StringNode, *ast.LiteralNode:
		return param{kind: cel.StringType, value: types.String(f.paramText(path, n))}
	case *ast.SequenceNode:
		if len(v.Values) > maxParams {
			f.fault(n, "%s: %d entries are too many, %d is the most", path, len(v.Values), maxParams)
			return param{}
		}
		texts := make([]string, 0, len(v.Values))
		for _, entry := range v.Values {
			texts = append(texts, f.paramText(path, entry))
		}
		return param{kind: cel.ListType(cel.StringType), value: types.DefaultTypeAdapter.NativeToValue(texts)}
	}
	f.fault(n, "%s: want text, a number, true or false, or a list of texts, got %s", path, kind(n))
	return param{}
}

func (f *file) paramText(path string, n ast.Node) string {
	text, ok := f.text(path, n)
	if ok && len(text) > maxParam {
		f.fault(n, "%s: %d bytes are too long for a param, %d is the most", path, len(text), maxParam)
	}
	return text
}

// size is how many entries a list among the params has, and how long its
// longest text is, or the text itself.
func (p param) size() (entries, characters uint64) {
	switch v := p.value.(type) {
	case types.String:
		return 0, uint64(len(v))
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			entries++
			if text, ok := it.Next().(types.String); ok {
				characters = max(characters, uint64(len(text)))
			}
		}
	}
	return entries, characters
}

// unused reports params that no expression names: most likely one that does
// has a typing error, or went.
func (f *file) unused(in language) {
	for _, name := range slices.Sorted(maps.Keys(in.params)) {
		if !in.used[name] {
			f.fault(in.params[name].key, "spec.params.%s: no expression names params.%s: leave it out", name, name)
		}
	}
}

// names lists the params as expressions write them.
func (in language) names() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(in.params)) {
		names = append(names, "params."+name)
	}
	return strings.Join(names, ", ")
}
