package remove_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/remove"
)

// crashed leaves an intent whose maker died under an expired lease, with its
// decision and its event.
func (w *world) crashed(id int64) {
	w.Helper()
	a := fleet.Action{
		ID: uuid.NewString(), DecisionID: uuid.NewString(), TriggerID: uuid.NewString(), Policy: "reap", Target: "acme",
		RunnerID: id, Name: w.value(`SELECT name FROM api.runners WHERE runner_id = $1`, id), Kind: fleet.ActionDeleteRunner,
		State: fleet.ActionIntended, IntendedAt: w.clock(),
	}
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.Intend(w.ctx, a, 0, false); err != nil {
			return err
		}
		return tx.Audit(w.ctx, fleet.AuditEvent{
			At: a.IntendedAt, Code: fleet.AuditDeleteIntended, Actor: fleet.System, Target: a.Target, RunnerID: id, RunnerName: a.Name,
			Policy: "reap", TriggerID: a.TriggerID, Details: map[string]any{"action_id": a.ID, "decision_id": a.DecisionID},
		})
	}))
}

func TestIntentOfADeadProcessIsSettledByLooking(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(w *world, id int64)
		want   string // state, reason, removal cause
		code   string
	}{
		{"gone", func(w *world, id int64) { w.ok(w.sim.Remove(acme, id)) }, "gone interrupted unknown", "RN102I"},
		{"back", func(w *world, id int64) { w.ok(w.sim.Connect(acme, id)) }, "spared online", "RN103W"},
		{"busy", func(w *world, id int64) { w.ok(w.sim.Assign(acme, id)) }, "spared busy", "RN103W"},
		{"as it was", func(*world, int64) {}, "failed interrupted", "RN104E"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			w.crashed(id)
			tt.change(w, id)
			w.ok(w.remover.Settle(w.ctx))
			w.ok(w.remover.Settle(w.ctx)) // nothing is left to do
			w.want(tt.want, `
				SELECT concat_ws(' ', a.state, a.reason, r.removal_cause) FROM api.actions a JOIN api.runners r USING (runner_id)`)
			w.trail("RN100I " + tt.code)
			w.want("system muster", `SELECT actor_type || ' ' || actor FROM api.audit WHERE code = $1`, tt.code)
			if n := len(w.deletes(false)); n != 0 {
				t.Errorf("settling sent %d DELETEs", n)
			}
		})
	}
}

func TestOpenIntentWaitsForGitHub(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(w *world){
		"down":       func(w *world) { w.sim.Down(true) },
		"revoked":    func(w *world) { w.sim.Revoke(credential) },
		"unreadable": func(w *world) { w.intercept(map[string]http.Handler{"GET": answer(200, `{}`)}) },
		"gone, and the scope cannot be listed": func(w *world) {
			w.ok(w.sim.Remove(acme, 1))
			w.intercept(map[string]http.Handler{"LIST": answer(404, `{"message":"Not Found"}`)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.fleet(2)
			w.crashed(1)
			away(w)
			if err := w.remover.Settle(w.ctx); err == nil {
				t.Error("Settle says nothing of an intent that it could not settle")
			}
			w.trail("RN100I")
			w.want("intended", `SELECT state FROM api.actions`)
			w.sim.Down(false)
			w.sim.Accept(credential)
			w.sim.Intercept(nil)
			w.expire()
			w.ok(w.remover.Settle(w.ctx))
			w.want("0", `SELECT count(*) FROM api.actions WHERE state = 'intended'`)
		})
	}
}

func TestOneIntentThatCannotBeSettledDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(3)
	for _, id := range ids {
		w.crashed(id)
	}
	w.sim.Intercept(func(r *http.Request) http.Handler {
		if r.URL.Path == "/api/v3/orgs/acme/actions/runners/1" {
			return cut
		}
		return nil
	})
	if err := w.remover.Settle(w.ctx); err == nil {
		t.Error("Settle says nothing of the intent that it could not settle")
	}
	w.want("1", `SELECT string_agg(runner_id::text, ' ') FROM api.actions WHERE state = 'intended'`)
}

func TestIntentOnATargetThatNobodyKnowsIsGivenUpInTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.crashed(w.fleet(2)[0])
	w.remover.Targets = func() map[string]remove.Target { return nil }
	w.ok(w.remover.Settle(w.ctx))
	w.trail("RN100I") // another replica may know it
	w.pass(time.Hour)
	w.expire()
	w.ok(w.remover.Settle(w.ctx))
	w.trail("RN100I RN104E")
	w.want("failed target_not_configured", `SELECT state || ' ' || reason FROM api.actions`)
}

func TestReplicasSettleEachIntentOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(30)
	for i, id := range ids {
		w.crashed(id)
		if i%2 == 0 {
			w.ok(w.sim.Remove(acme, id))
		}
	}
	replicas := []*remove.Remover{w.remover, w.replica(w.open()), w.replica(w.open())}
	for range 2 { // twenty at a time
		var g errgroup.Group
		for _, r := range replicas {
			g.Go(func() error { return r.Settle(w.ctx) })
		}
		w.ok(g.Wait())
	}
	w.want("failed 15, gone 15", `
		SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM api.actions GROUP BY state) x`)
	w.want("30 15 15 15", `
		SELECT concat_ws(' ', (SELECT count(DISTINCT payload->'details'->>'action_id') FROM api.audit WHERE outcome IN ('gone', 'failed')),
			(SELECT count(*) FROM api.audit WHERE code = 'RN102I'), (SELECT count(*) FROM api.audit WHERE code = 'RN104E'),
			(SELECT count(*) FROM muster.outbox))`)
}

// A maker that was thought dead says in the end what it did: what GitHub
// confirmed wins.
func TestSlowMakerIsHeard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	w.intercept(map[string]http.Handler{"DELETE": http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.expire()
		if err := w.replica(w.db).Settle(w.ctx); err != nil {
			t.Error(err)
		}
		w.ok(w.sim.Remove(acme, id))
		rw.WriteHeader(http.StatusNoContent)
	})})
	w.remove("done", w.request(id))
	w.want("done", `SELECT state FROM api.actions`)
	w.want("policy", `SELECT removal_cause FROM api.runners WHERE runner_id = $1`, id)
}

// A runner that a sync found gone before the intent on it was settled has been
// told of, and is not told of twice.
func TestRunnerThatASyncFoundGoneFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	w.crashed(id)
	w.ok(w.sim.Remove(acme, id))
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		_, err := tx.MarkRemoved(w.ctx, "acme", id, fleet.CauseUnknown, w.clock())
		return err
	}))
	w.pass(time.Minute)
	w.ok(w.remover.Settle(w.ctx))
	w.want("gone true", `SELECT a.state || ' ' || (r.removed_at = $1)::text FROM api.actions a JOIN api.runners r USING (runner_id)`, t0)
	w.want("1 0", `SELECT concat_ws(' ', (SELECT count(*) FROM api.runner_history), (SELECT count(*) FROM muster.outbox))`)
}

func TestOperatorOrPolicyIsTheCause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(3)
	w.remove("done", w.request(ids[0]))
	w.remove("done", w.byHand(ids[1]))
	w.want("policy operator", `SELECT string_agg(removal_cause, ' ' ORDER BY runner_id) FROM api.runners`)
	if got := w.deletes(true); !slices.Equal(got, ids[:2]) {
		t.Errorf("deleted %v, want %v", got, ids[:2])
	}
}
