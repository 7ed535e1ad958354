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
// hosts are silent or say that all is over. Jobs move from one runner to another,
// and somebody occupies the endpoint of webhooks with slow bodies. None of it may cost a workflow job,
// whatever the door by which a deletion is asked for, as long as one witness
// tells the truth. This is the fault model:
//
//   - Each stretch of work is shown truthfully by one witness at least: by all
//     listings, by all answers by id, by the webhook of its beginning, by the
//     heartbeats of its host, or by the host's answer where it is asked to let a
//     runner go that is online. Whoever takes runners for idle is told that they
//     are busy: that one is there says nothing against draining it. And a host
//     that has let a runner go has it take no work.
//   - It is shown before the runner has been seen offline for offline_for and
//     grace. So a runner that was seen so long already has to be shown from its
//     first moment on: a listing is too late then. An operator's deletion, and a
//     drain, wait for nothing, so by then the witness has spoken.
//   - Between an answer by id and a DELETE nothing is assigned, unless GitHub
//     refuses to delete what is at work.
//
// Some lives are outside of it. What dies there is counted: nobody could have
// known.
func TestTruth(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	r.raiseNATS(t)
	sums := newTally()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, r, aboutWork)
		if w.wires != nil {
			// What is not known is not drained.
			w.passRound()
			w.work()
		}
		for range rapid.IntRange(4, 16).Draw(t, "rounds") {
			w.turnWeather()
			w.occupy()
			w.liveWorking()
			w.wantHosts()
			w.passRound()
			w.comeIn()
			w.work()
			w.judgeRound()
			w.wantWithinMax()
		}
		w.judgeWork()
		w.wantNoStrangerAsked()
		w.sawDrains()
		w.calm()
		w.judge()
		sums.add(w)
	})
	if !t.Failed() {
		sums.check(t, map[string]float64{
			"deletions in the storm":                       0.5,
			"deletions in the calm":                        0.3,
			"idle runners deleted that their hosts let go": 0.15,
			"looks at a runner at work":                    0.3,
			"hosts that pools waited for":                  0.3,
			"hosts that pools would give up":               0.2,
			"stretches of work, told by listing":           0.1,
			"stretches of work, told by look":              0.1,
			"stretches of work, told by webhook":           0.1,
			"stretches of work, told by host":              0.1,
			"stretches of work, told by drain":             0.1,
			"jobs killed outside the fault model":          0.03,
			"runners that a stranger claims":               1,
			"rounds under slow bodies of nobody's":         1,
			"workflow jobs that moved":                     1,

			"workflow jobs that moved to the runner of the lower id": 0.5,
		})
	}
}

// drawWork makes a life one about work.
func (w *world) drawWork() {
	w.jobs = &jobs{
		inside:  anyOf(w, "inside the fault model", true, true, false),
		abreast: w.oneIn(3, "side by side"),
		caches:  w.oneIn(4, "old answers"),
		beatAge: anyOf(w, "age of heartbeats", 0, time.Minute, 150*time.Second),
		drains:  !w.oneIn(3, "no policy drains"),
		hosts:   map[string]*host{}, lies: map[string][]func(){}, looked: map[string]int{}, drained: map[string]int{},
		hiddenJobs: map[int64]bool{}, hiddenRuns: map[int64]bool{},
	}
	// Where no event tells which repositories have workflow jobs, most are
	// compared every few hours only.
	pooled := w.sendsJobs && !w.jobs.caches && anyOf(w, "pools", true, true, false)
	w.jobs.compares = pooled || w.oneIn(4, "comparisons")
	if w.jobs.compares && w.limits.Primary < 5000 {
		// Comparisons are meant for what every credential has at GitHub: with less
		// they begin anew for ever.
		w.limits.Primary = 0
		w.sim.SetLimits(w.limits)
	}
	if w.jobs.drains {
		w.reap.drawDrain(w)
	}
	if w.jobs.drains || pooled {
		w.wire()
	}
	w.listen()
	if w.jobs.compares {
		w.addRepos()
	}
	if pooled {
		w.drawPools()
		w.tally.count("lives with pools")
	}
	w.raiseStranger()
	w.raiseHosts()
	if !w.jobs.inside {
		w.tell("this life is outside the fault model")
	}
}

// comeIn has deletions asked for by the other doors than that of cron: a trigger
// over NATS or of the command line, and an operator's own deletion. Pools are
// decided on, now and then by several at once.
func (w *world) comeIn() {
	for _, p := range w.pools {
		for range anyOf(w, "triggers of a pool", 0, 1, 1, 3) {
			w.waiting = append(w.waiting, &errand{Trigger: fleet.Trigger{
				ID: uuid.NewString(), Job: fleet.JobScale, Name: p.Name, Source: anyOf(w, "door", fleet.SourceCron, fleet.SourceNATS, fleet.SourceCLI),
			}})
		}
	}
	for _, t := range w.targets {
		if w.jobs.compares && !w.oneIn(4, "no comparison") {
			w.waiting = append(w.waiting, &errand{Trigger: fleet.Trigger{Name: t.Name}, compares: true, sweeps: w.oneIn(6, "sweep")})
		}
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
		if moved := w.withMoved(t.Scope); len(moved) > 0 && w.oneIn(2, "what a job moved to") {
			all = moved
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
	drained := w.drainedRunners()
	for _, e := range w.sim.Log() {
		switch {
		case isLook(e) && e.Online && e.Busy:
			w.tally.count("looks at a runner at work")
		case isDelete(e) && e.Acted && e.Online && !e.Busy && drained[fmt.Sprintf("%s/%d", e.Scope, e.RunnerID)]:
			w.tally.count("idle runners deleted that their hosts let go")
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
		SELECT 'intents of ' || a.policy || ' by way of ' || coalesce(run.source, 'muster remove') || ': ' || a.state, count(*)
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
	w.reveal()
	w.endMoved()
	w.calmStranger()
	w.honestHosts()
}

// honestHosts has hosts say what is, in heartbeats and when they are asked.
func (w *world) honestHosts() {
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	for _, key := range w.hostKeys() {
		h := w.jobs.hosts[key]
		r, there := w.runner(h.scope, h.id)
		switch {
		case !there || !r.Online:
			h.says = ""
		case w.isDrainable(r):
			h.says = truthOf(r)
		}
		if there {
			w.teach(h, answersTruth)
		}
	}
}

// mourned are the runners of which a webhook has told that they are at work, and
// none that the work is over. Where workflow jobs are compared, that is found
// out.
func (w *world) mourned() map[string]bool {
	if w.jobs.compares {
		return nil
	}
	begun, over := w.toldOf(string(githubsim.JobInProgress)), w.toldOf(string(githubsim.JobCompleted))
	runners := map[string]bool{}
	for _, j := range w.sim.Jobs() {
		if begun[j.ID] && !over[j.ID] {
			runners[w.placeOf(j)] = true
			runners[w.jobs.moved[j.ID]] = true
		}
	}
	return runners
}

// placeOf is the runner that has or had a job.
func (w *world) placeOf(j githubsim.Job) string { return runnerKey(j.Scope, j.RunnerID) }
