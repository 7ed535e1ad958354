package githubsim_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

func (s *simulator) queue(spec githubsim.JobSpec) int64 {
	s.t.Helper()
	id, err := s.QueueJob(org, spec)
	must(s.t, err)
	return id
}

// wantJobs compares all workflow jobs, in words: state or conclusion, and the
// runner's name.
func (s *simulator) wantJobs(name string, want ...string) {
	s.t.Helper()
	var got []string
	for _, j := range s.Jobs() {
		word := string(j.State)
		if j.Conclusion != "" {
			word = j.Conclusion
		}
		got = append(got, strings.TrimSpace(word+" "+j.RunnerName))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestAWorkflowJobGoesToARunnerThatFits(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	plain := s.create(org, githubsim.RunnerSpec{Name: "plain", Online: true})
	gpu := s.create(org, githubsim.RunnerSpec{Name: "gpu", Online: true, Labels: []string{"GPU"}})
	once := s.create(org, githubsim.RunnerSpec{Name: "once", Online: true, Labels: []string{"gpu"}, Ephemeral: true})
	first := s.queue(githubsim.JobSpec{Labels: []string{"self-hosted", "gpu"}})
	second := s.queue(githubsim.JobSpec{Labels: []string{"linux"}})
	must(t, s.Assign(org, plain))
	s.wantJobs("the older one does not fit", "queued", "in_progress plain")
	must(t, s.Assign(org, gpu))
	s.wantJobs("both run", "in_progress gpu", "in_progress plain")
	s.wantShown("busy", gpu, shown{"online", true})
	must(t, s.FinishJob(first, "failure"))
	must(t, s.Finish(org, plain))
	s.wantJobs("both are over", "failure gpu", "success plain")
	s.wantShown("idle", gpu, shown{"online", false})
	third := s.queue(githubsim.JobSpec{Labels: []string{"gpu"}})
	must(t, s.RunJob(org, once, third))
	must(t, s.FinishJob(third, "success"))
	if s.there(once) {
		t.Error("an ephemeral runner is there after its job")
	}
	must(t, s.Assign(org, gpu))
	s.wantJobs("one of its own", "failure gpu", "success plain", "success once", "in_progress gpu")
	for name, err := range map[string]error{
		"finish it again":    s.FinishJob(second, "success"),
		"approve it":         s.Approve(second),
		"run it again":       s.RunJob(org, plain, second),
		"run what is not":    s.RunJob(org, plain, 99),
		"finish what is not": s.FinishJob(99, "success"),
		"a conclusion":       s.FinishJob(4, "fine"),
		"a busy runner":      s.RunJob(org, gpu, s.queue(githubsim.JobSpec{})),
	} {
		if err == nil {
			t.Errorf("%s: nil, want an error", name)
		}
	}
}

func TestAWorkflowJobMovesToAnotherRunner(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Version: "3.19"})
	r, _ := s.hook(org)
	first := s.create(org, githubsim.RunnerSpec{Name: "first", Online: true})
	once := s.create(org, githubsim.RunnerSpec{Name: "once", Online: true, Ephemeral: true})
	dark := s.create(org, githubsim.RunnerSpec{Name: "dark"})
	elsewhere := s.create(repo, githubsim.RunnerSpec{Name: "elsewhere", Online: true})
	job := s.queue(githubsim.JobSpec{})
	refused := func(name string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("move %s: nil, want an error", name)
		}
	}
	refused("a job that is queued", s.MoveJob(org, first, job))
	must(t, s.RunJob(org, once, job))
	refused("a job to the runner that has it", s.MoveJob(org, once, job))
	refused("a job to a runner that is offline", s.MoveJob(org, dark, job))
	refused("a job to a runner of another scope", s.MoveJob(repo, elsewhere, job))
	refused("what is not there", s.MoveJob(org, first, 99))
	must(t, s.MoveJob(org, first, job))
	s.wantJobs("moved", "in_progress first")
	s.wantShown("has the job", first, shown{"online", true})
	s.wantShown("had the job, and stays", once, shown{"online", false})
	must(t, s.Finish(org, first))
	s.wantJobs("over", "success first")
	s.wantShown("idle", first, shown{"online", false})
	s.wantHeard("the hook was told of both runners", r, "queued 1", "in_progress 1 once", "in_progress 1 first", "completed 1 first")
}

func TestTheStatesOfAWorkflowJob(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	waiting := s.queue(githubsim.JobSpec{Waiting: true})
	s.queue(githubsim.JobSpec{Skipped: true, Labels: []string{}})
	s.create(org, githubsim.RunnerSpec{Name: "idle", Online: true})
	if n, err := s.Dispatch(org); n != 0 || err != nil {
		t.Errorf("Dispatch() = %d, %v: one waits, one is skipped", n, err)
	}
	s.wantJobs("waiting", "waiting", "skipped")
	must(t, s.Approve(waiting))
	s.wantJobs("queued", "queued", "skipped")
	cancelled := s.queue(githubsim.JobSpec{})
	must(t, s.FinishJob(cancelled, "cancelled"))
	if n, err := s.Dispatch(org); n != 1 || err != nil {
		t.Errorf("Dispatch() = %d, %v, want 1", n, err)
	}
	s.wantJobs("in progress", "in_progress idle", "skipped", "cancelled")
	if st := s.Snapshot(org)[0]; !st.Busy || st.Job != waiting {
		t.Errorf("the runner: %+v", st)
	}
}

func TestDispatchTakesOnlyWhoIsFree(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{Connect: time.Minute, Offline: time.Minute}})
	for _, spec := range []githubsim.RunnerSpec{{Name: "offline"}, {Name: "busy", Online: true, Busy: true}, {Name: "dead", Online: true}, {Name: "starting"}, {Name: "a", Online: true}, {Name: "b", Online: true}} {
		s.create(org, spec)
	}
	must(t, s.Kill(org, 3))
	must(t, s.Connect(org, 4))
	for range 3 {
		s.queue(githubsim.JobSpec{})
	}
	s.queue(githubsim.JobSpec{Labels: []string{"gpu"}})
	n, err := s.Dispatch(org)
	must(t, err)
	s.wantJobs("two of four", "in_progress busy", "in_progress a", "in_progress b", "queued", "queued")
	if n != 2 {
		t.Errorf("Dispatch() = %d, want 2", n)
	}
}

func TestAJobThatNobodyPicksUpIsQueuedAgain(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{Offline: 5 * time.Minute}})
	dead := s.create(org, githubsim.RunnerSpec{Name: "dead", Online: true})
	other := s.create(org, githubsim.RunnerSpec{Name: "other", Online: true})
	must(t, s.Kill(org, dead))
	id := s.queue(githubsim.JobSpec{})
	must(t, s.Assign(org, dead))
	s.wantJobs("it is the dead one's", "queued dead")
	if err := s.RunJob(org, other, id); err == nil {
		t.Error("another took it meanwhile")
	}
	s.now = s.now.Add(time.Minute)
	s.wantJobs("it is nobody's", "queued")
	must(t, s.Assign(org, dead))
	must(t, s.Connect(org, dead))
	s.wantJobs("it came back in time", "in_progress dead")
}

func TestTheJobOfALostRunnerFails(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{BusyClear: 10 * time.Minute}})
	for _, name := range []string{"killed", "removed"} {
		s.create(org, githubsim.RunnerSpec{Name: name, Online: true})
		s.queue(githubsim.JobSpec{})
	}
	_, err := s.Dispatch(org)
	must(t, err)
	must(t, s.Kill(org, 1))
	must(t, s.Remove(org, 2))
	s.wantJobs("at once", "in_progress killed", "failure removed")
	s.now = s.now.Add(10 * time.Minute)
	s.wantJobs("after a while", "failure killed", "failure removed")
	if j := s.Jobs()[0]; !j.CompletedAt.Equal(s.now) {
		t.Errorf("completed at %s", j.CompletedAt)
	}
}

func TestRunnersTakeJobsOfTheirScope(t *testing.T) {
	t.Parallel()
	other := fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "gadgets"}
	for _, tt := range []struct {
		in         fleet.Scope
		repository string
		takes      string // which runners: of the enterprise, the organisation, two repositories
	}{
		{enterprise, "acme/widgets", "octo acme acme/widgets"},
		{org, "acme/widgets", "acme acme/widgets"},
		{org, "acme/gadgets", "acme acme/gadgets"},
		{org, "", "acme acme/widgets"},
		{repo, "", "acme acme/widgets"},
	} {
		var takes []string
		for name, scope := range map[string]fleet.Scope{"octo": enterprise, "acme": org, "acme/widgets": repo, "acme/gadgets": other} {
			s := start(t, githubsim.Config{})
			must(t, s.AddScope(other))
			s.create(scope, githubsim.RunnerSpec{Name: "r", Online: true})
			_, err := s.QueueJob(tt.in, githubsim.JobSpec{Repository: tt.repository})
			must(t, err)
			n, err := s.Dispatch(scope)
			must(t, err)
			if n == 1 {
				takes = append(takes, name)
			}
		}
		for _, name := range strings.Fields(tt.takes) {
			if !strings.Contains(" "+strings.Join(takes, " ")+" ", " "+name+" ") {
				t.Errorf("queued in %s for %q: taken by %v, want %s", tt.in, tt.repository, takes, tt.takes)
			}
		}
		if len(takes) != len(strings.Fields(tt.takes)) {
			t.Errorf("queued in %s for %q: taken by %v, want %s", tt.in, tt.repository, takes, tt.takes)
		}
	}
	s := start(t, githubsim.Config{})
	for _, spec := range []githubsim.JobSpec{{Repository: "other/widgets"}, {Repository: "widgets"}, {RunID: 9}} {
		if _, err := s.QueueJob(org, spec); err == nil {
			t.Errorf("QueueJob(%+v) = nil, want an error", spec)
		}
	}
}

func TestARerun(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	good := s.queue(githubsim.JobSpec{Name: "good"})
	run := s.Jobs()[0].RunID
	bad := s.queue(githubsim.JobSpec{RunID: run, Name: "bad", Labels: []string{"gpu"}})
	must(t, s.FinishJob(good, "success"))
	if err := s.Rerun(run); err == nil {
		t.Error("a run that is not over: nil, want an error")
	}
	must(t, s.FinishJob(bad, "failure"))
	must(t, s.Rerun(run))
	s.wantJobs("again", "success", "failure", "queued")
	again := s.Jobs()[2]
	if again.Name != "bad" || again.Attempt != 2 || again.RunID != run || fmt.Sprint(again.Labels) != "[gpu]" {
		t.Errorf("the new job: %+v", again)
	}
	log := s.Log()
	if e := log[len(log)-2]; e.Job != good || e.Cause != "completed" {
		t.Errorf("log of what succeeded before: %+v", e)
	}
}
