package policies

import (
	"regexp"
	"strings"
	"time"
	"unicode"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/muster-fleet/muster/fleet"
)

// linter walks over a checked expression and reports what is of the right type
// and still cannot mean what it says.
type linter struct {
	checked *cel.Ast
	match   bool
	report  func(e ast.Expr, format string, args ...any)
	known   map[string]bool // duration fields of which has(…) is asked
}

// scope tells for the variables of macros what they range over.
type scope map[string]ast.Expr

func (l *linter) lint() {
	l.known = map[string]bool{}
	root := l.checked.NativeRep().Expr()
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly() {
			l.known[e.AsSelect().FieldName()] = true
		}
	}))
	l.walk(root, scope{})
}

func (l *linter) walk(e ast.Expr, in scope) {
	switch e.Kind() {
	case ast.CallKind:
		c := e.AsCall()
		operands := c.Args()
		if c.IsMemberFunction() {
			operands = append([]ast.Expr{c.Target()}, operands...)
		}
		l.call(c.FunctionName(), operands, in)
		for _, o := range operands {
			l.walk(o, in)
		}
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		l.walk(c.IterRange(), in)
		inner := scope{c.IterVar(): c.IterRange()}
		for name, over := range in {
			if name != c.IterVar() {
				inner[name] = over
			}
		}
		for _, part := range []ast.Expr{c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()} {
			l.walk(part, inner)
		}
	case ast.ListKind:
		for _, el := range e.AsList().Elements() {
			l.walk(el, in)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			l.walk(entry.AsMapEntry().Key(), in)
			l.walk(entry.AsMapEntry().Value(), in)
		}
	case ast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			l.walk(field.AsStructField().Value(), in)
		}
	case ast.SelectKind:
		l.walk(e.AsSelect().Operand(), in)
	}
}

func (l *linter) call(function string, operands []ast.Expr, in scope) {
	switch function {
	case "duration":
		l.durationLiteral(operands[0])
	case "version_at_least":
		if s, ok := literal(operands[1]); ok {
			if _, ok := parseVersion(s); !ok {
				l.report(operands[1], "version_at_least: %q is not a version, want a form such as 2.320.0", s)
			}
		}
	case operators.Less, operators.LessEquals:
		l.unknownIsShort(operands[0])
		l.labelCase(function, operands, in)
	case operators.Greater, operators.GreaterEquals:
		l.unknownIsShort(operands[1])
		l.labelCase(function, operands, in)
	case operators.Equals, operators.NotEquals, operators.In:
		l.status(operands)
		l.labelCase(function, operands, in)
	case "startsWith", "endsWith", "contains", "matches":
		l.labelCase(function, operands, in)
	}
}

// durationLiteral reports what time.ParseDuration, and so CEL, cannot read.
func (l *linter) durationLiteral(e ast.Expr) {
	s, ok := literal(e)
	if !ok {
		return
	}
	if _, err := time.ParseDuration(s); err == nil {
		return
	}
	if d, err := fleet.ParseDuration(s); err == nil {
		l.report(e, "duration(%q): expressions know no d and no w, write %q", s, short(d))
		return
	}
	l.report(e, "duration(%q): not a duration, want a number with a unit, such as 90s, 15m or 168h", s)
}

// unknownIsShort reports a comparison by which a runner matches for a short
// time: who writes it means runners of which the time is known.
func (l *linter) unknownIsShort(e ast.Expr) {
	if !l.match || e.Kind() != ast.SelectKind {
		return
	}
	if f := e.AsSelect().FieldName(); durationFields[f] && l.isView(e.AsSelect().Operand(), "Runner") && !l.known[f] {
		l.report(e, "runner.%s is not always known and may not be compared as short unasked: write has(runner.%s) && in front", f, f)
	}
}

// status reports a comparison of the status with a text that it never has, by
// which != would hold for every runner.
func (l *linter) status(operands []ast.Expr) {
	is := func(e ast.Expr) bool {
		return e.Kind() == ast.SelectKind && e.AsSelect().FieldName() == "status" && l.isView(e.AsSelect().Operand(), "Runner")
	}
	for i, o := range operands {
		if !is(o) || len(operands) != 2 {
			continue
		}
		others := []ast.Expr{operands[1-i]}
		if others[0].Kind() == ast.ListKind {
			others = others[0].AsList().Elements()
		}
		for _, other := range others {
			if s, ok := literal(other); ok && s != string(fleet.StatusOnline) && s != string(fleet.StatusOffline) {
				l.report(other, `runner.status is never %q: compare it with "online" or "offline"`, s)
			}
		}
	}
}

// labelCase reports a label compared with a literal that is not lower case:
// labels are lower case here, so that is never equal. It looks at what comes
// out of runner.labels directly, by index or through a macro, and at literals
// standing alone, in lists, or ranged over by a macro.
func (l *linter) labelCase(function string, operands []ast.Expr, in scope) {
	for i, o := range operands {
		if !l.labels(o, in) {
			continue
		}
		for j, other := range operands {
			if i == j {
				continue
			}
			if at, s := upper(other, in, function == "matches"); at != nil {
				l.report(at, "labels are lower case and never meet %q: write it in lower case", s)
			}
		}
	}
}

// labels tells whether e is a label or a list of labels.
func (l *linter) labels(e ast.Expr, in scope) bool {
	switch e.Kind() {
	case ast.SelectKind:
		return e.AsSelect().FieldName() == "labels" && l.isView(e.AsSelect().Operand(), "Runner")
	case ast.IdentKind:
		over, bound := in[e.AsIdent()]
		return bound && l.labels(over, without(in, e.AsIdent()))
	case ast.CallKind:
		c := e.AsCall()
		return c.FunctionName() == operators.Index && l.labels(c.Args()[0], in)
	case ast.ComprehensionKind:
		isList := l.checked.NativeRep().GetType(e.ID()).Kind() == types.ListKind
		return isList && l.labels(e.AsComprehension().IterRange(), in)
	}
	return false
}

func (l *linter) isView(e ast.Expr, name string) bool {
	return l.checked.NativeRep().GetType(e.ID()).TypeName() == name
}

var escaped = regexp.MustCompile(`\\(?:[pP]\{[^}]*\}|.)`)

// upper finds a literal with an upper-case letter in it.
func upper(e ast.Expr, in scope, pattern bool) (at ast.Expr, value string) {
	switch e.Kind() {
	case ast.LiteralKind:
		s, ok := literal(e)
		shown := s
		if pattern {
			if strings.Contains(s, "(?i") {
				return nil, ""
			}
			s = escaped.ReplaceAllString(s, "") // \S and \p{L} are no letters
		}
		if ok && strings.IndexFunc(s, unicode.IsUpper) >= 0 {
			return e, shown
		}
	case ast.ListKind:
		for _, el := range e.AsList().Elements() {
			if at, value := upper(el, in, pattern); at != nil {
				return at, value
			}
		}
	case ast.IdentKind:
		if over, bound := in[e.AsIdent()]; bound {
			return upper(over, without(in, e.AsIdent()), pattern)
		}
	}
	return nil, ""
}

// without hides a variable, so that one that ranges over itself ends.
func without(in scope, name string) scope {
	out := scope{}
	for n, over := range in {
		if n != name {
			out[n] = over
		}
	}
	return out
}

func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}
