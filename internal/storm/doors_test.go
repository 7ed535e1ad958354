package storm_test

import (
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
)

// errand is something that somebody has to do: a trigger, which comes again
// until it was handled, or where there is none the settling of open intents.
type errand struct {
	fleet.Trigger
	byHand int64 // the runner that an operator wants gone; 0: it is no operator
	due    time.Time
	tries  int
}

// maxTries is when a trigger is given up, as one that becomes a dead letter.
const maxTries = 5

func (e *errand) String() string {
	switch {
	case e.byHand != 0:
		return fmt.Sprintf("remove %s %d by hand", e.Name, e.byHand)
	case e.Job == "":
		return "settle"
	}
	return fmt.Sprintf("%s %s", e.Job, e.Name)
}

// work hands out all that is due, and then the enforcement that syncs have
// asked for, in any order and side by side.
func (w *world) work() {
	for _, t := range w.targets {
		if !w.oneIn(8, "no sync") {
			w.waiting = append(w.waiting, &errand{Trigger: fleet.Trigger{
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

// collect takes over the triggers that were queued with somebody's commit.
func (w *world) collect() {
	known := map[string]bool{}
	for _, e := range w.waiting {
		known[e.ID] = true
	}
	for _, q := range read[struct{ ID, Name string }](w, `
		SELECT trigger_id::text, name FROM muster.run
		WHERE state = 'queued' AND job = 'enforce' AND name = ANY($1)
		ORDER BY queued_at`, w.targetNames()) {
		if !known[q.ID] {
			w.waiting = append(w.waiting, &errand{Trigger: fleet.Trigger{
				ID: q.ID, Job: fleet.JobEnforce, Name: q.Name, Source: fleet.SourceSync,
			}})
		}
	}
}

// handOut has the replicas do what is due.
func (w *world) handOut() {
	var due, later []*errand
	for _, e := range w.waiting {
		if e.due.After(w.clock.now()) {
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
		batch := due[:n:n]
		due = due[n:]
		if batch[0].Job != "" && (w.jobs == nil || w.jobs.abreast) && w.oneIn(6, "delivered twice") {
			batch = append(batch, batch[0])
		}
		w.together(batch)
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
	if w.jobs != nil {
		clear(w.jobs.looked)
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
	again := map[*errand]bool{}
	for i, e := range batch {
		w.tell("%v by %v: %v", e, w.replicas[places[i]], became[i].err)
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
			if e.tries++; e.tries < maxTries {
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
