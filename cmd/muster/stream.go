package main

import (
	"bufio"
	"io"
	"iter"
	"strings"
	"unicode/utf8"
)

// tableBlock is how many rows of a table that comes as a stream are aligned
// together.
const tableBlock = 500

// stream is show for results of any number: it writes them as they come, and
// returns how many there were. Memory does not grow with them.
func stream[T any](a *app, f format, items iter.Seq2[T, error], none string, head []string, row func(T) []string) (int, error) {
	n := 0
	list, table := newJSONList(a.stdout), newLongTable(a.stdout, head)
	for item, err := range items {
		if err != nil {
			return n, err
		}
		n++
		if f == formatJSON {
			err = list.add(item)
		} else {
			err = table.add(row(item))
		}
		if err != nil {
			return n, err
		}
	}
	if f == formatJSON {
		return n, list.end()
	}
	if n == 0 {
		a.say("%s", none)
		return 0, nil
	}
	return n, table.end()
}

// convert is a stream of what each item becomes.
func convert[T, U any](items iter.Seq2[T, error], to func(T) U) iter.Seq2[U, error] {
	return func(yield func(U, error) bool) {
		for item, err := range items {
			var next U
			if err == nil {
				next = to(item)
			}
			if !yield(next, err) {
				return
			}
		}
	}
}

// longTable writes a table block by block. A column is as wide as its widest
// cell so far.
type longTable struct {
	w      *bufio.Writer
	rows   [][]string // of the block at hand
	widths []int
}

func newLongTable(w io.Writer, head []string) *longTable {
	return &longTable{w: bufio.NewWriter(w), rows: [][]string{head}, widths: make([]int, len(head))}
}

func (t *longTable) add(cells []string) error {
	t.rows = append(t.rows, cells)
	if len(t.rows) < tableBlock {
		return nil
	}
	return t.flush()
}

func (t *longTable) flush() error {
	for _, cells := range t.rows {
		for i, cell := range cells {
			cells[i] = printable(cell)
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cells[i]))
		}
	}
	for _, cells := range t.rows {
		var line strings.Builder
		for i, cell := range cells {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
		}
		if _, err := t.w.WriteString(strings.TrimRight(line.String(), " ") + "\n"); err != nil {
			return err
		}
	}
	t.rows = t.rows[:0]
	return nil
}

func (t *longTable) end() error {
	if err := t.flush(); err != nil {
		return err
	}
	return t.w.Flush()
}
