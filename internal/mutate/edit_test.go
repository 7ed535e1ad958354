package main

import "testing"

func TestEditsNest(t *testing.T) {
	t.Parallel()
	text := "if a<b&&c {"
	//       0123456789
	edits := []edit{
		{3, 3, opening, "never("}, {8, 8, closing, ")"}, // around the whole
		{3, 3, opening, "and("}, {8, 8, closing, "})"}, {6, 8, replacing, ",{"},
		{3, 3, opening, "less("}, {6, 6, closing, ")"}, {4, 5, replacing, ","},
		{8, 8, opening, "not("}, {9, 9, closing, ")"},
	}
	edits[1].start, edits[1].end = 9, 9
	edits[3].start, edits[3].end = 9, 9
	got := string(apply([]byte(text), edits))
	want := "if never(and(less(a,b),{not(c)})) {"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
