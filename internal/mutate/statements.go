package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
)

// statements removes each statement of a list that may be removed by itself.
func (f *finder) statements(list []ast.Stmt) {
	for _, statement := range list {
		if !f.removable(statement) {
			continue
		}
		id := f.add(statement, oneLine(f.text(statement)), "removed")
		f.wrap(statement, fmt.Sprintf("if !mutate_is(%d) { ", id), " }")
	}
}

// removable reports whether a statement does something that a test may ask for.
// Returns are left out by their conditions; a declaration is needed by what
// follows; a panic says that the program is wrong, and no test reaches it.
func (f *finder) removable(statement ast.Stmt) bool {
	switch s := statement.(type) {
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		return ok && !panics(s) && !f.logs(call)
	case *ast.AssignStmt:
		return s.Tok != token.DEFINE && !slices.ContainsFunc(s.Lhs, blank)
	case *ast.DeferStmt:
		return !releases(s.Call)
	case *ast.IncDecStmt, *ast.SendStmt, *ast.GoStmt, *ast.BranchStmt:
		return true
	}
	return false
}

func blank(e ast.Expr) bool {
	name, ok := e.(*ast.Ident)
	return ok && name.Name == "_"
}

// logs reports whether a call writes to the log, which is for people.
func (f *finder) logs(call *ast.CallExpr) bool {
	method, ok := call.Fun.(*ast.SelectorExpr)
	return ok && types.TypeString(f.typeOf(method.X), nil) == "*log/slog.Logger"
}

// releases reports whether a deferred call gives back what the program would
// give back at its end as well: no answer changes without it.
func releases(call *ast.CallExpr) bool {
	name := ""
	switch function := call.Fun.(type) {
	case *ast.Ident:
		name = function.Name
	case *ast.SelectorExpr:
		name = function.Sel.Name
	}
	return slices.Contains([]string{"cancel", "stop", "Stop", "Close"}, name)
}

// leaves reports whether a list of statements ends with a way out: without it
// what follows runs too.
func leaves(list []ast.Stmt) bool {
	if len(list) == 0 {
		return false
	}
	switch last := list[len(list)-1].(type) {
	case *ast.ReturnStmt, *ast.BranchStmt:
		return true
	case *ast.ExprStmt:
		return panics(last)
	}
	return false
}

func panics(s *ast.ExprStmt) bool {
	call, ok := s.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	name, ok := call.Fun.(*ast.Ident)
	return ok && name.Name == "panic"
}
