package demand_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/demand"
)

// t0 is when the clocks of these tests begin.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// told are the events of one workflow job from its approval to its end, in the
// order in which they happen.
func told() []fleet.WorkflowJob {
	waiting := fleet.WorkflowJob{
		Target: "acme", ID: 41, RunID: 7, RunAttempt: 1, Repository: "acme/widgets",
		Labels: []string{"linux", "self-hosted"}, State: fleet.WorkflowJobWaiting, QueuedAt: t0,
	}
	queued, running := waiting, waiting
	queued.State = fleet.WorkflowJobQueued
	running.State, running.RunnerID, running.RunnerName = fleet.WorkflowJobInProgress, 3, "build-03"
	running.StartedAt = t0.Add(time.Minute)
	done := running
	done.State, done.Conclusion, done.CompletedAt = fleet.WorkflowJobCompleted, "success", t0.Add(5*time.Minute)
	return []fleet.WorkflowJob{waiting, queued, running, done}
}

// butRunners leaves out the list of runners, which has a test of its own.
var butRunners = cmpopts.IgnoreFields(fleet.WorkflowJob{}, "Runners")

func fold(events []fleet.WorkflowJob) fleet.WorkflowJob {
	job := fleet.WorkflowJob{Target: events[0].Target, ID: events[0].ID}
	for _, e := range events {
		job = demand.Fold(job, e)
	}
	return job
}

func TestFoldFollowsAJobToItsEnd(t *testing.T) {
	t.Parallel()
	for i, want := range told() {
		if diff := cmp.Diff(want, fold(told()[:i+1]), butRunners); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", want.State, diff)
		}
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	waiting, queued, running, done := told()[0], told()[1], told()[2], told()[3]
	bare := fleet.WorkflowJob{Target: "acme", ID: 41}
	with := func(j fleet.WorkflowJob, change func(*fleet.WorkflowJob)) fleet.WorkflowJob {
		change(&j)
		return j
	}
	nameless := with(running, func(j *fleet.WorkflowJob) { j.RunnerID, j.RunnerName = 0, "" })
	unnumbered := with(running, func(j *fleet.WorkflowJob) { j.RunnerID = 0 })
	skipped := with(bare, func(j *fleet.WorkflowJob) {
		j.State, j.Conclusion, j.CompletedAt = fleet.WorkflowJobCompleted, "skipped", t0
	})
	other := with(running, func(j *fleet.WorkflowJob) { j.RunnerID, j.RunnerName = 9, "anvil" })
	for _, tt := range []struct {
		name        string
		known, told fleet.WorkflowJob
		want        fleet.WorkflowJob
	}{
		{"an approval that arrives before the wait for it", queued, waiting, queued},
		{"the beginning heard after the end", done, running, done},
		{"the end alone, then all that it lacks", skipped, queued,
			with(queued, func(j *fleet.WorkflowJob) {
				j.State, j.Conclusion, j.CompletedAt = fleet.WorkflowJobCompleted, "skipped", t0
			})},
		{"a runner told later", nameless, running, running},
		{"a runner is not taken back", running, nameless, running},
		{"a name without an id", nameless, unnumbered, unnumbered},
		{"an id to a name", unnumbered, running, running},
		{"two runners: neither is mixed with the other", running, other, other},
		{"labels are not taken back", queued, with(done, func(j *fleet.WorkflowJob) { j.Labels = nil }), done},
		{"a state that nobody knows", queued, with(bare, func(j *fleet.WorkflowJob) { j.State = "pending" }), queued},
	} {
		if diff := cmp.Diff(tt.want, demand.Fold(tt.known, tt.told), butRunners); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// A job that moves counts for every runner that was named, and is on the one that
// was named last, whatever its id and whatever comes first.
func TestFoldKeepsEveryRunnerOfAJobThatMoves(t *testing.T) {
	t.Parallel()
	second := told()[2]
	second.RunnerID, second.RunnerName = 2, "build-02"
	first := second
	first.RunnerID, first.RunnerName, first.StartedAt = 1, "build-01", second.StartedAt.Add(time.Minute)
	ended := told()[3]
	ended.RunnerID, ended.RunnerName = 2, "build-02"
	for _, tt := range []struct {
		name   string
		events []fleet.WorkflowJob
		on     string
		named  []string
	}{
		{"to a lower id", []fleet.WorkflowJob{second, first}, "build-01", []string{"build-01", "build-02"}},
		{"told in the other order", []fleet.WorkflowJob{first, second}, "build-01", []string{"build-01", "build-02"}},
		{"told twice", []fleet.WorkflowJob{second, first, second}, "build-01", []string{"build-01", "build-02"}},
		{"and back, by its end", []fleet.WorkflowJob{second, first, ended}, "build-02", []string{"build-01", "build-02"}},
		{"told after its end", []fleet.WorkflowJob{ended, first}, "build-02", []string{"build-01", "build-02"}},
		{"from a job that was stored without a list", []fleet.WorkflowJob{first}, "build-01", []string{"build-01", "build-02"}},
	} {
		got := fold(tt.events)
		if len(tt.events) == 1 {
			got = demand.Fold(second, first)
		}
		var named []string
		for _, r := range got.Runners {
			named = append(named, r.Name)
		}
		if diff := cmp.Diff(tt.named, named); diff != "" || got.RunnerName != tt.on {
			t.Errorf("%s: on %s, want %s; named (-want +got):\n%s", tt.name, got.RunnerName, tt.on, diff)
		}
	}
}

// drawEvent is any event of job 41, contradictions to others included.
func drawEvent(t *rapid.T, name string) fleet.WorkflowJob {
	at := func(what string) time.Time {
		if minutes := rapid.IntRange(-1, 3).Draw(t, what); minutes >= 0 {
			return t0.Add(time.Duration(minutes) * time.Minute)
		}
		return time.Time{}
	}
	state := rapid.SampledFrom([]fleet.WorkflowJobState{
		fleet.WorkflowJobWaiting, fleet.WorkflowJobQueued, fleet.WorkflowJobInProgress, fleet.WorkflowJobCompleted,
	})
	text := rapid.SampledFrom([]string{"", "a", "b"})
	number := rapid.Int64Range(0, 2)
	return fleet.WorkflowJob{
		Target: "acme", ID: 41, RunID: number.Draw(t, "run"), RunAttempt: int(number.Draw(t, "attempt")),
		Repository: text.Draw(t, "repository"), State: state.Draw(t, name),
		Labels:   rapid.SampledFrom([][]string{nil, {"linux"}, {"arm64", "linux"}, {"linux", "x64"}}).Draw(t, "labels"),
		RunnerID: number.Draw(t, "runner"), RunnerName: text.Draw(t, "runner name"),
		QueuedAt: at("queued"), StartedAt: at("started"), CompletedAt: at("completed"),
		Conclusion: text.Draw(t, "conclusion"),
	}
}

// Whatever the events say, their order and their repetition say nothing.
func TestFoldKnowsNeitherOrderNorRepetition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var events []fleet.WorkflowJob
		for i := range rapid.IntRange(1, 6).Draw(t, "events") {
			events = append(events, drawEvent(t, fmt.Sprint("event ", i)))
		}
		want := fold(events)
		heard := slices.Clone(events)
		for range rapid.IntRange(0, 4).Draw(t, "repeats") {
			heard = append(heard, rapid.SampledFrom(events).Draw(t, "again"))
		}
		heard = rapid.Permutation(heard).Draw(t, "heard")
		if diff := cmp.Diff(want, fold(heard)); diff != "" {
			t.Fatalf("in another order (-want +got):\n%s", diff)
		}
		// In parts too, as two replicas would.
		cut := rapid.IntRange(0, len(events)-1).Draw(t, "cut")
		if diff := cmp.Diff(want, demand.Fold(fold(events[:cut+1]), fold(events[cut:]))); diff != "" {
			t.Fatalf("in two parts (-want +got):\n%s", diff)
		}
	})
}

// An event that is lost leaves the others as they are: no state is passed that
// was not told, none is missed that was.
func TestFoldAfterLosses(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := told()
		kept := slices.DeleteFunc(slices.Clone(all), func(fleet.WorkflowJob) bool { return rapid.Bool().Draw(t, "lost") })
		if len(kept) == 0 {
			return
		}
		want := kept[len(kept)-1]
		if diff := cmp.Diff(want, fold(rapid.Permutation(kept).Draw(t, "heard")), butRunners); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}
