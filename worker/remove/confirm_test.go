package remove_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/internal/clock"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// duringTheLook does something once, while GitHub is asked for the runner.
func (w *world) duringTheLook(do func()) {
	var once sync.Once
	w.sim.Before(func(r githubsim.Request) {
		if r.Method == http.MethodGet {
			once.Do(do)
		}
	})
}

// What is in force is asked again after the look, right before the DELETE: an
// operator who turns a policy off, halts it or takes the target away means at
// once.
func TestWhatIsInForceIsAskedAgainRightBeforeTheDelete(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(w *world, id int64, inForce *atomic.Bool)
		want   string
	}{
		{"nothing", func(*world, int64, *atomic.Bool) {}, "done"},
		{"the policy is turned off", func(_ *world, _ int64, inForce *atomic.Bool) { inForce.Store(false) }, "spared not_in_force"},
		{"the policy is halted", func(w *world, _ int64, _ *atomic.Bool) {
			w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
				_, err := tx.Halt(w.ctx, "reap", "acme", "over_max", "an operator", w.clock())
				return err
			}))
		}, "spared halted"},
		{"a freeze begins", func(w *world, _ int64, _ *atomic.Bool) { w.pass(time.Minute) }, "spared freeze"},
		{"an operator holds it", func(w *world, id int64, _ *atomic.Bool) { w.hold(id, 0) }, "spared hold"},
		{"half of the fleet goes dark", func(w *world, _ int64, _ *atomic.Bool) {
			w.exec(`UPDATE muster.runner SET last_online_at = $1, status_since = $1, offline_since = $1 WHERE runner_id > 2`, w.clock())
		}, "spared brake"},
		{"the listing turns out to be suspect", func(w *world, _ int64, _ *atomic.Bool) {
			w.exec(`UPDATE muster.target SET suspect = 'shrunk'`)
		}, "spared inventory_suspect"},
		{"GitHub refuses the credential", func(w *world, _ int64, _ *atomic.Bool) {
			w.exec(`UPDATE muster.target SET credential_fault = '401'`)
		}, "spared credential"},
		{"its labels exempt it", func(w *world, id int64, _ *atomic.Bool) {
			w.exec(`UPDATE muster.runner SET labels = '{keep,linux}' WHERE runner_id = $1`, id)
		}, "spared exempt"},
		{"it does not match any more", func(w *world, _ int64, _ *atomic.Bool) {
			w.exec(`UPDATE muster.runner SET offline_from_us = 800000000000`)
		}, "spared not_matched"},
		{"the clock steps", func(w *world, _ int64, _ *atomic.Bool) {
			w.remover.Steady = func(context.Context) error { return &clock.InDoubt{Left: time.Minute} }
		}, "spared clock"},
		{"the target is taken out of the configuration", func(w *world, _ int64, _ *atomic.Bool) {
			w.remover.Targets = func() map[string]remove.Target { return nil }
		}, "spared target_not_configured"},
		{"the target's name gets another scope", func(w *world, _ int64, _ *atomic.Bool) {
			moved := w.target()
			moved.Scope.Owner = "other"
			w.remover.Targets = func() map[string]remove.Target { return map[string]remove.Target{"acme": moved} }
		}, "spared target_not_configured"},
		{"the target's name gets another server", func(w *world, _ int64, _ *atomic.Bool) {
			moved := w.target()
			moved.APIURL = "https://ghes.example.com/api/v3"
			w.remover.Targets = func() map[string]remove.Target { return map[string]remove.Target{"acme": moved} }
		}, "spared target_not_configured"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.policy = careful(t)
			id := w.fleet(40)[0]
			req := w.request(id)
			var inForce atomic.Bool
			inForce.Store(true)
			req.InForce = func(context.Context) (bool, error) { return inForce.Load(), nil }
			w.duringTheLook(func() { tt.change(w, id, &inForce) })
			w.remove(tt.want, req)
			if tt.want == "done" {
				w.agree()
				return
			}
			w.trail("RN100I RN103W")
			if n := len(w.deletes(false)); n != 0 {
				t.Errorf("GitHub saw %d DELETEs", n)
			}
		})
	}
}

// careful is the policy of these tests with a freeze from 12:01 on, and an
// exemption for the label keep.
func careful(t *testing.T) *policies.Policy {
	t.Helper()
	text := strings.NewReplacer("COUNT", "50", "RATE", `1000/m, freeze: [{cron: "1 12 * * *", duration: 1h}]`,
		"  guards:", "  exempt: {keep-label: '\"keep\" in runner.labels'}\n  guards:").Replace(reap)
	all, err := policies.Load("reap.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// The intent has its place under the caps: it does not stand against itself at
// the last moment, whether the cap or an allowance let it through.
func TestAnIntentIsNotAgainstItselfAtTheLastMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = loadPolicy(t, 1, "1/m")
	ids := w.fleet(20)
	w.remove("done", w.request(ids[0]))
	w.pass(time.Minute)
	w.synced()
	w.remove("halt over_max", w.request(ids[1]))
	w.resume(1)
	w.remove("done", w.request(ids[1]))
	w.agree()
}

// Whether the removal is still wanted is asked before the host is asked, too: a
// host must not be drained for a policy that is off.
func TestNoHostIsAskedForAPolicyThatIsOff(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	asked := w.answers(idle, nil)
	req := w.request(id)
	req.InForce = func(context.Context) (bool, error) { return false, nil }
	w.remove("spared not_in_force", req)
	if n := len(asked); n != 0 {
		t.Errorf("%d hosts were asked", n)
	}
}

// A policy that is turned off while the host is asked spares the runner, and the
// host, which was drained for nothing, is not released.
func TestAPolicyTurnedOffWhileTheHostIsAsked(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	var off atomic.Bool
	w.answers(idle, func() { off.Store(true) })
	req := w.request(id)
	req.InForce = func(context.Context) (bool, error) { return !off.Load(), nil }
	w.remove("spared not_in_force", req)
	w.relay(0)
	if n := len(w.deletes(false)); n != 0 {
		t.Errorf("GitHub saw %d DELETEs", n)
	}
}

// A runner that stopped because its host was asked is deleted also where a sync
// has seen that by the time of the DELETE.
func TestADrainedRunnerMayBeOfflineAtTheLastMoment(t *testing.T) {
	t.Parallel()
	w := newDrained(t)
	id := w.online(2)[0]
	w.answers(idle, func() {
		w.ok(w.sim.Kill(acme, id))
		w.exec(`UPDATE muster.runner SET status = 'offline', status_since = $2, offline_since = $2 WHERE runner_id = $1`, id, w.clock())
	})
	w.remove("done", w.request(id))
}

// Where it cannot be found out what is in force, nothing is deleted.
func TestNothingIsDeletedWhereItIsNotKnownWhatIsInForce(t *testing.T) {
	t.Parallel()
	away := errors.New("the record is away")
	for name, fail := range map[string]func(w *world, req *remove.Request){
		"whether the removal is wanted": func(_ *world, req *remove.Request) {
			req.InForce = func(context.Context) (bool, error) { return true, away }
		},
		"the time": func(w *world, _ *remove.Request) {
			w.duringTheLook(func() {
				w.remover.Now = func(context.Context) (time.Time, error) {
					w.remover.Now = func(context.Context) (time.Time, error) { return w.clock(), nil }
					return time.Time{}, away
				}
			})
		},
		"the runner": func(w *world, _ *remove.Request) {
			w.duringTheLook(func() { w.exec(`ALTER TABLE muster.hold RENAME TO held`) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			req := w.request(id)
			fail(w, &req)
			res, err := w.remover.Remove(w.ctx, req)
			if name == "the runner" {
				w.exec(`ALTER TABLE muster.held RENAME TO hold`)
			}
			if err == nil || len(w.deletes(false)) != 0 {
				t.Errorf("Remove = %s, %v with %d DELETEs, want an error and none", short(res), err, len(w.deletes(false)))
			}
			if name != "the runner" && !errors.Is(err, away) {
				t.Errorf("Remove = %v, want %v", err, away)
			}
			w.want("failed interrupted", `SELECT concat_ws(' ', state, reason) FROM api.actions`)
		})
	}
}
