package inventory_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/github/githubsim"
)

func TestOfflineTimeIsWhatWasObserved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(3, githubsim.RunnerSpec{Online: true})
	at := func(minutes int) {
		t.Helper()
		w.now.Store(t0.Add(time.Duration(minutes) * time.Minute).UnixNano())
		w.ok(w.try())
	}
	at(0)
	w.ok(w.sim.Kill(acme, ids[0]))
	at(30)
	w.offlineFor(ids[0], "0") // seen offline for the first time
	at(60)
	w.offlineFor(ids[0], "30")
	at(120) // as long as max_observation_gap
	w.offlineFor(ids[0], "90")
	at(181) // longer
	w.offlineFor(ids[0], "90")
	at(200)
	w.offlineFor(ids[0], "109")

	mend := w.breakListings() // a partial walk between two complete ones
	at(220)
	w.offlineFor(ids[0], "109")
	mend()
	at(240)
	w.offlineFor(ids[0], "149")
	mend = w.breakListings() // too many of them
	at(280)
	mend()
	at(320)
	w.offlineFor(ids[0], "149")
	w.want("true", `SELECT offline_since = $2 FROM api.runners WHERE runner_id = $1`, ids[0], t0.Add(30*time.Minute))
	w.want("7 290", `SELECT concat_ws(' ', t.complete_syncs - r.offline_from_sync + 1,
		extract(epoch FROM t.last_complete_sync_at - r.offline_from_at)::integer / 60) FROM muster.target t, muster.runner r WHERE runner_id = $1`, ids[0])

	// Back for a moment: the run is broken.
	w.ok(w.sim.Connect(acme, ids[0]))
	at(330)
	w.offlineFor(ids[0], "<null>")
	w.ok(w.sim.Kill(acme, ids[0]))
	at(340)
	at(350)
	w.offlineFor(ids[0], "10")
	w.offlineFor(ids[1], "<null>")
	w.want("true", `SELECT offline_since = $2 AND status_since = $2 FROM api.runners WHERE runner_id = $1`, ids[0], t0.Add(340*time.Minute))
}

func TestRunThatAPartialWalkSawFirstCountsFromTheNextCompleteOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(1, githubsim.RunnerSpec{Online: true})[0]
	w.sync()
	w.ok(w.sim.Kill(acme, id))
	mend := w.breakListings()
	w.wantSync("partial +0 ~1 -0")
	w.offlineFor(id, "<null>")
	since := w.clock()
	w.wantSync("partial +0 ~0 -0")
	mend()
	w.wantSync("complete +0 ~1 -0")
	w.offlineFor(id, "0")
	w.wantSync("complete +0 ~0 -0")
	w.offlineFor(id, "1")
	w.want("true", `SELECT offline_since = $2 FROM api.runners WHERE runner_id = $1`, id, since)
}

func TestOnlineInAPartialWalkBreaksTheRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(1, githubsim.RunnerSpec{})[0]
	w.sync()
	w.sync()
	w.offlineFor(id, "1")
	w.ok(w.sim.Connect(acme, id))
	mend := w.breakListings()
	w.sync()
	mend()
	w.ok(w.sim.Kill(acme, id))
	w.sync()
	w.offlineFor(id, "0")
	w.sync()
	w.offlineFor(id, "1")
}

// Complete listings that lack a runner did not see it offline.
func TestTimeInWhichARunnerWasMissingDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create(1, githubsim.RunnerSpec{})[0]
	w.create(4, githubsim.RunnerSpec{Name: "other", Online: true})
	w.sync()
	w.sync()
	w.offlineFor(id, "1")
	mend := w.breakLookups()
	w.ok(w.sim.EmptyListing(acme, 3)) // suspect, so that it is not removed
	for range 3 {
		w.sync()
		w.offlineFor(id, "1")
	}
	mend()
	w.sync()
	w.offlineFor(id, "1")
	w.sync()
	w.offlineFor(id, "2")
	w.want("4", `SELECT t.complete_syncs - r.offline_from_sync + 1 FROM muster.target t, muster.runner r WHERE runner_id = $1`, id)

	// Found again by a walk that is no proof: nobody knows since when.
	mend = w.breakLookups()
	w.ok(w.sim.EmptyListing(acme, 1))
	w.sync()
	mend()
	mend = w.breakListings()
	w.sync()
	mend()
	w.sync()
	w.offlineFor(id, "0")
	w.sync()
	w.offlineFor(id, "1")
}

func TestRunnerThatIsRemovedIsNotOfflineForLonger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(2, githubsim.RunnerSpec{})
	w.sync()
	w.sync()
	w.ok(w.sim.Remove(acme, ids[0]))
	w.sync()
	w.offlineFor(ids[0], "<null>")
	r, err := w.db.Runner(w.ctx, "acme", ids[0])
	if err != nil || r.OfflineFor != 0 || r.RemovedAt.IsZero() {
		t.Errorf("Runner = %+v, %v", r, err)
	}
}
