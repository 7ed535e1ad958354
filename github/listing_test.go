package github_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
)

func TestRunnersAreAllThereAtEverySizeAndScope(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 99, 100, 101, 200, 1050}
	for _, n := range sizes {
		for _, scope := range scopes {
			sim, url := simulator(t)
			ids := fill(t, sim, scope, n)
			got, err := client(t, url).Runners(t.Context(), scope)
			if err != nil {
				t.Fatalf("%d runners of %s: %v", n, scope, err)
			}
			pages := max((n+99)/100, 1)
			if !got.Complete || got.Incomplete != nil || got.Pages != pages || got.Calls != pages {
				t.Errorf("%d runners of %s: complete %v (%v), %d pages, %d calls, want %d", n, scope, got.Complete, got.Incomplete, got.Pages, got.Calls, pages)
			}
			seen := make([]int64, 0, n)
			for _, r := range got.Runners {
				seen = append(seen, r.ID)
			}
			if diff := cmp.Diff(append([]int64{}, ids...), seen); diff != "" {
				t.Errorf("%d runners of %s: ids (-want +got):\n%s", n, scope, diff)
			}
			if n > 0 {
				want := fleet.Runner{ID: ids[0], Name: "build-00000", OS: "linux", Status: fleet.StatusOnline, Labels: []string{"gpu", "linux", "self-hosted", "x64"}}
				if diff := cmp.Diff(want, got.Runners[0]); diff != "" {
					t.Errorf("first runner (-want +got):\n%s", diff)
				}
			}
		}
	}
}
