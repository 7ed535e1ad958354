package policies

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"github.com/muster-fleet/muster/fleet"
)

// runnerView is a runner as an expression sees it. There are durations and no
// times: a zero time would be 2,000 years ago, and so long offline. A nil
// duration and an empty text are unknown.
type runnerView struct {
	Name        string         `cel:"name"`
	OS          string         `cel:"os"`
	Status      string         `cel:"status"`
	Busy        bool           `cel:"busy"`
	Labels      []string       `cel:"labels"`
	Group       string         `cel:"group"`
	Version     string         `cel:"version"`
	Ephemeral   bool           `cel:"ephemeral"`
	OfflineFor  *time.Duration `cel:"offline_for"`
	IdleFor     *time.Duration `cel:"idle_for"`
	Age         *time.Duration `cel:"age"`
	OnlineSeen  *time.Duration `cel:"online_seen"`
	NeverOnline bool           `cel:"never_online"`
}

const runnerFields = "name, os, status, busy, labels, group, version, ephemeral, offline_for, idle_for, age, online_seen, never_online"

// targetView is a target as an expression sees it.
type targetView struct {
	Name  string `cel:"name"`
	Scope string `cel:"scope"`
}

// unknownFields are the fields that may be unknown, with the value that stands
// for that. A bool is always known: muster takes a missing busy for busy.
var unknownFields = func() map[string]*types.Unknown {
	m := map[string]*types.Unknown{}
	for _, f := range []string{"runner.name", "runner.os", "runner.status", "runner.group", "runner.version",
		"runner.offline_for", "runner.idle_for", "runner.age", "runner.online_seen", "target.name", "target.scope"} {
		m[f] = types.NewUnknown(0, types.NewAttributeTrail(f))
	}
	return m
}()

var durationFields = map[string]bool{"offline_for": true, "idle_for": true, "age": true, "online_seen": true}

// unknowns makes reading an unknown field give CEL's unknown. The native
// adapter alone gives 0 and "", and then !(runner.offline_for > d) and
// runner.group != "prod" hold for runners of which nothing is known.
type unknowns struct{ types.Provider }

func (u unknowns) FindStructFieldType(structType, field string) (*types.FieldType, bool) {
	ft, ok := u.Provider.FindStructFieldType(structType, field)
	unknown := unknownFields[strings.ToLower(structType)+"."+field]
	if !ok || unknown == nil {
		return ft, ok
	}
	return &types.FieldType{
		Type:  ft.Type,
		IsSet: ft.IsSet,
		GetFrom: func(object any) (any, error) {
			if !ft.IsSet(object) {
				return unknown, nil
			}
			return ft.GetFrom(object)
		},
	}, true
}

// activation holds the variables of one evaluation. It may be used again for
// the next runner, by one goroutine.
type activation struct {
	runner runnerView
	target targetView

	offlineFor, idleFor, age, onlineSeen time.Duration
}

func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "runner":
		return &a.runner, true
	case "target":
		return &a.target, true
	}
	return nil, false
}

func (a *activation) Parent() cel.Activation { return nil }

// observe puts a runner in, as it is known at now.
func (a *activation) observe(r *fleet.Observed, now time.Time) {
	a.runner = runnerView{
		Name: r.Name, OS: r.OS, Status: string(r.Status), Busy: r.Busy, Labels: r.Labels,
		Group: r.Group, Version: r.Version, Ephemeral: r.Ephemeral,
		NeverOnline: r.LastOnlineAt.IsZero() && !r.FirstSeenAt.IsZero() && r.Status == fleet.StatusOffline,
	}
	if r.Status == fleet.StatusOffline && !r.OfflineSince.IsZero() {
		a.offlineFor = r.OfflineFor
		a.runner.OfflineFor = &a.offlineFor
	}
	// How long it has been idle is unknown too where it was never seen busy:
	// its workflow jobs may all have run between two looks.
	if !r.Busy && !r.LastBusyAt.IsZero() {
		a.idleFor = max(now.Sub(r.LastBusyAt), 0)
		a.runner.IdleFor = &a.idleFor
	}
	if !r.FirstSeenAt.IsZero() {
		a.age = max(now.Sub(r.FirstSeenAt), 0)
		a.runner.Age = &a.age
	}
	if !r.LastOnlineAt.IsZero() {
		a.onlineSeen = max(now.Sub(r.LastOnlineAt), 0)
		a.runner.OnlineSeen = &a.onlineSeen
	}
}

// environment is what expressions are compiled in. dyn would undo the static
// types; with no time of its own an expression has no use for timestamps.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewCustomEnv(
		cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{
			ExcludeFunctions: []*env.Function{{Name: "dyn"}, {Name: "type"}, {Name: "timestamp"}},
		})),
		ext.NativeTypes(
			types.NativeTypeFor[runnerView](types.NativeTypeAlias("Runner"), ext.ParseStructTags(true)),
			types.NativeTypeFor[targetView](types.NativeTypeAlias("Target"), ext.ParseStructTags(true)),
		),
		func(e *cel.Env) (*cel.Env, error) {
			return cel.CustomTypeProvider(unknowns{e.CELTypeProvider()})(e)
		},
		cel.Variable("runner", cel.ObjectType("Runner")),
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
	for i := range have {
		if have[i] != want[i] {
			return types.Bool(have[i] > want[i])
		}
	}
	return types.True
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

// sizes bounds what an expression may meet, for the estimate of its cost: 100
// labels and texts of 256 characters, both beyond what GitHub gives.
type sizes struct{}

func (sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	path := node.Path()
	if len(path) == 0 || node.ComputedSize() != nil {
		return nil // a literal or the result of a call: CEL knows better
	}
	var size cost.SizeEstimate
	switch node.Type().Kind() {
	case types.ListKind:
		size = cost.RangedSizeEstimate(0, 100)
	case types.StringKind:
		size = cost.RangedSizeEstimate(0, 256)
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

func unknownNames(u *types.Unknown) string {
	var names []string
	for _, id := range u.IDs() {
		trails, _ := u.GetAttributeTrails(id)
		for _, t := range trails {
			names = append(names, t.String())
		}
	}
	return strings.Join(names, ", ")
}
