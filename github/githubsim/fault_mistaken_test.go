package githubsim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// A runner at work, and who is told what of it: in lists, by id, and by its
// DELETE.
func TestMistakenAboutARunnerAtWork(t *testing.T) {
	t.Parallel()
	const lists, single = "/actions/runners", "/actions/runners/{runner_id}"
	truth, dead := shown{"online", true}, shown{"offline", false}
	tests := []struct {
		name       string
		fault      githubsim.Fault
		list, byID shown
		deletes    bool
	}{
		{"everybody", githubsim.Fault{}, dead, dead, true},
		{"of the status", githubsim.Fault{Field: "status"}, shown{"offline", true}, shown{"offline", true}, false},
		{"of the workflow job", githubsim.Fault{Field: "busy"}, shown{"online", false}, shown{"online", false}, true},
		{"in lists", githubsim.Fault{Path: lists}, dead, truth, false},
		{"by id", githubsim.Fault{Path: single, Method: http.MethodGet}, truth, dead, false},
		{"the DELETE", githubsim.Fault{Method: http.MethodDelete}, truth, truth, true},
		{"of a label", githubsim.Fault{Label: "GPU"}, dead, dead, true},
		{"of another label", githubsim.Fault{Label: "arm"}, truth, truth, false},
		{"of another runner", githubsim.Fault{IDs: []int64{1}}, truth, truth, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, githubsim.Config{})
			s.create(org, githubsim.RunnerSpec{Name: "idle", Online: true})
			id := s.create(org, githubsim.RunnerSpec{Name: "at work", Online: true, Busy: true, Labels: []string{"gpu"}})
			tt.fault.Kind = githubsim.FaultMistaken
			remove := s.inject(tt.fault)
			if got := s.listed("at work"); got != tt.list {
				t.Errorf("in lists: %+v, want %+v", got, tt.list)
			}
			s.wantShown("by id", id, tt.byID)
			status := s.ask(http.MethodDelete, fmt.Sprintf("%s/%d", list, id), "").status
			if got := status == http.StatusNoContent; got != tt.deletes {
				t.Errorf("DELETE: %d, want it done: %v", status, tt.deletes)
			}
			if e := s.last(); e.Acted != tt.deletes || !e.Online || !e.Busy {
				t.Errorf("the log does not tell the truth: %+v", e)
			}
			remove()
			if got := s.there(id); got == tt.deletes {
				t.Errorf("the runner is there: %v", got)
			}
		})
	}
}

// listed is what a listing shows of the runner with that name.
func (s *simulator) listed(name string) shown {
	s.t.Helper()
	var page struct {
		Runners []struct {
			Name string
			shown
		}
	}
	must(s.t, json.Unmarshal([]byte(s.ask(http.MethodGet, list, "").body), &page))
	for _, r := range page.Runners {
		if r.Name == name {
			return r.shown
		}
	}
	s.t.Fatalf("no listing has %s", name)
	return shown{}
}

func TestMistakenWantsAFieldItKnows(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	if _, err := s.Inject(githubsim.Fault{Kind: githubsim.FaultMistaken, Field: "name"}); err == nil {
		t.Error("mistaken of a name: no error")
	}
}
