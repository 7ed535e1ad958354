package storm_test

import (
	"fmt"

	natsgo "github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// stranger is a host that lists the runners of other hosts in its heartbeat, and
// says of all of them that they may go. It has a grant, for its own name.
type stranger struct {
	name   string
	claims []fleet.HostRunner
}

// raiseStranger draws whether a life has a stranger, which listens for drains.
func (w *world) raiseStranger() {
	if w.oneIn(2, "no stranger") {
		return
	}
	s := &stranger{name: fmt.Sprintf("h%d-stranger", w.life)}
	w.jobs.stranger = s
	w.tally.count("lives with a host that claims others' runners")
	if w.wires == nil {
		return
	}
	_, err := w.wires.hosts.Subscribe(queue.DrainSubject(s.name), func(m *natsgo.Msg) {
		w.mu.Lock()
		w.tally.count("strangers asked whether a runner may go")
		w.mu.Unlock()
		_ = m.Respond([]byte(`{"v":1,"busy":false}`)) // the life may be over
	})
	w.ok(err)
	w.ok(w.wires.hosts.Flush())
}

// claimOthers has the stranger list other runners from now on, now and then.
func (w *world) claimOthers() {
	s := w.jobs.stranger
	if s == nil || !w.oneIn(2, "the stranger lists others") {
		return
	}
	s.claims = nil
	listed := map[string]bool{}
	for _, t := range w.targets {
		all := w.sim.Snapshot(t.Scope)
		for range rapid.IntRange(0, 3).Draw(w.T, "claims") {
			if len(all) == 0 {
				break
			}
			r := all[rapid.IntRange(0, 999).Draw(w.T, "claimed runner")%len(all)]
			if listed[t.Name+r.Name] {
				continue
			}
			listed[t.Name+r.Name] = true
			state := anyOf(w, "the stranger says", fleet.HostRunnerStopped, fleet.HostRunnerStopped, fleet.HostRunnerIdle, fleet.HostRunnerBusy)
			s.claims = append(s.claims, fleet.HostRunner{Target: t.Name, Name: r.Name, State: state})
			w.tally.count("runners that a stranger claims")
		}
	}
	w.tell("the stranger lists %v", s.claims)
}

// calmStranger has the stranger list its own runners alone, of which it has none.
func (w *world) calmStranger() {
	if w.jobs.stranger != nil {
		w.jobs.stranger.claims = nil
	}
}

// wantNoStrangerAsked checks that no host was asked about a runner for listing it
// alone.
func (w *world) wantNoStrangerAsked() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.tally["strangers asked whether a runner may go"]; n > 0 {
		w.Errorf("a host that claims the runners of others was asked %d times whether one may go", n)
	}
}

// beat is the stranger's heartbeat; empty: there is no stranger.
func (s *stranger) beat() string {
	if s == nil {
		return ""
	}
	list := ""
	for i, c := range s.claims {
		if i > 0 {
			list += ","
		}
		list += fmt.Sprintf(`{"target":%q,"name":%q,"state":%q}`, c.Target, c.Name, c.State)
	}
	return `{"v":1,"runners":[` + list + `]}`
}
