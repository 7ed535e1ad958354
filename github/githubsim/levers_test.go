package githubsim_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// walk lists all pages of ten and gives the ids, how many are shown online,
// and the totals that the pages named.
func (s *simulator) walk() (ids []int64, online int, totals []int) {
	s.t.Helper()
	for page := 1; ; page++ {
		var body struct {
			Total   int `json:"total_count"`
			Runners []struct {
				ID     int64
				Status string
			}
		}
		s.ask("GET", fmt.Sprintf("%s?per_page=10&page=%d", list, page), "").decode(s.t, &body)
		totals = append(totals, body.Total)
		for _, r := range body.Runners {
			ids = append(ids, r.ID)
			if r.Status == "online" {
				online++
			}
		}
		if page*10 >= body.Total {
			return ids, online, slices.Compact(totals)
		}
	}
}

func fleetOf25(t *testing.T) (*simulator, []int64) {
	t.Helper()
	s := start(t, githubsim.Config{})
	ids, err := s.CreateMany(org, 25, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprint("r", i), Online: true}
	})
	must(t, err)
	return s, ids
}

func (s *simulator) wantWalk(name string, want []int64, online int) {
	s.t.Helper()
	ids, on, totals := s.walk()
	if !slices.Equal(ids, want) || on != online || len(totals) != 1 || totals[0] != len(want) {
		s.t.Errorf("%s: %d runners, %d online, totals %v; want %d, %d online", name, len(ids), on, totals, len(want), online)
	}
}

func TestHiddenRunnersAreMissingFromWholeListingsOnly(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	must(t, s.Hide(org, 2, ids[0], ids[12], ids[24]))
	left := slices.Concat(ids[1:12], ids[13:24])
	s.wantWalk("first", left, 22)
	s.ask("GET", list+"?per_page=1", "") // a look is no listing
	s.wantWalk("second", left, 22)
	s.wantShown("by id", ids[12], shown{"online", false})
	s.wantWalk("third", ids, 25)
}

func TestALieBeginsWithTheNextListing(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	s.ask("GET", list+"?per_page=10&page=1", "")
	must(t, s.EmptyListing(org, 1))
	var body struct{ Runners []struct{ ID int64 } }
	s.ask("GET", list+"?per_page=10&page=2", "").decode(t, &body)
	if len(body.Runners) != 10 || body.Runners[0].ID != ids[10] {
		t.Errorf("page 2 of the listing under way: %+v", body)
	}
	s.wantWalk("the next", nil, 0)
	s.wantWalk("after it", ids, 25)
}

func TestHideSome(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	hidden, err := s.HideSome(org, 1, 12)
	must(t, err)
	left := slices.DeleteFunc(slices.Clone(ids), func(id int64) bool { return slices.Contains(hidden, id) })
	if len(hidden) != 12 || len(left) != 13 || !slices.IsSorted(hidden) {
		t.Errorf("hidden: %v", hidden)
	}
	s.wantWalk("half", left, 13)
	all, err := s.HideSome(org, 1, 99)
	must(t, err)
	if diff := cmp.Diff(ids, all); diff != "" {
		t.Errorf("more than there are (-want +got):\n%s", diff)
	}
}

func TestShowOffline(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	must(t, s.ShowOffline(org, 1, ids[3], ids[20]))
	s.wantWalk("two", ids, 23)
	must(t, s.ShowOffline(org, 1))
	s.wantWalk("all", ids, 0)
	s.wantShown("by id", ids[3], shown{"online", false})
	s.wantWalk("afterwards", ids, 25)
}

func TestLiesAddUp(t *testing.T) {
	t.Parallel()
	s, ids := fleetOf25(t)
	must(t, s.Hide(org, 2, ids[0]))
	must(t, s.ShowOffline(org, 1))
	s.wantWalk("both", ids[1:], 0)
	s.wantWalk("one is over", ids[1:], 24)
	s.wantWalk("both are over", ids, 25)
}

func TestLiesThatCannotBeTold(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	if err := s.EmptyListing(org, 0); err == nil {
		t.Error("for no listing: nil, want an error")
	}
	nowhere := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "nobody"}
	if err := s.Hide(nowhere, 1, 1); err == nil {
		t.Error("in an unknown scope: nil, want an error")
	}
	if _, err := s.HideSome(nowhere, 1, 1); err == nil {
		t.Error("some in an unknown scope: nil, want an error")
	}
}

func TestBeforeChangesWhatARequestFinds(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{Tokens: []string{credential}})
	busy := s.create(org, githubsim.RunnerSpec{Name: "goes busy", Online: true})
	back := s.create(org, githubsim.RunnerSpec{Name: "comes back"})
	var told []githubsim.Request
	off := s.Before(func(r githubsim.Request) {
		told = append(told, r)
		var err error
		switch {
		case r.Method == http.MethodDelete && r.RunnerID == busy:
			err = s.Assign(r.Scope, busy)
		case r.Method == http.MethodGet && r.RunnerID == back:
			err = s.Connect(r.Scope, back)
		}
		if err != nil {
			t.Error(err)
		}
	})
	at := func(id int64) string { return fmt.Sprintf("/api/v3/orgs/ACME/actions/runners/%d", id) }
	if r := s.ask("DELETE", at(busy), ""); r.status != http.StatusUnprocessableEntity {
		t.Errorf("DELETE = %d, want 422", r.status)
	}
	if e := s.last(); !e.Busy || e.Acted {
		t.Errorf("log: %+v", e)
	}
	s.wantShown("came back", back, shown{"online", false})
	const tmpl = "/orgs/{org}/actions/runners/{runner_id}"
	want := []githubsim.Request{{Method: "DELETE", Path: tmpl, Scope: org, RunnerID: busy}, {Method: "GET", Path: tmpl, Scope: org, RunnerID: back}}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	s.ask("GET", list, "", "Authorization", "token bad")
	s.ask("GET", "/api/v3/nothing", "")
	off()
	s.ask("GET", list, "")
	if len(told) != 2 {
		t.Errorf("told of requests that were refused or after it was taken off: %+v", told[2:])
	}
}

func TestInterceptAnswersInItsPlace(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	s.Intercept(func(r *http.Request) http.Handler {
		if r.Method != http.MethodDelete {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	})
	at := fmt.Sprintf("%s/%d", list, id)
	if r := s.ask("DELETE", at, ""); r.status != http.StatusTeapot {
		t.Errorf("DELETE = %d, want 418", r.status)
	}
	if e := s.last(); e.Status != http.StatusTeapot || e.Acted || e.RunnerID != id || e.Scope != "org/acme" {
		t.Errorf("log: %+v", e)
	}
	if r := s.ask("GET", at, ""); r.status != http.StatusOK {
		t.Errorf("GET = %d, want 200", r.status)
	}
	s.Intercept(nil)
	if r := s.ask("DELETE", at, ""); r.status != http.StatusNoContent {
		t.Errorf("DELETE = %d afterwards, want 204", r.status)
	}
}

func TestDownBreaksConnectionsAndKeepsTheState(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	id := s.create(org, githubsim.RunnerSpec{Name: "a"})
	s.ask("GET", list, "") // leaves a connection open
	before := len(s.Log())
	s.Down(true)
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, fmt.Sprintf("%s%s/%d", s.url, list, id), nil)
		must(t, err)
		req.Header.Set("Authorization", "token "+credential)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			t.Errorf("an answer while down: %d", resp.StatusCode)
		}
	}
	s.Down(false)
	if n := len(s.Log()); n != before {
		t.Errorf("%d events were logged while down", n-before)
	}
	s.wantShown("afterwards", id, shown{"offline", false})
}
