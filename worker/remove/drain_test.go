package remove_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
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
		{"said by another host", func(w *drained, _ int64) { w.beat("elsewhere", "r1", "busy", 0) }, "spared host_busy"},
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

// interrupted leaves the intent of a process that died under an expired lease,
// after its host was drained or before.
func (w *drained) interrupted(id int64, drainedAt time.Time) {
	w.Helper()
	a := fleet.Action{
		ID: uuid.NewString(), DecisionID: uuid.NewString(), TriggerID: uuid.NewString(), Policy: "outdated", Target: "acme",
		RunnerID: id, Name: w.value(`SELECT name FROM api.runners WHERE runner_id = $1`, id), Kind: fleet.ActionDeleteRunner,
		Host: "r1", Release: true, State: fleet.ActionIntended, IntendedAt: w.clock(), DrainedAt: drainedAt,
	}
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.Intend(w.ctx, a, time.Minute, false); err != nil || drainedAt.IsZero() {
			return err
		}
		return tx.NoteDrained(w.ctx, a)
	}))
	w.expire()
}

// A process may die anywhere between the drain and the release. Nobody goes on
// deleting then; where the runner is gone, the host is released, once.
func TestADrainThatWasInterruptedIsSettled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		given func(w *drained, id int64)
		want  string // state and reason
		trail string
		told  int
	}{
		{"before the host had answered", func(w *drained, id int64) { w.interrupted(id, time.Time{}) }, "failed interrupted", "RN104E", 0},
		{"before the host had answered, and the runner has gone by itself", func(w *drained, id int64) {
			w.interrupted(id, time.Time{})
			w.ok(w.sim.Remove(acme, id))
		}, "gone interrupted", "RN102I", 0},
		{"between drain and deletion", func(w *drained, id int64) { w.interrupted(id, w.clock()) }, "failed interrupted", "RN104E", 0},
		{"between drain and deletion, and the runner works again", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Assign(acme, id))
		}, "spared busy", "RN103W", 0},
		{"between deletion and release", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
		}, "gone interrupted", "RN102I RN131I", 1},
		{"between deletion and release, long ago", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
			w.pass(fleet.DrainLife + time.Second)
		}, "gone interrupted", "RN102I RN132W", 0},
		{"between deletion and release, and the host has registered again", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
			w.exec(`UPDATE muster.runner SET host = 'r1' WHERE name = 'r2'`)
		}, "gone interrupted", "RN102I RN132W", 0},
		{"between deletion and release, and the host is at work for somebody", func(w *drained, id int64) {
			w.interrupted(id, w.clock())
			w.ok(w.sim.Remove(acme, id))
			w.beat("r1", "something", "busy", 0)
		}, "gone interrupted", "RN102I RN132W", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newDrained(t)
			id := w.online(2)[0]
			w.answers(idle, nil)
			tt.given(w, id)
			replicas := []*remove.Remover{w.remover, w.replica(w.open()), w.replica(w.open())}
			var g errgroup.Group
			for _, r := range replicas {
				g.Go(func() error { return r.Settle(w.ctx) })
			}
			w.ok(g.Wait())
			w.ok(w.remover.Settle(w.ctx)) // nothing is left to do
			w.want(tt.want, `SELECT state || ' ' || reason FROM api.actions`)
			w.trail(tt.trail)
			w.relay(tt.told)
			if n := len(w.deletes(false)); n != 0 {
				t.Errorf("settling sent %d DELETEs", n)
			}
		})
	}
}

// The outcome cannot be recorded after the deletion, as if the process had died:
// whoever settles it releases the host.
func TestAReleaseSurvivesThatItsMakerCouldNotRecordTheOutcome(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	w.answers(idle, nil)
	broken := w.open()
	maker := w.replica(broken)
	maker.Hosts = w.conn
	w.sim.Intercept(func(r *http.Request) http.Handler {
		if r.Method == http.MethodDelete {
			broken.Close()
		}
		return nil
	})
	if res, err := maker.Remove(w.ctx, w.request(id)); err == nil {
		t.Fatalf("Remove = %s, want an error: it cannot record what it did", short(res))
	}
	w.want("intended", `SELECT state FROM api.actions`)
	w.relay(0)
	w.expire()
	w.ok(w.remover.Settle(w.ctx))
	w.trail("RN100I RN130I RN102I RN131I")
	w.relay(1)
}

// A drain that is recorded after somebody settled the intent is not followed by
// anything.
func TestADrainThatComesTooLateDeletesNobody(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	other := w.replica(w.open())
	w.answers(idle, func() {
		w.expire()
		if err := other.Settle(w.ctx); err != nil {
			t.Error(err)
		}
	})
	if res, err := w.remover.Remove(w.ctx, w.request(id)); err == nil {
		t.Errorf("Remove = %s, want an error", short(res))
	}
	w.trail("RN100I RN104E")
	if got := w.deletes(false); len(got) != 0 {
		t.Errorf("DELETEs of %v", got)
	}
	w.relay(0)
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

// The witnesses against a deletion hold against a drain, before the host is
// asked; that it waits for work does not.
func TestWitnessesAgainstADrain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		say  func(w *drained, id int64)
		want string
	}{
		{"a workflow job", func(w *drained, id int64) { w.job("in_progress", id, "r1", time.Hour) }, "keep open_job"},
		{"its host says busy", func(w *drained, _ int64) { w.beat("r1", "r1", "busy", 0) }, "keep host_busy"},
		{"an operator", func(w *drained, id int64) { w.hold(id, 0) }, "keep hold"},
		{"another host speaks of it", func(w *drained, _ int64) { w.beat("h9", "r1", "idle", 0) }, "keep no_host"},
		{"two hosts speak of it", func(w *drained, _ int64) {
			w.beat("r1", "r1", "idle", 0)
			w.beat("h9", "r1", "idle", 0)
		}, "keep no_host"},
		{"nobody knows its host", func(w *drained, _ int64) { w.exec(`UPDATE muster.runner SET host = NULL`) }, "keep no_host"},
		{"its host says idle", func(w *drained, _ int64) { w.beat("r1", "r1", "idle", 0) }, "done"},
		{"its host is known by heartbeats", func(w *drained, _ int64) {
			w.exec(`UPDATE muster.runner SET host = NULL`)
			w.beat("h9", "r1", "idle", 0)
		}, "done"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newDrained(t)
			id := w.online(2)[0]
			asked := w.answers(idle, nil)
			tt.say(w, id)
			w.remove(tt.want, w.request(id))
			if n := len(asked); n != map[bool]int{true: 1}[tt.want == "done"] {
				t.Errorf("%d hosts were asked", n)
			}
		})
	}
}

// Six speak of a runner that is at work: the listings, the event of its
// workflow job, the heartbeats of its host, the host's answer to the drain, the
// answer by id, and the DELETE itself. Each of them may be wrong. Only where all
// of them are a job is lost, since then nobody could have known.
func TestOneTruthIsEnoughForARunnerToBeKeptFromADrain(t *testing.T) {
	t.Parallel()
	const (
		listing = 1 << iota
		event
		heartbeat
		answer
		look
		refusal
		all
	)
	w := newDrained(t)
	ids := w.online(all)
	truths := map[string]int{} // by host
	mistaken := map[string][]int64{}
	var beats []fleet.Heartbeat
	for truth, id := range ids {
		host := fmt.Sprintf("r%d", truth+1)
		truths[host] = truth
		w.ok(w.sim.Assign(acme, id))
		if truth&listing != 0 {
			w.exec(`UPDATE muster.runner SET busy = true WHERE runner_id = $1`, id)
		}
		if truth&event != 0 {
			w.exec(`
				INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id,
					runner_name, started_at, conclusion, changed_at)
				VALUES ('acme', $1, 1, 1, 'acme/widgets', '{linux}', 'in_progress', $1, $2, $3, '', $3)`, id, host, w.clock())
		}
		state := fleet.HostRunnerIdle
		if truth&heartbeat != 0 {
			state = fleet.HostRunnerBusy
		}
		beats = append(beats, fleet.Heartbeat{Host: host, At: w.clock(), Runners: []fleet.HostRunner{{Target: "acme", Name: host, State: state}}})
		if truth&look == 0 {
			mistaken[http.MethodGet] = append(mistaken[http.MethodGet], id)
		}
		if truth&refusal == 0 {
			mistaken[http.MethodDelete] = append(mistaken[http.MethodDelete], id)
		}
	}
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.SaveHeartbeats(w.ctx, beats) }))
	for method, about := range mistaken {
		_, err := w.sim.Inject(githubsim.Fault{
			Kind: githubsim.FaultMistaken, Scope: acme, Field: "busy", Method: method, Path: "/actions/runners/{runner_id}", IDs: about,
		})
		w.ok(err)
	}
	_, err := w.host.Subscribe(queue.DrainSubject("*"), func(m *nats.Msg) {
		host := strings.Split(m.Subject, ".")[3]
		if err := m.Respond(fmt.Appendf(nil, `{"v":1,"busy":%t}`, truths[host]&answer != 0)); err != nil {
			t.Error(err)
		}
	})
	w.ok(err)
	w.ok(w.host.Flush())

	kept := map[string]int{}
	for truth, id := range ids {
		res, err := w.remover.Remove(w.ctx, w.request(id))
		w.ok(err)
		kept[short(res)]++
		if deleted := res.Action.State == fleet.ActionDone; deleted != (truth == 0) {
			t.Errorf("a runner at work of which %06b of six say so: %s", truth, short(res))
		}
	}
	if got := w.deletes(true); len(got) != 1 || got[0] != ids[0] {
		t.Errorf("deleted %v, want that alone of which nobody said that it works: %d", got, ids[0])
	}
	// Each of them decided somewhere.
	for _, by := range []string{"keep not_matched", "keep open_job", "keep host_busy", "spared host_busy", "spared busy", "done"} {
		if kept[by] == 0 {
			t.Errorf("nobody came out as %s: %v", by, kept)
		}
	}
}
