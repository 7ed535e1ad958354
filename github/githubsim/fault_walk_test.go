package githubsim_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestFaultsOfWalksHoldOverAllTheirPages(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	remove := s.inject(githubsim.Fault{Kind: githubsim.FaultHidden, Rows: 3})
	got, _, totals := s.walk()
	if len(got) != 22 || !slices.Equal(totals, []int{22}) {
		t.Errorf("three hidden: %d runners, totals %v", len(got), totals)
	}
	if e := s.last(); e.Fault != "hidden" || e.Query != "per_page=10&page=3" {
		t.Errorf("log of the last page: %+v", e)
	}
	remove()
	s.wantWalk("once it has ended", ids, 25)
	if e := s.last(); e.Fault != "" {
		t.Errorf("log afterwards: %+v", e)
	}

	gpu, err := s.CreateMany(org, 2, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprint("gpu", i), Online: true, Labels: []string{"GPU"}}
	})
	must(t, err)
	s.inject(githubsim.Fault{Kind: githubsim.FaultOffline, Label: "gpu", Count: 1})
	s.wantWalk("a label is offline", slices.Concat(ids, gpu), 25)
	s.wantWalk("it was once", slices.Concat(ids, gpu), 27)
	s.inject(githubsim.Fault{Kind: githubsim.FaultHidden, Label: "gpu", Scope: org, For: time.Minute})
	s.wantWalk("a label has vanished", ids, 25)
	s.now = s.now.Add(time.Minute)
	s.wantWalk("its time is over", slices.Concat(ids, gpu), 27)
	if left := s.Faults(); len(left) != 1 || left[0].Struck != 1 || left[0].Seen != 4 {
		t.Errorf("at work: %+v", left)
	}
}

// A listing that is refused was no walk, and what it would have shown is not
// shown by the next.
func TestFaultOfAWalkThatWasRefusedEndsWithIt(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	remove := s.inject(githubsim.Fault{Kind: githubsim.FaultOffline})
	s.Grant(credential, org, githubsim.AccessForbidden)
	if r := s.ask("GET", list, ""); r.status != http.StatusForbidden {
		t.Errorf("status %d", r.status)
	}
	s.Grant(credential, org, githubsim.AccessFull)
	remove()
	s.wantWalk("once both have ended", ids, 25)
}

func TestAShiftedPageMissesARunner(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	must(t, s.Kill(org, ids[4]))
	s.inject(githubsim.Fault{Kind: githubsim.FaultShift, Count: 1})
	got, _, totals := s.walk()
	want := slices.Concat(ids[:10], ids[11:]) // the eleventh moved to the page that was read
	if !slices.Equal(got, want) || !slices.Equal(totals, []int{25, 24}) {
		t.Errorf("walk %v, totals %v", got, totals)
	}
	if s.there(ids[4]) {
		t.Error("the runner that was offline is still there")
	}
	log := s.Log()
	i := slices.IndexFunc(log, func(e githubsim.Event) bool { return e.Change == githubsim.ChangeRemoved })
	if i < 0 || log[i].Cause != "shift" || log[i].RunnerID != ids[4] || log[i+1].Fault != "shift" {
		t.Errorf("log: %+v", log[max(i, 0):])
	}
}

func TestASwapMakesAWalkLookComplete(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	s.inject(githubsim.Fault{Kind: githubsim.FaultSwap, Nth: 2})
	got, _, totals := s.walk()
	if !slices.Equal(totals, []int{25}) || len(got) != 25 || slices.Contains(got, ids[20]) || got[24] != ids[24]+1 {
		t.Errorf("walk %v, totals %v", got, totals)
	}
	if !s.there(ids[20]) {
		t.Error("the runner that the walk missed is gone")
	}
}

func TestNobodyWorkingIsRemovedToShiftAPage(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	_, err := s.CreateMany(org, 11, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprint("r", i), Online: true, Busy: true}
	})
	must(t, err)
	s.inject(githubsim.Fault{Kind: githubsim.FaultShift})
	if s.walk(); len(s.Snapshot(org)) != 11 {
		t.Errorf("%d runners, want 11", len(s.Snapshot(org)))
	}
}

// there is whether a runner is registered.
func (s *simulator) there(id int64) bool {
	return slices.ContainsFunc(s.Snapshot(org), func(st githubsim.State) bool { return st.ID == id })
}

func TestStaleAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a", Online: true})
	at := fmt.Sprintf("%s/%d", list, id)
	remove := s.inject(githubsim.Fault{Kind: githubsim.FaultStale, Age: time.Minute})
	var got []string
	look := func(after time.Duration) {
		s.now = s.now.Add(after)
		r := s.ask("GET", at, "")
		word := fmt.Sprint(r.status)
		switch {
		case strings.Contains(r.body, `"busy":true`):
			word = "busy"
		case strings.Contains(r.body, "offline"):
			word = "offline"
		case strings.Contains(r.body, "online"):
			word = "online"
		}
		got = append(got, word)
	}
	look(0)
	must(t, s.Assign(org, id))
	look(30 * time.Second) // nothing is a minute old
	must(t, s.Finish(org, id))
	must(t, s.Kill(org, id))
	look(30 * time.Second) // the first is
	look(30 * time.Second) // the second is
	look(30 * time.Second)
	must(t, s.Remove(org, id))
	look(10 * time.Second)
	look(60 * time.Second) // that it is gone is old enough
	remove()
	look(0)
	want := []string{"online", "online", "online", "busy", "offline", "offline", "404", "404"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("looks (-want +got):\n%s", diff)
	}
}

func TestAStalePageIsAnOldOne(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	s.inject(githubsim.Fault{Kind: githubsim.FaultStale, Age: 90 * time.Second, Path: "/actions/runners"})
	s.wantWalk("the first", ids, 25)
	must(t, s.Remove(org, ids[0]))
	s.now = s.now.Add(time.Minute)
	s.wantWalk("too young to know", ids, 25)
	s.now = s.now.Add(90 * time.Second)
	s.wantWalk("knows of it", ids[1:], 24)
	if e := s.last(); e.Fault != "stale" {
		t.Errorf("log: %+v", e)
	}
}

func TestStale304SaysThatNothingChanged(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	s.inject(githubsim.Fault{Kind: githubsim.FaultStale304})
	if r := s.ask("GET", list, ""); r.status != http.StatusOK {
		t.Errorf("without If-None-Match: %d", r.status)
	}
	must(t, s.Remove(org, ids[0]))
	r := s.ask("GET", list, "", "If-None-Match", `"an-old-one"`)
	if r.status != http.StatusNotModified || r.body != "" || r.header.Get("ETag") != `W/"an-old-one"` {
		t.Errorf("with: %d %q %v", r.status, r.body, r.header)
	}
	if e := s.last(); e.Status != http.StatusNotModified || e.Fault != "stale-304" {
		t.Errorf("log: %+v", e)
	}
}

func TestZombiesStayBusy(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Lag: githubsim.Lags{BusyClear: 10 * time.Minute}})
	killed := s.create(org, githubsim.RunnerSpec{Name: "killed already", Online: true, Busy: true})
	later := s.create(org, githubsim.RunnerSpec{Name: "killed later", Online: true, Busy: true})
	other := s.create(org, githubsim.RunnerSpec{Name: "another", Online: true, Busy: true})
	must(t, s.Kill(org, killed))
	remove := s.inject(githubsim.Fault{Kind: githubsim.FaultZombie, Scope: org, IDs: []int64{killed, later}})
	must(t, s.Kill(org, later))
	must(t, s.Kill(org, other))
	s.now = s.now.Add(24 * time.Hour)
	s.wantShown("killed already", killed, shown{"offline", true})
	s.wantShown("killed later", later, shown{"offline", true})
	s.wantShown("another", other, shown{"offline", false})
	if r := s.ask("DELETE", fmt.Sprintf("%s/%d", list, later), ""); r.status != http.StatusUnprocessableEntity {
		t.Errorf("DELETE of a zombie: %d, want 422", r.status)
	}
	if at := s.Faults(); len(at) != 1 || at[0].Struck != 2 {
		t.Errorf("at work: %+v", at)
	}
	remove()
	s.wantShown("just laid to rest", later, shown{"offline", true})
	s.now = s.now.Add(10 * time.Minute)
	s.wantShown("killed already, at rest", killed, shown{"offline", false})
	s.wantShown("killed later, at rest", later, shown{"offline", false})
}
