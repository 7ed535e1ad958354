package remove_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// A decision that Postgres had to break off is taken again from the start: what
// the first try came to is not acted on.
func TestADecisionThatIsBrokenOffCountsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	// At the end of the first transaction that intends a deletion, it waits for
	// the test, and fails as one that ran into another.
	w.exec(`CREATE SEQUENCE muster.tries`)
	w.exec(`GRANT USAGE ON SEQUENCE muster.tries TO PUBLIC`)
	w.exec(`CREATE FUNCTION muster.break_off() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF nextval('muster.tries') = 1 THEN
				PERFORM pg_advisory_xact_lock(77);
				RAISE EXCEPTION 'broken off' USING ERRCODE = '40001';
			END IF;
			RETURN NULL;
		END $$`)
	w.exec(`CREATE CONSTRAINT TRIGGER break_off AFTER INSERT ON muster.action DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION muster.break_off()`)
	w.exec(`SELECT pg_advisory_lock(77)`)
	ended := make(chan struct{})
	var res remove.Result
	var err error
	go func() {
		defer close(ended)
		res, err = w.remover.Remove(w.ctx, w.request(id))
	}()
	if !w.waits(ended) {
		t.Error("the decision was not held up")
	}
	w.exec(`UPDATE muster.target SET suspect = 'shrunk'`)
	w.exec(`SELECT pg_advisory_unlock(77)`)
	<-ended
	if got := short(res); err != nil || got != "keep inventory_suspect" {
		t.Errorf("Remove = %s, %v, want that the second try keeps the runner", got, err)
	}
	if n := len(w.deletes(false)); n != 0 {
		t.Errorf("GitHub saw %d DELETEs", n)
	}
	w.want("0", `SELECT count(*) FROM api.actions`)
}

// Whether the refusal is about the listing or about the deletion decides what
// ends it: a listing that succeeds says nothing of a deletion.
func TestARefusalSaysWhatWasRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		answers map[string]http.Handler
		want    string // reason, status and what was refused
	}{
		{"401 to the look", map[string]http.Handler{"GET": answer(401, `{"message":"no"}`)}, "credential 401 list"},
		{"401 to the DELETE", map[string]http.Handler{"DELETE": answer(401, `{"message":"no"}`)}, "credential 401 list"},
		{"403 to the DELETE", map[string]http.Handler{"DELETE": answer(403, `{"message":"no"}`)}, "credential 403 act"},
		{"403 to the listing of its scope", map[string]http.Handler{
			"GET": answer(404, `{"message":"no"}`), "LIST": answer(403, `{"message":"no"}`),
		}, "credential 403 act"},
		{"404 to the listing of its scope", map[string]http.Handler{
			"GET": answer(404, `{"message":"no"}`), "LIST": answer(404, `{"message":"no"}`),
		}, "scope_not_visible 404 list"},
		{"no answer", map[string]http.Handler{"GET": cut}, "unanswered"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			w.intercept(tt.answers)
			if res, err := w.remover.Remove(w.ctx, w.request(id)); err == nil {
				t.Errorf("Remove = %s, want that the pass stops", short(res))
			}
			w.want(tt.want, `SELECT concat_ws(' ', reason, http_status, (SELECT credential_fault_of FROM muster.target)) FROM api.actions`)
		})
	}
}

// An open intent counts for a runner that is decided on alone. Among all runners
// it does not: its runner is one of them, and would count twice.
func TestAnOpenIntentCountsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(10)
	w.remove("done", w.request(ids[0]))
	w.intercept(map[string]http.Handler{"DELETE": cut})
	if _, err := w.remover.Remove(w.ctx, w.request(ids[1])); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("Remove = %v, want fleet.ErrUnavailable", err)
	}
	for id, want := range map[int64]int{0: 1, ids[2]: 2} {
		in, err := remove.Gather(w.ctx, w.db, w.policy, w.target().Target, id, fleet.PolicyState{}, w.clock())
		w.ok(err)
		if in.Acted != want || in.ActedLastMinute != 2 {
			t.Errorf("of runner %d: %d acted on, %d in the last minute, want %d and 2", id, in.Acted, in.ActedLastMinute, want)
		}
	}
}

// Runners that somebody took away count among those that went dark, and among
// all that there were.
func TestTheAlarmIsOfAllThatThereWere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fleet(10)
	w.working(10)
	w.pass(time.Minute)
	w.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'unknown' WHERE runner_id >= 10000 AND runner_id < 10004`, w.clock())
	in, err := remove.Gather(w.ctx, w.db, w.policy, w.target().Target, 0, fleet.PolicyState{}, w.clock())
	w.ok(err)
	if in.Alarm.Removed != 4 || in.Alarm.Of != 20 {
		t.Errorf("%d of %d were removed, want 4 of 20", in.Alarm.Removed, in.Alarm.Of)
	}
}

// Twenty intents are settled at a time: GitHub is not asked about a thousand at
// once.
func TestTwentyIntentsAreSettledAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range w.fleet(21) {
		w.crashed(id)
	}
	w.ok(w.remover.Settle(w.ctx))
	w.want("1", `SELECT count(*) FROM api.actions WHERE state = 'intended'`)
}

// A stop ends the settling: the rest is left to the next process, and is no fault.
func TestAStopEndsTheSettling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range w.fleet(3) {
		w.crashed(id)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	w.intercept(map[string]http.Handler{"GET": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done() // the client has hung up
	})})
	err := w.remover.Settle(ctx)
	if !errors.Is(err, context.Canceled) || strings.Count(err.Error(), "settle the intent on runner") != 1 {
		t.Errorf("Settle = %v, want one fault: what was stopped", err)
	}
	w.want("3", `SELECT count(*) FROM api.actions WHERE state = 'intended'`)
}

// A stop while the host is asked says nothing of the host.
func TestAStopWhileTheHostIsAsked(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	ctx, cancel := context.WithCancel(w.ctx)
	w.answers("", cancel)
	res, err := w.remover.Remove(ctx, w.request(id))
	if got := short(res); !errors.Is(err, context.Canceled) || got != "failed interrupted" {
		t.Errorf("Remove = %s, %v, want failed interrupted", got, err)
	}
	w.trail("RN100I RN104E")
}

// A drain that cannot be recorded is followed by nothing, and the intent is closed.
func TestADrainThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	w.answers(idle, nil)
	w.exec(`ALTER TABLE audit.event ADD CONSTRAINT closed CHECK (code <> 'RN130I') NOT VALID`)
	if res, err := w.remover.Remove(w.ctx, w.request(id)); err == nil {
		t.Errorf("Remove = %s, want that the pass stops", short(res))
	}
	w.want("failed interrupted", `SELECT state || ' ' || reason FROM api.actions`)
	w.trail("RN100I RN104E")
	if n := len(w.deletes(false)); n != 0 {
		t.Errorf("GitHub saw %d DELETEs", n)
	}
}

// The record of one scope says nothing of another that has its name now.
func TestNothingIsGatheredOfAnotherScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fleet(2)
	moved := w.target().Target
	moved.Scope.Owner = "other"
	_, err := remove.Gather(w.ctx, w.db, w.policy, moved, 0, fleet.PolicyState{}, w.clock())
	var identity *db.IdentityError
	if !errors.As(err, &identity) {
		t.Errorf("Gather = %v, want that the name stands for another scope", err)
	}
}

// A policy that is halted already is not halted again, whoever finds a reason.
func TestAHaltIsToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.remove("done", w.request(w.fleet(2)[0]))
	for _, why := range []string{"the first", "the second"} {
		w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
			return remove.Halt(w.ctx, tx, "reap", "acme", policies.Plan{Halt: why, HaltedBy: "over_max"}, uuid.NewString(), w.clock())
		}))
	}
	w.want("the first", `SELECT string_agg(reason, ', ') FROM api.audit WHERE code = 'PL220W'`)
	w.want("1", `SELECT count(*) FROM muster.outbox WHERE subject = 'muster.v1.event.policy.halted'`)
}
