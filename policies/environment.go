package policies

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"github.com/muster-fleet/muster/fleet"
)

// environment is what expressions are compiled in. dyn would undo the static
// types; with no time of its own an expression has no use for timestamps.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewCustomEnv(
		cel.EnableMacroCallTracking(), // to write an expression's parts: see Policy.Read
		cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{
			ExcludeFunctions: []*env.Function{{Name: "dyn"}, {Name: "type"}, {Name: "timestamp"}},
		})),
		ext.NativeTypes(
			types.NativeTypeFor[runnerView](types.NativeTypeAlias("Runner"), ext.ParseStructTags(true)),
			types.NativeTypeFor[hostView](types.NativeTypeAlias("Host"), ext.ParseStructTags(true)),
			types.NativeTypeFor[targetView](types.NativeTypeAlias("Target"), ext.ParseStructTags(true)),
		),
		func(e *cel.Env) (*cel.Env, error) {
			return cel.CustomTypeProvider(unknowns{e.CELTypeProvider()})(e)
		},
		cel.Variable("runner", cel.ObjectType("Runner")),
		cel.Variable("host", cel.ObjectType("Host")),
		cel.Variable("target", cel.ObjectType("Target")),
		cel.Function("version_at_least", cel.Overload("version_at_least_string_string",
			[]*cel.Type{cel.StringType, cel.StringType}, cel.BoolType, cel.BinaryBinding(versionAtLeast))),
		cel.ASTValidators(
			cel.ValidateRegexLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(),
			cel.ValidateComprehensionNestingLimit(1),
		),
	)
})

// versionAtLeast compares dotted numbers. A version of another form is unknown
// rather than false: its negation must not hold either.
func versionAtLeast(v, least ref.Val) ref.Val {
	want, ok := parseVersion(string(least.(types.String)))
	if !ok {
		return types.NewErr("version_at_least: %q is not a version, want a form such as 2.320.0", least)
	}
	have, ok := parseVersion(string(v.(types.String)))
	if !ok {
		return unknownFields["runner.version"]
	}
	return types.Bool(slices.Compare(have[:], want[:]) >= 0)
}

// parseVersion reads up to four dotted numbers; those left out are 0.
func parseVersion(s string) ([4]uint64, bool) {
	var version [4]uint64
	parts := strings.Split(s, ".")
	if len(parts) > len(version) {
		return version, false
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return version, false
		}
		version[i] = n
	}
	return version, true
}

// maxLabels and maxShown, in characters, are what a runner may have and each of
// its texts may be long: both beyond what GitHub gives.
const (
	maxLabels = 100
	maxShown  = 256
)

// oversized says what about a runner is beyond what the cost of an expression
// is estimated for; nil: nothing.
func oversized(r *fleet.Observed) error {
	if len(r.Labels) > maxLabels {
		return fmt.Errorf("it has %d labels, more than the %d that expressions are made for", len(r.Labels), maxLabels)
	}
	for _, text := range [...]string{r.Name, r.OS, string(r.Status), r.Group, r.Version} {
		if long(text) {
			return fmt.Errorf("the text %.20q… is longer than the %d characters that expressions are made for", text, maxShown)
		}
	}
	for _, label := range r.Labels {
		if long(label) {
			return fmt.Errorf("the label %.20q… is longer than the %d characters that expressions are made for", label, maxShown)
		}
	}
	return nil
}

func long(text string) bool { return utf8.RuneCountInString(text) > maxShown }

// sizes bounds what an expression may meet, for the estimate of its cost: a
// runner within its bounds, and the params as they are.
type sizes struct{ params map[string]param }

func (s sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	path := node.Path()
	if len(path) == 0 || node.ComputedSize() != nil {
		return nil // a literal or the result of a call: CEL knows better
	}
	entries, characters := uint64(maxLabels), uint64(maxShown)
	if name, ok := strings.CutPrefix(path[0], "params."); ok {
		entries, characters = s.params[name].size()
	}
	var size cost.SizeEstimate
	switch node.Type().Kind() {
	case types.ListKind:
		size = cost.RangedSizeEstimate(0, entries)
	case types.StringKind:
		size = cost.RangedSizeEstimate(0, characters)
	default:
		return nil
	}
	return &size
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// tri is an answer of three: yes, no, unknown.
type tri int

const (
	no tri = iota
	yes
	unknown
)

// evaluate runs a program. The text names the fields that an unknown answer
// rests on; the error says why there is no answer.
func evaluate(p cel.Program, a *activation) (tri, string, error) {
	out, _, err := p.Eval(a)
	switch {
	case err != nil:
		return no, "", err
	case types.IsUnknown(out):
		return unknown, unknownNames(out.(*types.Unknown)), nil
	case out == types.True:
		return yes, "", nil
	case out == types.False:
		return no, "", nil
	}
	return no, "", fmt.Errorf("the expression gave %v, not true or false", out)
}

func unknownNames(u *types.Unknown) string { return strings.Join(unknownTrails(u), ", ") }

// unknownTrails names what an unknown answer rests on.
func unknownTrails(u *types.Unknown) []string {
	var names []string
	for _, id := range u.IDs() {
		trails, _ := u.GetAttributeTrails(id)
		for _, t := range trails {
			names = append(names, t.String())
		}
	}
	return names
}
