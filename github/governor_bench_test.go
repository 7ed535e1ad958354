package github

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkGovernor is what pacing costs a request that has not to wait: its
// turn, the start, and what is learnt from the answer. With limits the windows
// are as full as they get.
func BenchmarkGovernor(b *testing.B) {
	reset := noon.Add(longestWindow)
	for _, bb := range []struct {
		name   string
		answer reply
	}{
		{"no limits", reply{status: http.StatusOK}},
		{"limits", says(1<<30, 1<<29, reset, noon)},
	} {
		var at atomic.Int64 // since noon
		g := newGovernor(Config{Now: func() time.Time { return noon.Add(time.Duration(at.Load())) }})
		once := func(b *testing.B) {
			// So that the minute always has room for one page more, and hardly.
			at.Add(int64(minute / (pointsPerMinute * 80 / 100 * 9 / 10)))
			t, err := g.enter(b.Context(), syncing)
			if err != nil || !g.start(&t) {
				b.Fatal("no turn", err)
			}
			g.end(t, bb.answer)
		}
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				once(b)
			}
		})
		b.Run(bb.name+", side by side", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					once(b)
				}
			})
		})
	}
}
