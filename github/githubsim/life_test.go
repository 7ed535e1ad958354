package githubsim_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// shown is what GET by id says of a runner of the organisation.
type shown struct {
	Status string
	Busy   bool
}

func (s *simulator) get(id int64) (shown, int) {
	s.t.Helper()
	r := s.ask("GET", fmt.Sprintf("%s/%d", list, id), "")
	var v shown
	if r.status == http.StatusOK {
		r.decode(s.t, &v)
	}
	return v, r.status
}

func (s *simulator) wantShown(name string, id int64, want shown) {
	s.t.Helper()
	if got, status := s.get(id); got != want || status != http.StatusOK {
		s.t.Errorf("%s: %+v (%d), want %+v", name, got, status, want)
	}
}

func TestWhatIsShownLagsBehindTheTruth(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{Connect: 5 * time.Second, Offline: time.Minute, BusyClear: 10 * time.Minute}})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	s.wantShown("registered", id, shown{"offline", false})
	must(t, s.Connect(org, id))
	s.wantShown("just connected", id, shown{"offline", false})
	s.now = s.now.Add(5 * time.Second)
	s.wantShown("connected", id, shown{"online", false})
	must(t, s.Assign(org, id))
	s.wantShown("assigned", id, shown{"online", true})
	must(t, s.Kill(org, id))
	if st := s.Snapshot(org)[0]; st.Online || st.Shown != fleet.StatusOnline || !st.Busy {
		t.Errorf("the truth after the kill: %+v", st)
	}
	s.wantShown("just killed", id, shown{"online", true})
	s.now = s.now.Add(time.Minute)
	s.wantShown("killed", id, shown{"offline", true})
	s.now = s.now.Add(9*time.Minute - 1)
	s.wantShown("still believed busy", id, shown{"offline", true})
	s.now = s.now.Add(1)
	s.wantShown("given up", id, shown{"offline", false})
}

func TestWithoutLagTheTruthIsShownAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	must(t, s.Connect(org, id))
	s.wantShown("connected", id, shown{"online", false})
	must(t, s.Assign(org, id))
	must(t, s.Kill(org, id))
	s.wantShown("killed", id, shown{"offline", false})
}

func TestARunnerThatFlapsFasterThanTheLagStaysAsShown(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{Offline: time.Minute}})
	id := s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
	for range 3 {
		must(t, s.Kill(org, id))
		s.now = s.now.Add(30 * time.Second)
		s.wantShown("down for a moment", id, shown{"online", false})
		must(t, s.Connect(org, id))
		s.now = s.now.Add(30 * time.Second)
		s.wantShown("back", id, shown{"online", false})
	}
}

func TestAZombieStaysBusy(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{BusyClear: -1}})
	killed := s.create(org, githubsim.RunnerSpec{Name: "killed", Online: true, Busy: true})
	must(t, s.Kill(org, killed))
	born := s.create(org, githubsim.RunnerSpec{Name: "born so", Busy: true})
	s.now = s.now.Add(24 * time.Hour)
	s.wantShown("killed", killed, shown{"offline", true})
	s.wantShown("born so", born, shown{"offline", true})
	if r := s.ask("DELETE", fmt.Sprintf("%s/%d", list, killed), ""); r.status != http.StatusUnprocessableEntity {
		t.Errorf("DELETE = %d, want 422", r.status)
	}
}

func TestAJobForADeadRunnerGoesBackToTheQueue(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{Offline: 2 * time.Minute}})
	dead := s.create(org, githubsim.RunnerSpec{Name: "dead", Online: true})
	must(t, s.Kill(org, dead))
	must(t, s.Assign(org, dead))
	working := s.create(org, githubsim.RunnerSpec{Name: "works though shown offline"})
	must(t, s.Assign(org, working))
	s.wantShown("dead", dead, shown{"online", true})
	s.now = s.now.Add(time.Minute)
	s.wantShown("dead", dead, shown{"online", false})
	s.wantShown("working", working, shown{"offline", true})
}

func TestConnectingAgainKeepsTheJob(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{BusyClear: time.Minute}})
	id := s.create(org, githubsim.RunnerSpec{Name: "a", Online: true, Busy: true})
	must(t, s.Kill(org, id))
	must(t, s.Connect(org, id))
	s.now = s.now.Add(time.Hour)
	s.wantShown("back", id, shown{"online", true})
	must(t, s.Finish(org, id))
	s.wantShown("finished", id, shown{"online", false})
}

func TestAnEphemeralRunnerGoesWithItsJob(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "once", Ephemeral: true, Online: true})
	must(t, s.Assign(org, id))
	must(t, s.Finish(org, id))
	if _, status := s.get(id); status != http.StatusNotFound {
		t.Errorf("GET = %d, want 404", status)
	}
}

func TestRunnersThatDoNotConnectForAMonthAreForgotten(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	never := s.create(org, githubsim.RunnerSpec{Name: "never"})
	killed := s.create(org, githubsim.RunnerSpec{Name: "killed", Online: true})
	online := s.create(org, githubsim.RunnerSpec{Name: "online", Online: true})
	s.now = s.now.Add(24 * time.Hour)
	must(t, s.Kill(org, killed))
	statuses := func() string {
		_, a := s.get(never)
		_, b := s.get(killed)
		_, c := s.get(online)
		return fmt.Sprint(a, b, c)
	}
	s.now = s.now.Add(29*24*time.Hour + time.Hour)
	if got := statuses(); got != "404 200 200" {
		t.Errorf("after 30 days: %s", got)
	}
	s.now = s.now.Add(24 * time.Hour)
	if got := statuses(); got != "404 404 200" {
		t.Errorf("after 31 days: %s", got)
	}
}

func TestWhatCannotBeDoneToARunner(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	elsewhere := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "nobody"}
	_, nameless := s.Create(org, githubsim.RunnerSpec{})
	_, taken := s.Create(org, githubsim.RunnerSpec{Name: "a"})
	_, system := s.Create(org, githubsim.RunnerSpec{Name: "b", OS: "plan9"})
	_, labelled := s.Create(org, githubsim.RunnerSpec{Name: "b", Labels: []string{""}})
	_, lost := s.Create(elsewhere, githubsim.RunnerSpec{Name: "b"})
	for _, tt := range []struct {
		name string
		err  error
		want error // nil: any
	}{
		{"no name", nameless, nil}, {"a taken name", taken, fleet.ErrConflict}, {"an unknown system", system, nil}, {"an empty label", labelled, nil}, {"an unknown scope", lost, fleet.ErrNotFound},
		{"finish without a job", s.Finish(org, id), fleet.ErrConflict},
		{"kill in an unknown scope", s.Kill(elsewhere, id), fleet.ErrNotFound}, {"remove an unknown runner", s.Remove(org, id+99), fleet.ErrNotFound},
		{"add a bad scope", s.AddScope(fleet.Scope{Kind: fleet.ScopeOrg, Owner: "a/b"}), nil},
	} {
		if tt.err == nil || tt.want != nil && !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.want)
		}
	}
	must(t, s.Assign(org, id))
	if err := s.Assign(org, id); !errors.Is(err, fleet.ErrBusy) {
		t.Errorf("a second job: %v", err)
	}
	if s.Snapshot(elsewhere) != nil {
		t.Error("an unknown scope has runners")
	}
	s.create(repo, githubsim.RunnerSpec{Name: "a"}) // names are unique per scope only
}

func TestSnapshotIsTheTruth(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a", Labels: []string{"gpu"}, Online: true, Busy: true, Ephemeral: true})
	want := []githubsim.State{{
		ID: id, Name: "a", OS: "linux", Labels: []string{"self-hosted", "Linux", "X64", "gpu"}, Ephemeral: true,
		Online: true, Shown: fleet.StatusOnline, Busy: true, Job: 1, CreatedAt: s.now, ConnectedAt: s.now,
	}}
	if diff := cmp.Diff(want, s.Snapshot(org)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	must(t, s.Remove(org, id))
	if got := s.Snapshot(org); got == nil || len(got) != 0 {
		t.Errorf("afterwards: %v", got)
	}
}

func TestTheLogTellsTheWholeStoryInOrder(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	must(t, s.Connect(org, id))
	s.ask("GET", list+"?per_page=100", "")
	must(t, s.Assign(org, id))
	must(t, s.Finish(org, id))
	must(t, s.Kill(org, id))
	s.ask("DELETE", fmt.Sprintf("%s/%d", list, id), "")
	s.ask("GET", "/api/v3/nothing", "", "Authorization", "")
	who := fleet.NewSecret(credential).Fingerprint()
	const tmpl = "/orgs/{org}/actions/runners"
	want := []githubsim.Event{
		{Change: "created", RunnerID: id, RunnerName: "a", Scope: "org/acme"},
		{Change: "connected", RunnerID: id, RunnerName: "a", Scope: "org/acme", Online: true},
		{Method: "GET", Path: tmpl, Query: "per_page=100", Credential: who, Status: 200, Points: 1, Scope: "org/acme"},
		{Change: "job", Cause: "queued", Job: 1, Scope: "org/acme"},
		{Change: "assigned", RunnerID: id, RunnerName: "a", Job: 1, Scope: "org/acme", Online: true, Busy: true},
		{Change: "job", Cause: "in_progress", Job: 1, RunnerID: id, RunnerName: "a", Scope: "org/acme"},
		{Change: "finished", RunnerID: id, RunnerName: "a", Scope: "org/acme", Online: true},
		{Change: "job", Cause: "completed", Job: 1, RunnerID: id, RunnerName: "a", Scope: "org/acme"},
		{Change: "killed", RunnerID: id, RunnerName: "a", Scope: "org/acme"},
		{Change: "removed", Cause: "DELETE", RunnerID: id, RunnerName: "a", Scope: "org/acme"},
		{Method: "DELETE", Path: tmpl + "/{runner_id}", Credential: who, Status: 204, Points: 5, Acted: true, RunnerID: id, RunnerName: "a", Scope: "org/acme"},
		{Method: "GET", Path: "/api/v3/nothing", Status: 401},
	}
	for i := range want {
		want[i].Seq, want[i].At = int64(i+1), s.now
	}
	got := s.Log()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[6:], s.LogSince(6)); diff != "" {
		t.Errorf("since 6 (-want +got):\n%s", diff)
	}
	if rest := s.LogSince(99); len(rest) != 0 {
		t.Errorf("since 99: %v", rest)
	}
	for _, e := range got {
		if strings.Contains(fmt.Sprint(e), credential) {
			t.Errorf("event %d holds the credential", e.Seq)
		}
	}
}
