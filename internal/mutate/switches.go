package main

import "fmt"

// Names of the variables by which a test program is told what to do.
const (
	onVar      = "MUTATE_ON"      // the number of the mutant that is switched on
	reachedVar = "MUTATE_REACHED" // the file for the numbers of mutants that were reached
)

// switches is the file that is added to a package: the functions that switch
// its mutants. All mutants are built into one test program, because building
// one for each would take hours.
func switches(name string) []byte {
	return fmt.Appendf(nil, switchesText, name, onVar, reachedVar)
}

const switchesText = `package %s

import (
	mutate_cmp "cmp"
	mutate_fmt "fmt"
	mutate_os "os"
	mutate_strconv "strconv"
	mutate_sync "sync"
)

var mutate_on, _ = mutate_strconv.Atoi(mutate_os.Getenv(%q))

var mutate_reached = func() *mutate_os.File {
	path := mutate_os.Getenv(%q)
	if path == "" {
		return nil
	}
	f, err := mutate_os.OpenFile(path, mutate_os.O_CREATE|mutate_os.O_APPEND|mutate_os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	return f
}()

var mutate_seen mutate_sync.Map

func mutate_is(id int) bool {
	if mutate_reached != nil {
		if _, known := mutate_seen.LoadOrStore(id, true); !known {
			mutate_fmt.Fprintln(mutate_reached, id)
		}
	}
	return mutate_on == id
}

func mutate_not[B ~bool](id int, b B) B {
	if mutate_is(id) {
		return !b
	}
	return b
}

func mutate_never[B ~bool](id int, b B) B {
	return b && B(!mutate_is(id))
}

func mutate_and(id int, a bool, b func() bool) bool {
	if mutate_is(id) {
		return a || b()
	}
	return a && b()
}

func mutate_or(id int, a bool, b func() bool) bool {
	if mutate_is(id) {
		return a && b()
	}
	return a || b()
}

func mutate_compare[T mutate_cmp.Ordered](id int, op string, a, b T) bool {
	boundary, negated := mutate_is(id), mutate_is(id+1)
	is := false
	switch op {
	case "<":
		is = a < b || boundary && a == b
	case "<=":
		is = a < b || !boundary && a == b
	case ">":
		is = a > b || boundary && a == b
	case ">=":
		is = a > b || !boundary && a == b
	}
	return is != negated
}

type mutate_number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr | ~float32 | ~float64
}

func mutate_arithmetic[T mutate_number](id int, op string, a, b T) T {
	other := mutate_is(id)
	switch op {
	case "+":
		if other {
			return a - b
		}
		return a + b
	case "-":
		if other {
			return a + b
		}
		return a - b
	case "*":
		if other {
			return a / b
		}
		return a * b
	}
	if other {
		return a * b
	}
	return a / b
}

func mutate_constant[T any](first int, value T, others ...T) T {
	for i, other := range others {
		if mutate_is(first + i) {
			return other
		}
	}
	return value
}
`
