package policies

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/muster-fleet/muster/fleet"
)

// Fault is one thing that is wrong with a file of policies.
type Fault struct {
	File      string
	Line, Col int    // from 1, in runes
	Text      string // one line: what, why, what to do
}

// Error is the fault in one line, FILE:LINE:COL: TEXT.
func (f *Fault) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Col, f.Text)
}

// file is a text being read, with the faults found so far.
type file struct {
	path   string   // for messages
	lines  []string // without line ends
	faults []*Fault
}

func (f *file) faultAt(line, col int, format string, args ...any) {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	f.faults = append(f.faults, &Fault{File: f.path, Line: line, Col: col, Text: text})
}

func (f *file) fault(n ast.Node, format string, args ...any) {
	line, col := start(n)
	f.faultAt(line, col, format, args...)
}

// err joins the faults in the order of the text, each once.
func (f *file) err() error {
	slices.SortStableFunc(f.faults, func(a, b *Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	var errs []error
	for i, fault := range f.faults {
		if i == 0 || *fault != *f.faults[i-1] {
			errs = append(errs, fault)
		}
	}
	return errors.Join(errs...)
}

// meant is a question after the word that was most likely meant; empty where
// none of those there are is close. Swapped neighbours count as two changes.
func meant(word string, words []string) string {
	best, least := "", min(2, len([]rune(word))/2)+1
	for _, w := range words {
		if d := fleet.Distance(word, w); d < least {
			best, least = w, d
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + best + "?"
}
