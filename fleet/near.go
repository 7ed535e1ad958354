package fleet

import (
	"cmp"
	"slices"
)

// Distance counts the letters to insert, leave out or change to make b of a.
// Swapped neighbours count as two changes.
func Distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		before := row[0] // of the row above, one to the left
		row[0] = i + 1
		for j := range y {
			change := before
			if x[i] != y[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(y)]
}

// Near gives the words that somebody may have meant, nearest first and each
// once, at most so many: those with up to a third of the letters wrong.
func Near(word string, words []string, most int) []string {
	type candidate struct {
		word string
		off  int
	}
	var near []candidate
	for _, w := range words {
		if off := Distance(word, w); off <= max(len([]rune(word))/3, 1) {
			near = append(near, candidate{w, off})
		}
	}
	slices.SortFunc(near, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.off, b.off), cmp.Compare(a.word, b.word))
	})
	near = slices.Compact(near)
	var found []string
	for _, c := range near[:min(len(near), most)] {
		found = append(found, c.word)
	}
	return found
}
