package github_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
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
	shown, err := gh.HookDeliveries(t.Context(), org, hook, since)
	log, whole := shown.Deliveries, shown.Whole
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
	shown, err = gh.HookDeliveries(t.Context(), org, hook, now)
	again := shown.Deliveries
	if err != nil || len(again) != 1 || again[0].GUID != log[7].GUID || !again[0].Taken() || !again[0].Again {
		t.Errorf("%+v, %v, want the one that was asked for", again, err)
	}
	wantKind(t, "no such attempt", gh.Redeliver(t.Context(), org, hook, 1<<40), fleet.ErrNotFound)
	if err := gh.Redeliver(t.Context(), org, hook, 0); err == nil {
		t.Error("an attempt without an id was asked for")
	}
	_, err = gh.HookDeliveries(t.Context(), org, hook+1, since)
	wantKind(t, "no such hook", err, fleet.ErrNotFound)
}

// A delivery that cannot be read costs itself, and no other.
func TestADeliveryThatCannotBeReadCostsItselfAlone(t *testing.T) {
	t.Parallel()
	good := func(id string) string {
		return `{"id":` + id + `,"guid":"g` + id + `","event":"workflow_job","delivered_at":"2026-03-01T12:00:00Z","status_code":200}`
	}
	for name, bad := range map[string]string{
		"says little":  `{"id":1}`,
		"null":         `null`,
		"no time":      `{"id":1,"guid":"g1","delivered_at":""}`,
		"an id a word": `{"id":"x","guid":"g1","delivered_at":"2026-03-01T12:00:00Z"}`,
	} {
		log, err := answers(t, says(http.StatusOK, `[`+good("3")+`,`+bad+`,`+good("2")+`]`)).HookDeliveries(t.Context(), org, 1, time.Time{})
		if err != nil || len(log.Deliveries) != 2 || !log.Whole || !strings.Contains(log.Lacks(), "1 cannot be read: element 2: ") {
			t.Errorf("%s: %+v, lacks %q, %v, want the two others and the reason", name, log, log.Lacks(), err)
		}
	}
}
