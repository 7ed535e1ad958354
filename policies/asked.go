package policies

import (
	"cmp"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// asked is a field that expressions ask for, and the constants that they
// compare it with.
type asked struct {
	variable, field string
	// plain reports that every use compares the field with constants, asks
	// whether it is known, or takes it for a condition. Then its values that
	// make a difference can be listed; else it stays open.
	plain   bool
	texts   []string
	numbers []int64 // of a duration: nanoseconds
}

func (f *asked) name() string { return f.variable + "." + f.field }

// askedFields finds the fields that expressions ask for, by name.
type askedFields map[string]*asked

// gather adds the fields of one expression.
func (all askedFields) gather(c *compiled) {
	all.walk(c, c.checked.NativeRep().Expr(), true)
}

// walk visits e, which stands for a condition or not.
func (all askedFields) walk(c *compiled, e celast.Expr, condition bool) {
	switch e.Kind() {
	case celast.CallKind:
		all.call(c, e)
	case celast.SelectKind:
		if variable, ok := variableOf(e); ok {
			all.use(variable, e.AsSelect().FieldName(), condition || e.AsSelect().IsTestOnly(), nil)
			return
		}
		all.walk(c, e.AsSelect().Operand(), false)
	case celast.IdentKind:
		// All of the variable is asked for.
		if names, ok := fields[e.AsIdent()]; ok {
			for field := range strings.SplitSeq(names, ", ") {
				all.use(e.AsIdent(), field, false, nil)
			}
		}
	case celast.ComprehensionKind:
		x := e.AsComprehension()
		for _, part := range []celast.Expr{x.IterRange(), x.AccuInit(), x.LoopCondition(), x.LoopStep(), x.Result()} {
			all.walk(c, part, false)
		}
	case celast.ListKind:
		for _, element := range e.AsList().Elements() {
			all.walk(c, element, false)
		}
	case celast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			all.walk(c, entry.AsMapEntry().Key(), false)
			all.walk(c, entry.AsMapEntry().Value(), false)
		}
	case celast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			all.walk(c, field.AsStructField().Value(), false)
		}
	}
}

func (all askedFields) call(c *compiled, e celast.Expr) {
	call := e.AsCall()
	operands := call.Args()
	if call.IsMemberFunction() {
		operands = append([]celast.Expr{call.Target()}, operands...)
	}
	logic, compares, orders := false, false, false
	switch call.FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional:
		logic = true
	case operators.Equals, operators.NotEquals, operators.In:
		compares = true
	case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		compares = true
		orders = true
	}
	for i, operand := range operands {
		variable, ok := variableOf(operand)
		if compares && ok {
			constant := c.constantOf(operands[1-i])
			field := operand.AsSelect().FieldName()
			all.use(variable, field, constant != nil, constant)
			if orders {
				all.order(variable, field)
			}
			continue
		}
		all.walk(c, operand, logic)
	}
}

// variableOf names the variable of which e is a field. CEL gives an empty name
// for the parts of an expression of another kind.
func variableOf(e celast.Expr) (string, bool) {
	name := e.AsSelect().Operand().AsIdent()
	_, ok := fields[name]
	return name, ok
}

// use notes one use of a field, and the constant that it is compared with.
func (all askedFields) use(variable, field string, plain bool, constant ref.Val) {
	f := all[variable+"."+field]
	if f == nil {
		f = &asked{variable: variable, field: field, plain: true}
		all[f.name()] = f
	}
	f.plain = f.plain && plain
	f.note(constant)
}

// order notes that a field is compared by order with constants. Of a text no list
// of values tells all: there are others before the first constant and between two.
func (all askedFields) order(variable, field string) {
	f := all[variable+"."+field]
	_, text := (&activation{}).at(variable, field).Interface().(string)
	f.plain = f.plain && !text
}

func (f *asked) note(constant ref.Val) {
	switch v := constant.(type) {
	case types.String:
		f.texts = append(f.texts, string(v))
	case types.Int:
		f.numbers = append(f.numbers, int64(v))
	case types.Duration:
		f.numbers = append(f.numbers, int64(v.Duration))
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			f.note(it.Next())
		}
	}
}

// constantOf is the value of an expression that needs no variable; nil where it
// needs one, or has no value.
func (c *compiled) constantOf(e celast.Expr) ref.Val {
	_, program, err := c.part(e)
	if err != nil {
		return nil
	}
	out, _, err := program.Eval(cel.NoVars())
	if err != nil {
		return nil
	}
	return out
}

// values lists the values of a field that make a difference: its constants, a
// value of each span between them, and nil for a field that is not known. The
// answer is nil where they cannot be listed.
func (f *asked) values(p *Policy) []any {
	if !f.plain {
		return nil
	}
	var all []any
	switch (&activation{}).at(f.variable, f.field).Interface().(type) {
	case bool:
		return []any{false, true}
	case string:
		if f.name() == "target.name" {
			for _, name := range p.Targets {
				all = append(all, name)
			}
			return all
		}
		all = append(all, nil, another(f.texts))
		for _, text := range f.texts {
			all = append(all, text)
		}
	case *bool:
		return []any{nil, false, true}
	case *time.Duration, *int64:
		all = append(all, nil)
		for _, n := range f.around() {
			all = append(all, n)
		}
	}
	return all
}

// around gives 0, and the constants of a number with the values right above
// them: one of each span between two constants. None is below 0: no field is.
func (f *asked) around() []int64 {
	all := []int64{0}
	for _, n := range f.numbers {
		if n < 0 {
			continue
		}
		all = append(all, n)
		if n < math.MaxInt64 {
			all = append(all, n+1)
		}
	}
	return all
}

// another is a text that is none of these.
func another(texts []string) string {
	longest := slices.MaxFunc(append(texts, ""), func(a, b string) int { return cmp.Compare(len(a), len(b)) })
	return longest + "…"
}

// at is a field of a variable, to be read and set; the zero Value where there
// is none of that name.
func (a *activation) at(variable, field string) reflect.Value {
	view, ok := a.ResolveName(variable)
	if !ok {
		return reflect.Value{}
	}
	v := reflect.ValueOf(view).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("cel") == field {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// set gives a field a value that [asked.values] lists.
func (a *activation) set(f *asked, value any) {
	at := a.at(f.variable, f.field)
	if value == nil {
		at.SetZero()
		return
	}
	switch at.Interface().(type) {
	case *time.Duration:
		d := time.Duration(value.(int64))
		at.Set(reflect.ValueOf(&d))
	case *bool:
		yes := value.(bool)
		at.Set(reflect.ValueOf(&yes))
	case *int64:
		n := value.(int64)
		at.Set(reflect.ValueOf(&n))
	default:
		at.Set(reflect.ValueOf(value))
	}
}
