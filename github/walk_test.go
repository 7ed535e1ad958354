package github_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

func TestARateLimitStopsTheWalk(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	fill(t, sim, org, 1000)
	sim.Intercept(func(r *http.Request) http.Handler {
		if r.URL.Query().Get("page") != "4" {
			return nil
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusTooManyRequests)
		})
	})
	gh := client(t, url, func(c *github.Config) { c.Concurrency = 1 })
	got, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
	if err != nil || got.Complete || len(got.Runners) != 300 || got.Pages != 3 || got.Calls != 4 {
		t.Errorf("%d runners, %d pages, %d calls, complete %v, %v", len(got.Runners), got.Pages, got.Calls, got.Complete, err)
	}
	var e *github.Error
	if !errors.As(got.Incomplete, &e) || e.Wait != 30*time.Second || !errors.Is(e, fleet.ErrRateLimited) {
		t.Errorf("incomplete because of %v, want a rate limit with 30 s to wait", got.Incomplete)
	}
	pages := 0
	for _, ev := range sim.Log() {
		if ev.Method == http.MethodGet {
			pages++
		}
	}
	if pages != 4 {
		t.Errorf("%d pages were asked for, want none after the one that was limited", pages)
	}
}

func TestPagesAfterTheFirstAreFetchedTogetherWithinTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 4
	sim, url := simulator(t)
	fill(t, sim, org, 900) // page 1, then 8 pages in two rounds of four
	var mu sync.Mutex
	arrived, inFlight, most := 0, 0, 0
	full := make(chan struct{})
	sim.Before(func(githubsim.Request) {
		mu.Lock()
		arrived++
		inFlight++
		most = max(most, inFlight)
		first := arrived == 1
		if inFlight == limit && arrived == 1+limit {
			close(full)
		}
		mu.Unlock()
		if !first { // nobody goes on before as many as may are under way
			select {
			case <-full:
			case <-t.Context().Done():
			}
		}
		mu.Lock()
		inFlight--
		mu.Unlock()
	})
	gh := client(t, url, func(c *github.Config) { c.Concurrency = limit })
	got, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
	if err != nil || !got.Complete || len(got.Runners) != 900 {
		t.Errorf("%d runners, complete %v (%v), %v", len(got.Runners), got.Complete, got.Incomplete, err)
	}
	if most != limit {
		t.Errorf("%d requests at once, want %d", most, limit)
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	const limit = 4
	sim := githubsim.New(githubsim.Config{})
	if err := sim.AddScope(org); err != nil {
		t.Fatal(err)
	}
	fill(t, sim, org, 4000)
	var dialled atomic.Int64
	srv := httptest.NewUnstartedServer(sim.Handler())
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			dialled.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	gh := client(t, srv.URL+"/api/v3", func(c *github.Config) { c.Concurrency = limit })
	for range 3 {
		if got, err := gh.Runners(t.Context(), org, fleet.KeptListing{}); err != nil || !got.Complete {
			t.Fatal(err, got.Incomplete)
		}
	}
	if n := dialled.Load(); n > 2*limit {
		t.Errorf("%d connections for 120 pages, %d at a time", n, limit)
	}
}

func TestARunnerThatSlippedBetweenPagesIsFoundByItsID(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	ids := fill(t, sim, org, 250)
	var mu sync.Mutex
	requests := 0
	sim.Before(func(githubsim.Request) {
		mu.Lock()
		defer mu.Unlock()
		if requests++; requests != 2 {
			return
		}
		// After page 1 a runner of it goes, so that the first one of page 2
		// moves to page 1 unseen. Another one comes, so that the total stays.
		if err := sim.Remove(org, ids[0]); err != nil {
			t.Error(err)
		}
		if _, err := sim.Create(org, githubsim.RunnerSpec{Name: "new"}); err != nil {
			t.Error(err)
		}
	})
	gh := client(t, url)
	got, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
	if err != nil {
		t.Fatal(err)
	}
	slipped := ids[100]
	// No count can tell: the one that went stands in for the one that slipped.
	if seen := idsOf(got.Runners); len(seen) != 250 || seen[0] != ids[0] || slices.Contains(seen, slipped) {
		t.Errorf("%d runners from %d on, the one that slipped among them: %v", len(seen), seen[0], slices.Contains(seen, slipped))
	}
	if r, err := gh.Runner(t.Context(), org, slipped); err != nil || r.ID != slipped {
		t.Errorf("Runner(%d) = %+v, %v", slipped, r, err)
	}
}

func TestACancelledWalkIsPartial(t *testing.T) {
	t.Parallel()
	sim, url := simulator(t)
	fill(t, sim, org, 500)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sim.Intercept(func(r *http.Request) http.Handler {
		if r.URL.Query().Get("page") == "1" {
			return nil
		}
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		})
	})
	got, err := client(t, url).Runners(ctx, org, fleet.KeptListing{})
	if err != nil || got.Complete || !errors.Is(got.Incomplete, ctx.Err()) {
		t.Errorf("complete %v (%v), %v, want the context's end", got.Complete, got.Incomplete, err)
	}
}

// The only item of the last page has no id: the pages before it count all the
// same, and the listing is complete. A listing of such items alone is malformed.
func TestALastPageWithoutAnyIDLeavesTheListingComplete(t *testing.T) {
	t.Parallel()
	gh := answers(t, func(w http.ResponseWriter, r *http.Request) {
		items := []string{`{"name":"nobody"}`}
		if r.URL.Query().Get("page") == "1" {
			items = nil
			for id := 1; id <= 100; id++ {
				items = append(items, fmt.Sprintf(`{"id":%d,"name":"r%d","os":"linux","status":"online","busy":false,"labels":[{"name":"x"}]}`, id, id))
			}
		}
		says(http.StatusOK, `{"total_count":101,"runners":[`+strings.Join(items, ",")+`]}`)(w, r)
	})
	l, err := gh.Runners(t.Context(), org, fleet.KeptListing{})
	if err != nil || !l.Complete || len(l.Runners) != 100 || len(l.Nameless) != 1 {
		t.Errorf("%d runners, nameless %v, incomplete %v, %v, want a complete listing with one", len(l.Runners), l.Nameless, l.Incomplete, err)
	}
	_, err = answers(t, says(http.StatusOK, `{"total_count":1,"runners":[{"name":"nobody"}]}`)).Runners(t.Context(), org, fleet.KeptListing{})
	wantKind(t, "nothing but items without an id", err, fleet.ErrMalformed)
}
