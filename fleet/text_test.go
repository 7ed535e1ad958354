package fleet_test

import (
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

func TestCleanText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		most int
		want string
	}{
		{"plain", 256, "plain"},
		{"", 0, ""},
		{"plain", 5, "plain"},
		{"plain", 4, "plai"},
		{"plain", 0, ""},
		{"a\x00b", 256, "a\uFFFDb"},
		{"a\xff\xfeb", 256, "a\uFFFDb"},
		{"xüü", 4, "xü"},
		{"xüü", 2, "x"},
		{strings.Repeat("\x00", 9), 9, "\uFFFD\uFFFD\uFFFD"},
	} {
		if got := fleet.CleanText(tt.in, tt.most); got != tt.want {
			t.Errorf("CleanText(%q, %d) = %q, want %q", tt.in, tt.most, got, tt.want)
		}
	}
}

func TestShownHidesWhatSteersATerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"build-01", "build-01"},
		{" żółw 🐢 ", "żółw 🐢"},
		{"a\u202Egnp.exe", "a gnp.exe"},
		{"a\x1b[31mred\x1b[0m", "a [31mred [0m"},
		{"two\nlines\r\nof\ttext", "two lines  of text"},
		{"a\u2028b\u2029c\u0085d\u200Be\uFEFFf\u2066g\u00ADh", "a b c d e f g h"},
		{"no\xff\xfeUTF-8", "no\uFFFDUTF-8"},
		{"\x00\x07\x7f\u009b", ""},
		{"\uE000private\U000E0001tag", "private tag"},
	} {
		if got := fleet.Shown(tt.in); got != tt.want {
			t.Errorf("Shown(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	for most, want := range map[int]string{0: "…", 2: "żó…", 4: "żółw", 9: "żółw"} {
		if got := fleet.ShownUpTo("żółw", most); got != want {
			t.Errorf("ShownUpTo(%d) = %q, want %q", most, got, want)
		}
	}
}
