package inventory_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/inventory"
)

// as makes the syncer work with another client, as another replica does.
func (w *world) as(token string) {
	w.Helper()
	gh, err := github.New(github.Config{
		APIURL: w.sim.APIURL(), UserAgent: "muster/test",
		Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(token), nil },
	})
	w.ok(err)
	w.gh = gh
	target := w.target(acme)
	w.syncer.Targets = func() map[string]inventory.Target { return map[string]inventory.Target{"acme": target} }
}

// wantPages checks the walk over 250 runners.
func (w *world) wantPages(s fleet.Sync, notModified int) {
	w.Helper()
	calls := 3
	if s.Added == 250 {
		calls++ // the first walk asks what the server can do
	}
	if s.Pages != 3 || s.APICalls != calls || s.NotModified != notModified || s.Runners != 250 {
		w.Errorf("%d pages, %d calls, %d not modified, %d runners, want 3 pages, %d not modified and 250 runners",
			s.Pages, s.APICalls, s.NotModified, s.Runners, notModified)
	}
}

func TestUnchangedPagesAreNotSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(249, githubsim.RunnerSpec{Online: true})
	off := w.create(1, githubsim.RunnerSpec{Name: "off"})[0]
	w.wantPages(w.wantSync("complete +250 ~0 -0"), 0)
	const kept = `SELECT string_agg(ctid::text || xmin::text, ',' ORDER BY number) FROM muster.page`
	pages := w.value(kept)
	for range 3 {
		w.wantPages(w.wantSync("complete +0 ~0 -0"), 3)
	}
	w.want(pages, kept)
	w.want("3", `SELECT not_modified FROM api.syncs ORDER BY started_at DESC LIMIT 1`)
	// A 304 is an observation of now.
	w.want("true", `SELECT bool_and(last_seen_at = $1) FROM api.runners`, w.clock())
	w.offlineFor(off, "3")

	w.ok(w.sim.Kill(acme, ids[120]))
	w.wantPages(w.wantSync("complete +0 ~1 -0"), 2)
	w.wantPages(w.wantSync("complete +0 ~0 -0"), 3)
	w.offlineFor(ids[120], "1")
}

func TestReplicasAndOtherCredentialsProfitFromPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(250, githubsim.RunnerSpec{Online: true})
	w.wantPages(w.sync(), 0)
	w.as(credential)
	w.wantPages(w.wantSync("complete +0 ~0 -0"), 3)

	// What GitHub gave to one credential is not shown to another, whose own
	// validators are kept then.
	const other = "ghs_another-credential"
	w.sim.Accept(other)
	w.as(other)
	w.wantPages(w.wantSync("complete +0 ~0 -0"), 0)
	w.wantPages(w.wantSync("complete +0 ~0 -0"), 3)
	w.as(credential)
	w.wantPages(w.wantSync("complete +0 ~0 -0"), 0)
	w.want("0", `SELECT count(*) FROM muster.page WHERE credential <> $1`, fleet.NewSecret(credential).Fingerprint())
}

// A page is as it was kept, and the record of a runner on it is not: another
// page has shown the runner differently in between.
func TestRecordThatMovedAwayFromAPageIsMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(250, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.exec(`UPDATE muster.runner SET status = 'offline', fingerprint = 7, offline_since = $2 WHERE runner_id = $1`, ids[40], w.clock())
	// A listing that is the same as the last one is believed to be recorded;
	// the next change shows that it is not.
	w.ok(w.sim.Kill(acme, ids[240]))
	if s := w.wantSync("complete +0 ~2 -0"); s.APICalls != 6 {
		t.Errorf("%d calls, want a walk on conditions and one without", s.APICalls)
	}
	w.want("online", `SELECT status FROM api.runners WHERE runner_id = $1`, ids[40])
	w.wantPages(w.wantSync("complete +0 ~0 -0"), 3)
}

// Between two complete walks with the same listing a partial one saw a runner
// differently.
func TestPartialWalkUnprovesTheListing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(250, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.sync()
	mend := w.editListings(func(runners []wireRunner, total int) ([]wireRunner, int) {
		for _, r := range runners {
			if int64(r["id"].(float64)) == ids[150] {
				r["status"] = "offline"
			}
		}
		return runners, total + 1
	})
	w.wantSync("partial +0 ~1 -0")
	w.want("offline", `SELECT status FROM api.runners WHERE runner_id = $1`, ids[150])
	mend()
	w.wantSync("complete +0 ~1 -0")
	w.want("online", `SELECT status FROM api.runners WHERE runner_id = $1`, ids[150])
	w.wantPages(w.wantSync("complete +0 ~0 -0"), 3)
}

func TestListingThatLacksARunnerIsComparedEachTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(250, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.ok(w.sim.Hide(acme, 3, ids[7]))
	for range 3 {
		if s := w.wantSync("complete +0 ~0 -0"); s.APICalls != 4 {
			t.Errorf("%d calls, want three pages and the look at the runner that they lack", s.APICalls)
		}
	}
	w.ok(w.sim.Hide(acme, 2, ids[7]))
	w.ok(w.sim.Kill(acme, ids[7]))
	w.wantSync("complete +0 ~1 -0")
	w.want("offline", `SELECT status FROM api.runners WHERE runner_id = $1`, ids[7])
	w.ok(w.sim.Remove(acme, ids[7]))
	w.wantSync("complete +0 ~0 -1")
}

func TestRunnerRemovedByMusterStaysRemovedThoughTheListingIsTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(250, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.sync()
	// Marked after the newest sync began, as a deletion does.
	w.pass(time.Second)
	w.exec(`UPDATE muster.runner SET removed_at = $2, removal_cause = 'policy' WHERE runner_id = $1`, ids[3], w.clock())
	// GitHub shows it still: it is there, whatever muster has done.
	w.wantSync("complete +1 ~0 -0")
	w.removed("")
	w.ok(w.sim.Remove(acme, ids[3]))
	w.wantSync("complete +0 ~0 -1")
}

func TestPagesOfAFleetThatShrankAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(250, githubsim.RunnerSpec{Online: true})
	w.sync()
	for _, id := range ids[100:] {
		w.ok(w.sim.Remove(acme, id))
	}
	w.sync()
	w.want("1", `SELECT string_agg(number::text, ' ') FROM muster.page`)
	w.wantSync("complete +0 ~0 -0")
}

// Validators that name changed pages unchanged are given up after a walk that
// does not add up, so that the next one does.
func TestValidatorsThatLieAreGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(250, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.create(1, githubsim.RunnerSpec{Name: "new"})
	w.sim.Intercept(func(r *http.Request) http.Handler {
		if r.URL.Query().Get("page") != "3" || r.Header.Get("If-None-Match") == "" {
			return nil
		}
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNotModified) })
	})
	w.wantSync("partial +0 ~0 -0")
	w.want("0", `SELECT count(*) FROM muster.page WHERE etag <> ''`)
	w.wantSync("complete +1 ~0 -0")
}
