package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// finder walks a package and notes each mutant with the edits that make it.
type finder struct {
	source  *source
	mutants []*mutant
	edits   map[*file][]grouped
	groups  int
	seen    map[string]int

	// Of the walk:
	file     *file
	function string
	imports  map[string]string // the names of packages that edits import, by path
}

// grouped is an edit of one group of mutants.
type grouped struct {
	edit
	group int
}

// find gives all mutants of a package.
func find(s *source) *finder {
	f := &finder{source: s, edits: map[*file][]grouped{}, seen: map[string]int{}}
	for _, each := range s.files {
		f.file, f.imports = each, map[string]string{}
		for _, decl := range each.syntax.Decls {
			f.function = nameOf(decl)
			ast.Inspect(decl, f.visit)
		}
	}
	return f
}

// nameOf names a declaration as people do.
func nameOf(decl ast.Decl) string {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil || len(d.Recv.List) == 0 {
			return d.Name.Name
		}
		receiver := d.Recv.List[0].Type
		if star, ok := receiver.(*ast.StarExpr); ok {
			receiver = star.X
		}
		if generic, ok := receiver.(*ast.IndexExpr); ok {
			receiver = generic.X
		}
		if name, ok := receiver.(*ast.Ident); ok {
			return name.Name + "." + d.Name.Name
		}
		return d.Name.Name
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			if v, ok := spec.(*ast.ValueSpec); ok {
				return d.Tok.String() + " " + v.Names[0].Name
			}
		}
	}
	return "declaration"
}

func (f *finder) visit(n ast.Node) bool {
	if e, ok := n.(ast.Expr); ok && f.constantValue(e) != nil {
		f.constant(e)
		return false
	}
	switch n := n.(type) {
	case *ast.GenDecl:
		switch n.Tok {
		case token.IMPORT, token.TYPE:
			return false
		case token.CONST:
			f.constants(n)
			return false
		}
	case *ast.ArrayType:
		return false // its length is part of the type
	case *ast.BlockStmt:
		f.statements(n.List)
	case *ast.CaseClause:
		f.statements(n.Body)
	case *ast.CommClause:
		f.statements(n.Body)
	case *ast.IfStmt:
		if leaves(n.Body.List) {
			f.never(n.Cond)
		}
		f.condition(n.Cond)
	case *ast.ForStmt:
		f.condition(n.Cond)
	case *ast.SwitchStmt:
		if n.Tag == nil {
			f.cases(n)
		}
	case *ast.ReturnStmt:
		return f.returns(n)
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			f.condition(n.X)
		}
	case *ast.BinaryExpr:
		f.binary(n)
	case *ast.CallExpr:
		return f.call(n)
	}
	return true
}

// returns reports whether the walk goes on in it. The last result tells whether
// there is an answer; beside a false or an error nobody reads the others.
func (f *finder) returns(n *ast.ReturnStmt) bool {
	for _, e := range n.Results {
		if f.isBool(e) {
			f.condition(e)
		}
	}
	if len(n.Results) < 2 {
		return true
	}
	last := n.Results[len(n.Results)-1]
	value := f.constantValue(last)
	failed := value != nil && value.Kind() == constant.Bool && !constant.BoolVal(value) || f.isError(last)
	for _, e := range n.Results {
		if !failed || e == last || f.constantValue(e) == nil {
			ast.Inspect(e, f.visit)
		}
	}
	return false
}

// isError reports whether e is an error that is not nil.
func (f *finder) isError(e ast.Expr) bool {
	return types.Identical(f.typeOf(e), types.Universe.Lookup("error").Type())
}

// call reports whether the walk goes on in it. The capacity of a map or slice
// changes no answer.
func (f *finder) call(n *ast.CallExpr) bool {
	name, ok := n.Fun.(*ast.Ident)
	if !ok || name.Name != "make" || len(n.Args) < 2 {
		return true
	}
	if _, ok := f.typeOf(n).Underlying().(*types.Map); !ok {
		ast.Inspect(n.Args[1], f.visit)
	}
	return false
}

// cases treats the conditions of a switch without a tag.
func (f *finder) cases(n *ast.SwitchStmt) {
	for _, clause := range n.Body.List {
		for _, e := range clause.(*ast.CaseClause).List {
			f.never(e)
			f.condition(e)
		}
	}
}

// never has a condition fail: what it guards is left out. Errors that are
// passed on are no guard: the negated condition is enough for them.
func (f *finder) never(e ast.Expr) {
	if f.constantValue(e) != nil || f.passesError(e) {
		return
	}
	id := f.add(e, oneLine(f.text(e)), "false")
	f.wrap(e, fmt.Sprintf("mutate_never(%d, ", id), ")")
}

// passesError reports whether e is err != nil.
func (f *finder) passesError(e ast.Expr) bool {
	b, ok := e.(*ast.BinaryExpr)
	if !ok || b.Op != token.NEQ {
		return false
	}
	y, ok := b.Y.(*ast.Ident)
	return ok && y.Name == "nil" && f.isError(b.X)
}

// condition negates a condition that is no comparison and has no parts: those
// have mutants of their own.
func (f *finder) condition(e ast.Expr) {
	if e == nil || f.constantValue(e) != nil {
		return
	}
	switch e := e.(type) {
	case *ast.ParenExpr:
		f.condition(e.X)
	case *ast.BinaryExpr:
	case *ast.UnaryExpr:
	default:
		f.negate(e, "!"+oneLine(f.text(e)))
	}
}

func (f *finder) negate(e ast.Expr, after string) {
	id := f.add(e, oneLine(f.text(e)), after)
	f.wrap(e, fmt.Sprintf("mutate_not(%d, ", id), ")")
}

func (f *finder) binary(n *ast.BinaryExpr) {
	x, y := oneLine(f.text(n.X)), oneLine(f.text(n.Y))
	with := func(op string) string { return x + " " + op + " " + y }
	op := n.Op.String()
	switch n.Op {
	case token.LAND, token.LOR:
		other, function := "||", "mutate_and"
		if n.Op == token.LOR {
			other, function = "&&", "mutate_or"
		}
		id := f.add(n, with(op), with(other))
		f.wrap(n, fmt.Sprintf("%s(%d, ", function, id), ") })")
		f.replace(n.OpPos, op, ", func() bool { return (")
		f.condition(n.X)
		f.condition(n.Y)
	case token.EQL, token.NEQ:
		f.negate(n, with(opposite[n.Op]))
	case token.LSS, token.LEQ, token.GTR, token.GEQ:
		id := f.add(n, with(op), with(boundary[n.Op]))
		f.join(n, with(op), with(opposite[n.Op]))
		f.wrap(n, fmt.Sprintf("mutate_compare(%d, %q, ", id, op), ")")
		f.replace(n.OpPos, op, ",")
	case token.ADD, token.SUB, token.MUL, token.QUO:
		basic, ok := f.typeOf(n).Underlying().(*types.Basic)
		if !ok || basic.Info()&types.IsNumeric == 0 {
			return
		}
		id := f.add(n, with(op), with(opposite[n.Op]))
		f.wrap(n, fmt.Sprintf("mutate_arithmetic(%d, %q, ", id, op), ")")
		f.replace(n.OpPos, op, ",")
	}
}

var boundary = map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">"}

var opposite = map[token.Token]string{
	token.EQL: "!=", token.NEQ: "==",
	token.LSS: ">=", token.LEQ: ">", token.GTR: "<=", token.GEQ: "<",
	token.ADD: "-", token.SUB: "+", token.MUL: "/", token.QUO: "*",
}

// constants has the constants of a declaration become variables where their
// values have literals. One that has to stay a constant is found by the check
// of types, and left out.
func (f *finder) constants(n *ast.GenDecl) {
	for _, spec := range n.Specs {
		if len(spec.(*ast.ValueSpec).Values) == 0 {
			return // iota counts them
		}
	}
	function, before := f.function, len(f.mutants)
	f.groups++
	group := f.groups
	for _, spec := range n.Specs {
		v := spec.(*ast.ValueSpec)
		for i, e := range v.Values {
			f.function = "const " + v.Names[i].Name
			f.alternatives(e, f.typeOfConstant(v.Names[i]), group)
		}
	}
	f.function = function
	if len(f.mutants) > before {
		f.edit(edit{f.offset(n.TokPos), f.offset(n.TokPos) + len("const"), replacing, "var"}, group)
	}
}

// typeOfConstant is the type that a constant has as a variable: its own, or
// that of its uses.
func (f *finder) typeOfConstant(name *ast.Ident) types.Type {
	object := f.source.info.Defs[name]
	if object == nil {
		return nil
	}
	if !untyped(object.Type()) {
		return object.Type()
	}
	for use, of := range f.source.info.Uses {
		if of != object {
			continue
		}
		if t := f.typeOf(use); !untyped(t) {
			return t
		}
	}
	return types.Default(object.Type())
}

// constant changes the numbers of an expression that is constant.
func (f *finder) constant(e ast.Expr) {
	if name, ok := e.(*ast.Ident); ok {
		if other := map[string]string{"true": "false", "false": "true"}[name.Name]; other != "" {
			id := f.addLine(e, e, other)
			f.wrap(e, fmt.Sprintf("mutate_not(%d, ", id), ")")
		}
		return
	}
	f.groups++
	f.alternatives(e, f.typeOf(e), f.groups)
}

// alternatives offers other values for the constant expression e: its first
// integer is one more, and one less.
func (f *finder) alternatives(e ast.Expr, t types.Type, group int) {
	name := f.typeName(t)
	if name == "" {
		return
	}
	text, from := f.text(e), f.offset(e.Pos())
	var first int
	var others strings.Builder
	ast.Inspect(e, func(n ast.Node) bool {
		if _, ok := n.(*ast.FuncLit); ok {
			return false
		}
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.INT || first > 0 {
			return true
		}
		value, ok := constant.Int64Val(constant.MakeFromLiteral(literal.Value, token.INT, 0))
		if !ok {
			return true
		}
		at := f.offset(literal.Pos()) - from
		for _, other := range [...]int64{value + 1, value - 1} {
			if other < 0 {
				continue
			}
			number := strconv.FormatInt(other, 10)
			id := f.addLine(e, literal, number)
			f.mutants[id-1].group = group
			if first == 0 {
				first = id
			}
			fmt.Fprintf(&others, ", %s%s%s", text[:at], number, text[at+len(literal.Value):])
		}
		return true
	})
	if first == 0 {
		return
	}
	open := fmt.Sprintf("mutate_constant[%s](%d, ", name, first)
	f.edit(edit{from, from, opening, open}, group)
	end := f.offset(e.End())
	f.edit(edit{end, end, closing, others.String() + ")"}, group)
}

// typeName writes a type as the file may, with imports of its own; empty where
// it cannot.
func (f *finder) typeName(t types.Type) string {
	if t == nil || untyped(t) {
		return ""
	}
	if named, ok := t.(*types.Named); ok && named.Obj().Pkg() != nil && named.Obj().Pkg() != f.source.pkg && !named.Obj().Exported() {
		return ""
	}
	return types.TypeString(t, func(p *types.Package) string {
		if p == f.source.pkg {
			return ""
		}
		name, ok := f.imports[p.Path()]
		if !ok {
			name = "mutate_" + path.Base(p.Path()) + strconv.Itoa(len(f.imports))
			f.imports[p.Path()] = name
			end := f.offset(f.file.syntax.Name.End())
			f.edit(edit{end, end, closing, fmt.Sprintf("; import %s %q", name, p.Path())}, 0)
			f.edit(edit{len(f.file.text), len(f.file.text), closing, fmt.Sprintf("\ntype _ = %s.%s\n", name, exported(p))}, 0)
		}
		return name
	})
}

// exported gives a type of the package, so that its import is used.
func exported(p *types.Package) string {
	for _, name := range p.Scope().Names() {
		if t, ok := p.Scope().Lookup(name).(*types.TypeName); ok && t.Exported() {
			return name
		}
	}
	return ""
}

func untyped(t types.Type) bool {
	basic, ok := t.(*types.Basic)
	return ok && basic.Info()&types.IsUntyped != 0
}

// add notes a mutant in a group of its own and gives its number.
func (f *finder) add(at ast.Node, before, after string) int {
	f.groups++
	return f.note(at, before, after)
}

// join notes one more mutant of the newest group.
func (f *finder) join(at ast.Node, before, after string) { f.note(at, before, after) }

// addLine notes a mutant that is shown by its whole line: a number alone says
// little.
func (f *finder) addLine(at, part ast.Node, after string) int {
	start, end := f.offset(part.Pos()), f.offset(part.End())
	text := f.file.text
	from := strings.LastIndexByte(string(text[:start]), '\n') + 1
	to := len(text)
	if n := strings.IndexByte(string(text[end:]), '\n'); n >= 0 {
		to = end + n
	}
	if n := strings.Index(string(text[end:to]), " // "); n >= 0 {
		to = end + n // a comment may change
	}
	line := oneLine(text[from:to])
	changed := oneLine([]byte(string(text[from:start]) + after + string(text[end:to])))
	return f.add(at, line, changed)
}

func (f *finder) note(at ast.Node, before, after string) int {
	m := &mutant{
		id: len(f.mutants) + 1, position: f.source.fset.Position(at.Pos()),
		file:     path.Join(f.source.folder, filepath.Base(f.file.path)),
		function: f.function, before: before, after: after, group: f.groups,
	}
	f.seen[m.key()]++
	m.same = f.seen[m.key()]
	f.mutants = append(f.mutants, m)
	return m.id
}

// wrap puts text before and after a node, for the newest group.
func (f *finder) wrap(n ast.Node, before, after string) {
	start, end := f.offset(n.Pos()), f.offset(n.End())
	f.edit(edit{start, start, opening, before}, f.groups)
	f.edit(edit{end, end, closing, after}, f.groups)
}

func (f *finder) replace(at token.Pos, old, text string) {
	start := f.offset(at)
	f.edit(edit{start, start + len(old), replacing, text}, f.groups)
}

func (f *finder) edit(e edit, group int) {
	f.edits[f.file] = append(f.edits[f.file], grouped{e, group})
}

func (f *finder) offset(p token.Pos) int { return f.source.fset.Position(p).Offset }

func (f *finder) text(n ast.Node) []byte {
	return f.file.text[f.offset(n.Pos()):f.offset(n.End())]
}

func (f *finder) typeOf(e ast.Expr) types.Type {
	if t := f.source.info.TypeOf(e); t != nil {
		return t
	}
	return types.Typ[types.Invalid]
}

func (f *finder) constantValue(e ast.Expr) constant.Value { return f.source.info.Types[e].Value }

func (f *finder) isBool(e ast.Expr) bool {
	basic, ok := f.typeOf(e).Underlying().(*types.Basic)
	return ok && basic.Info()&types.IsBoolean != 0
}
