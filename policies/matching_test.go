package policies_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

func pool(name string, labels ...string) fleet.Pool {
	return fleet.Pool{Name: name, Target: "acme", Labels: labels}
}

func TestPoolOfLabels(t *testing.T) {
	t.Parallel()
	m := policies.NewMatcher([]fleet.Pool{
		pool("linux", "self-hosted", "linux", "x64"),
		pool("linux-b", "self-hosted", "linux", "x64"),
		pool("gpu", "self-hosted", "linux", "x64", "gpu"),
		pool("gpu-large", "self-hosted", "linux", "x64", "gpu", "a100"),
		pool("bare", "build"),
		{Name: "abroad", Target: "other", Labels: []string{"self-hosted", "sparc"}},
	})
	tests := []struct{ name, labels, want string }{
		{"fewest surplus labels, then the first by name", "self-hosted linux", "linux"},
		{"all that it carries", "self-hosted linux x64 gpu", "gpu"},
		{"one label wakes no larger pool", "gpu", "gpu"},
		{"only the largest has it", "a100", "gpu-large"},
		{"without regard to case and order", "GPU Self-Hosted", "gpu"},
		{"a label twice", "linux linux", "linux"},
		{"without GitHub's own labels", "build", "bare"},
		{"GitHub's own labels are asked for like any other", "self-hosted build", ""},
		{"GitHub's own hosts", "ubuntu-latest", ""},
		{"one label too many", "self-hosted linux arm64", ""},
		{"no label is no licence", "", ""},
		{"another target's", "sparc", ""},
	}
	for _, tt := range tests {
		got := strings.Join(m.Pools("acme", strings.Fields(tt.labels), 1), " ")
		if got != tt.want {
			t.Errorf("%s: Pools(%q, 1) = %q, want %q", tt.name, tt.labels, got, tt.want)
		}
	}
	if got := strings.Join(m.Pools("acme", []string{"self-hosted", "linux"}, 3), " "); got != "linux linux-b gpu" {
		t.Errorf("Pools that have the labels: %s", got)
	}
	for labels, want := range map[string]string{
		"self-hosted linux x64 gpu":        "gpu",
		"self-hosted linux x64 gpu spot":   "gpu",
		"self-hosted Linux X64":            "linux",
		"self-hosted windows x64":          "",
		"build self-hosted linux x64 gpu ": "gpu",
	} {
		if got, _ := m.Home("acme", strings.Fields(labels)); got != want {
			t.Errorf("Home(%q) = %q, want %q", labels, got, want)
		}
	}
}

func TestEffectiveLabels(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, configured string
		seen             []string
		want             string
	}{
		{"nobody seen: as written", "gpu Linux", nil, "gpu linux"},
		{"what all of them carry", "gpu", []string{"self-hosted linux x64 gpu a", "self-hosted linux x64 gpu b"}, "gpu linux self-hosted x64"},
		{"registered without GitHub's own", "gpu", []string{"gpu"}, "gpu"},
		{"what the operator wrote stays", "gpu", []string{"linux"}, "gpu linux"},
	}
	for _, tt := range tests {
		var seen [][]string
		for _, s := range tt.seen {
			seen = append(seen, strings.Fields(s))
		}
		if got := strings.Join(policies.EffectiveLabels(strings.Fields(tt.configured), seen), " "); got != tt.want {
			t.Errorf("%s: EffectiveLabels(%q, %q) = %q, want %q", tt.name, tt.configured, tt.seen, got, tt.want)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	job := func(id int64, state fleet.WorkflowJobState, minute int, labels ...string) fleet.WorkflowJob {
		return fleet.WorkflowJob{
			Target: "acme", ID: id, State: state, Labels: labels, Repository: fmt.Sprintf("acme/r%d", id%2),
			QueuedAt: at.Add(time.Duration(minute) * time.Minute),
		}
	}
	elsewhere := job(7, fleet.WorkflowJobInProgress, 0, "linux")
	elsewhere.RunnerID = 70
	pet := job(12, fleet.WorkflowJobInProgress, 7, "linux") // runs on one that is in no pool
	pet.RunnerID = 71
	got := policies.NewMatcher([]fleet.Pool{pool("linux", "linux", "x64"), pool("gpu", "linux", "x64", "gpu")}).Match([]fleet.WorkflowJob{
		job(1, fleet.WorkflowJobQueued, 5, "linux"),
		job(2, fleet.WorkflowJobQueued, 3, "linux"),
		job(2, fleet.WorkflowJobQueued, 3, "linux"),
		job(3, fleet.WorkflowJobInProgress, 0, "linux", "gpu"),
		job(3, fleet.WorkflowJobQueued, 0, "linux", "gpu"), // told late
		job(4, fleet.WorkflowJobWaiting, 0, "linux"),
		job(5, fleet.WorkflowJobCompleted, 0, "linux"),
		job(6, fleet.WorkflowJobQueued, 0),
		elsewhere, // took a host of the other pool, whose labels it does not ask for
		job(8, fleet.WorkflowJobQueued, 8, "linux", "arm64"),
		job(9, fleet.WorkflowJobQueued, 7, "arm64", "linux"),
		job(10, fleet.WorkflowJobInProgress, 7, "ubuntu-latest"),
		job(11, fleet.WorkflowJobQueued, 7, "printer"),
		pet,
	}, policies.Outside{
		Homes:   map[policies.RunnerKey]string{{Target: "acme", ID: 70}: "gpu", {Target: "acme", ID: 71}: ""},
		Runners: map[string][]policies.Offer{"acme": {{Labels: []string{"printer", "linux"}}}},
	})
	want := policies.Matched{
		Demand: map[string]fleet.Demand{
			"linux": {Queued: 2, OldestAt: at.Add(3 * time.Minute)},
			"gpu":   {InProgress: 2},
		},
		Findings: []fleet.Finding{
			{Kind: fleet.FindingUnlabelledJob, Target: "acme", Subject: "acme/r0", Since: at, Detail: fleet.Evidence{"jobs": 1, "repository": "acme/r0"}},
			{
				Kind: fleet.FindingUnservedJob, Target: "acme", Subject: "arm64,linux", Since: at.Add(7 * time.Minute),
				Detail: fleet.Evidence{"jobs": 2, "repository": "acme/r1", "nearest_pool": "linux", "it_lacks": "arm64"},
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Match (-want +got):\n%s", diff)
	}
}

// A runner takes workflow jobs of those repositories that its group is open to.
func TestMatchHeedsRunnerGroups(t *testing.T) {
	t.Parallel()
	access := policies.Access{
		Groups: map[string]fleet.RunnerGroup{
			"1": {ID: "1", Name: "Default", Visibility: fleet.GroupAll},
			"2": {ID: "2", Visibility: fleet.GroupSelected, Selected: []string{"acme/release"}},
			"3": {ID: "3", Visibility: fleet.GroupAll, Public: true},
			"4": {ID: "4", Visibility: fleet.GroupPrivate, Public: true},
			"5": {ID: "5", Visibility: fleet.GroupSelected, Public: true, Selected: []string{"acme"}},
			"6": {ID: "6", Visibility: fleet.GroupSelected, Selected: []string{"acme/site"}},
		},
		Public: map[string]bool{"acme/site": true},
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name, repository string
		groups           map[string][]string // by pool: linux has fewer labels than gpu
		outside          string              // group of a runner outside of pools
		want             string
	}{
		{"nothing known of groups", "acme/widgets", nil, "", "linux"},
		{"all private ones", "acme/widgets", map[string][]string{"linux": {"1"}}, "", "linux"},
		{"selected", "acme/release", map[string][]string{"linux": {"2"}}, "", "linux"},
		{"selected, in another case", "Acme/Release", map[string][]string{"linux": {"2"}}, "", "linux"},
		{"another is not selected", "acme/widgets", map[string][]string{"linux": {"2"}}, "", "gpu"},
		{"no repository is told", "", map[string][]string{"linux": {"2"}}, "", "linux"},
		{"one of the pool's groups", "acme/widgets", map[string][]string{"linux": {"2", "1"}}, "", "linux"},
		{"a group that nobody knows", "acme/widgets", map[string][]string{"linux": {"9"}}, "", "linux"},
		{"public, and the group takes none", "acme/site", map[string][]string{"linux": {"1"}}, "", "gpu"},
		{"public, and the group takes them", "acme/site", map[string][]string{"linux": {"3"}}, "", "linux"},
		{"public, and the group is of private ones", "acme/site", map[string][]string{"linux": {"4"}}, "", "gpu"},
		{"public, selected, and the group takes none", "acme/site", map[string][]string{"linux": {"6"}}, "", "gpu"},
		{"a selected organisation", "acme/widgets", map[string][]string{"linux": {"5"}}, "", "linux"},
		{"another organisation", "widgets/acme", map[string][]string{"linux": {"5"}}, "", "gpu"},
		{"no pool takes it", "acme/widgets", map[string][]string{"linux": {"2"}, "gpu": {"2"}}, "", "unserved_job linux closed_pool linux"},
		{"a runner outside does", "acme/widgets", map[string][]string{"linux": {"2"}, "gpu": {"2"}}, "1", ""},
		{"nor does one outside", "acme/widgets", map[string][]string{"linux": {"2"}, "gpu": {"2"}}, "2", "unserved_job linux closed_pool linux"},
	}
	m := policies.NewMatcher([]fleet.Pool{pool("linux", "linux"), pool("gpu", "linux", "gpu")})
	for _, tt := range tests {
		a := access
		a.Pools = tt.groups
		outside := policies.Outside{Access: map[string]policies.Access{"acme": a}}
		if tt.outside != "" {
			outside.Runners = map[string][]policies.Offer{"acme": {{Labels: []string{"linux"}, Group: tt.outside}}}
		}
		found := m.Match([]fleet.WorkflowJob{
			{Target: "acme", ID: 1, Labels: []string{"linux"}, State: fleet.WorkflowJobQueued, Repository: tt.repository, QueuedAt: at},
		}, outside)
		var got []string
		for name := range found.Demand {
			got = append(got, name)
		}
		for _, f := range found.Findings {
			got = append(got, fmt.Sprintf("%s %s closed_pool %s", f.Kind, f.Subject, f.Detail["closed_pool"]))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: counted for %q, want %q", tt.name, s, tt.want)
		}
	}

	// Jobs of two repositories that ask for the same labels are one finding, and
	// those that somebody takes are none of it.
	access.Pools = map[string][]string{"linux": {"2"}, "gpu": {"2"}}
	var jobs []fleet.WorkflowJob
	for i, repository := range []string{"acme/release", "acme/b", "acme/a", "acme/b"} {
		jobs = append(jobs, fleet.WorkflowJob{
			Target: "acme", ID: int64(i), Labels: []string{"linux"}, State: fleet.WorkflowJobQueued, Repository: repository,
			QueuedAt: at.Add(-time.Duration(i) * time.Minute),
		})
	}
	want := policies.Matched{
		Demand: map[string]fleet.Demand{"linux": {Queued: 1, OldestAt: at}},
		Findings: []fleet.Finding{{
			Kind: fleet.FindingUnservedJob, Target: "acme", Subject: "linux", Since: at.Add(-3 * time.Minute),
			Detail: fleet.Evidence{"jobs": 3, "repository": "acme/b", "closed_pool": "linux"},
		}},
	}
	if diff := cmp.Diff(want, m.Match(jobs, policies.Outside{Access: map[string]policies.Access{"acme": access}})); diff != "" {
		t.Errorf("Match (-want +got):\n%s", diff)
	}
}

// One run of a matrix fills more than one page of any listing.
func TestMatchCountsAllOfARun(t *testing.T) {
	t.Parallel()
	var jobs []fleet.WorkflowJob
	for i := range int64(150) {
		jobs = append(jobs, fleet.WorkflowJob{Target: "acme", ID: i, RunID: 1, State: fleet.WorkflowJobQueued, Labels: []string{"linux"}})
	}
	got := policies.NewMatcher([]fleet.Pool{pool("linux", "linux")}).Match(jobs, policies.Outside{})
	if d := got.Demand["linux"]; d.Queued != 150 || len(got.Findings) != 0 {
		t.Errorf("150 jobs of one run give %+v and findings %v", d, got.Findings)
	}
}

// Where a target has one runner group, jobs of two repositories with the same
// labels are still told apart.
func TestOneRunnerGroupTellsRepositoriesApart(t *testing.T) {
	t.Parallel()
	m := policies.NewMatcher([]fleet.Pool{pool("linux", "linux")})
	access := policies.Access{
		Groups: map[string]fleet.RunnerGroup{"2": {ID: "2", Visibility: fleet.GroupSelected, Selected: []string{"acme/release"}}},
		Pools:  map[string][]string{"linux": {"2"}},
	}
	var jobs []policies.AlikeJobs
	for i, repository := range []string{"acme/release", "acme/site"} {
		jobs = append(jobs, policies.AlikeJobs{Count: 1, WorkflowJob: fleet.WorkflowJob{
			Target: "acme", ID: int64(i + 1), State: fleet.WorkflowJobQueued, Labels: []string{"linux"}, Repository: repository,
		}})
	}
	got := m.MatchAlike(jobs, policies.Outside{Access: map[string]policies.Access{"acme": access}})
	if got.Demand["linux"].Queued != 1 || len(got.Findings) != 1 {
		t.Errorf("demand %+v, findings %v, want one job for the pool and one that it may not take", got.Demand, got.Findings)
	}
}

// Jobs for GitHub's own machines are those of no pool, and so are runners with
// labels of their own: how many of both there are adds up, and does not multiply.
func TestTheCostOfMatchingIsNotThatOfEachJobWithEachRunner(t *testing.T) {
	const n = 400
	var jobs []policies.AlikeJobs
	var offers []policies.Offer
	for i := range n {
		offers = append(offers, policies.Offer{Labels: []string{"linux", "self-hosted", fmt.Sprint("pet-", i)}, Group: "1"})
		jobs = append(jobs, policies.AlikeJobs{Count: 1, WorkflowJob: fleet.WorkflowJob{
			Target: "acme", ID: int64(i), State: fleet.WorkflowJobQueued, Labels: []string{"ubuntu-latest"}, Repository: fmt.Sprint("acme/r", i),
		}})
	}
	jobs[0].Labels = []string{"pet-7", "linux"} // which one of them takes
	m := policies.NewMatcher([]fleet.Pool{pool("linux", "linux")})
	outside := policies.Outside{
		Runners: map[string][]policies.Offer{"acme": offers},
		Access:  map[string]policies.Access{"acme": {Groups: map[string]fleet.RunnerGroup{"1": {ID: "1", Visibility: fleet.GroupAll}}}},
	}
	var got policies.Matched
	if allocs := testing.AllocsPerRun(1, func() { got = m.MatchAlike(jobs, outside) }); allocs > 50*2*n {
		t.Errorf("%d jobs and as many runners outside of pools take %.0f allocations", n, allocs)
	}
	if len(got.Findings) != 1 || got.Findings[0].Detail["jobs"] != n-1 {
		t.Errorf("findings %v, want one of %d jobs", got.Findings, n-1)
	}
}

// Whatever is told of jobs, in whatever order and how often: each open one
// counts once, for a pool that has all it asks for and no more surplus than
// any other that does.
func TestMatchingCountsOnce(t *testing.T) {
	t.Parallel()
	letters := []string{"a", "b", "c", "d", "e"}
	rapid.Check(t, func(t *rapid.T) {
		labels := rapid.SliceOfDistinct(rapid.SampledFrom(letters), rapid.ID[string])
		var pools []fleet.Pool
		for i := range rapid.IntRange(0, 80).Draw(t, "pools") {
			pools = append(pools, fleet.Pool{
				Name: fmt.Sprint("p", i), Target: rapid.SampledFrom([]string{"acme", "other"}).Draw(t, "target"),
				Labels: labels.Draw(t, "labels of pool"),
			})
		}
		var told []fleet.WorkflowJob
		open := map[int64]fleet.WorkflowJob{}
		for id := range rapid.Int64Range(0, 30).Draw(t, "jobs") {
			job := fleet.WorkflowJob{
				Target: rapid.SampledFrom([]string{"acme", "other"}).Draw(t, "target"), ID: id,
				Labels: labels.Draw(t, "labels"), Repository: "acme/r", QueuedAt: time.Unix(id, 0),
			}
			states := []fleet.WorkflowJobState{fleet.WorkflowJobQueued, fleet.WorkflowJobInProgress, fleet.WorkflowJobCompleted}
			for _, job.State = range states[:rapid.IntRange(1, 3).Draw(t, "states")] {
				told = append(told, slices.Repeat([]fleet.WorkflowJob{job}, rapid.IntRange(1, 2).Draw(t, "times"))...)
			}
			if job.State != fleet.WorkflowJobCompleted {
				open[id] = job
			}
		}
		told = rapid.Permutation(told).Draw(t, "order")

		want := policies.Matched{Demand: map[string]fleet.Demand{}}
		unserved := 0
		for id := range int64(30) {
			job, is := open[id]
			best := fleet.Pool{}
			for _, p := range pools {
				has := func(label string) bool { return slices.Contains(p.Labels, label) }
				missing := slices.ContainsFunc(job.Labels, func(label string) bool { return !has(label) })
				if p.Target != job.Target || missing || len(job.Labels) == 0 {
					continue
				}
				if best.Name == "" || len(p.Labels) < len(best.Labels) || len(p.Labels) == len(best.Labels) && p.Name < best.Name {
					best = p
				}
			}
			d := want.Demand[best.Name]
			switch {
			case !is:
				continue
			case best.Name == "":
				if job.State == fleet.WorkflowJobQueued {
					unserved++
				}
				continue
			case job.State == fleet.WorkflowJobQueued:
				if d.Queued++; d.OldestAt.IsZero() {
					d.OldestAt = job.QueuedAt
				}
			default:
				d.InProgress++
			}
			want.Demand[best.Name] = d
		}
		got := policies.NewMatcher(pools).Match(told, policies.Outside{})
		if diff := cmp.Diff(want.Demand, got.Demand); diff != "" {
			t.Fatalf("demand (-want +got):\n%s", diff)
		}
		found := 0
		for _, f := range got.Findings {
			found += f.Detail["jobs"].(int)
		}
		if found != unserved {
			t.Fatalf("the findings are of %d jobs, want %d: %v", found, unserved, got.Findings)
		}
	})
}

// Events are lost, come twice and in any order. Then what is open at GitHub is
// listed once, and what is still held to be open and is not on the list is read
// by itself: demand is what it would be had all been told.
func TestReconcilingMakesLossesGood(t *testing.T) {
	t.Parallel()
	m := policies.NewMatcher([]fleet.Pool{pool("linux", "linux", "x64"), pool("gpu", "linux", "x64", "gpu")})
	states := []fleet.WorkflowJobState{fleet.WorkflowJobQueued, fleet.WorkflowJobInProgress, fleet.WorkflowJobCompleted}
	rapid.Check(t, func(t *rapid.T) {
		var truth, told []fleet.WorkflowJob
		for id := range rapid.Int64Range(0, 25).Draw(t, "jobs") {
			job := fleet.WorkflowJob{
				Target: "acme", ID: id, QueuedAt: time.Unix(id, 0),
				Labels: rapid.SampledFrom([][]string{{"linux"}, {"gpu"}, {"arm64"}}).Draw(t, "labels"),
			}
			for _, job.State = range states[:rapid.IntRange(1, 3).Draw(t, "states")] {
				told = append(told, slices.Repeat([]fleet.WorkflowJob{job}, rapid.IntRange(0, 2).Draw(t, "times"))...)
			}
			truth = append(truth, job)
		}
		for _, job := range truth {
			held := slices.ContainsFunc(told, func(j fleet.WorkflowJob) bool { return j.ID == job.ID })
			if job.State != fleet.WorkflowJobCompleted || held {
				told = append(told, job)
			}
		}
		told = rapid.Permutation(told).Draw(t, "order")
		if diff := cmp.Diff(m.Match(truth, policies.Outside{}), m.Match(told, policies.Outside{})); diff != "" {
			t.Fatalf("demand (-truth +told):\n%s", diff)
		}
	})
}
