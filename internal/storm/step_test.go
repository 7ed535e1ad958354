package storm_test

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/internal/clock"
)

// steps is a shared clock that goes back and leaps ahead, and returns or stays
// (issue 10). GitHub's clock and elapsed time go on. What is judged is elapsed
// time.
//
// Code that reads Postgres's clock by SQL does not see the step: that is Postgres's
// own. Such are the leases of runs and intents, the claims of the outbox, the
// times of triggers that wait, and an operator's allowance. Lives are later than
// Postgres's clock, so that none of these is corrected when the clock goes back.
//
// A leap that nobody watches is not told from the time in which nobody was there.
// So there is one more process that watches the clock, and never dies.
type steps struct {
	idle    *clock.Watch             // of a process that does nothing else
	idleAt  time.Duration            // when it looks next, by elapsed time
	small   bool                     // it has leapt by less than anybody notices
	offline map[string]time.Duration // by runner: since when the record has it offline, by elapsed time
}

// smallLeap is less than what counts as a leap. One of it is added to what should
// have passed.
const smallLeap = 20 * time.Second

// drawSteps draws whether the clock of a life steps.
func (w *world) drawSteps() {
	w.exec(`UPDATE muster.clock SET newest = 'epoch', steps = 0, stepped_at = NULL, stepped_by = NULL`)
	if !w.oneIn(3, "the clock steps") {
		return
	}
	handle, err := db.Open(w.ctx, w.record.url)
	w.ok(err)
	w.Cleanup(handle.Close)
	w.steps = &steps{idle: w.watch(handle), offline: map[string]time.Duration{}}
	w.tally.count("lives with a clock that steps")
	w.look()
}

// watch is how a process watches the shared clock.
func (w *world) watch(handle *db.DB) *clock.Watch {
	return &clock.Watch{
		Log: slog.New(slog.DiscardHandler), Record: db.Clock{DB: handle, Now: w.clock.tell}, Elapsed: w.clock.elapsed,
	}
}

// steady is why a replica does not believe the clock now.
func (r *replica) steady(ctx context.Context) error {
	_, err := r.watch.Sure(ctx)
	return err
}

// look has processes look at the clock that have to by now.
func (w *world) look() {
	if w.steps == nil {
		return
	}
	now := w.clock.elapsed()
	if now >= w.steps.idleAt {
		wait, err := w.steps.idle.Look(w.ctx)
		w.ok(err)
		w.steps.idleAt = now + wait
	}
	for _, r := range w.replicas {
		if r == nil || r.dead.Load() || now < r.lookAt {
			continue
		}
		wait, _ := r.watch.Look(r.ctx) // one that is stopped meanwhile sees nothing
		r.lookAt = now + wait
	}
}

// pieces are parts of a time that passes, after each of which somebody may look
// at the clock.
func (w *world) pieces(d time.Duration) []time.Duration {
	if w.steps == nil {
		return []time.Duration{d}
	}
	var all []time.Duration
	for _, piece := range []time.Duration{5 * time.Second, 2 * time.Second} {
		if d > piece {
			all = append(all, piece)
			d -= piece
		}
	}
	return append(all, d)
}

// drawStep is by how far the clock is going to step; zero: it does not.
func (w *world) drawStep() time.Duration {
	by := anyOf(w, "step", 10*time.Minute, 50*time.Minute, time.Hour, 5*time.Hour, 24*time.Hour, 40*time.Second, smallLeap)
	back := w.oneIn(2, "back")
	if by == smallLeap && !back {
		if w.steps.small {
			return 0
		}
		w.steps.small = true
	}
	if back {
		by = -by
	}
	// A life stays away from others.
	if total := time.Duration(w.clock.off.Load()) + by; total.Abs() > 72*time.Hour {
		return -by
	}
	return by
}

// stepNow has the clock step, now and then.
func (w *world) stepNow(odds int) {
	if w.steps == nil || !w.oneIn(odds, "a step") {
		return
	}
	by := w.drawStep()
	w.look()
	w.clock.step(by)
	w.tally.count("steps of the clock")
	w.tell("the clock steps by %v, and is wrong by %v", by, time.Duration(w.clock.off.Load()))
	small := by.Abs() == smallLeap
	if !small && w.oneIn(2, "it returns") {
		w.weather = append(w.weather, &weather{what: "the clock is wrong", lift: func() {
			w.look()
			w.clock.step(-by)
			w.tell("the clock returns by %v", -by)
		}})
	}
}

// calmSteps has a clock return that is an hour or more behind GitHub's: by it new
// workflow jobs are of the future, and no pool grows for them. Any other stays as
// it is.
func (w *world) calmSteps() {
	off := time.Duration(w.clock.off.Load())
	if off > -time.Hour {
		return
	}
	w.look()
	w.clock.step(-off)
	w.tell("the clock returns by %v", -off)
}

// noteOffline notes since when the record has runners offline, after something
// that began at a time.
func (w *world) noteOffline(began time.Duration) {
	if w.steps == nil {
		return
	}
	for _, t := range w.targets {
		for _, r := range read[struct {
			ID     int64
			Status fleet.Status
		}](w, `SELECT runner_id, status FROM muster.runner WHERE target = $1 AND removed_at IS NULL`, t.Name) {
			key := runnerKey(t.Scope, r.ID)
			_, known := w.steps.offline[key]
			switch {
			case r.Status != fleet.StatusOffline:
				delete(w.steps.offline, key)
			case !known:
				w.steps.offline[key] = began
			}
		}
	}
}

// wantOfflineTime checks that no runner was deleted by the policy before its time
// had passed, by elapsed time.
func (w *world) wantOfflineTime(log []githubsim.Event) {
	if w.steps == nil {
		return
	}
	slack := smallLeap + time.Second
	for _, t := range w.targets {
		var reaped []int64
		for _, a := range read[struct{ ID int64 }](w, `
			SELECT runner_id FROM muster.action WHERE target = $1
			GROUP BY runner_id HAVING bool_and(policy = $2)`, t.Name, w.reap.policy.Name) {
			reaped = append(reaped, a.ID)
		}
		for _, e := range log {
			if !isDelete(e) || !e.Acted || e.Scope != t.Scope.String() || !slices.Contains(reaped, e.RunnerID) {
				continue
			}
			since, known := w.steps.offline[runnerKey(t.Scope, e.RunnerID)]
			passed := w.clock.elapsedAt(e.At) - since
			if !known || passed < w.reap.offlineFor+w.reap.grace-slack {
				w.Errorf("a runner was deleted after it was offline for %v (known %t), %v and %v have to pass: %s",
					passed, known, w.reap.offlineFor, w.reap.grace, text(e))
			}
			w.tally.count("deletions judged by elapsed time")
		}
	}
}
