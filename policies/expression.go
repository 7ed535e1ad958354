package policies

import (
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types/ref"
	"github.com/goccy/go-yaml/ast"
)

// maxCost bounds an expression by CEL's static estimate: a millisecond for one
// runner, by Kubernetes' measure of 0.1 s for a cost of 1,000,000
// (apiserver/pkg/apis/cel/config.go). The estimate holds for runners within
// maxLabels and maxShown, and no other is evaluated; CEL's own limit at run time
// would count every step, which makes evaluation twice as slow.
const maxCost = 10_000

// maxExpression bounds an expression, in bytes.
const maxExpression = 16 << 10

// compiled is an expression that passed all checks.
type compiled struct {
	program cel.Program
	// constant is true or false where the expression is that whatever the
	// runner, else nil.
	constant ref.Val
	// neighbours tells that it asks for what lies beyond one runner.
	neighbours bool
	// env and checked are what program was made of, to read it by its parts.
	env     *cel.Env
	checked *cel.Ast
}

// compile checks the expression in n. What is wrong with it is reported at its
// place in the file; then, and where n is nil, the answer is nil.
func (f *file) compile(path string, n ast.Node, in language, match bool) *compiled {
	var source string
	if b, ok := n.(*ast.BoolNode); ok {
		source = b.GetToken().Value
	} else if text, ok := f.text(path, n); ok {
		source = strings.TrimRight(text, " \t\n")
	} else {
		return nil
	}
	if len(source) > maxExpression {
		f.fault(n, "%s: %d bytes are too long for an expression, %d is the most", path, len(source), maxExpression)
		return nil
	}
	if strings.TrimSpace(source) == "" {
		f.fault(n, "%s: the expression is empty: write one, or leave the key out", path)
		return nil
	}
	env := in.env
	x := &expression{file: f, path: path, node: n, source: source, lines: strings.Split(source, "\n"), params: in.names()}

	parsed, issues := env.Parse(source)
	if issues.Err() != nil {
		// The first is the fault, what follows comes of it.
		x.issues(issues.Errors()[:1])
		return nil
	}
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		x.issues(issues.Errors())
		return nil
	}
	if checked.OutputType() != cel.BoolType {
		f.fault(n, "%s: the expression gives %s, want true or false; in: %s", path, cel.FormatCELType(checked.OutputType()), x.line(1))
		return nil
	}
	before := len(f.faults)
	info := checked.NativeRep().SourceInfo()
	l := &linter{checked: checked, match: match, used: in.used, report: func(e celast.Expr, format string, args ...any) {
		x.fault(info.GetStartLocation(e.ID()), format, args...)
	}}
	l.lint()
	if len(f.faults) > before {
		return nil
	}
	estimate, err := env.EstimateCost(checked, sizes{in.params})
	if err != nil || estimate.Max > maxCost {
		f.fault(n, "%s: the expression may cost %d steps for one runner, %d is the most: walk over labels once, join fewer conditions", path, estimate.Max, maxCost)
		return nil
	}
	program, err := env.Program(checked)
	if err != nil {
		f.fault(n, "%s: %v", path, err)
		return nil
	}
	return &compiled{program: program, constant: fold(in, checked), neighbours: l.neighbours, env: env, checked: checked}
}

// fold gives what an expression is whatever the runner; nil where it depends
// on the runner, and where that cannot be told.
func fold(in language, checked *cel.Ast) ref.Val {
	var options []cel.ConstantFoldingOption
	if len(in.params) > 0 { // it costs
		options = append(options, cel.FoldKnownValues(cel.NoVars()))
	}
	folding, err := cel.NewConstantFoldingOptimizer(options...)
	if err != nil {
		return nil
	}
	optimizer, err := cel.NewStaticOptimizer(folding)
	if err != nil {
		return nil
	}
	folded, issues := optimizer.Optimize(in.env, checked)
	if issues.Err() != nil {
		return nil
	}
	if e := folded.NativeRep().Expr(); e.Kind() == celast.LiteralKind {
		return e.AsLiteral()
	}
	return nil
}

// expression is an expression on its way through the checks.
type expression struct {
	file   *file
	path   string
	node   ast.Node
	source string
	lines  []string
	params string  // names of what params has, for messages
	found  []place // of the runes of source; filled at the first fault
	looked bool
}

// line gives one line of the source, from 1.
func (x *expression) line(n int) string {
	if n < 1 || n > len(x.lines) {
		return ""
	}
	return strings.TrimSpace(x.lines[n-1])
}

// fault reports at a place in the expression, with its line.
func (x *expression) fault(at common.Location, format string, args ...any) {
	if !x.looked {
		x.found, x.looked = x.file.places(x.node, x.source), true
	}
	line, col := start(x.node)
	offset := max(at.Column(), 0) // CEL has no column for some faults in macros
	for _, l := range x.lines[:min(max(at.Line()-1, 0), len(x.lines))] {
		offset += len([]rune(l)) + 1
	}
	if n := len(x.found); n > 0 && at.Line() > 0 {
		line, col = x.found[min(offset, n-1)].line, x.found[min(offset, n-1)].col
		if offset >= n {
			col++ // behind the last rune
		}
	}
	x.file.faultAt(line, col, "%s: "+format+"; in: %s", append(append([]any{x.path}, args...), x.line(at.Line()))...)
}

// issues reports CEL's findings with what to do about them.
func (x *expression) issues(found []*common.Error) {
	for _, issue := range found {
		x.fault(issue.Location, "%s", x.remedy(strings.TrimPrefix(issue.Message, "Syntax error: "), issue.Location))
	}
}
