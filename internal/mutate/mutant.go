package main

import (
	"fmt"
	"go/token"
	"strings"
)

// mutant is one small change of the code that a test should notice.
type mutant struct {
	id       int // from 1 on, within its package
	position token.Position
	file     string // from the module's root
	function string // "decider.stale", "Load", or the name of a variable
	before   string // in one line
	after    string
	// same counts mutants of this function that look the same, from 1 on.
	same int
	// group is the number of the edits that make the mutant: mutants of one
	// group can only be left out together.
	group int
}

// key names the mutant without its line, so that it lasts while other code
// changes.
func (m *mutant) key() string { return m.file + " " + m.what() }

func (m *mutant) what() string {
	what := fmt.Sprintf("%s: %s => %s", m.function, m.before, m.after)
	if m.same > 1 {
		what += fmt.Sprintf(" (%d)", m.same)
	}
	return what
}

// String is the key with the line and the column.
func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d:%d %s", m.file, m.position.Line, m.position.Column, m.what())
}

// oneLine writes source text in one line.
func oneLine(text []byte) string { return strings.Join(strings.Fields(string(text)), " ") }
