package remove_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/remove"
)

// The rate is of a minute: ten within it are enough, whenever they were.
func TestTheRateIsOfAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = loadPolicy(t, 50, "10/m")
	ids := w.fleet(12)
	for _, id := range ids[:10] {
		w.remove("done", w.request(id))
	}
	w.pass(59 * time.Second)
	w.synced()
	w.remove("keep rate", w.request(ids[10]))
	w.pass(2 * time.Second)
	w.synced()
	w.remove("done", w.request(ids[10]))
}

// A policy that did not run for longer than the target's max_observation_gap does
// not know how runners fared meanwhile: its grace begins anew.
func TestGraceMarksOfAPolicyLongOutOfForceDoNotCount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ran  time.Duration // so long ago
		want string
	}{{time.Hour, "done"}, {time.Hour + time.Second, "keep grace"}} {
		t.Run(tt.ran.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.policy.Guards.Grace = 2 * time.Hour
			id := w.fleet(2)[0]
			w.exec(`INSERT INTO muster.policy (policy, target, sha256, enforcement, last_run_at) VALUES ('reap', 'acme', $1, 'enforce', $2)`,
				w.policy.SHA256, w.clock().Add(-tt.ran))
			w.exec(`INSERT INTO muster.grace_mark (policy, target, runner_id, sha256, since) VALUES ('reap', 'acme', $1, $2, $3)`,
				id, w.policy.SHA256, w.clock().Add(-3*time.Hour))
			w.remove(tt.want, w.request(id))
		})
	}
}

// After a DELETE without a clear answer, a 404 says that the runner is gone only
// where its scope can be listed: a credential that lost its rights gets one too.
func TestA404AfterAnUnclearDeletionIsNoProofByItself(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]http.Handler{
		"the scope is not visible":  answer(404, `{"message":"Not Found"}`),
		"the scope is not answered": cut,
		"GitHub is away":            answer(503, `{}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			var tried atomic.Bool
			w.sim.Intercept(func(r *http.Request) http.Handler {
				switch {
				case r.Method == http.MethodDelete:
					tried.Store(true)
					return cut
				case !tried.Load():
					return nil
				case r.URL.Query().Has("per_page"):
					return list
				}
				return answer(404, `{"message":"Not Found"}`)
			})
			if _, err := w.remover.Remove(w.ctx, w.request(id)); err == nil {
				t.Error("a deletion whose outcome nobody knows stops nobody")
			}
			w.trail("RN100I")
			w.want("intended", `SELECT state FROM api.actions`)
			w.want("<null>", `SELECT removed_at FROM api.runners WHERE runner_id = $1`, id)
		})
	}
}

// An old intent is settled by asking GitHub, and the name of its target may stand
// for another scope by now, in which that id is nobody's or another runner's.
func TestAnOldIntentIsNotSettledInAnotherScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	w.intercept(map[string]http.Handler{"DELETE": cut})
	if _, err := w.remover.Remove(w.ctx, w.request(id)); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("Remove = %v, want fleet.ErrUnavailable", err)
	}
	w.sim.Intercept(nil)
	w.expire()
	moved := w.target()
	moved.Scope.Owner = "other"
	w.ok(w.sim.AddScope(moved.Scope))
	w.remover.Targets = func() map[string]remove.Target { return map[string]remove.Target{"acme": moved} }
	asked := len(w.sim.Log())
	var identity *db.IdentityError
	if err := w.remover.Settle(w.ctx); !errors.As(err, &identity) {
		t.Errorf("Settle = %v, want that the name stands for another scope", err)
	}
	if n := len(w.sim.Log()) - asked; n != 0 {
		t.Errorf("GitHub was asked %d times", n)
	}
	w.want("intended", `SELECT state FROM api.actions`)
	w.trail("RN100I")
}

// What is tried ends well before the lease of the intent does, whoever is slow:
// afterwards another process may settle it.
func TestAnAttemptEndsBeforeItsLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	req := w.request(id)
	left := time.Duration(-1)
	req.InForce = func(ctx context.Context) (bool, error) {
		if deadline, bounded := ctx.Deadline(); bounded {
			left = time.Until(deadline)
		}
		return true, nil
	}
	w.remove("done", req)
	if left <= 0 || left > 18*time.Second {
		t.Errorf("before the DELETE %s are left, want at most 18 s", left)
	}
	// With the reading of what became of it and the recording, 5 s each.
	w.want("true", `SELECT lease_until - clock_timestamp() BETWEEN interval '20 s' AND interval '30 s' FROM muster.action`)
}

// occupied is a transaction of somebody else's that has locked a runner.
func (w *world) occupied(id int64) (pgx.Tx, func()) {
	w.Helper()
	conn, err := pgx.Connect(w.ctx, w.url)
	w.ok(err)
	w.Cleanup(func() { _ = conn.Close(context.Background()) })
	tx, err := conn.Begin(w.ctx)
	w.ok(err)
	_, err = tx.Exec(w.ctx, `SELECT FROM muster.runner WHERE target = 'acme' AND runner_id = $1 FOR UPDATE`, id)
	w.ok(err)
	return tx, func() { w.ok(tx.Commit(w.ctx)) }
}

// waits returns once somebody waits for a lock of another, and reports whether
// that came before the end of the removal.
func (w *world) waits(ended <-chan struct{}) bool {
	w.Helper()
	for {
		select {
		case <-ended:
			return false
		case <-time.After(time.Millisecond):
		}
		if w.value(`SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())`) != "0" {
			return true
		}
	}
}

// A decision is taken under the lock of its runner: a hold that is just being
// placed is waited for.
func TestADecisionWaitsForWhoeverHasTheRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	tx, commit := w.occupied(id)
	_, err := tx.Exec(w.ctx, `INSERT INTO muster.hold (target, runner_id, reason, by, at) VALUES ('acme', $1, 'disk', 'alice', $2)`, id, w.clock())
	w.ok(err)
	ended := make(chan struct{})
	var res remove.Result
	go func() {
		defer close(ended)
		res, err = w.remover.Remove(w.ctx, w.request(id))
	}()
	if !w.waits(ended) {
		t.Error("the removal did not wait for the runner")
	}
	commit()
	<-ended
	if got := short(res); err != nil || got != "keep hold" {
		t.Errorf("Remove = %s, %v, want that the hold keeps the runner", got, err)
	}
	w.want("0", `SELECT count(*) FROM api.actions`)
}

// So is a settlement: whoever decides on the runner under its lock sees the intent
// either open or settled.
func TestASettlementWaitsForWhoeverHasTheRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	commit := func() {}
	w.duringTheLook(func() {
		w.ok(w.sim.Assign(acme, id))
		_, commit = w.occupied(id)
	})
	ended := make(chan struct{})
	var res remove.Result
	var err error
	go func() {
		defer close(ended)
		res, err = w.remover.Remove(w.ctx, w.request(id))
	}()
	if !w.waits(ended) {
		t.Error("the settlement did not wait for the runner")
	}
	w.want("intended", `SELECT state FROM api.actions`)
	commit()
	<-ended
	if got := short(res); err != nil || got != "spared busy" {
		t.Errorf("Remove = %s, %v, want spared busy", got, err)
	}
}

// What an operator allowed beyond the cap is kept for what the cap does not let
// through.
func TestAnAllowanceIsKeptWhileTheCapHasRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = loadPolicy(t, 2, "1000/m")
	ids := w.fleet(20)
	w.remove("done", w.request(ids[0]))
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		_, err := tx.Halt(w.ctx, "reap", "acme", "over_max", "somebody looks", w.clock())
		return err
	}))
	w.resume(2)
	const left = `SELECT allowance FROM muster.policy WHERE policy = 'reap'`
	for n, want := range []string{"2", "1", "0"} {
		w.remove("done", w.request(ids[n+1]))
		w.want(want, left)
	}
	w.remove("halt over_max", w.request(ids[4]))
}
