package inventory_test

import (
	"net/http"
	"testing"
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
