package main

import (
	"bytes"
	"cmp"
	"slices"
)

// edit is one change of a file's text. Edits nest as expressions do.
type edit struct {
	start, end int // the bytes that text replaces; equal: an insertion
	kind       editKind
	text       string
}

// editKind orders edits at the same place: what closes an expression comes
// before its neighbour's operator, and this before what opens the next one.
type editKind int

const (
	closing editKind = iota
	replacing
	opening
)

// apply gives the text with all edits. They must be in the order of a walk that
// visits an expression before its parts.
func apply(text []byte, edits []edit) []byte {
	order := make([]int, len(edits))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := edits[a], edits[b]
		outer := cmp.Compare(a, b)
		if x.kind == closing {
			outer = -outer // the inner expression closes first
		}
		return cmp.Or(cmp.Compare(x.start, y.start), cmp.Compare(x.kind, y.kind), outer)
	})
	var out bytes.Buffer
	at := 0
	for _, i := range order {
		e := edits[i]
		out.Write(text[at:e.start])
		out.WriteString(e.text)
		at = e.end
	}
	out.Write(text[at:])
	return out.Bytes()
}
