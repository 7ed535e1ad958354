package policies

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/muster-fleet/muster/fleet"
)

// linter walks over a checked expression and reports what is of the right type
// and still cannot mean what it says.
type linter struct {
	checked *cel.Ast
	match   bool
	report  func(e ast.Expr, format string, args ...any)
	known   map[string]bool // fields of which has(…) is asked
	used    map[string]bool // filled with the params that are named

	neighbours bool // set where newer_registrations is named
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
	l.walk(root, nil)
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
		inner := scope{c.IterVar(): c.IterRange()} // macros do not nest: see environment
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
		if e.AsSelect().FieldName() == "newer_registrations" {
			l.neighbours = true
		}
		l.walk(e.AsSelect().Operand(), in)
	case ast.IdentKind:
		if name, ok := strings.CutPrefix(e.AsIdent(), "params."); ok {
			l.used[name] = true
		}
	}
}

func (l *linter) call(function string, operands []ast.Expr, in scope) {
	switch function {
	case "duration":
		l.durationLiteral(operands[0])
	case "version_at_least":
		if s, ok := l.literal(operands[1]); ok {
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
		l.words(operands, "Runner", "status", string(fleet.StatusOnline), string(fleet.StatusOffline))
		l.words(operands, "Host", "state", hostStates...)
		l.null(operands)
		l.labelCase(function, operands, in)
	case "matches":
		l.pattern(operands[1])
		l.labelCase(function, operands, in)
	case "startsWith", "endsWith", "contains":
		l.labelCase(function, operands, in)
	}
}

// durationLiteral reports what time.ParseDuration, and so CEL, cannot read.
func (l *linter) durationLiteral(e ast.Expr) {
	s, ok := l.literal(e)
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
	view, f := l.view(e.AsSelect().Operand()), e.AsSelect().FieldName()
	if slices.Contains(durationFields[view], f) && !l.known[f] {
		name := strings.ToLower(view) + "." + f
		l.report(e, "%s is not always known and may not be compared as short unasked: write has(%s) && in front", name, name)
	}
}

// pattern reports a literal or a param that is no regular expression.
func (l *linter) pattern(e ast.Expr) {
	if s, ok := l.literal(e); ok {
		if _, err := regexp.Compile(s); err != nil {
			l.report(e, "%s", badPattern)
		}
	}
}

// null reports a comparison with null, which CEL allows for durations.
func (l *linter) null(operands []ast.Expr) {
	for i, o := range operands {
		if o.Kind() == ast.LiteralKind && o.AsLiteral() == types.NullValue && len(operands) == 2 {
			l.report(operands[1-i], "nothing is null here: ask has(runner.idle_for) for what may be unknown")
		}
	}
}

// words reports a comparison of a field with a text that it never has, by
// which != would hold always.
func (l *linter) words(operands []ast.Expr, view, field string, words ...string) {
	is := func(e ast.Expr) bool {
		return e.Kind() == ast.SelectKind && e.AsSelect().FieldName() == field && l.view(e.AsSelect().Operand()) == view
	}
	for i, o := range operands {
		if !is(o) || len(operands) != 2 {
			continue
		}
		for _, other := range l.literals(operands[1-i]) {
			if !slices.Contains(words, other.text) {
				l.report(other.at, "%s.%s is never %q: compare it with %s", strings.ToLower(view), field, other.text, quoted(words))
			}
		}
	}
}

func quoted(words []string) string {
	var all []string
	for _, word := range words {
		all = append(all, strconv.Quote(word))
	}
	return strings.Join(all, " or ")
}

// labelCase reports a label compared with a literal that is not lower case:
// labels are lower case here, so that is never equal. It looks at what comes
// out of runner.labels directly, by index or through a macro, and at literals
// standing alone, in lists, or ranged over by a macro.
func (l *linter) labelCase(function string, operands []ast.Expr, in scope) {
	for _, o := range operands {
		if !l.labels(o, in) {
			continue
		}
		for _, other := range operands {
			if at, s := l.upper(other, in, function == "matches"); at != nil {
				l.report(at, "labels are lower case and never meet %q: write it in lower case", s)
			}
		}
	}
}

// labels tells whether e is a label or a list of labels.
func (l *linter) labels(e ast.Expr, in scope) bool {
	switch e.Kind() {
	case ast.SelectKind:
		return e.AsSelect().FieldName() == "labels" && l.view(e.AsSelect().Operand()) == "Runner"
	case ast.IdentKind:
		over, bound := in[e.AsIdent()]
		return bound && l.labels(over, nil)
	case ast.CallKind:
		c := e.AsCall()
		return c.FunctionName() == operators.Index && l.labels(c.Args()[0], in)
	case ast.ComprehensionKind:
		return l.labels(e.AsComprehension().IterRange(), in)
	}
	return false
}

// view is the name of a view's type, or of whatever e is.
func (l *linter) view(e ast.Expr) string {
	return l.checked.NativeRep().GetType(e.ID()).TypeName()
}

var escaped = regexp.MustCompile(`\\(?:[pP]\{[^}]*\}|.)`)

// upper finds a literal with an upper-case letter in it.
func (l *linter) upper(e ast.Expr, in scope, pattern bool) (at ast.Expr, value string) {
	if e.Kind() == ast.IdentKind {
		if over, bound := in[e.AsIdent()]; bound {
			return l.upper(over, nil, pattern)
		}
	}
	for _, found := range l.literals(e) {
		s := found.text
		if pattern {
			if strings.Contains(s, "(?i") {
				continue
			}
			s = escaped.ReplaceAllString(s, "") // \S and \p{L} are no letters
		}
		if strings.IndexFunc(s, unicode.IsUpper) >= 0 {
			return found.at, found.text
		}
	}
	return nil, ""
}

// constant is the value of a literal or of a param; nil where e is neither.
func (l *linter) constant(e ast.Expr) ref.Val {
	switch e.Kind() {
	case ast.LiteralKind:
		return e.AsLiteral()
	case ast.IdentKind:
		if reference := l.checked.NativeRep().ReferenceMap()[e.ID()]; reference != nil {
			return reference.Value
		}
	}
	return nil
}

// literal is the text that e is, in the expression itself or among the params.
func (l *linter) literal(e ast.Expr) (string, bool) {
	s, ok := l.constant(e).(types.String)
	return string(s), ok
}

// text is a literal and where it stands.
type text struct {
	at   ast.Expr
	text string
}

// literals are the texts that e is, or that a list holds.
func (l *linter) literals(e ast.Expr) []text {
	if s, ok := l.literal(e); ok {
		return []text{{e, s}}
	}
	var all []text
	if e.Kind() == ast.ListKind {
		for _, el := range e.AsList().Elements() {
			all = append(all, l.literals(el)...)
		}
	}
	if list, ok := l.constant(e).(traits.Lister); ok {
		for it := list.Iterator(); it.HasNext() == types.True; {
			if s, ok := it.Next().(types.String); ok {
				all = append(all, text{e, string(s)})
			}
		}
	}
	return all
}
