package github_test

import (
	"fmt"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// BenchmarkRunners lists 10,000 runners of the simulator: 100 pages.
func BenchmarkRunners(b *testing.B) {
	sim, url := simulator(b)
	fill(b, sim, org, 10_000)
	for _, parallel := range []int{1, 16} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			gh := client(b, url, func(c *github.Config) { c.Concurrency = parallel })
			b.ReportAllocs()
			for b.Loop() {
				if l, err := gh.Runners(b.Context(), org, fleet.KeptListing{}); err != nil || len(l.Runners) != 10_000 || !l.Complete {
					b.Fatal(len(l.Runners), l.Incomplete, err)
				}
			}
		})
	}
}
