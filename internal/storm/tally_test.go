package storm_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// tally counts what happened, so that a storm cannot pass in which nothing did.
type tally map[string]int

func newTally() tally { return tally{"lives": 0} }

func (t tally) count(what string) { t[what]++ }

// add counts a life that was lived to its end.
func (t tally) add(w *world) {
	t["lives"]++
	for what, n := range w.tally {
		t[what] += n
	}
	for _, e := range w.sim.Log() {
		when := "in the storm"
		if e.Seq > w.calmSince {
			when = "in the calm"
		}
		switch {
		case e.Change == githubsim.ChangeRemoved && e.Cause == "DELETE":
			t["deletions "+when]++
		case e.Method != "":
			t["requests "+when]++
		}
		if e.Status == 304 {
			t["pages unchanged"]++
		}
		if isDelete(e) && (e.Online || e.Busy) {
			t["deletions asked for of what had just come to life"]++
		}
		if e.Method != "" && e.Fault != "" {
			for kind := range strings.SplitSeq(e.Fault, ",") {
				t["fault "+kind]++
			}
		}
	}
}

// check says what happened, and that it was enough: so much in each life.
func (t tally) check(test *testing.T, enough map[string]float64) {
	test.Helper()
	for _, what := range slices.Sorted(maps.Keys(t)) {
		test.Logf("%7d %s", t[what], what)
	}
	for what, perLife := range enough {
		if got := float64(t[what]); got < perLife*float64(t["lives"]-3) {
			test.Errorf("%v %s in %d lives: the storm is too calm to prove anything", got, what, t["lives"])
		}
	}
}
