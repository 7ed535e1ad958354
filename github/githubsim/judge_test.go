package githubsim_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestDeletesOfWorking(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	for i, spec := range []githubsim.RunnerSpec{{Name: "off"}, {Name: "on", Online: true}, {Name: "busy", Busy: true}} {
		s.create(org, spec)
		s.ask("DELETE", fmt.Sprintf("%s/%d", list, i+1), "")
	}
	s.ask("GET", list+"/3", "")
	var names []string
	for _, e := range githubsim.DeletesOfWorking(s.Log()) {
		names = append(names, e.RunnerName)
	}
	if !slices.Equal(names, []string{"on", "busy"}) {
		t.Errorf("DeletesOfWorking() = %v, want on and busy", names)
	}
}

func TestInPenalty(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{})
	s.inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: 429, RetryAfter: time.Minute, Count: 1})
	s.ask("GET", list, "")
	for _, step := range []time.Duration{time.Second, 58 * time.Second, time.Second} {
		s.now = s.now.Add(step)
		s.ask("GET", list, "")
	}
	for slack, want := range map[time.Duration]int{0: 2, time.Second: 1, time.Minute: 0} {
		if got := githubsim.InPenalty(s.Log(), slack); len(got) != want {
			t.Errorf("InPenalty(%s) = %+v, want %d", slack, got, want)
		}
	}
}

func TestDeletesUnseen(t *testing.T) {
	t.Parallel()
	page := func(n int) string { return fmt.Sprintf("GET %s?per_page=10&page=%d", list, n) }
	pages := []string{page(1), page(2), page(3)}
	for name, tt := range map[string]struct {
		fault githubsim.Fault
		asks  []string
		want  []int64 // of the DELETEs of runners 1, 15 and 25 that follow
	}{
		"no walk":                {githubsim.Fault{}, nil, []int64{1, 15, 25}},
		"a look":                 {githubsim.Fault{}, []string{"GET " + list + "?per_page=1", "GET " + list + "/1"}, []int64{1, 15, 25}},
		"a whole walk":           {githubsim.Fault{}, pages, nil},
		"its pages in any order": {githubsim.Fault{}, []string{page(1), page(3), page(2)}, nil},
		"one page":               {githubsim.Fault{}, []string{"GET " + list + "?per_page=100"}, nil},
		"a page is missing":      {githubsim.Fault{}, []string{page(1), page(3)}, []int64{1, 15, 25}},
		"one of an earlier walk": {githubsim.Fault{}, []string{page(1), page(2), page(1), page(3)}, []int64{1, 15, 25}},
		"a page failed":          {githubsim.Fault{Kind: githubsim.FaultStatus, Status: 502, Nth: 2, Count: 1}, pages, []int64{1, 15, 25}},
		"asked for once more":    {githubsim.Fault{Kind: githubsim.FaultStatus, Status: 502, Nth: 2, Count: 1}, []string{page(1), page(2), page(2), page(3)}, nil},
		"a page was cut short":   {githubsim.Fault{Kind: githubsim.FaultTruncated, Nth: 3, Count: 1}, pages, []int64{1, 15, 25}},
		"totals differ":          {githubsim.Fault{Kind: githubsim.FaultTotal, Nth: 3, Count: 1}, pages, []int64{1, 15, 25}},
		"a row twice":            {githubsim.Fault{Kind: githubsim.FaultRowsTwice, Nth: 3, Count: 1}, pages, []int64{1, 15, 25}},
		"a null row":             {githubsim.Fault{Kind: githubsim.FaultRowsNull, Nth: 3, Count: 1}, pages, []int64{1, 15, 25}},
		"runners null":           {githubsim.Fault{Kind: githubsim.FaultFieldNull, Field: "runners", Nth: 3, Count: 1}, pages, []int64{1, 15, 25}},
		"hidden as a whole":      {githubsim.Fault{Kind: githubsim.FaultHidden, IDs: []int64{15}}, pages, []int64{15}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, githubsim.Config{LogListings: true})
			_, err := s.CreateMany(org, 25, func(i int) githubsim.RunnerSpec { return githubsim.RunnerSpec{Name: fmt.Sprint("r", i)} })
			must(t, err)
			if tt.fault.Kind != "" {
				s.inject(tt.fault)
			}
			for _, ask := range tt.asks {
				s.ask("GET", ask[len("GET "):], "")
			}
			for _, id := range []int64{1, 15, 25} {
				s.ask("DELETE", fmt.Sprintf("%s/%d", list, id), "")
			}
			var got []int64
			for _, e := range githubsim.DeletesUnseen(s.Log()) {
				got = append(got, e.RunnerID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("DeletesUnseen() = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestA304ShowsWhatWasShownBefore(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{LogListings: true})
	first := s.create(org, githubsim.RunnerSpec{Name: "a"})
	tag := s.ask("GET", list, "").header.Get("ETag")
	s.ask("GET", list, "", "If-None-Match", tag)
	if l := s.last().Listing; l == nil || l.Total != 1 || !slices.Equal(l.IDs, []int64{first}) {
		t.Errorf("a true 304 shows %+v", l)
	}
	second := s.create(org, githubsim.RunnerSpec{Name: "b"})
	s.inject(githubsim.Fault{Kind: githubsim.FaultStale304})
	s.ask("GET", list, "", "If-None-Match", tag)
	for _, id := range []int64{first, second} {
		s.ask("DELETE", fmt.Sprintf("%s/%d", list, id), "")
	}
	unseen := githubsim.DeletesUnseen(s.Log())
	if len(unseen) != 1 || unseen[0].RunnerID != second {
		t.Errorf("DeletesUnseen() = %+v, want that of runner %d: the 304 was stale", unseen, second)
	}
}

func TestCoherentWalks(t *testing.T) {
	t.Parallel()
	s := start(t, githubsim.Config{LogListings: true})
	walk := func() {
		for _, page := range []int{1, 2} {
			s.ask("GET", fmt.Sprintf("%s?per_page=10&page=%d", list, page), "")
		}
	}
	s.ask("GET", list, "")
	_, err := s.CreateMany(org, 12, func(i int) githubsim.RunnerSpec { return githubsim.RunnerSpec{Name: fmt.Sprint("r", i)} })
	must(t, err)
	s.inject(githubsim.Fault{Kind: githubsim.FaultSwap, Count: 1})
	walk() // misses one runner and shows another
	walk()
	got := githubsim.CoherentWalks(s.Log())
	if len(got) != 3 {
		t.Fatalf("CoherentWalks() = %+v, want three", got)
	}
	for i, want := range []int{0, 12, 12} {
		if len(got[i].IDs) != want || got[i].Scope != org.String() || got[i].From > got[i].To || i > 0 && got[i].From <= got[i-1].To {
			t.Errorf("walk %d: %+v, want %d runners", i, got[i], want)
		}
	}
	if maps.Equal(got[1].IDs, got[2].IDs) {
		t.Errorf("both walks show %v, want one that misses a runner", got[1].IDs)
	}
}
