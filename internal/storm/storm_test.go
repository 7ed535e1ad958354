package storm_test

import (
	"flag"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/db/dbtest"
)

func TestMain(m *testing.M) {
	// A life takes the better part of a second: fewer than the usual hundred,
	// unless the command line says how many. And the same ones each time, so
	// that a change is judged by what it changed: make storm lives through
	// others.
	for name, value := range map[string]string{"rapid.checks": "15", "rapid.seed": "2026"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse()
	os.Exit(dbtest.Main(m))
}

// TestStorm lets replicas live through storms, and judges them in the calm
// afterwards.
func TestStorm(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	sums := newTally()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, r, aboutAnything)
		for range rapid.IntRange(4, 24).Draw(t, "rounds") {
			w.turnWeather()
			w.live()
			w.passRound()
			if w.oneIn(5, "operator") {
				w.resume(rapid.IntRange(0, 30).Draw(t, "allowed"))
			}
			w.work()
			w.judgeRound()
		}
		w.calm()
		w.judge()
		sums.add(w)
	})
	if !t.Failed() {
		sums.check(t, map[string]float64{
			"deletions in the storm":  1,
			"deletions in the calm":   2,
			"pages unchanged":         5,
			"pauses learnt of others": 0.1,

			"triggers that a full store refused": 0.5,
			"relays that died after publishing":  0.1,
		})
	}
}
