package fleet_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

func TestNear(t *testing.T) {
	t.Parallel()
	words := strings.Fields("build-01 build-02 build-10 gpu-01 build-01 bild-01 Build-01")
	for _, tt := range []struct {
		word, want string
		most       int
	}{
		{"build-1", "build-01 build-10 Build-01", 3},
		{"build-01", "build-01 Build-01 bild-01 build-02", 4},
		{"gpu1", "", 3},
		{"g", "", 3},
		{"", "", 3},
	} {
		if got := fleet.Near(tt.word, words, tt.most); !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("Near(%q) = %v, want %s", tt.word, got, tt.want)
		}
	}
}
