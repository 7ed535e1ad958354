package remove_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/remove"
)

func TestDeletionFromDecisionToOutcome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(3)
	req := w.request(ids[0])
	res := w.remove("done", req)
	w.agree()
	w.trail("RN100I RN101I")
	if len(w.observed) != 1 || w.observed[0].ID != res.Action.ID || w.observed[0].State != fleet.ActionDone {
		t.Errorf("observed %+v", w.observed)
	}
	w.want("act matched reap enforce true", `
		SELECT concat_ws(' ', verdict, array_to_string(reasons, ','), policy, enforcement, (evidence->>'offline_for_seconds' = '864000')::text)
		FROM api.decisions WHERE trigger_id = $1 AND policy_sha256 = $2`, req.TriggerID, w.policy.SHA256)
	w.want("matched matched", `SELECT string_agg(reason, ' ') FROM api.audit WHERE code IN ('RN100I', 'RN101I')`)
	w.want("policy reap r1 true true", `
		SELECT concat_ws(' ', actor_type, actor, runner_name, (payload->'details'->>'policy_sha256' = $1)::text,
			(payload->'details'->'evidence' ? 'listings')::text)
		FROM api.audit WHERE code = 'RN100I'`, w.policy.SHA256)
	w.want("muster.v1.event.runner.removed", `SELECT string_agg(subject, ' ') FROM muster.outbox`)
	w.want("removed", `SELECT string_agg(change, ' ') FROM api.runner_history WHERE sync_id IS NULL`)
	var asked []string
	for _, e := range w.sim.Log() {
		if e.Method != "" {
			asked = append(asked, e.Method)
		}
	}
	if got := strings.Join(asked, " "); got != "GET DELETE" {
		t.Errorf("GitHub saw %s, want one look and one deletion", got)
	}
}

func TestIntentIsTrueBeforeGitHubIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(2)
	other, err := pgx.Connect(w.ctx, w.url)
	w.ok(err)
	defer func() { _ = other.Close(context.Background()) }()
	var seen []string
	defer w.sim.Before(func(r githubsim.Request) {
		var text string
		err := other.QueryRow(w.ctx, `
			SELECT concat_ws(' ', state, (SELECT count(*) FROM api.decisions), (SELECT count(*) FROM api.audit WHERE code = 'RN100I'))
			FROM api.actions WHERE runner_id = $1`, r.RunnerID).Scan(&text)
		if err != nil {
			text = err.Error()
		}
		seen = append(seen, r.Method+": "+text)
	})()
	w.remove("done", w.request(ids[0]))
	if got, want := strings.Join(seen, "; "), "GET: intended 1 1; DELETE: intended 1 1"; got != want {
		t.Errorf("while GitHub was asked the record said %s, want %s", got, want)
	}
}

// Old servers answer 500 where later ones answer 422: the runner is spared, and
// the pass goes on, by every version.
func TestBusyRunnersAreSparedByEveryVersion(t *testing.T) {
	t.Parallel()
	for _, version := range githubsim.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, version)
			ids := w.fleet(2)
			defer w.sim.Before(func(r githubsim.Request) {
				if r.Method == http.MethodDelete && r.RunnerID == ids[0] {
					w.ok(w.sim.Assign(acme, ids[0]))
				}
			})()
			w.remove("spared busy", w.request(ids[0]))
			w.remove("done", w.request(ids[1]))
			w.want("spared busy, done", `
				SELECT string_agg(concat_ws(' ', state, reason), ', ' ORDER BY intended_at, runner_id) FROM api.actions`)
			w.want(fmt.Sprint(ids[1]), `SELECT string_agg(runner_id::text, ' ') FROM api.runners WHERE removed_at IS NOT NULL`)
			w.agree()
		})
	}
}

func TestLastLook(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		change  func(w *world, id int64)
		want    string
		status  string
		cause   string
		deletes int
	}{
		{"nothing against it", func(*world, int64) {}, "done", "204", "policy", 1},
		{"busy", func(w *world, id int64) { w.ok(w.sim.Assign(acme, id)) }, "spared busy", "200", "<null>", 0},
		{"back", func(w *world, id int64) { w.ok(w.sim.Connect(acme, id)) }, "spared online", "200", "<null>", 0},
		{"gone", func(w *world, id int64) { w.ok(w.sim.Remove(acme, id)) }, "gone", "404", "unknown", 0},
		{"gone, and its host had the token for it", func(w *world, id int64) {
			w.exec(`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at, issued_at, expires_at)
				SELECT lower(name), gen_random_uuid(), 1, target, 'removal', 'issued', '', $1, $1, $1::timestamptz + interval '1 h' FROM muster.runner`, w.clock())
			w.ok(w.sim.Remove(acme, id))
		}, "gone", "404", "host", 0},
		{"another under its id", func(w *world, _ int64) {
			w.intercept(map[string]http.Handler{"GET": answer(200, `{"id":1,"name":"R1","os":"linux","status":"offline","busy":false,"labels":[]}`)})
		}, "spared renamed", "200", "<null>", 0},
		{"without busy", func(w *world, _ int64) {
			w.intercept(map[string]http.Handler{"GET": answer(200, `{"id":1,"name":"r1","os":"linux","status":"offline","labels":[]}`)})
		}, "spared busy", "200", "<null>", 0},
		{"of a status that GitHub does not have", func(w *world, _ int64) {
			w.intercept(map[string]http.Handler{"GET": answer(200, `{"id":1,"name":"r1","os":"linux","status":"sleeping","busy":false,"labels":[]}`)})
		}, "spared online", "200", "<null>", 0},
		{"unreadable", func(w *world, _ int64) {
			w.intercept(map[string]http.Handler{"GET": answer(200, `{"id":1}`)})
		}, "failed unanswered", "200", "<null>", 0},
		{"an error of GitHub's own about this one", func(w *world, _ int64) {
			w.intercept(map[string]http.Handler{"GET": answer(500, `{"message":"oops"}`)})
		}, "failed unanswered", "500", "<null>", 0},
		{"busy by the time of the DELETE", func(w *world, id int64) {
			w.sim.Before(func(r githubsim.Request) {
				if r.Method == http.MethodDelete {
					w.ok(w.sim.Assign(acme, id))
				}
			})
		}, "spared busy", "422", "<null>", 1},
		{"gone by the time of the DELETE", func(w *world, id int64) {
			w.sim.Before(func(r githubsim.Request) {
				if r.Method == http.MethodDelete {
					w.ok(w.sim.Remove(acme, id))
				}
			})
		}, "gone", "404", "unknown", 1},
		{"busy on an old server, which says 500", func(w *world, id int64) {
			w.intercept(map[string]http.Handler{"DELETE": http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				w.ok(w.sim.Assign(acme, id))
				answer(500, `{"message":"Server Error"}`).ServeHTTP(rw, r)
			})})
		}, "spared busy", "500", "<null>", 1},
		{"deleted without a word", func(w *world, id int64) {
			w.intercept(map[string]http.Handler{"DELETE": http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				w.ok(w.sim.Remove(acme, id))
				cut.ServeHTTP(rw, r)
			})})
		}, "gone unanswered", "404", "policy", 1},
		{"deleted with a redirect", func(w *world, id int64) {
			w.intercept(map[string]http.Handler{"DELETE": http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				w.ok(w.sim.Remove(acme, id))
				answer(307, ``, "Location", "https://elsewhere.example/").ServeHTTP(rw, r)
			})})
		}, "gone unanswered", "404", "policy", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			tt.change(w, id)
			w.remove(tt.want, w.request(id))
			if n := len(w.deletes(false)); n != tt.deletes {
				t.Errorf("GitHub saw %d DELETEs, want %d", n, tt.deletes)
			}
			state, _, _ := strings.Cut(tt.want, " ")
			w.want(tt.want+" "+tt.status, `SELECT concat_ws(' ', state, reason, http_status) FROM api.actions WHERE settled_at IS NOT NULL`)
			w.want(tt.cause, `SELECT removal_cause FROM api.runners WHERE runner_id = $1`, id)
			outcome := map[string]string{"done": "RN101I", "gone": "RN102I", "spared": "RN103W", "failed": "RN104E"}[state]
			w.trail("RN100I " + outcome)
			events := "0"
			if tt.cause != "<null>" {
				events = "1"
			}
			w.want(events, `SELECT count(*) FROM muster.outbox`)
		})
	}
}

func TestWhatStopsThePass(t *testing.T) {
	t.Parallel()
	rates := []string{"X-RateLimit-Remaining", "0", "Retry-After", "77"}
	for _, tt := range []struct {
		name    string
		prepare func(w *world)
		kind    error
		want    string
		trail   string
	}{
		{"403 with rate headers to the DELETE", func(w *world) {
			w.intercept(map[string]http.Handler{"DELETE": answer(403, `{"message":"no"}`, rates...)})
		}, fleet.ErrRateLimited, "failed rate_limited", "RN100I RN104E"},
		{"429 to the look", func(w *world) {
			w.intercept(map[string]http.Handler{"GET": answer(429, `{"message":"no"}`, "Retry-After", "77")})
		}, fleet.ErrRateLimited, "failed rate_limited", "RN100I RN104E"},
		{"401 to the look", func(w *world) { w.sim.Revoke(credential) }, fleet.ErrUnauthorized, "failed credential", "RN100I TG300E RN104E"},
		{"403 to the DELETE", func(w *world) {
			w.intercept(map[string]http.Handler{"DELETE": answer(403, `{"message":"Must have admin rights"}`)})
		}, fleet.ErrForbidden, "failed credential", "RN100I TG300E RN104E"},
		{"404 to a DELETE of what it shows", func(w *world) {
			w.intercept(map[string]http.Handler{"DELETE": answer(404, `{"message":"Not Found"}`)})
		}, fleet.ErrForbidden, "failed credential", "RN100I TG300E RN104E"},
		{"a scope that is not visible any more", func(w *world) { w.sim.Grant(credential, acme, githubsim.AccessInvisible) },
			fleet.ErrNotFound, "failed scope_not_visible", "RN100I TG300E RN104E"},
		{"no answer to the look", func(w *world) { w.intercept(map[string]http.Handler{"GET": cut}) },
			fleet.ErrUnavailable, "failed unanswered", "RN100I RN104E"},
		{"maintenance", func(w *world) { w.sim.Maintenance(true) }, fleet.ErrUnavailable, "failed unanswered", "RN100I RN104E"},
		{"gone, and the scope does not answer", func(w *world) {
			w.ok(w.sim.Remove(acme, 1))
			w.intercept(map[string]http.Handler{"LIST": answer(500, `{}`)})
		}, fleet.ErrUnavailable, "failed unanswered", "RN100I RN104E"},
		{"500 to the App's request for a token", func(w *world) {
			w.withoutToken(&github.Error{Op: github.OpInstallationToken, Status: 500, Kind: fleet.ErrUnavailable})
		}, fleet.ErrUnavailable, "failed unanswered", "RN100I RN104E"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			tt.prepare(w)
			res, err := w.remover.Remove(w.ctx, w.request(id))
			if !errors.Is(err, tt.kind) || short(res) != tt.want {
				t.Errorf("Remove = %s, %v, want %s and %v", short(res), err, tt.want, tt.kind)
			}
			w.trail(tt.trail)
			w.want("<null>", `SELECT removed_at FROM api.runners WHERE runner_id = $1`, id)
			if n := len(w.deletes(true)); n != 0 {
				t.Errorf("%d deletions", n)
			}
			if strings.Contains(tt.trail, "TG300E") {
				// The next one is kept before anybody asks.
				w.sim.Intercept(nil)
				w.remove("keep credential", w.request(2))
			}
		})
	}
}

func TestUnclearDeletionStaysOpen(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]http.Handler{"no answer": cut, "an error": answer(502, `{}`), "no rights": answer(403, `{"message":"no"}`)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			var deleted atomic.Bool
			w.sim.Intercept(func(r *http.Request) http.Handler {
				switch {
				case r.Method == http.MethodDelete:
					return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						w.ok(w.sim.Remove(acme, id))
						deleted.Store(true)
						cut.ServeHTTP(rw, r)
					})
				case deleted.Load():
					return look
				}
				return nil
			})
			if _, err := w.remover.Remove(w.ctx, w.request(id)); err == nil {
				t.Error("a deletion whose outcome nobody knows stops nobody")
			}
			w.trail("RN100I")
			w.want("intended", `SELECT state FROM api.actions`)
			w.sim.Intercept(nil)
			w.want("0", `SELECT count(*) FROM muster.action WHERE lease_until <= clock_timestamp()`)
			w.ok(w.remover.Settle(w.ctx)) // not before the lease ends
			w.trail("RN100I")
			w.expire()
			w.ok(w.remover.Settle(w.ctx))
			w.trail("RN100I RN102I")
			w.want("gone interrupted unknown", `SELECT concat_ws(' ', a.state, a.reason, r.removal_cause) FROM api.actions a JOIN api.runners r USING (runner_id)`)
		})
	}
}

// expire ends the leases of all open intents.
func (w *world) expire() {
	w.Helper()
	w.exec(`UPDATE muster.action SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'intended'`)
}

func TestShutdownBeforeTheDeletionIsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	ctx, cancel := context.WithCancel(w.ctx)
	defer w.sim.Before(func(githubsim.Request) { cancel() })()
	res, err := w.remover.Remove(ctx, w.request(id))
	if !errors.Is(err, context.Canceled) || short(res) != "failed interrupted" || len(w.deletes(false)) != 0 {
		t.Errorf("Remove = %s, %v with %d DELETEs, want none", short(res), err, len(w.deletes(false)))
	}
	w.trail("RN100I RN104E")
}

func TestOutcomeSurvivesAShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	ctx, cancel := context.WithCancel(w.ctx)
	w.intercept(map[string]http.Handler{"DELETE": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		w.ok(w.sim.Remove(acme, id))
		cancel()
		<-r.Context().Done() // the client has hung up
	})})
	res, err := w.remover.Remove(ctx, w.request(id))
	if err != nil || short(res) != "gone unanswered" {
		t.Errorf("Remove = %s, %v, want that it was found gone", short(res), err)
	}
	w.trail("RN100I RN102I")
	w.want("policy", `SELECT removal_cause FROM api.runners WHERE runner_id = $1`, id)
}

// GitHub says no and still shows the runner: it may be at it yet.
func TestDeletionThatGitHubDidNotDoIsSettledLater(t *testing.T) {
	t.Parallel()
	for name, no := range map[string]http.Handler{"no answer": cut, "an error": answer(500, `{}`), "another status": answer(200, `{}`)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(2)[0]
			w.intercept(map[string]http.Handler{"DELETE": no})
			if _, err := w.remover.Remove(w.ctx, w.request(id)); !errors.Is(err, fleet.ErrUnavailable) {
				t.Errorf("Remove = %v, want fleet.ErrUnavailable", err)
			}
			w.trail("RN100I")
			w.remove("keep elsewhere", w.request(id)) // nobody tries again meanwhile
			w.expire()
			w.ok(w.remover.Settle(w.ctx))
			w.want("failed interrupted", `SELECT state || ' ' || reason FROM api.actions`)
			w.trail("RN100I RN104E")
			w.sim.Intercept(nil)
			w.remove("done", w.request(id))
		})
	}
}

func TestWithoutPostgresNothingIsTried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	closed, err := db.Open(w.ctx, "postgres://muster@127.0.0.1:1/muster?connect_timeout=1")
	w.ok(err)
	defer closed.Close()
	w.remover.DB = closed
	if _, err := w.remover.Remove(w.ctx, w.request(id)); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Remove = %v, want fleet.ErrUnavailable", err)
	}
	w.remover.DB = w.db
	// The trail refuses the event: no event, no act.
	w.exec(`ALTER TABLE audit.event ADD CONSTRAINT closed CHECK (occurred_at < '2026-01-01') NOT VALID`)
	if _, err := w.remover.Remove(w.ctx, w.request(id)); err == nil {
		t.Error("Remove without a trail succeeds")
	}
	for _, e := range w.sim.Log() {
		if e.Method != "" {
			t.Errorf("GitHub was asked: %+v", e)
		}
	}
	w.want("0 0", `SELECT concat_ws(' ', (SELECT count(*) FROM api.actions), (SELECT count(*) FROM api.decisions))`)
}

func TestUnknownTargetOrRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fleet(1)
	req := w.request(1)
	req.Target = "nosuch"
	if _, err := w.remover.Remove(w.ctx, req); err == nil || !strings.Contains(err.Error(), "no target of that name") {
		t.Errorf("Remove on an unknown target = %v", err)
	}
	if _, err := w.remover.Remove(w.ctx, w.request(99)); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Remove of a runner never seen = %v, want fleet.ErrNotFound", err)
	}
	w.trail("")
}

func TestNameThatStandsForAnotherScopeNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.fleet(2)[0]
	moved := w.target()
	moved.Scope.Owner = "other"
	w.remover.Targets = func() map[string]remove.Target { return map[string]remove.Target{"acme": moved} }
	if _, err := w.remover.Remove(w.ctx, w.request(id)); !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("Remove = %v, want a conflict", err)
	}
	w.trail("")
	w.pass(time.Minute)
	if n := len(w.sim.Log()); n != 2 { // the runners' own making
		t.Errorf("GitHub was asked: %d events", n)
	}
}
