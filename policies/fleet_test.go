package policies_test

import (
	"fmt"
	"io/fs"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// tenPolicies are the samples and three more, for one target.
func tenPolicies(b testing.TB) []*policies.Policy {
	b.Helper()
	var texts []string
	names, err := fs.Glob(policies.Samples(), "*.yaml")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(policies.Samples(), name)
		if err != nil {
			b.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	texts = append(texts,
		freezing(`min_survivors: 1, freeze: [{cron: "0 18 * * 5", duration: 60h}]`),
		withParams("teams: [team-1, team-2, team-3]", `runner.labels.exists(l, l in params.teams) && runner.name.matches("^build-[0-9]+$")`),
		document(longOffline+"\n  exempt: {keep: '\"keep\" in runner.labels', young: 'runner.age < duration(\"1h\")', alive: 'host.known && host.state == \"running\"'}"),
	)
	var all []*policies.Policy
	for _, text := range texts {
		all = append(all, load(b, text))
	}
	if len(all) != 10 {
		b.Fatalf("%d policies, want ten", len(all))
	}
	return all
}

// largeFleet has n runners: of each hundred three are long dead, seven have
// just gone, the others are at work.
func largeFleet(n int) []fleet.Observed {
	all := make([]fleet.Observed, n)
	for i := range all {
		r := due(int64(i + 1))
		r.Name = fmt.Sprintf("build-%06d", i)
		r.Host = fmt.Sprintf("host-%05d", i/4)
		r.Labels = []string{"linux", "self-hosted", fmt.Sprintf("team-%d", i%40), "x64"}
		r.OS, r.Group, r.Version = "Linux", "1", "2.321.0"
		r.LastBusyAt = now.Add(-302 * time.Hour)
		switch share := i % 100; {
		case share < 3:
		case share < 10:
			r.OfflineFor, r.OfflineSince = time.Hour, now.Add(-time.Hour)
		default:
			r.Status, r.OfflineSince, r.OfflineFor, r.LastOnlineAt = fleet.StatusOnline, time.Time{}, 0, now
		}
		all[i] = r
	}
	return all
}

// processorTime is what this process has used of the machine so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLargeFleet is 100,000 runners under ten policies, one after the
// other as enforcement does it. The bounds are 5 s on two cores, counted as
// processor time so that a machine with other things to do changes nothing, and
// 500 MB of heap. In the worst case every policy is about every runner, as after
// a mistake.
func BenchmarkLargeFleet(b *testing.B) {
	const n = 100_000
	usual := func() []fleet.Observed { return largeFleet(n) }
	dead := func() []fleet.Observed {
		all := make([]fleet.Observed, n)
		r := largeFleet(1)[0]
		for i := range all {
			all[i] = r
			all[i].ID = int64(i + 1)
		}
		return all
	}
	var same []*policies.Policy
	for range 10 {
		same = append(same, load(b, document(longOffline+"\n  exempt: {keep: '\"keep\" in runner.labels'}")))
	}
	for _, bb := range []struct {
		name    string
		runners func() []fleet.Observed
		all     []*policies.Policy
	}{
		{"usual", usual, tenPolicies(b)},
		{"all due under all", dead, same},
	} {
		b.Run(bb.name, func(b *testing.B) {
			in := input(bb.runners()...)
			in.Target.Population = n
			b.ReportAllocs()
			var peak uint64
			began := processorTime(b)
			for b.Loop() {
				for _, p := range bb.all {
					plan := policies.Decide(p, in, now)
					if plan.Counts[policies.CountEvaluated] != n {
						b.Fatalf("%s evaluated %d runners", p.Name, plan.Counts[policies.CountEvaluated])
					}
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					peak = max(peak, m.HeapSys-m.HeapReleased)
				}
			}
			spent := (processorTime(b) - began) / time.Duration(b.N)
			b.ReportMetric(spent.Seconds(), "cpu-s/op")
			b.ReportMetric(float64(peak)/(1<<20), "peak-MB")
			if spent > 2*5*time.Second || peak > 500<<20 {
				b.Errorf("%v and %d MB, want 10 s and 500 MB at most", spent, peak>>20)
			}
		})
	}
}
