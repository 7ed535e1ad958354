package policies

import (
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// possible is the set of answers that an expression may give while some fields
// are open, which means that they may have any value. It is Kleene's logic of
// yes, no and unknown, over sets. The set is empty for an expression that is
// always unknown.
type possible uint8

const (
	mayNo possible = 1 << iota
	mayYes

	mayAnything = mayNo | mayYes
)

func (p possible) may(answer possible) bool { return p&answer != 0 }

// not gives the answers of the negation: unknown stays unknown.
func (p possible) not() possible {
	var answers possible
	if p.may(mayYes) {
		answers |= mayNo
	}
	if p.may(mayNo) {
		answers |= mayYes
	}
	return answers
}

// and gives the answers of p && q.
func (p possible) and(q possible) possible {
	var answers possible
	if p.may(mayYes) && q.may(mayYes) {
		answers |= mayYes
	}
	if p.may(mayNo) || q.may(mayNo) {
		answers |= mayNo
	}
	return answers
}

// or gives the answers of p || q.
func (p possible) or(q possible) possible { return p.not().and(q.not()).not() }

// openVars are the variables of one evaluation of which some fields are open.
type openVars struct {
	vars cel.PartialActivation
	open []string // the open fields, such as runner.labels
}

// withOpen leaves the named fields of an activation open. The answer follows
// later changes of the other fields.
func withOpen(a *activation, open []string) (openVars, error) {
	var patterns []*cel.AttributePatternType
	for _, name := range open {
		variable, field, _ := strings.Cut(name, ".")
		patterns = append(patterns, cel.AttributePattern(variable).QualString(field))
	}
	vars, err := cel.PartialVars(a, patterns...)
	return openVars{vars, open}, err
}

// isOpen reports whether an unknown answer rests on an open field. trail is
// what CEL calls it, such as runner.labels[0], or runner where all of it was
// asked for.
func (v openVars) isOpen(trail string) bool {
	for _, name := range v.open {
		variable, _, _ := strings.Cut(name, ".")
		if trail == name || trail == variable || strings.HasPrefix(trail, name+".") || strings.HasPrefix(trail, name+"[") {
			return true
		}
	}
	return false
}

// clauses evaluates an expression by its clauses, whose programs it keeps.
type clauses struct {
	*compiled
	programs map[int64]cel.Program // nil where a clause has no program of its own
}

// possible gives the answers that the expression may give.
func (c *clauses) possible(v openVars) possible {
	return c.of(c.checked.NativeRep().Expr(), v)
}

func (c *clauses) of(e celast.Expr, v openVars) possible {
	if e.Kind() != celast.CallKind {
		return c.clause(e, v)
	}
	args := e.AsCall().Args()
	switch e.AsCall().FunctionName() {
	case operators.LogicalAnd:
		answers := mayYes
		for _, arg := range args {
			answers = answers.and(c.of(arg, v))
		}
		return answers
	case operators.LogicalOr:
		answers := mayNo
		for _, arg := range args {
			answers = answers.or(c.of(arg, v))
		}
		return answers
	case operators.LogicalNot:
		return c.of(args[0], v).not()
	case operators.Conditional:
		condition := c.of(args[0], v)
		var answers possible
		if condition.may(mayYes) {
			answers |= c.of(args[1], v)
		}
		if condition.may(mayNo) {
			answers |= c.of(args[2], v)
		}
		return answers
	}
	return c.clause(e, v)
}

// clause evaluates a part that has no logic of its own. It gives no answer where
// the part is an error or unknown: Decide acts on neither.
func (c *clauses) clause(e celast.Expr, v openVars) possible {
	program, ok := c.programs[e.ID()]
	if !ok {
		_, program, _ = c.part(e, cel.EvalOptions(cel.OptPartialEval))
		c.programs[e.ID()] = program
	}
	if program == nil {
		return mayAnything
	}
	out, _, err := program.Eval(v.vars)
	switch {
	case err != nil:
		return 0
	case out == types.True:
		return mayYes
	case out == types.False:
		return mayNo
	}
	u, ok := out.(*types.Unknown)
	if !ok {
		return mayAnything
	}
	for _, trail := range unknownTrails(u) {
		if v.isOpen(trail) {
			return mayAnything
		}
	}
	return 0
}
