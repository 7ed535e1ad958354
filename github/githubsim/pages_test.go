package githubsim_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/github/githubsim"
)

// rows are all rows of the list, page by page, and the JSON of each as it is.
func (s *simulator) rows(perPage int) map[int64]string {
	s.t.Helper()
	rows := make(map[int64]string)
	for page := 1; ; page++ {
		var body struct {
			Total   int `json:"total_count"`
			Runners []json.RawMessage
		}
		s.ask("GET", fmt.Sprintf("%s?per_page=%d&page=%d", list, perPage, page), "").decode(s.t, &body)
		for _, row := range body.Runners {
			var r struct{ ID int64 }
			must(s.t, json.Unmarshal(row, &r))
			rows[r.ID] = string(row)
		}
		if page*perPage >= body.Total {
			if len(rows) != body.Total {
				s.t.Errorf("%d distinct runners, total_count %d", len(rows), body.Total)
			}
			return rows
		}
	}
}

// TestPreparedPagesSayWhatIsTrue changes runners at random and compares prepared
// pages with small ones, which are never kept, and with what some of the
// runners' own addresses say.
func TestPreparedPagesSayWhatIsTrue(t *testing.T) {
	t.Parallel()
	for _, order := range []githubsim.Order{githubsim.OrderID, githubsim.OrderName} {
		for seed := range uint64(3) {
			random := rand.New(rand.NewPCG(seed, 1))
			s := start(t, githubsim.Config{Version: "3.19", Order: order, Lag: githubsim.Lags{Connect: 5 * time.Second, Offline: time.Minute, BusyClear: 3 * time.Minute}})
			s.names(random, 95)
			for step := range 40 {
				s.disturb(random)
				s.now = s.now.Add(time.Duration(random.IntN(40)) * time.Second)
				prepared, checked := s.rows(40), 0
				for id, row := range prepared {
					if r := s.ask("GET", fmt.Sprintf("%s/%d", list, id), ""); r.status != http.StatusOK || r.body != row {
						t.Fatalf("order %s, seed %d, step %d: listed as\n%s, is\n%s", order, seed, step, row, r.body)
					}
					if checked++; checked == 4 {
						break
					}
				}
				if diff := cmp.Diff(s.rows(29), prepared); diff != "" || t.Failed() {
					t.Fatalf("order %s, seed %d, step %d (-small +prepared):\n%s", order, seed, step, diff)
				}
			}
		}
	}
}

// names makes runners of random names.
func (s *simulator) names(random *rand.Rand, n int) {
	s.t.Helper()
	_, err := s.CreateMany(org, n, func(int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: strconv.FormatUint(random.Uint64(), 36), Online: random.IntN(2) == 0}
	})
	must(s.t, err)
}

// disturb does something to some runner. What cannot be done is no change.
func (s *simulator) disturb(random *rand.Rand) {
	s.t.Helper()
	all := s.Snapshot(org)
	id := all[random.IntN(len(all))].ID
	switch random.IntN(7) {
	case 0:
		s.names(random, 1+random.IntN(2))
	case 1:
		must(s.t, s.Remove(org, id))
	case 2, 3:
		must(s.t, s.Kill(org, id))
	case 4:
		must(s.t, s.Connect(org, id))
	case 5:
		_ = s.Assign(org, id) // it may have a job
	case 6:
		_ = s.Finish(org, id) // it may have none
	}
}

func TestPrepareChangesNothingThatIsSeen(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.names(rand.New(rand.NewPCG(1, 1)), 250)
	before := []response{s.ask("GET", list+"?per_page=100", ""), s.ask("GET", list+"?per_page=100&page=3", "")}
	must(t, s.Kill(org, 1))
	must(t, s.Connect(org, 1))
	must(t, s.Kill(org, 1))
	must(t, s.Remove(org, s.create(org, githubsim.RunnerSpec{Name: "x"})))
	must(t, s.Prepare(org, 100))
	after := []response{s.ask("GET", list+"?per_page=100", ""), s.ask("GET", list+"?per_page=100&page=3", "")}
	if before[1].body != after[1].body || before[1].header.Get("ETag") != after[1].header.Get("ETag") {
		t.Errorf("page 3 was\n%s\n%s, is\n%s\n%s", before[1].header, before[1].body, after[1].header, after[1].body)
	}
	if got, want := s.ask("GET", list+"?per_page=100", "", "Accept-Encoding", "identity").body, after[0].body; got != want {
		t.Errorf("page 1 uncompressed is\n%s, compressed\n%s", got, want)
	}
	if err := s.Prepare(repo, 100); err != nil {
		t.Errorf("an empty list: %v", err)
	}
	if err := s.Prepare(scopeOf("nobody"), 100); err == nil {
		t.Error("an unknown scope: nil, want an error")
	}
}

func TestNamesAreFilteredFrom311On(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{"3.10": "abc", "3.11": "b", "dotcom": "b"} {
		s := start(t, githubsim.Config{Version: version})
		for _, name := range []string{"a", "b", "c"} {
			s.create(org, githubsim.RunnerSpec{Name: name})
		}
		var body struct {
			Total   int `json:"total_count"`
			Runners []struct{ Name string }
		}
		s.ask("GET", list+"?name=b", "").decode(t, &body)
		got := ""
		for _, r := range body.Runners {
			got += r.Name
		}
		if got != want || body.Total != len(want) {
			t.Errorf("%s: %s of %d, want %s", version, got, body.Total, want)
		}
		s.ask("GET", list+"?name=z", "").decode(t, &body)
		if slices.Contains([]string{"3.11", "dotcom"}, version) && (body.Total != 0 || len(body.Runners) != 0) {
			t.Errorf("%s: a name that nobody has: %+v", version, body)
		}
	}
}
