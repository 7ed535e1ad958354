package remove_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/internal/standalone"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/remove"
)

const draining = `
apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: outdated}
spec:
  enforcement: enforce
  scope: {targets: [acme]}
  match: runner.status == "online" && !runner.busy && "linux" in runner.labels
  guards: {grace: 0, max: {count: 50, percent: 100}, rate: 1000/m}
  actions: [{drain_host: {}}, {delete_runner: {}}, {release_host: {}}]
`

const (
	idle    = `{"v":1,"busy":false}`
	working = `{"v":1,"busy":true}`
)

// drained is a world with a NATS, in which runners are online and on hosts of
// their names.
type drained struct {
	*world
	conn     *queue.Conn
	host     *nats.Conn // of all hosts
	releases *nats.Subscription
}

func newDrained(t *testing.T) *drained {
	t.Helper()
	w := &drained{world: newWorld(t)}
	server, err := standalone.StartNATS(w.ctx, standalone.NATSConfig{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	w.ok(err)
	t.Cleanup(server.Stop)
	w.conn, err = queue.Connect(w.ctx, queue.Config{URL: server.URL(), Name: t.Name(), Log: slog.New(slog.DiscardHandler)})
	w.ok(err)
	t.Cleanup(w.conn.Close)
	w.ok(w.conn.EnsureStreams(w.ctx))
	w.host, err = nats.Connect(server.URL())
	w.ok(err)
	t.Cleanup(w.host.Close)
	w.releases, err = w.host.SubscribeSync(queue.ReleaseSubject("*"))
	w.ok(err)
	w.ok(w.host.Flush())
	all, err := policies.Load("outdated.yaml", []byte(draining))
	w.ok(err)
	w.policy, w.remover.Hosts = all[0], w.conn
	return w
}

// online makes n runners that have been online for long, each on the host of
// its name.
func (w *drained) online(n int) []int64 {
	w.Helper()
	ids := w.fleet(n)
	for _, id := range ids {
		w.ok(w.sim.Connect(acme, id))
	}
	w.exec(`UPDATE muster.runner SET status = 'online', host = name, offline_since = NULL, offline_from_us = NULL,
		offline_from_sync = NULL, offline_from_at = NULL`)
	return ids
}

// answers has all hosts answer drains; before is done first. It gives the
// decision that they were asked for.
func (w *drained) answers(answer string, before func()) <-chan string {
	w.Helper()
	asked := make(chan string, 64)
	_, err := w.host.Subscribe(queue.DrainSubject("*"), func(m *nats.Msg) {
		asked <- string(m.Data)
		if before != nil {
			before()
		}
		if answer == "" {
			return
		}
		if err := m.Respond([]byte(answer)); err != nil {
			w.Error(err)
		}
	})
	w.ok(err)
	w.ok(w.host.Flush())
	return asked
}

// relay publishes what is in the outbox, and gives what hosts were told, in
// the order of the hosts' hearing.
func (w *drained) relay(want int) []string {
	w.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	var g errgroup.Group
	g.Go(func() error {
		return (&queue.Relay{Log: slog.New(slog.DiscardHandler), Conn: w.conn, Outbox: db.Outbox{DB: w.db}}).Run(ctx)
	})
	var told []string
	for range want {
		m, err := w.releases.NextMsg(10 * time.Second)
		if err != nil {
			w.Errorf("the hosts were told %v, then: %v; want %d releases", told, err, want)
			break
		}
		told = append(told, m.Subject+" "+string(m.Data))
	}
	for w.value(`SELECT count(*) FROM muster.outbox`) != "0" && !w.Failed() && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	cancel()
	w.ok(g.Wait())
	w.ok(w.host.Flush())
	if n, _, err := w.releases.Pending(); n != 0 || err != nil {
		w.Errorf("%d more releases came than %d, %v", n, want, err)
	}
	return told
}

func TestAHostIsDrainedThenItsRunnerDeletedThenTheHostReleased(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	asked := w.answers(idle, func() {
		if n := len(w.deletes(false)); n != 0 {
			t.Errorf("%d DELETEs before the host had answered", n)
		}
	})
	res := w.remove("done", w.request(id))
	body := fmt.Sprintf(`{"v":1,"runner":"r1","reason":"outdated","decision_id":"%s"}`, res.Decision.ID)
	if got := <-asked; got != body {
		t.Errorf("the host was asked %s, want %s", got, body)
	}
	told := w.relay(1)
	if len(told) != 1 || told[0] != "muster.v1.host.r1.release "+body {
		t.Errorf("the host was told %v, want its release with the decision of its drain", told)
	}
	w.trail("RN100I RN130I RN101I RN131I")
	w.want("4", `SELECT count(*) FROM api.audit WHERE host = 'r1' AND payload->'details'->>'action_id' = $1`, res.Action.ID)
	w.want("policy", `SELECT removal_cause FROM api.runners WHERE runner_id = $1`, id)
	w.want("done", `SELECT state FROM api.actions`)
}

// Whatever a host says but that it is idle keeps its runner, and nobody is
// released for it.
func TestARunnerIsKeptUnlessItsHostSaysThatItIsIdle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer string
		want   string
	}{
		{"busy", working, "spared host_busy"},
		{"something else", `{"v":1,"busy":"perhaps"}`, "spared host_unclear"},
		{"an acknowledgement of a stream's", `{"stream":"EVERYTHING","seq":1}`, "spared host_unclear"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newDrained(t)
			id := w.online(2)[0]
			asked := w.answers(tt.answer, nil)
			w.pass(time.Second)
			w.remove(tt.want, w.request(id))
			<-asked
			w.trail("RN100I RN103W")
			if got := w.deletes(false); len(got) != 0 {
				t.Errorf("DELETEs of %v", got)
			}
			w.relay(0)
			// Nobody asks again before GitHub was looked at again, and not at
			// once then.
			w.remove("keep spared", w.request(id))
			w.pass(10*time.Minute - time.Second)
			w.synced()
			w.remove("keep spared", w.request(id))
			if n := len(asked); n != 0 {
				t.Errorf("asked %d times more", n)
			}
			w.pass(time.Second)
			w.remove(tt.want, w.request(id))
		})
	}
}

func TestARunnerIsKeptWhoseHostSaysNothing(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	w.answers("", nil)
	w.remove("spared host_silent", w.request(id))
	w.trail("RN100I RN103W")
}

func TestARunnerIsKeptWhoseHostDoesNotListen(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	ids := w.online(2)
	w.remove("spared host_silent", w.request(ids[0]))
	w.remover.Hosts = nil // a program without NATS
	w.remove("spared host_silent", w.request(ids[1]))
	if got := w.deletes(false); len(got) != 0 {
		t.Errorf("DELETEs of %v", got)
	}
}

// What happens between the host's answer and the deletion is seen by the last
// look, by a witness, or by GitHub itself.
func TestAWorkflowJobAfterTheDrainSparesTheRunner(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		happen func(w *drained, id int64)
		want   string
	}{
		{"seen by the last look", func(w *drained, id int64) { w.ok(w.sim.Assign(acme, id)) }, "spared busy"},
		{"told by an event", func(w *drained, id int64) { w.job("in_progress", id, "r1", 0) }, "spared open_job"},
		{"said by another host", func(w *drained, _ int64) { w.beat("elsewhere", "r1", "busy", 0) }, "spared no_host, host_busy"},
		{"an operator holds it", func(w *drained, id int64) { w.hold(id, 0) }, "spared hold"},
		{"refused by GitHub", func(w *drained, id int64) {
			w.sim.Intercept(func(r *http.Request) http.Handler {
				if r.Method == http.MethodDelete {
					w.ok(w.sim.Assign(acme, id))
				}
				return nil
			})
		}, "spared busy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newDrained(t)
			id := w.online(2)[0]
			w.answers(idle, func() { tt.happen(w, id) })
			w.remove(tt.want, w.request(id))
			w.trail("RN100I RN130I RN103W")
			if got := w.deletes(true); len(got) != 0 {
				t.Errorf("deleted %v", got)
			}
			w.relay(0)
			w.want("<null>", `SELECT removed_at FROM api.runners WHERE runner_id = $1`, id)
		})
	}
}

// A host that stops its program at once takes the runner offline, or even away.
func TestAHostThatStopsItsProgramIsDrained(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stop  func(w *drained, id int64)
		want  string
		trail string
	}{
		"offline":      {func(w *drained, id int64) { w.ok(w.sim.Kill(acme, id)) }, "done", "RN100I RN130I RN101I RN131I"},
		"deregistered": {func(w *drained, id int64) { w.ok(w.sim.Remove(acme, id)) }, "gone", "RN100I RN130I RN102I RN131I"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newDrained(t)
			id := w.online(2)[0]
			w.answers(idle, func() { tt.stop(w, id) })
			w.remove(tt.want, w.request(id))
			w.trail(tt.trail)
			w.relay(1)
		})
	}
}

func TestReplicasDrainEachHostOnce(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	ids := w.online(6)
	asked := w.answers(idle, nil)
	second := w.replica(w.open())
	second.Hosts = w.conn
	var g errgroup.Group
	for _, r := range []*remove.Remover{w.remover, second} {
		g.Go(func() error {
			for _, id := range ids {
				if _, err := r.Remove(w.ctx, w.request(id)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	w.ok(g.Wait())
	// One that the one was just at may be left to it by the other, but nobody
	// is asked, deleted or released twice.
	n := len(w.deletes(false))
	if n != len(ids) || len(w.deletes(true)) != n || len(asked) != n {
		t.Errorf("%d hosts asked, %d DELETEs of which %d did something, want %d each", len(asked), n, len(w.deletes(true)), len(ids))
	}
	w.relay(n)
	w.want(fmt.Sprintf("%d %d", n, n), `SELECT concat_ws(' ', count(*) FILTER (WHERE code = 'RN130I'), count(*) FILTER (WHERE code = 'RN131I')) FROM api.audit`)
}
