package storm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// TestTruth is about runners at work that GitHub takes for dead. Its listings,
// its answers by id and its DELETE lie, webhooks come late, twice or not at all,
// hosts are silent or say that all is over. None of it may cost a workflow job,
// whatever the door by which a deletion is asked for, as long as one witness
// tells the truth. This is the fault model:
//
//   - Each stretch of work is shown truthfully by one witness at least: by all
//     listings, by all answers by id, by the webhook of its beginning, or by the
//     heartbeats of its host.
//   - It is shown before the runner has been seen offline for offline_for and
//     grace. So a runner that was seen so long already has to be shown from its
//     first moment on: a listing is too late then. An operator's deletion waits
//     for nothing, so by then the witness has spoken.
//   - Between an answer by id and a DELETE nothing is assigned, unless GitHub
//     refuses to delete what is at work.
//
// Some lives are outside of it. What dies there is counted: nobody could have
// known.
func TestTruth(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	sums := newTally()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, r, aboutWork)
		for range rapid.IntRange(4, 16).Draw(t, "rounds") {
			w.turnWeather()
			w.liveWorking()
			w.passRound()
			w.comeIn()
			w.work()
			w.judgeRound()
		}
		w.judgeWork()
		w.calm()
		w.judge()
		sums.add(w)
	})
	if !t.Failed() {
		sums.check(t, map[string]float64{
			"deletions in the storm":              0.5,
			"deletions in the calm":               0.3,
			"looks at a runner at work":           0.3,
			"stretches of work, told by listing":  0.1,
			"stretches of work, told by look":     0.1,
			"stretches of work, told by webhook":  0.1,
			"stretches of work, told by host":     0.1,
			"jobs killed outside the fault model": 0.03,
		})
	}
}

// drawWork makes a life one about work.
func (w *world) drawWork() {
	w.jobs = &jobs{
		inside:  anyOf(w, "inside the fault model", true, true, false),
		abreast: w.oneIn(3, "side by side"),
		caches:  w.oneIn(3, "old answers"),
		beatAge: anyOf(w, "age of heartbeats", 0, time.Minute, 150*time.Second),
		hosts:   map[string]*host{}, lies: map[string][]func(){}, looked: map[string]int{},
	}
	w.listen()
	if !w.jobs.inside {
		w.tell("this life is outside the fault model")
	}
}

// comeIn has deletions asked for by the other doors than that of cron: a trigger
// over NATS or of the command line, and an operator's own deletion.
func (w *world) comeIn() {
	for _, t := range w.targets {
		if w.oneIn(3, "trigger") {
			w.waiting = append(w.waiting, &errand{Trigger: fleet.Trigger{
				ID: uuid.NewString(), Job: fleet.JobEnforce, Name: t.Name, Source: anyOf(w, "door", fleet.SourceNATS, fleet.SourceCLI),
			}})
		}
		if !w.oneIn(2, "by hand") {
			continue
		}
		all := w.sim.Snapshot(t.Scope)
		if len(all) == 0 {
			continue
		}
		id := all[rapid.IntRange(0, 999).Draw(w.T, "runner")%len(all)].ID
		if w.unspoken(t.Scope, id) {
			continue
		}
		w.waiting = append(w.waiting, &errand{Trigger: fleet.Trigger{ID: uuid.NewString(), Name: t.Name}, byHand: id})
	}
}

// unspoken reports whether the witness of a runner's work has yet to speak.
func (w *world) unspoken(scope fleet.Scope, id int64) bool {
	r, there := w.runner(scope, id)
	for _, s := range w.jobs.begun {
		if there && w.jobs.inside && s.runner == runnerKey(scope, id) && s.job == r.Job && s.speaks.After(w.clock.now()) {
			return true
		}
	}
	return false
}

// removeByHand is what muster remove does.
func (r *replica) removeByHand(e *errand) error {
	_, err := r.remover.Remove(r.ctx, remove.Request{
		Policy: policies.Operator(), Target: e.Name, RunnerID: e.byHand, TriggerID: e.ID,
		Actor: fleet.Actor{Type: fleet.ActorCLI, Name: "operator"}, Reason: "it looks dead",
	})
	return err
}

// judgeWork checks that no workflow job was killed, or counts those that were.
func (w *world) judgeWork() {
	for _, s := range w.jobs.begun {
		if w.jobs.inside {
			w.tally.count("stretches of work, told by " + string(s.honest))
		} else {
			w.tally.count("stretches of work outside the fault model")
		}
	}
	for _, e := range w.sim.Log() {
		switch {
		case isLook(e) && e.Online && e.Busy:
			w.tally.count("looks at a runner at work")
		case isDelete(e) && e.Acted && e.Online && !e.Busy:
			w.tally.count("idle runners deleted that GitHub took for dead")
		case isDelete(e) && e.Acted && e.Online && e.Busy && !w.jobs.inside:
			w.tally.count("jobs killed outside the fault model")
		case isDelete(e) && e.Acted && e.Online && e.Busy:
			w.Errorf("a runner was deleted at its work: %s; %s", text(e), w.whoTold(fmt.Sprintf("%s/%d", e.Scope, e.RunnerID)))
		}
	}
	for _, v := range read[struct {
		What string
		N    int
	}](w, `
		SELECT 'kept: ' || reason, count(*)
		FROM api.decisions, unnest(reasons) AS reason
		WHERE target = ANY($1) AND verdict = 'keep'
		GROUP BY 1
		UNION ALL
		SELECT 'spared at the last look: ' || reason, count(*)
		FROM api.actions
		WHERE target = ANY($1) AND state = 'spared'
		GROUP BY 1
		UNION ALL
		SELECT 'intents by way of ' || coalesce(run.source, 'muster remove') || ': ' || a.state, count(*)
		FROM muster.action a
		LEFT JOIN muster.run run ON run.trigger_id = a.trigger_id
		WHERE a.target = ANY($1)
		GROUP BY 1`, w.targetNames()) {
		w.tally[v.What] += v.N
	}
}

// whoTold is the newest stretch of work of a runner.
func (w *world) whoTold(runner string) string {
	said := "work that it had from the start"
	for _, s := range w.jobs.begun {
		if s.runner == runner {
			said = s.String()
		}
	}
	return said
}

// calmWork ends the lies, and has hosts say what is.
func (w *world) calmWork() {
	for key := range w.jobs.lies {
		w.clearName(key)
	}
	for _, lift := range w.jobs.hookFaults {
		lift()
	}
	alive := map[string]bool{}
	for _, t := range w.targets {
		for _, s := range w.sim.Snapshot(t.Scope) {
			alive[runnerKey(t.Scope, s.ID)] = s.Online
		}
	}
	for key, h := range w.jobs.hosts {
		if h.says != "" && !alive[key] {
			h.says = ""
		}
	}
}

// mourned are the runners of which a webhook has told that they are at work, and
// none that the work is over.
func (w *world) mourned() map[string]bool {
	begun, over := w.toldOf(string(githubsim.JobInProgress)), w.toldOf(string(githubsim.JobCompleted))
	runners := map[string]bool{}
	for _, j := range w.sim.Jobs() {
		if begun[j.ID] && !over[j.ID] {
			runners[w.placeOf(j)] = true
		}
	}
	return runners
}

// placeOf is the runner that has or had a job.
func (w *world) placeOf(j githubsim.Job) string { return runnerKey(j.Scope, j.RunnerID) }
