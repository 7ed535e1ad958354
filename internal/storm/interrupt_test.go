package storm_test

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/github/githubsim"
)

// moment is what is being asked of GitHub when something intervenes: before
// GitHub does it.
type moment string

const (
	atPage   moment = "page"   // in the middle of a walk
	atLook   moment = "look"   // between an intent and its DELETE, or where a listing lacks a runner
	atDelete moment = "delete" // between a DELETE and its outcome

	atDrain     moment = "drain"      // between the question to a host and its answer
	atWorkflows moment = "comparison" // in the middle of one
)

func momentOf(r githubsim.Request) moment {
	switch {
	case strings.HasSuffix(r.Path, ofPages):
		return atPage
	case strings.Contains(r.Path, "/actions/runs"), strings.Contains(r.Path, "/actions/jobs"):
		return atWorkflows
	case r.Method == http.MethodDelete:
		return atDelete
	}
	return atLook
}

// interruption is something that intervenes once, at the nth request of a kind.
type interruption struct {
	at    moment
	nth   int
	what  string
	which int // of several
	work  stretch
	by    time.Duration // of the clock
}

// arm draws what is to intervene in a round, if anything.
func (w *world) arm() {
	var all []*interruption
	at := []moment{atPage, atLook, atDelete}
	if w.reaping {
		at = []moment{atDelete, atLook, atDelete, atLook, atPage}
	}
	what := []string{"crash", "crash", "stop", "connect", "assign", "zap", "kill", "remove", "create", "wait", "lock out", "break"}
	if w.jobs != nil {
		at = []moment{atLook, atLook, atDelete, atPage}
		what = append(what, "assign", "assign", "assign", "assign")
		if w.wires != nil {
			at = append(at, atDrain, atDrain)
		}
		if w.jobs.compares {
			at = append(at, atWorkflows)
		}
	}
	if w.steps != nil {
		what = append(what, "step", "step", "step")
	}
	for range rapid.IntRange(0, 3).Draw(w.T, "interruptions") {
		n := &interruption{
			at:    anyOf(w, "at", at...),
			nth:   anyOf(w, "nth", 1, 1, 2, 3),
			what:  anyOf(w, "what", what...),
			which: rapid.IntRange(0, 99).Draw(w.T, "which"),
		}
		if n.what == "step" {
			n.by = w.drawStep()
		}
		if n.what == "assign" && w.jobs != nil {
			n.work = w.drawStretch(prospect{drainable: w.wires != nil, at: n.at})
		}
		all = append(all, n)
	}
	w.setArmed(all)
}

func (w *world) setArmed(all []*interruption) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = all
}

// struck takes what is due at a request off those that are armed. At most one
// is at a time.
func (w *world) struck(at moment) (*interruption, *replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, n := range w.armed {
		if n.at != at {
			continue
		}
		if n.nth--; n.nth > 0 {
			continue
		}
		w.armed = slices.Delete(w.armed, i, i+1)
		w.tally.count("interrupted at " + string(n.at) + " by " + n.what)
		return n, w.working[n.which%len(w.working)]
	}
	return nil, nil
}

// asked is the hook of the simulator.
func (w *world) asked(r githubsim.Request) {
	at := momentOf(r)
	if at == atDelete {
		w.wantIntent(r)
	}
	if w.jobs != nil && at == atLook {
		w.sawLook(r)
	}
	w.intervene(at, r)
}

// intervene is what happens at a moment, if something is due at it.
func (w *world) intervene(at moment, r githubsim.Request) {
	n, victim := w.struck(at)
	if n == nil {
		return
	}
	switch n.what {
	case "crash":
		victim.crash()
		return
	case "stop":
		victim.stop()
		return
	case "step":
		w.clock.step(n.by)
		if n.which%3 == 0 && n.by.Abs() != smallLeap {
			w.passes(func() { w.clock.step(-n.by) })
		}
		return
	case "wait":
		w.lapse(20 * time.Second)
		return
	case "lock out":
		w.sim.Grant(victim.credential, r.Scope, githubsim.AccessInvisible)
		w.passes(func() { w.sim.Grant(victim.credential, r.Scope, githubsim.AccessFull) })
		return
	case "break":
		w.sim.Down(true)
		w.passes(func() { w.sim.Down(false) })
		return
	}
	id := r.RunnerID
	if all := w.sim.Snapshot(r.Scope); id == 0 && len(all) > 0 {
		id = all[n.which%len(all)].ID
	}
	if s, _ := w.runner(r.Scope, id); isPooled(s) && (n.what == "connect" || n.what == "zap") {
		return
	}
	// Whatever does not fit, such as a second workflow job, does not happen.
	switch n.what {
	case "connect":
		_ = w.sim.Connect(r.Scope, id)
	case "assign":
		if w.jobs != nil {
			w.strikeWork(n.at, r, id, n.work)
		} else {
			_ = w.sim.Assign(r.Scope, id)
		}
	case "kill":
		_ = w.sim.Kill(r.Scope, id)
		w.endWork(r.Scope, id)
	case "remove":
		_ = w.sim.Remove(r.Scope, id)
	case "zap":
		_ = w.sim.Connect(r.Scope, id)
		_ = w.sim.Kill(r.Scope, id)
		w.endWork(r.Scope, id)
	case "create":
		w.newcomer(r.Scope, n.which)
	}
}

// passes keeps what ends an interruption.
func (w *world) passes(lift func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lifts = append(w.lifts, lift)
}

// wantIntent notes a DELETE that nobody has put down before.
func (w *world) wantIntent(r githubsim.Request) {
	var intended bool
	err := w.record.sql.QueryRow(w.ctx, `
		SELECT EXISTS (
			SELECT FROM muster.action a
			JOIN muster.target t ON t.name = a.target
			WHERE t.name = ANY($1) AND lower(t.scope) = lower($2) AND a.runner_id = $3 AND a.state = 'intended')`,
		w.targetNames(), r.Scope.String(), r.RunnerID).Scan(&intended)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || !intended {
		w.unrecorded = append(w.unrecorded, r)
	}
}
