package storm_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// errand is something that somebody has to do: a trigger, which comes again
// until it was handled, or where there is none the settling of open intents.
type errand struct {
	fleet.Trigger
	byHand int64 // the runner that an operator wants gone; 0: it is no operator
	// compares is whether the workflow jobs of the target Name are to be
	// compared, and sweeps whether the log of its webhooks is to be read too.
	compares, sweeps bool
	due              time.Time
	tries            int
	last             error // of its newest delivery
}

// maxTries is when a trigger is given up, as one that becomes a dead letter.
const maxTries = 5

func (e *errand) String() string {
	switch {
	case e.byHand != 0:
		return fmt.Sprintf("remove %s %d by hand", e.Name, e.byHand)
	case e.compares:
		return "compare " + e.Name
	case e.Job == "":
		return "settle"
	}
	return fmt.Sprintf("%s %s", e.Job, e.Name)
}

// work hands out all that is due, and then the enforcement that syncs have
// asked for, in any order and side by side.
func (w *world) work() {
	w.hold()
	w.rename()
	w.stepNow(3)
	for _, t := range w.targets {
		if !w.oneIn(8, "no sync") {
			w.cron(&errand{Trigger: fleet.Trigger{
				ID: uuid.NewString(), Job: fleet.JobSync, Name: t.Name, Source: fleet.SourceCron,
			}})
		}
	}
	w.arm()
	w.handOut()
	w.collect()
	w.handOut()
	w.setArmed(nil)
	for _, lift := range w.lifts {
		lift()
	}
	w.lifts = nil
}

// collect takes over the triggers that were queued with somebody's commit and
// have gone out.
func (w *world) collect() {
	w.relay()
	known := map[string]bool{}
	for _, e := range w.waiting {
		known[e.ID] = true
	}
	for _, q := range read[struct {
		ID, Name string
		Job      fleet.Job
	}](w, `
		SELECT trigger_id::text, name, job FROM muster.run
		WHERE state = 'queued' AND job IN ('enforce', 'scale') AND name = ANY($1)
		ORDER BY queued_at`, w.askedFor()) {
		if !known[q.ID] && w.store.taken[q.ID] {
			w.waiting = append(w.waiting, &errand{Trigger: fleet.Trigger{
				ID: q.ID, Job: q.Job, Name: q.Name, Source: fleet.SourceSync,
			}})
		}
	}
}

// handOut has the replicas do what is due.
func (w *world) handOut() {
	w.noteSyncs()
	var due, later []*errand
	for _, e := range w.waiting {
		if e.due.After(w.clock.now()) || w.held(e) {
			later = append(later, e)
		} else {
			due = append(due, e)
		}
	}
	w.waiting = later
	for range rapid.IntRange(0, 2).Draw(w.T, "settlings") {
		due = append(due, &errand{})
	}
	if len(due) == 0 {
		return
	}
	due = rapid.Permutation(due).Draw(w.T, "order")
	for len(due) > 0 {
		n := 1
		if w.jobs == nil || w.jobs.abreast {
			n = min(rapid.IntRange(1, 3).Draw(w.T, "at once"), len(due))
		}
		if n > 1 && due[0].Job == fleet.JobScale {
			// Decisions on one pool together: at its maximum they are a race.
			like := func(e *errand) bool { return e.Job == due[0].Job && e.Name == due[0].Name }
			due = slices.Concat(
				slices.DeleteFunc(slices.Clone(due), func(e *errand) bool { return !like(e) }), slices.DeleteFunc(slices.Clone(due), like))
		}
		batch := due[:n:n]
		due = due[n:]
		if batch[0].Job != "" && (w.jobs == nil || w.jobs.abreast) && w.oneIn(6, "delivered twice") {
			batch = append(batch, batch[0])
		}
		w.together(batch)
		if w.steps != nil && w.oneIn(2, "seconds between batches") {
			w.lapse(6 * time.Second)
		}
	}
}

// setWorking tells hooks whose requests they see.
func (w *world) setWorking(places []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.working = nil
	for _, i := range places {
		w.working = append(w.working, w.replicas[i])
	}
}

// together has a batch done by several replicas side by side, which may be
// interrupted at any of their requests.
func (w *world) together(batch []*errand) {
	places := make([]int, len(batch))
	walks := map[string]bool{}
	for i, e := range batch {
		places[i] = rapid.IntRange(0, len(w.replicas)-1).Draw(w.T, "replica")
		if e.Job != fleet.JobSync {
			continue
		}
		who := e.Name + " " + w.replicas[places[i]].credential
		w.overlapped = w.overlapped || walks[who]
		walks[who] = true
	}
	w.setWorking(places)
	began := w.clock.elapsed()
	if w.jobs != nil {
		clear(w.jobs.looked)
		clear(w.jobs.drained)
	}
	var g sync.WaitGroup
	became := make([]delivery, len(batch))
	for i, e := range batch {
		g.Go(func() {
			r := w.replicas[places[i]]
			switch {
			case e.byHand != 0:
				became[i] = delivery{done: true, err: r.removeByHand(e)}
				return
			case e.compares:
				// What it could not find out, it asks for later.
				became[i] = delivery{done: true, err: r.compare(e.Name, e.sweeps)}
				return
			case e.Job == "":
				// What it could not settle, it settles later.
				became[i] = delivery{done: true, err: r.remover.Settle(r.ctx)}
				return
			}
			became[i] = r.handle(e.Trigger)
		})
	}
	g.Wait()
	w.calls.wait() // what the dead have asked for happens all the same
	w.noteOffline(began)
	w.noteSyncs()
	again := map[*errand]bool{}
	for i, e := range batch {
		w.tell("%v by %v: %v", e, w.replicas[places[i]], became[i].err)
		e.last = became[i].err
		if e.due = w.clock.now().Add(became[i].pause); !became[i].done {
			again[e] = true
		}
	}
	for i, e := range batch {
		if became[i].done {
			delete(again, e)
		}
	}
	for _, e := range batch {
		if again[e] {
			delete(again, e)
			if !errors.Is(e.last, errElsewhere) {
				e.tries++ // one that waits has not been tried
			}
			if e.tries < maxTries {
				w.waiting = append(w.waiting, e)
			}
		}
	}
	for i, r := range w.replicas {
		if r.ctx.Err() != nil {
			r.crash() // one that was stopped has nothing left to do
			w.boot(i)
		}
	}
}

// held reports whether what is asked for has to wait, since it could drain a
// runner whose work is told of by a witness that has not spoken.
func (w *world) held(e *errand) bool {
	if w.jobs == nil || !w.jobs.inside || e.Job != fleet.JobEnforce && e.Job != fleet.JobScale {
		return false
	}
	for _, s := range w.jobs.begun {
		if s.drainable && (e.Name == s.target.Name || slices.Contains(w.poolsOf(s.target.Name), e.Name)) && w.goesOn(s) && !w.spoken(s) {
			w.tally.count("triggers held until a witness has spoken")
			return true
		}
	}
	return false
}

// goesOn reports whether a stretch of work is not over.
func (w *world) goesOn(s stretch) bool {
	return slices.ContainsFunc(w.sim.Snapshot(s.target.Scope), func(r githubsim.State) bool {
		return runnerKey(s.target.Scope, r.ID) == s.runner && r.Job == s.job
	})
}

// spoken reports whether the honest witness of a stretch of work has told of it,
// to muster's record where it is a listing: that is for what to ask for, and
// judges nothing.
func (w *world) spoken(s stretch) bool {
	switch {
	case s.speaks.After(w.clock.now()):
		return false
	case s.honest != byListing:
		return true
	}
	return w.syncsOf(s.target) > s.syncs
}

// syncsOf is how many complete syncs a target has had.
func (w *world) syncsOf(t *target) int {
	return w.count(`SELECT coalesce(sum(complete_syncs), 0) FROM muster.target WHERE name = $1`, t.Name)
}

// noteSyncs notes how many syncs there were before stretches of work that have
// begun: later ones show them. Nobody syncs meanwhile.
func (w *world) noteSyncs() {
	if w.jobs == nil {
		return
	}
	for i := range w.jobs.begun {
		s := &w.jobs.begun[i]
		if s.syncs < 0 {
			s.syncs = w.syncsOf(s.target)
		}
	}
}
