package token

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

const (
	// refusalsKept is how many refusals of one host for one reason have a row of
	// their own within refusalWindow. Further ones are counted in one row.
	refusalsKept  = 10
	refusalWindow = time.Minute
	// recordFresh is how long it counts that Postgres has answered: a refusal is
	// only counted, and not written, while a row could be written.
	recordFresh = 2 * time.Second
	// sumEvery is how often windows that are over are looked for.
	sumEvery = time.Second
)

// refusals counts refusals per host and reason, so that a host that asks without
// end costs a bounded number of rows. The zero value is empty.
type refusals struct {
	mu      sync.Mutex
	windows map[refusalKey]*refusalWindowOf
	// answered is when Postgres last gave an answer.
	answered time.Time
}

// refusalKey is a host and the reason's name, as "denied" or "bad_reply".
type refusalKey struct{ host, reason string }

// refusalWindowOf is the minute that began with the first refusal.
type refusalWindowOf struct {
	began time.Time
	kept  int
	more  refusalSum
}

// refusalSum stands for count refusals, of which it tells the first.
type refusalSum struct {
	key   refusalKey
	count int
	code  fleet.AuditCode // empty: nothing is written of it
	why   string
	// row is what the first asked for; its Code is 0 where it could not be read.
	row fleet.TokenRequest
}

// alive notes that Postgres has answered.
func (r *refusals) alive(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = now
}

// fresh reports whether Postgres has answered lately.
func (r *refusals) fresh(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Sub(r.answered) < recordFresh
}

// full reports whether a further refusal would be counted and not written.
func (r *refusals) full(key refusalKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.windows[key]
	return w != nil && w.kept >= refusalsKept
}

// keep reports whether a refusal gets a row of its own, and counts it so. written
// is how many rows of this minute other replicas and processes have written too.
func (r *refusals) keep(key refusalKey, written int, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.window(key, now)
	w.kept = max(w.kept, written)
	if w.kept >= refusalsKept {
		return false
	}
	w.kept++
	return true
}

// count adds a refusal that gets no row of its own.
func (r *refusals) count(s refusalSum, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.window(s.key, now)
	n := w.more.count + 1
	if w.more.count == 0 {
		w.more = s
	}
	w.more.count = n
}

// window returns the window of a key. It lasts until take finds that it is over.
func (r *refusals) window(key refusalKey, now time.Time) *refusalWindowOf {
	w := r.windows[key]
	if w == nil {
		w = &refusalWindowOf{began: now}
		if r.windows == nil {
			r.windows = map[refusalKey]*refusalWindowOf{}
		}
		r.windows[key] = w
	}
	return w
}

// take returns the sums of the windows that are over, or of all, and forgets them.
func (r *refusals) take(now time.Time, all bool) []refusalSum {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sums []refusalSum
	for key, w := range r.windows {
		if !all && now.Sub(w.began) < refusalWindow {
			continue
		}
		delete(r.windows, key)
		if w.more.count > 0 {
			sums = append(sums, w.more)
		}
	}
	return sums
}

// giveBack puts sums back that could not be written. They are taken again soon.
func (r *refusals) giveBack(sums []refusalSum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range sums {
		w := r.windows[s.key]
		if w == nil {
			w = &refusalWindowOf{kept: refusalsKept}
			r.windows[s.key] = w
		}
		s.count += w.more.count
		w.more = s
	}
}

// keyOf is the key of a host's refusals. Whatever is no name of a host counts as
// one: anybody can make up many.
func keyOf(host, reason string) refusalKey {
	if !fleet.ValidName(host) {
		host = ""
	}
	return refusalKey{host, reason}
}

// countOnly counts a refusal where it gets no row of its own, Postgres has
// answered lately, and reports that it has.
func (i *Issuer) countOnly(s refusalSum) bool {
	now := time.Now()
	if !i.refusals.full(s.key) || !i.refusals.fresh(now) {
		return false
	}
	i.refusals.count(s, now)
	return true
}

// sumUp writes the sums of refusals, each when its minute is over, until stop and
// then all.
func (i *Issuer) sumUp(ctx context.Context, stop <-chan struct{}) {
	tick := time.NewTicker(sumEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			i.writeSums(ctx, i.refusals.take(time.Now(), true))
			return
		case <-tick.C:
			i.writeSums(ctx, i.refusals.take(time.Now(), false))
		}
	}
}

// writeSums writes each sum as one row and one event.
func (i *Issuer) writeSums(ctx context.Context, sums []refusalSum) {
	for _, s := range sums {
		i.Log.WarnContext(ctx, "token requests refused", "host", printable(s.row.Host), "verdict", s.key.reason, "reason", s.why, "counts", s.count)
		if s.code == "" {
			continue // nobody had the time to look at them
		}
		if err := i.writeSum(ctx, s); err != nil {
			i.Log.WarnContext(ctx, "refusals not written, trying again", "host", printable(s.row.Host), "err", err)
			i.refusals.giveBack([]refusalSum{s})
		}
	}
}

func (i *Issuer) writeSum(ctx context.Context, s refusalSum) error {
	now, err := i.clock(ctx)
	if err != nil {
		return err
	}
	row := s.row
	row.RequestID, row.Attempt, row.DemandID = uuid.NewString(), 1, ""
	row.RequestedAt, row.Count, row.Reason = now, s.count, s.why
	return i.inTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		if row.Code != 0 {
			return i.open(ctx, tx, row)
		}
		return tx.Audit(ctx, fleet.AuditEvent{
			At: now, Code: s.code, Actor: fleet.Actor{Type: fleet.ActorHost, Name: row.Host}, Host: row.Host, Reason: s.why,
			Details: map[string]any{"request_id": row.RequestID, "count": s.count},
		})
	})
}
