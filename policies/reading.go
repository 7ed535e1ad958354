package policies

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/parser"

	"github.com/muster-fleet/muster/fleet"
)

// Answer is what an expression says of a runner.
type Answer string

const (
	AnswerYes     Answer = "yes"
	AnswerNo      Answer = "no"
	AnswerUnknown Answer = "unknown" // it rests on something that is not known
	AnswerError   Answer = "error"
)

// Reading is what an expression of a policy says of one runner, clause by
// clause.
type Reading struct {
	Name    string // of the exemption; empty: match
	Answer  Answer
	Clauses []Clause
}

// Clause is an operand of an expression's outermost && or ||, or all of it
// where it has none.
type Clause struct {
	Text    string // as CEL writes it
	Answer  Answer
	Decides bool // it alone would make the answer what it is, or all that do together
	// Known are the things that it names and what they are, such as
	// runner.status = "offline"; for an error, what it is.
	Known []string
}

// Read evaluates the policy's match and its exemptions on a runner, by their
// clauses: with the programs and on the variables that Decide has. newer is the
// runner's count in [fleet.Neighbours]. A policy that matches always has no
// match to read.
func (p *Policy) Read(r *fleet.Observed, newer int, target fleet.TargetState, now time.Time) []Reading {
	vars := &activation{target: viewOf(target)}
	vars.observe(r, newer, now)
	var all []Reading
	if err := oversized(r); err != nil {
		return []Reading{{Answer: AnswerError, Clauses: []Clause{{Text: "match", Answer: AnswerError, Decides: true, Known: []string{err.Error()}}}}}
	}
	if p.match != nil {
		all = append(all, p.match.read("", vars))
	}
	for _, x := range p.exempt {
		all = append(all, x.read(x.name, vars))
	}
	return all
}

func (c *compiled) read(name string, vars *activation) Reading {
	whole, _ := answerOf(c.program, vars)
	reading := Reading{Name: name, Answer: whole}
	_, operands := split(c.checked.NativeRep().Expr())
	for _, e := range operands {
		clause := Clause{Answer: AnswerError, Known: vars.known(e)}
		text, program, err := c.part(e)
		if clause.Text = text; err == nil {
			clause.Answer, err = answerOf(program, vars)
		}
		if err != nil {
			clause.Known = append(clause.Known, err.Error())
		}
		clause.Decides = clause.Answer == whole
		reading.Clauses = append(reading.Clauses, clause)
	}
	return reading
}

// part compiles one clause as the whole was.
func (c *compiled) part(e celast.Expr, options ...cel.ProgramOption) (string, cel.Program, error) {
	text, err := parser.Unparse(e, c.checked.NativeRep().SourceInfo())
	if err != nil {
		return "", nil, err
	}
	checked, issues := c.env.Compile(text)
	if issues.Err() != nil {
		return text, nil, issues.Err()
	}
	program, err := c.env.Program(checked, options...)
	return text, program, err
}

// split gives the operands of an expression's outermost && or ||, chains of the
// same operator as one.
func split(e celast.Expr) (operator string, operands []celast.Expr) {
	if e.Kind() == celast.CallKind {
		if name := e.AsCall().FunctionName(); name == operators.LogicalAnd || name == operators.LogicalOr {
			operator = name
		}
	}
	if operator == "" {
		return "", []celast.Expr{e}
	}
	for _, arg := range e.AsCall().Args() {
		if inner, parts := split(arg); inner == operator {
			operands = append(operands, parts...)
			continue
		}
		operands = append(operands, arg)
	}
	return operator, operands
}

func answerOf(p cel.Program, vars *activation) (Answer, error) {
	switch answer, _, err := evaluate(p, vars); {
	case err != nil:
		return AnswerError, err
	case answer == unknown:
		return AnswerUnknown, nil
	case answer == yes:
		return AnswerYes, nil
	}
	return AnswerNo, nil
}

// known are the fields that an expression names, with their values.
func (a *activation) known(e celast.Expr) []string {
	var shown []string
	celast.PostOrderVisit(e, celast.NewExprVisitor(func(e celast.Expr) {
		variable, field := e.AsSelect().Operand().AsIdent(), e.AsSelect().FieldName()
		value, ok := a.value(variable, field)
		text := fmt.Sprintf("%s.%s = %s", variable, field, value)
		if ok && !slices.Contains(shown, text) {
			shown = append(shown, text)
		}
	}))
	return shown
}

// value is a field as people read it; false where there is none of that name.
func (a *activation) value(variable, field string) (string, bool) {
	at := a.at(variable, field)
	if !at.IsValid() {
		return "", false
	}
	switch x := at.Interface().(type) {
	case *time.Duration:
		if x == nil {
			return "unknown", true
		}
		return short(x.Truncate(time.Second)), true
	case *int64:
		if x == nil {
			return "unknown", true
		}
		return strconv.FormatInt(*x, 10), true
	case *bool:
		if x == nil {
			return "unknown", true
		}
		return strconv.FormatBool(*x), true
	case []string:
		if len(x) == 0 {
			return "unknown", true
		}
		return "[" + strings.Join(x, ", ") + "]", true
	case string:
		if x == "" && unknownFields[variable+"."+field] != nil {
			return "unknown", true
		}
		return strconv.Quote(x), true
	default:
		return fmt.Sprint(x), true
	}
}
