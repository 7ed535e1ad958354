package storm_test

import (
	"context"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// pausesEvery is how often replicas ask what others were told.
const pausesEvery = time.Second

// unsaid is how long a pause is to be kept, by GitHub's documentation, where the
// refusal does not say.
const unsaid = time.Minute

// pauseRecord is the record of pauses, by the clock of the world.
type pauseRecord struct {
	db.Pauses
	clock *worldClock
}

func (r pauseRecord) Now(context.Context) (time.Time, error) {
	return r.clock.shared(r.clock.now()), nil
}

// saying is that a replica has been told of a pause, and the record has it.
type saying struct {
	credential string // its fingerprint
	at         time.Time
}

// told is the OnPause of a replica. No time passes meanwhile.
func (w *world) told(r *replica, until time.Time, reason string) {
	w.clock.mu.Lock()
	defer w.clock.mu.Unlock()
	if !r.pauses.Told(r.account, until, reason) {
		return // it died over that
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, saying{fleet.NewSecret(r.credential).Fingerprint(), w.clock.now()})
}

// sharePauses is what replicas do once a second, as often as that is until then.
func (w *world) sharePauses(until time.Time) {
	for _, r := range w.replicas {
		if r != nil && !r.dead.Load() && until.Sub(r.asked) >= pausesEvery {
			_ = w.refresh(r) // one that is killed meanwhile learns nothing
		}
	}
}

// refresh has a replica keep what others were told.
func (w *world) refresh(r *replica) error {
	before := r.github.Limits().Paused
	r.asked = w.clock.now()
	err := r.pauses.Refresh(w.ctx)
	r.pauses.Impose(r.account, r.github)
	// Its own it knows to the fraction of a second.
	if r.github.Limits().Paused.Sub(before) > pausesEvery {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tally.count("pauses learnt of others")
	}
	return err
}

// wantPauses checks that nobody asked anything while GitHub had asked to be left
// alone, whichever process it told, unless that one died over it; and where
// GitHub's clock was not made to lie.
func (w *world) wantPauses(log []githubsim.Event) {
	if w.suffered[githubsim.FaultSkew] {
		return
	}
	slack := time.Duration(0)
	if w.suffered[githubsim.FaultLatency] || w.suffered[githubsim.FaultSlowBody] {
		slack = longestDelay // while which something else may have been on its way
	}
	alone := (!w.shared || len(w.replicas) == 1) && w.boots == len(w.replicas)
	w.tally.count("pauses judged")
	for _, e := range githubsim.InPenalty(log, slack) {
		if w.silent && e.ToldFor >= unsaid {
			continue
		}
		known, ok := w.known(e)
		if died := w.boots > len(w.replicas); !ok && died {
			continue // over the answer that told of it
		}
		if alone || !ok || e.At.After(known.Add(pausesEvery+slack)) {
			w.Errorf("asked during a pause that was told %v before: %s", e.ToldFor, text(e))
		}
	}
}

// known is when all processes could know of the pause that a request came in
// spite of; false: nobody has said it.
func (w *world) known(e githubsim.Event) (time.Time, bool) {
	for _, s := range w.said {
		if s.credential == e.Credential && !s.at.Before(e.At.Add(-e.ToldFor)) {
			return s.at, true
		}
	}
	return time.Time{}, false
}
