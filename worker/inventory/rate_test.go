package inventory_test

import (
	"net/http"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestWhatIsLeftOfTheRateIsInTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const kept = `SELECT coalesce(api_remaining::text, 'unknown') FROM api.targets`
	left := func(n string) {
		w.sim.Intercept(func(r *http.Request) http.Handler {
			if !isListing(r) {
				return nil
			}
			return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/json")
				if n != "" {
					rw.Header().Set("X-RateLimit-Remaining", n)
				}
				_, _ = rw.Write([]byte(`{"total_count":0,"runners":[]}`)) // a client that is gone fails the sync
			})
		})
	}
	w.sync()
	w.want("unknown", kept)
	left("4321")
	w.sync()
	w.want("4321", kept)
	w.sim.Down(true)
	w.pass(1)
	if err := w.try(); err == nil {
		t.Error("a sync without GitHub succeeds")
	}
	w.want("4321", kept)
	w.sim.Down(false)
	left("0")
	w.sync()
	w.want("0", kept)
	left("")
	w.sync()
	w.want("unknown", kept)
}

// An unchanged fleet of which every page is a 304 costs nothing of the hour.
func TestUnchangedFleetSpendsNothingOfTheHour(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const hour = 100
	w.sim.SetLimits(githubsim.Limits{Primary: hour})
	ids := w.create(250, githubsim.RunnerSpec{Online: true})
	left := func(want int) {
		t.Helper()
		w.want(itoa(want), `SELECT api_remaining FROM api.targets`)
		if got := w.gh.Limits().Remaining; got != want {
			t.Errorf("the client knows of %d requests that are left, want %d", got, want)
		}
	}
	w.wantSync("complete +250 ~0 -0")
	for range 5 {
		w.wantNotModified(3)
		left(hour - 3 - 1) // the pages of the first, and what the server can do
	}
	w.ok(w.sim.Kill(acme, ids[0]))
	w.wantSync("complete +0 ~1 -0")
	left(hour - 5) // its page alone
}
