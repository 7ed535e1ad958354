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
