package storm_test

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
)

// store is the stream of triggers between the outbox and the replicas. It is
// modelled where the relay meets it: real rows of the real outbox are claimed,
// the store takes or refuses each, and the relay deletes what was taken. The queue
// package's own tests have a real server that fills.
//
// A full store refuses what is new and keeps what it has. Triggers wait in the
// outbox then, and all of them have to go out once there is room again.
type store struct {
	outbox db.Outbox
	full   bool
	room   int             // triggers that a full store still takes
	taken  map[string]bool // triggers that it has, by id
	held   []*errand       // of cron, that wait for room
}

// relayBatch is how many triggers a pass of the relay claims.
const relayBatch = 256

func (w *world) openStore() {
	handle, err := db.Open(w.ctx, w.record.url)
	w.ok(err)
	w.Cleanup(handle.Close)
	w.store = &store{outbox: db.Outbox{DB: handle}, taken: map[string]bool{}}
}

// fillStore lets the store fill, until somebody makes room.
func (w *world) fillStore() *weather {
	w.store.full = true
	w.store.room = anyOf(w, "room", 0, 0, 1, 3)
	w.tally.count("times that the store filled")
	return &weather{what: "the store is full", lift: w.freeStore}
}

// freeStore makes room: what cron wanted meanwhile comes now.
func (w *world) freeStore() {
	w.store.full = false
	w.waiting = append(w.waiting, w.store.held...)
	w.store.held = nil
}

// takes reports whether the store takes one more trigger.
func (s *store) takes() bool {
	if !s.full {
		return true
	}
	s.room--
	return s.room >= 0
}

// cron puts a trigger of a schedule on its way.
func (w *world) cron(e *errand) {
	if w.store.takes() {
		w.waiting = append(w.waiting, e)
		return
	}
	w.store.held = append(w.store.held, e)
	w.tally.count("triggers that a full store refused")
}

// relay empties the outbox into the store as far as that takes anything. Its
// process may die between the two: then a trigger is published twice.
func (w *world) relay() {
	for {
		messages, err := w.store.outbox.Claim(w.ctx, "trigger", relayBatch, time.Minute)
		w.ok(err)
		var out []string
		for _, m := range messages {
			if !w.store.takes() {
				w.tally.count("triggers that a full store refused")
				continue
			}
			w.store.taken[m.ID] = true
			out = append(out, m.ID)
		}
		if len(out) > 0 && w.oneIn(6, "the relay dies") {
			w.tally.count("relays that died after publishing")
			return
		}
		if len(out) > 0 {
			w.ok(w.store.outbox.Delete(w.ctx, out))
		}
		if len(messages) < relayBatch {
			return
		}
	}
}

// endClaims lets the claims of relays end, which are of the real clock.
func (w *world) endClaims() {
	w.exec(`UPDATE muster.outbox SET claimed_until = clock_timestamp() - interval '1 second' WHERE lane = 'trigger' AND claimed_until > clock_timestamp()`)
}

// wantNothingLost checks that every trigger of the life has gone out, now that
// there is room.
func (w *world) wantNothingLost() {
	w.endClaims()
	w.relay()
	w.endClaims()
	w.relay()
	rows, err := w.record.sql.Query(w.ctx, `SELECT trigger_id::text FROM muster.run WHERE state = 'queued' AND name = ANY($1)`, w.askedFor())
	w.ok(err)
	queued, err := pgx.CollectRows(rows, pgx.RowTo[string])
	w.ok(err)
	for _, id := range queued {
		if !w.store.taken[id] {
			w.Errorf("trigger %s was lost: it is queued and has never gone out", id)
		}
	}
	if len(w.store.held) > 0 {
		w.Errorf("%d triggers of cron still wait for room", len(w.store.held))
	}
}
