package demand_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
)

// hears waits until Observe has heard exactly these, in any order.
func (w *world) hears(want ...string) {
	w.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		w.mu.Lock()
		n := len(w.seen)
		w.mu.Unlock()
		if n >= len(want) {
			break
		}
		select {
		case <-deadline:
			w.Fatalf("heard %q, want %q", w.heard(), want)
		case <-tick.C:
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, w.heard()); diff != "" {
		w.Errorf("heard (-want +got):\n%s", diff)
	}
}

// says waits for a text in the log.
func (w *world) says(text string) {
	w.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(w.log.String(), text) {
		select {
		case <-deadline:
			w.Fatalf("the log lacks %q:\n%s", text, w.log.String())
		case <-tick.C:
		}
	}
}

// begin has the listener listen; stop waits until all that came is written.
func (w *world) begin(bus bus) (stop func()) {
	w.Helper()
	w.listen.Conn = bus.muster
	stop = background(w.T, w.listen.Serve)
	// It listens once it answers with a refusal what is none.
	deadline := time.Now().Add(patience)
	for {
		if err := bus.other.Publish("muster.v1.host.probe.heartbeat", nil); err != nil {
			w.Fatal(err)
		}
		if err := bus.other.Flush(); err != nil {
			w.Fatal(err)
		}
		w.mu.Lock()
		n := len(w.seen)
		w.mu.Unlock()
		if n > 0 {
			break
		}
		if time.Now().After(deadline) {
			w.Fatal("does not listen")
		}
	}
	return stop
}

func (b bus) beat(t *testing.T, host, runners string) {
	t.Helper()
	if err := b.other.Publish("muster.v1.host."+host+".heartbeat", []byte(`{"v":1,"runners":[`+runners+`]}`)); err != nil {
		t.Fatal(err)
	}
	if err := b.other.Flush(); err != nil {
		t.Fatal(err)
	}
}

const hostRunners = `SELECT host, coalesce((SELECT string_agg(r->>'name' || '=' || (r->>'state'), ',' ORDER BY r->>'name') FROM jsonb_array_elements(runners) r), '') FROM api.hosts ORDER BY host`

func TestHeartbeatsAreWhoeverTheSubjectSays(t *testing.T) {
	t.Parallel()
	w, bus := newWorld(t), newBus(t)
	stop := w.begin(bus)
	bus.beat(t, "build-01", `{"target":"acme","name":"a","state":"busy"},{"target":"acme","name":"b","state":"idle"}`)
	bus.beat(t, "build-02", ``)
	w.becomes(hostRunners, "build-01 a=busy,b=idle", "build-02 ")
	bus.beat(t, "build-01", `{"target":"acme","name":"a","state":"idle"}`)
	w.becomes(hostRunners, "build-01 a=idle", "build-02 ")
	bus.beat(t, "build-03", `{"target":"acme","name":"a","state":"gone"}`)
	bus.beat(t, "Build_04", ``)
	bus.beat(t, "build-05.x", ``) // no heartbeat's subject
	bus.beat(t, "build-06", ``)
	stop()
	w.becomes(hostRunners, "build-01 a=idle", "build-02 ", "build-06 ")
	refused := slices.DeleteFunc(strings.Split(w.log.String(), "\n"), func(line string) bool {
		return !strings.Contains(line, "heartbeat refused") || strings.Contains(line, "host=probe")
	})
	if len(refused) != 2 || !strings.Contains(refused[0]+refused[1], "runners[0]: state is not idle, busy or stopped") ||
		!strings.Contains(refused[0]+refused[1], "host=Build_04") {
		t.Errorf("log %q", refused)
	}
}

// A fleet that talks while Postgres is slow is written in few transactions, and
// nothing that was taken is lost at the stop.
func TestABurstOfHeartbeats(t *testing.T) {
	t.Parallel()
	w, bus := newWorld(t), newBus(t)
	clock, gate := w.listen.Now, make(chan struct{})
	var transactions atomic.Int64
	w.listen.Now = func(ctx context.Context) (time.Time, error) {
		transactions.Add(1)
		<-gate
		return clock(ctx)
	}
	stop := w.begin(bus)
	const hosts = 300
	for i := range hosts {
		host := fmt.Sprintf("build-%03d", i)
		bus.beat(t, host, fmt.Sprintf(`{"target":"acme","name":%q,"state":"busy"}`, host))
	}
	// The last of them; only the readers' work may still be under way then.
	bus.beat(t, "build-last", "7")
	w.says("host=build-last")
	close(gate)
	stop()
	stored := slices.DeleteFunc(w.heard(), func(s string) bool { return s == "heartbeat refused" })
	if len(stored) != hosts || stored[0] != "heartbeat stored" || stored[hosts-1] != "heartbeat stored" {
		t.Errorf("heard %q, want %d stored", stored, hosts)
	}
	w.becomes(`SELECT count(*)::text FROM api.hosts WHERE jsonb_array_length(runners) = 1`, fmt.Sprint(hosts))
	if n := transactions.Load(); n > hosts/2 {
		t.Errorf("%d transactions for %d heartbeats", n, hosts)
	}
}

func TestHeartbeatsWithoutPostgres(t *testing.T) {
	t.Parallel()
	closed, err := db.Open(t.Context(), "postgres://muster@127.0.0.1:1/muster?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	w, bus := newWorldOn(t, closed), newBus(t)
	stop := w.begin(bus)
	for i := range 3 {
		bus.beat(t, fmt.Sprint("build-", i), ``)
	}
	stop()
	failed := slices.DeleteFunc(w.heard(), func(s string) bool { return s != "heartbeat failed" })
	if len(failed) != 3 {
		t.Errorf("heard %q, want three that failed", failed)
	}
	if n := strings.Count(w.log.String(), "heartbeats not recorded"); n != 1 {
		t.Errorf("said %d times that nothing is recorded, want once:\n%s", n, w.log.String())
	}
}
