// Package policies is the language in which operators say what is to become of
// a runner, and the decisions that follow from it.
//
// A policy is a strict YAML envelope around CEL expressions (match, exempt),
// with guards that no expression can turn off. [Load] reads and checks all of
// it, [Decide] applies it. Decide does no I/O and has no clock, so planning,
// auditing, enforcing and the last look under a lock are the same code.
//
// # What is not known
//
// In an expression a field that is not known is neither true nor false but
// unknown, and so is what rests on it: unknown && false is false, unknown ||
// true is true, everything else stays unknown, its negation included. An
// unknown match is no match; an unknown exemption keeps the runner. has(f)
// tells whether a field is known.
package policies
