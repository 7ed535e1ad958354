package policies_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// A runner belongs to a pool only with all of its labels: one that carries the
// pool's rarest label alone is a stranger, which scaling down must not drain
// (issue 10).
func TestTheRarestLabelAloneIsNoHome(t *testing.T) {
	t.Parallel()
	m := policies.NewMatcher([]fleet.Pool{pool("gpu", "gpu", "linux"), pool("cpu", "linux", "x64"), pool("b", "solo"), pool("a", "solo"), pool("c", "solo")})
	for labels, want := range map[string]string{
		"gpu windows":      "",
		"gpu":              "",
		"x64":              "",
		"x64 windows":      "",
		"linux":            "",
		"gpu linux":        "gpu",
		"linux x64":        "cpu",
		"gpu linux x64":    "cpu", // as many labels: the first by name
		"solo":             "a",
		"solo gpu windows": "a",
		"":                 "",
	} {
		got, found := m.Home("acme", strings.Fields(labels))
		if got != want || found != (want != "") {
			t.Errorf("Home(%q) = %q, %v, want %q", labels, got, found, want)
		}
	}
	if got, found := m.Home("other", []string{"solo"}); got != "" || found {
		t.Errorf("Home of a target without pools = %q, %v", got, found)
	}
}

// More pools than one machine word has bits are matched as well.
func TestMoreThan64Pools(t *testing.T) {
	t.Parallel()
	var pools []fleet.Pool
	for i := range 130 {
		pools = append(pools, pool(fmt.Sprintf("p%03d", i), "All", fmt.Sprintf("own-%03d", i)))
	}
	m := policies.NewMatcher(pools)
	for i := range 130 {
		own, name := fmt.Sprintf("OWN-%03d", i), fmt.Sprintf("p%03d", i)
		if got := m.Pools("acme", []string{"all", own}, 2); !slices.Equal(got, []string{name}) {
			t.Fatalf("Pools(all, %s) = %v, want %s", own, got, name)
		}
		if got, _ := m.Home("acme", []string{"all", own}); got != name {
			t.Fatalf("Home(all, %s) = %s, want %s", own, got, name)
		}
	}
	if got := m.Pools("acme", []string{"all"}, 200); len(got) != 130 || got[0] != "p000" || got[64] != "p064" || got[129] != "p129" {
		t.Errorf("Pools(all) = %v, want all 130 in order", got)
	}
}

// What was told twice counts by its furthest state, whatever the order.
func TestTheFurthestStateCounts(t *testing.T) {
	t.Parallel()
	states := []fleet.WorkflowJobState{fleet.WorkflowJobWaiting, fleet.WorkflowJobQueued, fleet.WorkflowJobInProgress, fleet.WorkflowJobCompleted}
	m := policies.NewMatcher([]fleet.Pool{pool("linux", "linux")})
	for i, a := range states {
		for j, b := range states {
			jobs := []fleet.WorkflowJob{
				{Target: "acme", ID: 1, State: a, Labels: []string{"linux"}}, {Target: "acme", ID: 1, State: b, Labels: []string{"linux"}},
				{Target: "other", ID: 1, State: fleet.WorkflowJobCompleted},
			}
			want := map[string]fleet.Demand{}
			switch states[max(i, j)] {
			case fleet.WorkflowJobQueued:
				want["linux"] = fleet.Demand{Queued: 1}
			case fleet.WorkflowJobInProgress:
				want["linux"] = fleet.Demand{InProgress: 1}
			}
			if diff := cmp.Diff(want, m.Match(jobs, policies.Outside{}).Demand); diff != "" {
				t.Errorf("%s and %s: want (-) got (+):\n%s", a, b, diff)
			}
		}
	}
	// The first of two of the same state stays.
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	same := []fleet.WorkflowJob{
		{Target: "acme", ID: 1, State: fleet.WorkflowJobQueued, Labels: []string{"linux"}, QueuedAt: at},
		{Target: "acme", ID: 1, State: fleet.WorkflowJobQueued, Labels: []string{"gpu"}, QueuedAt: at},
	}
	if got := m.Match(same, policies.Outside{}); len(got.Findings) != 0 || got.Demand["linux"].Queued != 1 {
		t.Errorf("two of one state: %+v, want the first", got)
	}
}

// Findings come in an order of their own, the jobs of one subject together: of
// jobs without labels by repository, of others by labels.
func TestFindingsAreSortedAndJoined(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	job := func(id int64, target, repository string, minute int, labels ...string) fleet.WorkflowJob {
		return fleet.WorkflowJob{Target: target, ID: id, State: fleet.WorkflowJobQueued, Repository: repository, Labels: labels,
			QueuedAt: at.Add(time.Duration(minute) * time.Minute)}
	}
	jobs := []fleet.WorkflowJob{
		job(1, "b", "o/x", 0, "gpu"), job(2, "a", "o/y", 3), job(3, "a", "o/x", 2), job(4, "a", "o/y", 1), job(5, "a", "o/z", 0, "z"),
		job(6, "a", "o/z", 5, "a"), job(7, "a", "o/q", 4, "a"),
		// Queued at the same moment: the smaller id is the oldest.
		job(9, "a", "o/nine", 7, "tie"), job(8, "a", "o/eight", 7, "tie"), job(10, "a", "o/ten", 7, "tie"),
	}
	for _, access := range []map[string]policies.Access{nil, {"a": {Groups: map[string]fleet.RunnerGroup{"1": {}}}}} {
		got := policies.NewMatcher(nil).Match(jobs, policies.Outside{Access: access})
		var lines []string
		for _, f := range got.Findings {
			lines = append(lines, fmt.Sprintf("%s %s %s %v %v", f.Target, f.Kind, f.Subject, f.Detail["jobs"], f.Detail["repository"]))
		}
		want := []string{
			"a unlabelled_job o/x 1 o/x", "a unlabelled_job o/y 2 o/y",
			"a unserved_job a 2 o/q", "a unserved_job tie 3 o/eight", "a unserved_job z 1 o/z", "b unserved_job gpu 1 o/x",
		}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Errorf("with %v: findings, want (-) got (+):\n%s", access, diff)
		}
	}
}

// A subject of 512 bytes is named in full, a longer one by its beginning and a
// hash.
func TestLongLabelsAreNamedShort(t *testing.T) {
	t.Parallel()
	for length, full := range map[int]bool{511: true, 512: true, 513: false} {
		label := strings.Repeat("x", length)
		jobs := []fleet.WorkflowJob{{Target: "a", ID: 1, State: fleet.WorkflowJobQueued, Labels: []string{label}}}
		subject := policies.NewMatcher(nil).Match(jobs, policies.Outside{}).Findings[0].Subject
		switch {
		case full && subject != label:
			t.Errorf("%d bytes: named as %q", length, subject)
		case !full && subject == label, !full && !strings.HasPrefix(subject, strings.Repeat("x", 500)):
			t.Errorf("%d bytes: named as %q", length, subject)
		case !full && len(subject[strings.LastIndex(subject, " ")+1:]) != 16:
			t.Errorf("%d bytes: the hash of %q has not 16 digits", length, subject)
		}
	}
}

// A pool whose labels are all lacked is not the nearest one.
func TestTheNearestPoolHasSomethingInCommon(t *testing.T) {
	t.Parallel()
	m := policies.NewMatcher([]fleet.Pool{pool("far", "sparc"), pool("near", "linux")})
	jobs := []fleet.WorkflowJob{
		{Target: "acme", ID: 1, State: fleet.WorkflowJobQueued, Labels: []string{"windows"}},
		{Target: "acme", ID: 2, State: fleet.WorkflowJobQueued, Labels: []string{"linux", "gpu"}},
	}
	got := m.Match(jobs, policies.Outside{}).Findings
	if len(got) != 2 || got[0].Detail["nearest_pool"] != "near" || got[0].Detail["it_lacks"] != "gpu" || got[1].Detail["nearest_pool"] != nil {
		t.Errorf("findings %+v, want near for the second job and none for the first", got)
	}
}

func TestEffectiveLabelsOfSeveralRunners(t *testing.T) {
	t.Parallel()
	got := policies.EffectiveLabels([]string{"gpu"}, [][]string{{"gpu", "a", "b"}, {"gpu", "b", "c"}, {"gpu", "b"}})
	if !slices.Equal(got, []string{"b", "gpu"}) {
		t.Errorf("EffectiveLabels = %v, want b and gpu", got)
	}
}
