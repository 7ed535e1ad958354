package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func describe(o options) string { return fmt.Sprint(o.runners, o.reps) }

// took are results with these wall times in one case of a plan.
func (r *results) took(p plan, name, contender string, all ...time.Duration) {
	for _, d := range all {
		r.add(key{p, name, contender}, figures{Wall: d, PeakBytes: int64(d)})
	}
}

func TestMedianIsTheMiddleOfAllRepetitions(t *testing.T) {
	t.Parallel()
	r := results{all: map[key][]figures{}}
	k := key{plan{runners: 100}, caseFirst, nameMuster}
	for i, want := range []int64{9, 1, 5, 5, 5} {
		r.took(k.plan, k.name, k.contender, []time.Duration{9, 1, 5, 7, 3}[i])
		if got := r.median(k, wall); got != want {
			t.Errorf("after %d repetitions: median %d, want %d", i+1, got, want)
		}
	}
	if len(r.keys) != 1 {
		t.Errorf("%d contenders, want 1", len(r.keys))
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	large, slow := plan{runners: 100_000}, plan{10_000, latency}
	r := results{all: map[key][]figures{}}
	if got := judgement(r); !strings.Contains(got, "Nothing to judge") {
		t.Errorf("judgement of nothing: %s", got)
	}
	r.took(large, caseUnchanged, nameMuster, 250e6)
	r.took(large, caseUnchanged, nameDiscard, 100e6)
	r.took(large, caseSame, nameMuster, 31e6)
	r.took(large, caseSame, nameRevalidate, 10e6)
	r.took(large, caseFirst, nameMuster, 249e6)
	r.took(large, caseFirst, nameDecode, 60e6)
	r.took(large, caseFirst, nameCopy, 40e6)
	r.took(slow, caseChanged, nameCommand, 10e6)
	r.took(slow, caseChanged, namePlain, 80e6)
	r.took(slow, caseChanged, nameTuned, 79e6)
	r.took(slow, caseUnchanged, nameMuster, 100e6)
	r.took(slow, caseUnchanged, nameOneByOne, 650e6)
	want := strings.TrimSpace(`
100,000, every page in full: to fetching and throwing away|2.50x|at most 2.5x|ok
100,000, every page a 304: to the bare walk|3.10x|at most 3x|MISSED
100,000, first load: to fetching, decoding and one COPY|2.49x|at most 2.5x|ok
100,000, peak memory in any case|250.00 MB|below 250 MB|MISSED
10,000 over 50 ms, 2 % changed, on every page: faster than gh, jq, psql|8.00x|at least 8x|ok
10,000 over 50 ms, 2 % changed, on every page: faster than gh, jq, psql, tuned|7.90x|at least 8x|MISSED
10,000 over 50 ms: faster than a page at a time|6.50x|at least 6x|ok`)
	var got []string
	for _, v := range verdicts(r) {
		got = append(got, strings.ReplaceAll(strings.Join(v.cells(), "|"), "gh | jq | psql", "gh, jq, psql"))
	}
	if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestTableIsAligned(t *testing.T) {
	t.Parallel()
	got := aligned([][]string{{"", "ms", "rows"}, nil, {"a heading of any width"}, {"  one", "1.0", "100000"}, {"  other", "10.0", ""}})
	want := "             ms    rows\n\n  a heading of any width\n    one     1.0  100000\n    other  10.0\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := thousands(1234567) + " " + thousands(999) + " " + thousands(1000); got != "1,234,567 999 1,000" {
		t.Error(got)
	}
}
