package policies_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// BenchmarkPools decides on 1,000 pools of ten targets, 50,000 open jobs being
// there, of which each asks for other labels than most.
func BenchmarkPools(b *testing.B) {
	var pools []*policies.Pool
	var plain []fleet.Pool
	for i := range 1000 {
		p := sized(0, 500, 2)
		p.Name, p.Target = fmt.Sprint("pool-", i), fmt.Sprint("target-", i%10)
		p.Labels = []string{"self-hosted", "linux", "x64", fmt.Sprint("team-", i/10), fmt.Sprint("size-", i%7)}
		p.Periods = []fleet.PoolPeriod{period("0 8 * * 1-5", "Europe/London", 10*time.Hour, 2, 500, 4)}
		pools = append(pools, checked(b, p))
		plain = append(plain, p)
	}
	var jobs []fleet.WorkflowJob
	for i := range 50_000 {
		labels := []string{"self-hosted", "linux", fmt.Sprint("team-", i/10%110)} // some of no pool
		if i%3 == 0 {
			labels = append(labels, fmt.Sprint("size-", i%7))
		}
		if i%5 == 0 {
			labels = append(labels, fmt.Sprint("only-", i))
		}
		jobs = append(jobs, fleet.WorkflowJob{
			Target: fmt.Sprint("target-", i%10), ID: int64(i), State: fleet.WorkflowJobQueued, Labels: labels, Repository: "acme/r", QueuedAt: monday,
		})
	}
	memory := fleet.SizeMemory{Since: monday.Add(-time.Hour), At: monday}
	for i := range 20 {
		memory.Spans = append(memory.Spans, fleet.DesiredSpan{Desired: 40 - i, Until: monday.Add(time.Duration(i-20) * 25 * time.Second)})
	}
	var ups, findings int
	b.ReportAllocs()
	for b.Loop() {
		ups = 0
		found := policies.NewMatcher(plain).Match(jobs, policies.Outside{})
		findings = len(found.Findings)
		for _, p := range pools {
			d := found.Demand[p.Name]
			d.At, d.Confidence = monday, fleet.ConfidenceKnown
			if p.Size(fleet.Supply{Online: 10, Busy: 8}, d, memory, monday).Direction == fleet.SizeUp {
				ups++
			}
		}
	}
	b.ReportMetric(float64(ups), "grow")
	b.ReportMetric(float64(findings), "findings")
}
