package storm_test

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// waited is longer than any pause, limit or lag of a life.
const waited = 61 * time.Minute

// cycle is the time from one sync to the next in the calm.
const cycle = 5 * time.Minute

// calm ends all that is wrong, and checks that it does not take long until
// everything is right.
func (w *world) calm() {
	w.clearUp()
	if w.jobs != nil {
		w.calmWork()
	}
	w.waiting = nil
	w.calmSteps()
	w.calmSince = w.lastEvent()
	w.pass(waited)
	w.tell("calm")
	w.settle()
	w.syncAll()
	w.wantTruth("after the first sync of the calm")
	if w.jobs != nil && w.jobs.compares {
		w.compareAll()
	}
	if w.jobs != nil {
		w.jobs.mourned = w.mourned()
		w.tally["runners whose webhooks lost the end of their work"] += len(w.jobs.mourned)
	}
	w.wantReaped()
	if len(w.pools) > 0 {
		w.calmPools()
		w.syncAll()
	}
	if w.jobs != nil && len(w.jobs.mourned) > 0 {
		w.pass(fleet.LongestWorkflowJob)
		w.syncAll()
		w.jobs.mourned = nil
		w.wantReaped()
	}
	w.wantTruth("at the end")
}

// settle closes what the dead have left open.
func (w *world) settle() {
	for range 10 {
		for _, r := range w.replicas {
			if err := r.remover.Settle(r.ctx); err != nil {
				w.Fatalf("settle in the calm: %v", err)
			}
		}
		if w.openIntents() == 0 {
			return
		}
		w.pass(time.Minute)
	}
	w.Fatalf("%d intents stay open", w.openIntents())
}

func (w *world) openIntents() int {
	return w.count(`SELECT count(*) FROM api.actions WHERE state = 'intended' AND target = ANY($1)`, w.targetNames())
}

// syncAll syncs every target, each at another replica than the last time.
func (w *world) syncAll() {
	for _, t := range w.targets {
		w.mustHandle(fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: t.Name, Source: fleet.SourceCron})
		complete := w.count(`SELECT count(*) FROM muster.target WHERE name = $1 AND last_outcome = 'complete'`, t.Name)
		if complete != 1 {
			w.Fatalf("a sync of %s in the calm is not complete", t.Name)
		}
	}
}

// mustHandle has a trigger handled. GitHub's limits hold in the calm too: a
// replica that ran into one handles it when it may again.
func (w *world) mustHandle(t fleet.Trigger) {
	w.turn++
	r := w.replicas[w.turn%len(w.replicas)]
	began := w.clock.elapsed()
	d := r.handle(t)
	for tries := 0; !d.done && d.pause > 0 && tries < 3; tries++ {
		w.pass(d.pause)
		d = r.handle(t)
	}
	w.noteOffline(began)
	if w.tell("%s %s by %v in the calm: %v", t.Job, t.Name, r, d.err); !d.done {
		w.Fatalf("%s of %s in the calm: %v", t.Job, t.Name, d.err)
	}
}

// wantReaped lets time pass until the policy has removed all that it should,
// and no longer than it may take.
func (w *world) wantReaped() {
	dead := w.dead()
	p := w.reap
	longest := p.offlineFor + p.grace + p.apart +
		15*time.Minute + // for which a refusal to delete stands
		time.Duration(dead/p.rate+8)*cycle
	for since := w.clock.now(); w.clock.now().Sub(since) < longest && w.dead() > 0; {
		w.pass(cycle)
		w.resume(1000)
		w.syncAll()
		w.handleCollected()
		w.settle()
	}
	if left := w.dead(); left > 0 {
		w.Fatalf("%d of %d dead runners are still there after %v; last decisions: %q", left, dead, longest, w.verdicts())
	}
}

// handleCollected handles what was queued with somebody's commit.
func (w *world) handleCollected() {
	w.collect()
	for _, e := range w.waiting {
		w.mustHandle(e.Trigger)
	}
	w.waiting = nil
}

// dead counts the runners that the policy is about.
func (w *world) dead() int {
	n := 0
	for _, t := range w.targets {
		for _, s := range w.sim.Snapshot(t.Scope) {
			if w.jobs != nil && w.jobs.mourned[runnerKey(t.Scope, s.ID)] {
				continue
			}
			if _, held := w.holds[runnerKey(t.Scope, s.ID)]; held {
				continue
			}
			if t.covered && s.Shown == fleet.StatusOffline && !s.Online && !s.Busy && !isKept(s) {
				n++
			}
		}
	}
	return n
}

// resume is an operator's answer to halts: so many may go beyond the cap.
func (w *world) resume(allow int) {
	for _, t := range w.targets {
		w.ok(w.replicas[0].db.InTx(w.ctx, func(tx *db.Tx) error {
			reopened, err := tx.Resume(w.ctx, w.reap.policy.Name, t.Name, "looked at it", allow)
			t.allowed += allow * len(reopened)
			return err
		}))
	}
}

// verdicts is what the policy last said of how many runners.
func (w *world) verdicts() []string {
	var found []string
	for _, v := range read[struct {
		What string
		N    int
	}](w, `
		SELECT verdict || ' ' || array_to_string(reasons, ','), count(*)
		FROM (SELECT DISTINCT ON (target, runner_id) verdict, reasons FROM api.decisions WHERE target = ANY($1)
			ORDER BY target, runner_id, at DESC) newest
		GROUP BY 1`, w.targetNames()) {
		found = append(found, fmt.Sprintf("%d %s", v.N, v.What))
	}
	return found
}
