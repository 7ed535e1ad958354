package remove_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/remove"
)

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
		{"a stranger lists it, and nobody knows its host", func(w *drained, _ int64) {
			w.exec(`UPDATE muster.runner SET host = NULL`)
			w.grant("h9")
			w.beat("h9", "r1", "idle", 0)
		}, "keep no_host"},
		{"the host of its name lists it, without a grant", func(w *drained, _ int64) {
			w.exec(`UPDATE muster.runner SET host = NULL`)
			w.beat("r1", "r1", "idle", 0)
		}, "keep no_host"},
		{"the host of its name has a grant, and does not list it", func(w *drained, _ int64) {
			w.exec(`UPDATE muster.runner SET host = NULL`)
			w.grant("r1")
		}, "keep no_host"},
		{"the host of its name has a grant, and a stranger lists it too", func(w *drained, _ int64) {
			w.exec(`UPDATE muster.runner SET host = NULL`)
			w.grant("r1")
			w.beat("r1", "r1", "idle", 0)
			w.beat("h9", "r1", "stopped", 0)
		}, "keep no_host"},
		{"the host of its name, in another case, has a grant", func(w *drained, _ int64) {
			w.exec(`UPDATE muster.runner SET host = NULL, name = 'R1' WHERE name = 'r1'`)
			w.grant("r1")
			w.beat("r1", "R1", "idle", 0)
		}, "keep no_host"},
		{"the host of its name has a grant", func(w *drained, _ int64) {
			w.exec(`UPDATE muster.runner SET host = NULL`)
			w.grant("r1")
			w.beat("r1", "r1", "idle", 0)
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

// grant lets hosts register runners with the target.
func (w *drained) grant(hosts ...string) {
	w.Helper()
	target := w.target()
	target.Hosts = fleet.HostNames{Names: hosts}
	w.remover.Targets = func() map[string]remove.Target { return map[string]remove.Target{"acme": target} }
}

// A stranger begins to list a runner while its host is asked: then nobody knows
// for sure whose it is, and it stays.
func TestAStrangerWhoListsARunnerDuringTheDrain(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	w.answers(idle, func() { w.beat("h9", "r1", "stopped", 0) })
	w.remove("spared no_host", w.request(id))
	w.relay(0)
}

// What a stranger says protects a runner, and never accuses it: how the stranger
// fares is not how the runner's host fares.
func TestAStrangerProtectsAndNeverAccuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		say  func(w *world)
		want string
	}{
		{"its own host says stopped", func(w *world) { w.beat("r1", "r1", "stopped", 0) }, "done"},
		{"a stranger says stopped", func(w *world) { w.beat("h9", "r1", "stopped", 0) }, "keep not_matched"},
		{"its own host says idle, and a stranger says stopped", func(w *world) {
			w.beat("r1", "r1", "idle", 0)
			w.beat("h9", "r1", "stopped", 0)
		}, "keep not_matched"},
		{"its own host says stopped, and a stranger says busy", func(w *world) {
			w.beat("r1", "r1", "stopped", 0)
			w.beat("h9", "r1", "busy", 0)
		}, "keep host_busy"},
		{"its own host says stopped, and a stranger says idle", func(w *world) {
			w.beat("r1", "r1", "stopped", 0)
			w.beat("h9", "r1", "idle", 0)
		}, "keep host_alive"},
	} {
		for _, custody := range []string{"token", "grant"} {
			t.Run(tt.name+"/"+custody, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				text := strings.NewReplacer("COUNT", "50", "RATE", "1000/m", `duration("168h")`, `duration("168h") && host.state == "gone"`).Replace(reap)
				all, err := policies.Load("reap.yaml", []byte(text))
				w.ok(err)
				w.policy = all[0]
				id := w.fleet(1)[0]
				if custody == "token" {
					w.exec(`UPDATE muster.runner SET host = 'r1'`)
				}
				target := w.target()
				target.Hosts = fleet.HostNames{Prefixes: []string{"r"}}
				w.remover.Targets = func() map[string]remove.Target { return map[string]remove.Target{"acme": target} }
				tt.say(w)
				w.remove(tt.want, w.request(id))
			})
		}
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
