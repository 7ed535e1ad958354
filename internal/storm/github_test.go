package storm_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/github/githubsim"
)

// raiseGitHub starts the simulator, of any version, on a server that counts
// what is under way.
func (w *world) raiseGitHub() {
	w.lags = githubsim.Lags{
		Connect:   rapid.SampledFrom([]time.Duration{0, 0, 20 * time.Second, 3 * time.Minute}).Draw(w.T, "lag to online"),
		Offline:   rapid.SampledFrom([]time.Duration{0, 0, 50 * time.Second, 10 * time.Minute}).Draw(w.T, "lag to offline"),
		BusyClear: rapid.SampledFrom([]time.Duration{0, 10 * time.Minute, -1}).Draw(w.T, "lag to idle"),
	}
	version := rapid.SampledFrom(githubsim.Versions()).Draw(w.T, "version")
	w.sendsJobs = version != "3.1"
	c := githubsim.Config{
		Version:     version,
		Order:       rapid.SampledFrom([]githubsim.Order{githubsim.OrderVersion, githubsim.OrderID, githubsim.OrderName}).Draw(w.T, "order"),
		Lag:         w.lags,
		Limits:      w.drawLimits(),
		Seed:        1 + rapid.Int64Range(0, 1<<20).Draw(w.T, "seed"),
		Now:         w.clock.now,
		Sleep:       w.sleep,
		LogListings: true,
	}
	w.limits = c.Limits
	w.silent = c.Limits.RetryAfter == githubsim.RetryAbsent
	w.sim = githubsim.New(c)
	w.sim.Before(w.asked)
	handler := w.sim.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.calls.begin()
		defer w.calls.end()
		handler.ServeHTTP(rw, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.Cleanup(server.Close)
	w.api = server.URL + "/api/v3"
}

func (w *world) lastEvent() int64 {
	log := w.sim.Log()
	if len(log) == 0 {
		return 0
	}
	return log[len(log)-1].Seq
}

// quiet tells when no request is under way.
type quiet struct {
	mu    sync.Mutex
	n     int
	still chan struct{} // closed when n falls to zero; nil: nobody waits
}

func (q *quiet) begin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.n++
}

func (q *quiet) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n--; q.n == 0 && q.still != nil {
		close(q.still)
		q.still = nil
	}
}

func (q *quiet) wait() {
	q.mu.Lock()
	if q.n == 0 {
		q.mu.Unlock()
		return
	}
	if q.still == nil {
		q.still = make(chan struct{})
	}
	still := q.still
	q.mu.Unlock()
	<-still
}
