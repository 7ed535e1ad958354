package inventory_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/github/githubsim"
)

// A sync of 10,000 runners with the listing over loopback.
func BenchmarkSync(b *testing.B) {
	for _, bb := range []struct {
		name    string
		percent int
	}{{"unchanged", 0}, {"2 percent changed", 2}} {
		b.Run(bb.name, func(b *testing.B) {
			w := newWorld(b)
			const size = 10_000
			ids := w.create(size, githubsim.RunnerSpec{Online: true})
			w.sync()
			online := true
			for b.Loop() {
				b.StopTimer()
				online = !online
				for _, id := range ids[:size*bb.percent/100] {
					change := w.sim.Kill
					if online {
						change = w.sim.Connect
					}
					w.ok(change(acme, id))
				}
				w.pass(time.Minute)
				b.StartTimer()
				w.ok(w.try())
			}
		})
	}
}
