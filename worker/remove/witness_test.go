package remove_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// job tells of a workflow job that began so long ago. An id of 0 is of an
// event that named the runner only.
func (w *world) job(state string, runner int64, name string, ago time.Duration) {
	w.Helper()
	w.exec(`
		INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id,
			runner_name, started_at, completed_at, conclusion, changed_at)
		VALUES ('acme', 77 + (SELECT count(*) FROM muster.workflow_job), 1, 1, 'acme/widgets', '{linux}', $1, $2, $3, $4, CASE WHEN $1 = 'completed' THEN $4::timestamptz END, '', $4)`,
		state, runner, name, w.clock().Add(-ago))
}

// moved tells that a workflow job in progress was on another runner before it was
// on r2.
func (w *world) moved(from string) {
	w.Helper()
	w.exec(`UPDATE muster.workflow_job SET runners = jsonb_build_array(jsonb_build_object('name', $1::text), jsonb_build_object('name', 'r2'))`, from)
}

// dated changes when a workflow job began by its server's clock, which was heard
// of so long ago.
func (w *world) dated(began, heard time.Duration) {
	w.Helper()
	w.exec(`UPDATE muster.workflow_job SET started_at = $1, changed_at = $2`, w.clock().Add(-began), w.clock().Add(-heard))
}

// namesake is a runner that was registered under the same name, and is gone.
func (w *world) namesake(id, other int64) {
	w.Helper()
	w.exec(`
		INSERT INTO muster.runner
		SELECT (jsonb_populate_record(r, jsonb_build_object('runner_id', $2::bigint, 'removed_at', $3::timestamptz, 'removal_cause', 'unknown'))).*
		FROM muster.runner r WHERE runner_id = $1`, id, other, w.clock())
}

// beat is a heartbeat of a host with that runner, so long ago.
func (w *world) beat(host, name, state string, ago time.Duration) {
	w.Helper()
	w.exec(`INSERT INTO muster.host (host, last_heartbeat_at) VALUES ($1, $2)`, host, w.clock().Add(-ago))
	w.exec(`INSERT INTO muster.host_runner (host, target, name, state, at) VALUES ($1, 'acme', $2, $3, $4)`, host, name, state, w.clock().Add(-ago))
}

// newcomer makes the runner one that was registered so long ago with a token
// of ours.
func (w *world) newcomer(id int64, ago time.Duration) {
	w.Helper()
	w.exec(`
		INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at, issued_at, expires_at)
		VALUES ('r1', gen_random_uuid(), 1, 'acme', 'registration', 'issued', '', $1, $1, $1)`, w.clock().Add(-ago-time.Minute))
	w.exec(`UPDATE muster.runner SET host = 'r1', first_seen_at = $2 WHERE runner_id = $1`, id, w.clock().Add(-ago))
}

// refused is a delivery that was turned away so long ago.
func (w *world) refused(ago time.Duration) {
	w.Helper()
	w.exec(`INSERT INTO muster.refused_delivery (target, delivery_id, at, reason) VALUES ('acme', 'd1', $1, 'too many at once')`, w.clock().Add(-ago))
}

// hold keeps a runner for so long; 0: until it is lifted.
func (w *world) hold(id int64, life time.Duration) {
	w.Helper()
	h := fleet.Hold{Reason: "its disk is being looked at", By: "alice", At: w.clock()}
	if life != 0 {
		h.Until = w.clock().Add(life)
	}
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.Hold(w.ctx, "acme", id, h) }))
}

// witnesses are what may speak against a deletion, and what may not.
var witnesses = []struct {
	name   string
	say    func(w *world, id int64)
	reason string // empty: none
}{
	{"a workflow job", func(w *world, id int64) { w.job("in_progress", id, "r1", 119*time.Hour) }, "open_job"},
	{"a workflow job by the runner's name", func(w *world, _ int64) { w.job("in_progress", 0, "r1", time.Minute) }, "open_job"},
	{"a workflow job by the runner's name, under an id that nobody here has", func(w *world, id int64) {
		w.job("in_progress", id+1, "r1", time.Minute)
	}, "open_job"},
	{"a workflow job by the runner's name in another case", func(w *world, _ int64) { w.job("in_progress", 0, "R1", time.Minute) }, "open_job"},
	{"a workflow job that moved to another runner", func(w *world, id int64) {
		w.job("in_progress", id+1, "r2", time.Minute)
		w.moved("r1")
	}, "open_job"},
	{"a workflow job that moved, in another case", func(w *world, id int64) {
		w.job("in_progress", id+1, "r2", time.Minute)
		w.moved("R1")
	}, "open_job"},
	{"a workflow job dated years ago, heard of a minute ago", func(w *world, id int64) {
		w.job("in_progress", id, "r1", time.Minute)
		w.dated(3*365*24*time.Hour, time.Minute)
	}, "open_job"},
	{"a workflow job that began under a name that it had", func(w *world, id int64) {
		w.exec(`INSERT INTO muster.runner_history (target, runner_id, name, at, change, before, after)
			VALUES ('acme', $1, 'r1', $2, 'renamed', '{"name": "R0"}', '{"name": "r1"}')`, id, w.clock())
		w.job("in_progress", id, "r0", time.Minute)
	}, "open_job"},
	{"a workflow job by name beside one that lost its end", func(w *world, id int64) {
		w.job("in_progress", id, "r1", 121*time.Hour)
		w.job("in_progress", 0, "r1", time.Minute)
	}, "open_job"},
	{"a workflow job by id beside one by name that lost its end", func(w *world, id int64) {
		w.job("in_progress", 0, "r1", 121*time.Hour)
		w.job("in_progress", id, "r1", time.Minute)
	}, "open_job"},
	{"a host that says busy", func(w *world, _ int64) { w.beat("h1", "r1", "busy", 2*time.Minute) }, "host_busy"},
	{"a host that says idle", func(w *world, _ int64) { w.beat("h1", "r1", "idle", 0) }, "host_alive"},
	{"a host that says busy, in another case", func(w *world, _ int64) { w.beat("h1", "R1", "busy", 2*time.Minute) }, "host_busy"},
	{"two hosts, of which one says busy", func(w *world, _ int64) {
		w.beat("h1", "r1", "stopped", 0)
		w.beat("h2", "r1", "busy", time.Minute)
	}, "host_busy"},
	{"a delivery that was refused", func(w *world, _ int64) { w.refused(time.Minute) }, "deliveries_refused"},
	{"an operator", func(w *world, id int64) { w.hold(id, 0) }, "hold"},
	{"an operator, for a while", func(w *world, id int64) { w.hold(id, time.Second) }, "hold"},
	{"a registration of a moment ago", func(w *world, id int64) { w.newcomer(id, 9*time.Minute) }, "booting"},

	{"a workflow job that lost its end", func(w *world, id int64) { w.job("in_progress", id, "r1", 121*time.Hour) }, ""},
	{"a workflow job dated in the future that lost its end", func(w *world, id int64) {
		w.job("in_progress", id, "r1", 121*time.Hour)
		w.dated(-365*24*time.Hour, 121*time.Hour)
	}, ""},
	{"a workflow job that moved between others", func(w *world, id int64) {
		w.job("in_progress", id+1, "r2", time.Minute)
		w.moved("r3")
	}, ""},
	{"a workflow job that moved and is done", func(w *world, id int64) {
		w.job("completed", id+1, "r2", time.Minute)
		w.moved("r1")
	}, ""},
	{"a workflow job that is done", func(w *world, id int64) { w.job("completed", id, "r1", time.Minute) }, ""},
	{"a workflow job on another runner", func(w *world, id int64) { w.job("in_progress", id+1, "r2", time.Minute) }, ""},
	{"another runner's that had its name", func(w *world, id int64) {
		w.namesake(id, id+1)
		w.job("in_progress", id+1, "r1", time.Minute)
	}, ""},
	{"a machine's of GitHub with its id", func(w *world, id int64) {
		w.job("in_progress", id, fmt.Sprintf("GitHub Actions %d", id), time.Minute)
	}, ""},
	{"a host that fell silent", func(w *world, _ int64) { w.beat("h1", "r1", "busy", 3*time.Minute) }, ""},
	{"a host that says stopped", func(w *world, _ int64) { w.beat("h1", "r1", "stopped", 0) }, ""},
	{"a host that speaks of another runner", func(w *world, _ int64) { w.beat("h1", "r2", "busy", 0) }, ""},
	{"a delivery that was refused longer ago than a job may last", func(w *world, _ int64) { w.refused(121 * time.Hour) }, ""},
	{"a hold that is over", func(w *world, id int64) { w.hold(id, -time.Second) }, ""},
	{"a registration that never connected", func(w *world, id int64) { w.newcomer(id, 10*time.Minute) }, ""},
}

func TestWitnessesKeepARunnerWhoeverWantsItGone(t *testing.T) {
	t.Parallel()
	for _, tt := range witnesses {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(1)[0]
			tt.say(w, id)
			if tt.reason == "" {
				w.remove("done", w.request(id))
				return
			}
			w.remove("keep "+tt.reason, w.request(id))
			w.remove("keep "+tt.reason, w.byHand(id))
			if n := len(w.sim.Log()); n != 1 { // the runner's creation
				t.Errorf("GitHub was asked %d times about a runner that was kept", n-1)
			}
		})
	}
}

// A witness speaks up after the decision, while GitHub still shows the runner
// offline and idle.
func TestWitnessesAreHeardOnceMoreBeforeTheDeletion(t *testing.T) {
	t.Parallel()
	for _, tt := range witnesses {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.fleet(1)[0]
			var once sync.Once
			w.sim.Before(func(r githubsim.Request) {
				if r.Method == http.MethodGet {
					once.Do(func() { tt.say(w, id) })
				}
			})
			if tt.reason == "" {
				w.remove("done", w.request(id))
				return
			}
			res := w.remove("spared "+tt.reason, w.request(id))
			if len(w.deletes(false)) != 0 || res.Action.State != fleet.ActionSpared {
				t.Errorf("GitHub saw DELETEs of %v", w.deletes(false))
			}
			w.trail("RN100I RN103W")
		})
	}
}
