package inventory_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

func text(ids ...int64) string { return strings.Trim(fmt.Sprint(ids), "[]") }

// missing are the ids that are marked missing and not removed.
func (w *world) missing(want string) {
	w.Helper()
	w.want(want, `SELECT coalesce(string_agg(runner_id::text, ' ' ORDER BY runner_id), '') FROM muster.runner WHERE missing_since IS NOT NULL AND removed_at IS NULL`)
}

func TestMissingRunnerThatGitHubStillShowsStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(5, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.ok(w.sim.Hide(acme, 2, ids[0]))
	s := w.wantSync("complete +0 ~0 -0")
	if s.APICalls != 2 {
		t.Errorf("%d calls, want the listing and one look", s.APICalls)
	}
	w.ok(w.sim.Kill(acme, ids[0])) // what the look shows counts
	w.wantSync("complete +0 ~1 -0")
	w.want("offline", `SELECT status FROM api.runners WHERE runner_id = $1`, ids[0])
	w.removed("")
	w.missing("")
	w.want("0", `SELECT count(*) FROM api.audit WHERE code = 'RN110I'`)
}

func TestMissingRunnerWithoutAnAnswerWaitsForASecondListing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(5, githubsim.RunnerSpec{Online: true})
	w.sync()
	seen := w.clock()
	mend := w.breakLookups()
	w.ok(w.sim.Hide(acme, 2, ids[0], ids[1]))
	w.wantSync("complete +0 ~2 -0")
	w.missing(text(ids[0], ids[1]))
	w.removed("")
	w.want("true", `SELECT last_seen_at = $2 FROM api.runners WHERE runner_id = $1`, ids[0], seen)
	mend()

	// The next time GitHub is asked again, and knows one of them.
	w.ok(w.sim.Remove(acme, ids[1]))
	w.wantSync("complete +0 ~1 -1")
	w.missing("")
	w.removed(text(ids[1]))
	w.want("true", `SELECT last_seen_at = $2 FROM api.runners WHERE runner_id = $1`, ids[0], w.clock())

	mend = w.breakLookups()
	defer mend()
	w.ok(w.sim.Hide(acme, 2, ids[2]))
	w.wantSync("complete +0 ~1 -0")
	marked := w.clock()
	w.wantSync("complete +0 ~0 -1")
	w.removed(text(ids[1], ids[2]))
	w.want("unknown two complete listings lack it", `
		SELECT r.removal_cause || ' ' || a.reason FROM api.runners r JOIN api.audit a USING (runner_id) WHERE runner_id = $1 AND code = 'RN110I'`, ids[2])
	w.want("true", `SELECT last_seen_at < $2 AND removed_at > $2 FROM api.runners WHERE runner_id = $1`, ids[2], marked)
	w.want("1", `SELECT count(*) FROM api.runner_history WHERE runner_id = $1 AND change = 'removed'`, ids[2])

	// It was a lie after all.
	w.wantSync("complete +1 ~0 -0")
	w.removed(text(ids[1]))
	w.want("registered", `SELECT change FROM api.runner_history WHERE runner_id = $1 ORDER BY at DESC LIMIT 1`, ids[2])
	w.want("true", `SELECT first_seen_at = $2 FROM api.runners WHERE runner_id = $1`, ids[2], seen)
}

func TestPartialWalkMakesNobodyMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(5, githubsim.RunnerSpec{Online: true})
	w.sync()
	mend := w.editListings(func(runners []wireRunner, total int) ([]wireRunner, int) {
		return runners[:min(2, len(runners))], total
	})
	w.ok(w.sim.Remove(acme, ids[4]))
	for range 3 {
		w.wantSync("partial +0 ~0 -0")
	}
	mend()
	w.removed("")
	w.missing("")
	w.want("complete partial partial partial", `SELECT string_agg(outcome, ' ' ORDER BY started_at) FROM api.syncs`)
	w.want("partial", `SELECT last_outcome FROM muster.target`)
	w.want("3", `SELECT count(*) FROM api.syncs WHERE error LIKE '%2 distinct runners where total_count says 4%'`)
	w.wantSync("complete +0 ~0 -1")
}

func TestPageThatFailsMakesTheWalkPartial(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(250, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.ok(w.sim.Kill(acme, ids[0]))
	w.ok(w.sim.Kill(acme, ids[249]))
	w.sim.Intercept(func(r *http.Request) http.Handler {
		if r.URL.Query().Get("page") != "3" {
			return nil
		}
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "oops", http.StatusBadGateway) })
	})
	w.wantSync("partial +0 ~1 -0")
	w.want("1", `SELECT count(*) FROM api.runners WHERE status = 'offline'`)
	w.sim.Intercept(nil)
	// The one that the partial walk saw is written again: its offline time
	// begins to count now.
	w.wantSync("complete +0 ~2 -0")
	w.offlineFor(ids[0], "0")
}

// What It must show: whatever one listing claims, nothing that GET by id still
// finds is taken for removed.
func TestListingsThatLie(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		lie     func(w *world, ids []int64, listings int) error
		suspect fleet.Suspect
	}{
		{"three missing", func(w *world, ids []int64, n int) error { return w.sim.Hide(acme, n, ids[:3]...) }, fleet.SuspectNot},
		{"an empty one", func(w *world, _ []int64, n int) error { return w.sim.EmptyListing(acme, n) }, fleet.SuspectEmpty},
		{"half of it gone", func(w *world, ids []int64, n int) error { return w.sim.Hide(acme, n, ids[:20]...) }, fleet.SuspectShrunk},
		{"all offline", func(w *world, _ []int64, n int) error { return w.sim.ShowOffline(acme, n) }, fleet.SuspectMassOffline},
	} {
		for _, broken := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s broken=%v", tt.name, broken), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				ids := w.create(40, githubsim.RunnerSpec{Online: true})
				w.sync()
				mend := func() {}
				listings := 3
				if broken {
					mend = w.breakLookups()
					if tt.suspect == fleet.SuspectNot {
						listings = 1 // two of them are a proof where GitHub says nothing
					}
				}
				w.ok(tt.lie(w, ids, listings))
				for i := range listings {
					s := w.sync()
					want := tt.suspect
					if want == fleet.SuspectMassOffline && i > 0 {
						want = fleet.SuspectNot // they are offline now, as far as anybody can tell
					}
					if s.Suspect != want || s.Removed != 0 {
						t.Errorf("sync %d: %s, want suspect %q and nothing removed", i+1, outcome(s), want)
					}
				}
				w.removed("")
				w.want(orElse(string(w.synced[len(w.synced)-1].Suspect), "<null>"), `SELECT suspect FROM muster.target`)
				mend()
				w.sync()
				w.removed("")
				w.missing("")
				w.want("40", `SELECT count(*) FROM api.runners WHERE status = 'online'`)
				w.want("<null>", `SELECT suspect FROM muster.target`)
			})
		}
	}
}

func TestMassRemovalThatIsTrue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(40, githubsim.RunnerSpec{Online: true})
	w.sync()
	for _, id := range ids[:20] {
		w.ok(w.sim.Remove(acme, id))
	}
	s := w.wantSync("complete shrunk +0 ~0 -20") // GitHub confirms each, and that it shows the scope
	if s.APICalls != 22 {
		t.Errorf("%d calls, want 22", s.APICalls)
	}
	w.wantSync("complete +0 ~0 -0")
	w.want("20 20", `SELECT concat_ws(' ', (SELECT count(*) FROM api.audit WHERE code = 'RN110I'), (SELECT count(*) FROM api.runner_history WHERE change = 'removed'))`)
}

// A credential that loses its target after the walk is answered 404 for every
// runner, those that a listing lacked by mistake among them.
func TestTargetThatIsLostAfterTheWalkLosesNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(5, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.ok(w.sim.Hide(acme, 1, ids[0]))
	w.ok(w.sim.Remove(acme, ids[1]))
	lift := w.sim.Before(func(r githubsim.Request) {
		if r.RunnerID != 0 {
			w.sim.Grant(credential, acme, githubsim.AccessInvisible)
		}
	})
	if s := w.wantSync("complete +0 ~2 -0"); s.APICalls != 4 {
		t.Errorf("%d calls, want the listing, two looks and one for whether the scope is seen", s.APICalls)
	}
	w.removed("")
	w.missing(text(ids[0], ids[1]))
	w.want("0", `SELECT count(*) FROM api.audit WHERE code = 'RN110I'`)

	lift()
	w.sim.Grant(credential, acme, githubsim.AccessFull)
	w.wantSync("complete +0 ~1 -1")
	w.removed(text(ids[1]))
	w.missing("")
}

// More are missing than one sync looks up: each is asked for in its turn, and
// none is taken for removed before.
func TestMoreMissingThanOneSyncLooksUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(10_000, githubsim.RunnerSpec{Online: true})
	w.sync()
	const missing = 1500 // less than a fifth: no suspect
	w.ok(w.sim.Hide(acme, 2, ids[:missing]...))
	s := w.wantSync("complete +0 ~500 -0")
	if s.APICalls != 85+1000 {
		t.Errorf("%d calls, want 85 pages and 1000 looks", s.APICalls)
	}
	w.pass(time.Hour) // syncs come at even intervals
	w.wantSync("complete +0 ~1000 -0")
	w.removed("")
	w.wantSync("complete +0 ~500 -0")
	w.removed("")
	w.missing("")
}

func TestLooksEndWhenGitHubAsksForAPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(400, githubsim.RunnerSpec{Online: true})
	w.sync()
	var looks atomic.Int64
	w.sim.Intercept(func(r *http.Request) http.Handler {
		if !isLookup(r) {
			return nil
		}
		looks.Add(1)
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "60")
			http.Error(rw, "{}", http.StatusTooManyRequests)
		})
	})
	w.ok(w.sim.Hide(acme, 2, ids[:60]...))
	for range 2 {
		w.sync()
	}
	if n := looks.Load(); n > 2*2*16 {
		t.Errorf("%d looks after GitHub asked for a pause", n)
	}
	w.want("true", `SELECT count(*) FILTER (WHERE removed_at IS NOT NULL) < 40 FROM api.runners`)
	w.sim.Intercept(nil)
	w.sync()
	w.removed("")
}

func TestWalkOlderThanARemovalDoesNotUndoIt(t *testing.T) {
	t.Parallel()
	for _, present := range []bool{true, false} { // in the listing of that walk
		w := newWorld(t)
		ids := w.create(5, githubsim.RunnerSpec{})
		w.sync()
		w.pass(time.Minute)
		// The walk has begun; while GitHub answers, muster removes a runner.
		removeBefore := func(r githubsim.Request) {
			if r.RunnerID != 0 {
				return
			}
			w.pass(time.Second)
			if !present {
				if err := w.sim.Remove(acme, ids[0]); err != nil {
					t.Error(err)
				}
			}
			err := w.db.InTx(w.ctx, func(tx *db.Tx) error {
				_, err := tx.MarkRemoved(w.ctx, "acme", ids[0], fleet.CausePolicy, w.clock())
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		defer w.sim.Before(removeBefore)()
		w.ok(w.try())
		w.want("policy", `SELECT removal_cause FROM api.runners WHERE runner_id = $1`, ids[0])
		w.want("removed", `SELECT string_agg(change, ' ') FROM api.runner_history`)
		w.want("0", `SELECT count(*) FROM api.audit WHERE code = 'RN110I'`)
		w.want("complete 0 0 0", `SELECT concat_ws(' ', outcome, added, changed, removed) FROM api.syncs ORDER BY started_at DESC LIMIT 1`)
	}
}

// A deletion whose outcome is not recorded yet is worker/remove's to tell of.
func TestRunnerUnderAnOpenIntentIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(5, githubsim.RunnerSpec{})
	w.sync()
	w.exec(`INSERT INTO muster.action (action_id, decision_id, trigger_id, policy, target, runner_id, name, action, state, intended_at, lease_until)
		VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'reap', 'acme', $1, 'r1', 'delete_runner', 'intended', $2, $2)`, ids[0], w.clock())
	w.ok(w.sim.Remove(acme, ids[0]))
	for range 2 {
		w.wantSync("complete +0 ~0 -0")
	}
	w.removed("")
	w.exec(`UPDATE muster.action SET state = 'failed', settled_at = $1`, w.clock())
	w.wantSync("complete +0 ~0 -1")
	w.removed(text(ids[0]))
}
