package policies

import (
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"github.com/goccy/go-yaml/ast"
)

// maxCost bounds an expression by CEL's static estimate: a millisecond for one
// runner, by Kubernetes' measure of 0.1 s for a cost of 1,000,000
// (apiserver/pkg/apis/cel/config.go).
const maxCost = 10_000

// maxExpression bounds an expression, in bytes.
const maxExpression = 16 << 10

// compiled is an expression that passed all checks.
type compiled struct {
	program cel.Program
	// always is true where the expression is true whatever the runner.
	always bool
}

// compile checks the expression in n. What is wrong with it is reported at its
// place in the file; then, and where n is nil, the answer is nil.
func (f *file) compile(path string, n ast.Node, match bool) *compiled {
	if n == nil {
		return nil
	}
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
	env, err := environment()
	if err != nil {
		f.fault(n, "%s: set up CEL: %v", path, err)
		return nil
	}
	x := &expression{file: f, path: path, node: n, source: source, lines: strings.Split(source, "\n")}

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
	(&linter{checked: checked, match: match, report: func(e celast.Expr, format string, args ...any) {
		x.fault(info.GetStartLocation(e.ID()), format, args...)
	}}).lint()
	if len(f.faults) > before {
		return nil
	}
	estimate, err := env.EstimateCost(checked, sizes{})
	if err != nil || estimate.Max > maxCost {
		f.fault(n, "%s: the expression may cost %d steps for one runner, %d is the most: walk over labels once, join fewer conditions", path, estimate.Max, maxCost)
		return nil
	}
	program, err := env.Program(checked)
	if err != nil {
		f.fault(n, "%s: %v", path, err)
		return nil
	}
	return &compiled{program: program, always: isAlwaysTrue(env, checked)}
}

// isAlwaysTrue folds constants. Where that cannot be done it is not.
func isAlwaysTrue(env *cel.Env, checked *cel.Ast) bool {
	folding, err := cel.NewConstantFoldingOptimizer()
	if err != nil {
		return false
	}
	optimizer, err := cel.NewStaticOptimizer(folding)
	if err != nil {
		return false
	}
	folded, issues := optimizer.Optimize(env, checked)
	if issues.Err() != nil {
		return false
	}
	e := folded.NativeRep().Expr()
	return e.Kind() == celast.LiteralKind && e.AsLiteral() == types.True
}

// expression is an expression on its way through the checks.
type expression struct {
	file   *file
	path   string
	node   ast.Node
	source string
	lines  []string
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

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']*)'`)
	noField    = regexp.MustCompile(`^undefined field '([^']*)'`)
)

// laterNames are variables that expressions are promised and do not have yet.
var laterNames = map[string]bool{"host": true, "params": true}

// expecting is the tail of a syntax fault: every token there could be.
var expecting = regexp.MustCompile(` expecting \{.*\}$`)

// issues reports CEL's findings with what to do about them.
func (x *expression) issues(found []*common.Error) {
	for _, issue := range found {
		x.fault(issue.Location, "%s", remedy(strings.TrimPrefix(issue.Message, "Syntax error: ")))
	}
}

// remedy puts CEL's message in words that say what to do.
func remedy(message string) string {
	name := func(form *regexp.Regexp) string {
		if m := form.FindStringSubmatch(message); m != nil {
			return m[1]
		}
		return ""
	}
	switch {
	case laterNames[name(undeclared)]:
		return name(undeclared) + " is not there yet: use runner and target"
	case name(undeclared) == "now", name(undeclared) == "timestamp":
		return name(undeclared) + " is unknown: use durations such as runner.offline_for and runner.age"
	case name(undeclared) != "":
		return "'" + name(undeclared) + "' is unknown: there are runner, target, version_at_least and CEL's own functions and macros"
	case name(noField) != "":
		return "the field '" + name(noField) + "' is unknown: a runner has " + runnerFields + "; a target has name, scope"
	case message == "invalid matches argument":
		return "the pattern is not a regular expression: write one in RE2's syntax"
	case message == "comprehension exceeds nesting limit":
		return "a macro (exists, all, map, filter) within or after another costs too much: use one at a time"
	case strings.HasPrefix(message, "mismatched input '<EOF>'"):
		return "the expression ends too early"
	case strings.HasPrefix(message, "token recognition error at: '= "):
		return "= is no operator: compare with =="
	}
	return expecting.ReplaceAllString(message, "")
}
