package policies

import (
	"unicode"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// place is a position in the file, from 1, in runes.
type place struct{ line, col int }

// places finds, for every rune of a YAML scalar's value, where it stands in the
// file, so that a fault inside an expression points at the very spot whatever
// the style of the scalar. nil where value and file cannot be brought together.
func (f *file) places(n ast.Node, value string) []place {
	line, col := start(n)
	s := scanner{lines: f.lines, at: place{line, col}}
	switch n.GetToken().Type {
	case token.SingleQuoteType:
		s.quote = '\''
		s.next()
	case token.DoubleQuoteType:
		s.quote = '"'
		s.next()
	case token.LiteralType, token.FoldedType:
		s.at = place{line + 1, 1} // the block begins below its header
	}
	found := make([]place, 0, len(value))
	for _, want := range value {
		at, ok := s.find(want)
		if !ok {
			return nil
		}
		found = append(found, at)
	}
	return found
}

// scanner walks over the text of a file.
type scanner struct {
	lines  []string
	at     place
	quote  rune   // ' or " where within such
	line   []rune // the line numbered number
	number int
}

// peek gives the rune at the position, a newline at the end of a line; ok is
// false at the end of the file.
func (s *scanner) peek() (r rune, ok bool) {
	if s.at.line > len(s.lines) {
		return 0, false
	}
	if s.number != s.at.line {
		s.line, s.number = []rune(s.lines[s.at.line-1]), s.at.line
	}
	if s.at.col > len(s.line) {
		return '\n', true
	}
	return s.line[s.at.col-1], true
}

func (s *scanner) next() {
	if r, ok := s.peek(); ok && r == '\n' {
		s.at = place{s.at.line + 1, 1}
		return
	}
	s.at.col++
}

// find goes to the rune that stands for want. White space is folded, indented
// and trimmed by YAML, so one white space of the value may be any of the file.
func (s *scanner) find(want rune) (place, bool) {
	for {
		r, ok := s.peek()
		if !ok {
			return s.at, false
		}
		at := s.at
		switch {
		case s.quote == '"' && r == '\\':
			s.next()
			escape, _ := s.peek()
			s.next()
			if escape == '\n' {
				continue
			}
			for range map[rune]int{'x': 2, 'u': 4, 'U': 8}[escape] {
				s.next()
			}
			return at, true
		case s.quote == '\'' && r == '\'':
			s.next()
			s.next()
			return at, true
		case unicode.IsSpace(want):
			if unicode.IsSpace(r) {
				s.next()
			}
			return at, true
		case r == want:
			s.next()
			return at, true
		case unicode.IsSpace(r):
			s.next()
		default:
			return at, false
		}
	}
}
