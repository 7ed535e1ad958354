package github_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

func TestDeliveriesThatWereNotTakenAreAskedForAgain(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sim, url := simulator(t, func(c *githubsim.Config) {
		c.Version, c.Now = githubsim.DotCom, func() time.Time { return now }
	})
	var taken atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !taken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(receiver.Close)
	hook, err := sim.AddHook(githubsim.Hook{Scope: org, URL: receiver.URL})
	if err != nil {
		t.Fatal(err)
	}
	sim.Deliver(t.Context()) // the ping
	now = now.Add(time.Minute)
	since := now
	queue(t, sim, 230)
	sim.Deliver(t.Context())
	gh := client(t, url)
	log, whole, err := gh.HookDeliveries(t.Context(), org, hook, since)
	if err != nil || !whole || len(log) != 230 {
		t.Fatalf("%d deliveries, whole %v, %v, want 230 without the ping", len(log), whole, err)
	}
	guids := map[string]bool{}
	for _, d := range log {
		guids[d.GUID] = true
		if d.Taken() || d.Again || d.StatusCode != http.StatusServiceUnavailable || d.Event != "workflow_job" || !d.At.Equal(since) {
			t.Fatalf("delivery %+v", d)
		}
	}
	if len(guids) != 230 {
		t.Errorf("%d GUIDs, want one a delivery", len(guids))
	}
	taken.Store(true)
	if err := gh.Redeliver(t.Context(), org, hook, log[7].ID); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	sim.Deliver(t.Context())
	again, _, err := gh.HookDeliveries(t.Context(), org, hook, now)
	if err != nil || len(again) != 1 || again[0].GUID != log[7].GUID || !again[0].Taken() || !again[0].Again {
		t.Errorf("%+v, %v, want the one that was asked for", again, err)
	}
	wantKind(t, "no such attempt", gh.Redeliver(t.Context(), org, hook, 1<<40), fleet.ErrNotFound)
	if err := gh.Redeliver(t.Context(), org, hook, 0); err == nil {
		t.Error("an attempt without an id was asked for")
	}
	_, _, err = gh.HookDeliveries(t.Context(), org, hook+1, since)
	wantKind(t, "no such hook", err, fleet.ErrNotFound)
	_, _, err = answers(t, says(http.StatusOK, `[{"id":1}]`)).HookDeliveries(t.Context(), org, 1, since)
	wantKind(t, "a delivery that says little", err, fleet.ErrMalformed)
}
