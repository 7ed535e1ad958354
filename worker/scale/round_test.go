package scale_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/scale"
)

// pool is linux under another name, for one more label.
func pool(name string, change func(*fleet.Pool)) fleet.Pool {
	p := linux(change)
	p.Name, p.Labels = name, []string{name, "self-hosted"}
	return p
}

// wait queues a trigger for each of these pools, as a sync does.
func (w *world) wait(pools ...string) {
	w.Helper()
	w.tx(func(tx *db.Tx) error { return tx.QueueOnce(w.ctx, triggers(pools...)...) })
}

func triggers(pools ...string) []fleet.Trigger {
	all := make([]fleet.Trigger, len(pools))
	for i, name := range pools {
		all[i] = fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: name, Source: fleet.SourceSync}
	}
	return all
}

const runs = `SELECT coalesce(string_agg(concat_ws(' ', name, state, counts->>'desired', counts->>'up'), ', ' ORDER BY name, queued_at), 'none') FROM muster.run`

func TestARoundTakesAlongThePoolsWhoseTriggersWait(t *testing.T) {
	t.Parallel()
	elsewhere := pool("elsewhere", nil)
	elsewhere.Target = "widgets"
	w := newWorld(t, linux(nil), pool("arm", nil), pool("gpu", nil), pool("mac", nil), elsewhere)
	w.sync(everybody)
	w.queue(1, "linux")
	w.queue(2, "gpu")
	w.queue(3, "mac")
	w.wait("arm", "gpu", "elsewhere")
	w.scale()
	w.want("arm 0, gpu 2, linux 1", `SELECT string_agg(concat_ws(' ', pool, desired), ', ' ORDER BY pool) FROM api.pools`)
	w.want("gpu 2, linux 1", `SELECT string_agg(concat_ws(' ', pool, n), ', ' ORDER BY pool) FROM (SELECT pool, count(*) AS n FROM api.leases GROUP BY pool) x`)
	w.want("arm done 0, elsewhere queued, gpu done 2 2", runs)
	// Each is done by its own trigger.
	w.want("1", `SELECT count(*) FROM api.audit a JOIN muster.run r ON r.trigger_id::text = a.trigger_id WHERE r.name = 'gpu' AND a.code = 'SC800I'`)
	w.want("3", `SELECT count(*) FROM muster.outbox WHERE subject LIKE 'muster.v1.provision.%'`)
}

// Hosts are given up one after the other, which takes time and is a run of its
// own.
func TestAPoolThatShrinksIsLeftToItsOwnRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Cooldown.Down = 0 }), pool("gpu", nil))
	w.sync(everybody)
	w.tx(func(tx *db.Tx) error {
		if _, _, err := tx.ClaimReconciliation(w.ctx, "acme", w.clock(), w.clock()); err != nil {
			return err
		}
		if err := tx.SaveReconciliation(w.ctx, "acme", db.Reconciliation{AsOf: w.clock()}, w.clock()); err != nil {
			return err
		}
		return tx.AddRunners(w.ctx, "acme", []db.RunnerRow{w.online("a"), w.online("b")})
	})
	w.givable()
	w.wait("linux")
	_, err := w.scaler.Handle(w.ctx, trigger("gpu"))
	w.ok(err)
	w.want("linux queued", runs)
	w.want("gpu", `SELECT string_agg(pool, ' ') FROM api.pools`)
	w.scale()
	w.want("down", `SELECT direction FROM muster.pool WHERE name = 'linux'`)
}

func TestTheCostOfARoundDoesNotDependOnHowManyPoolsItHas(t *testing.T) {
	t.Parallel()
	costs := map[int]int64{}
	for _, n := range []int{2, 200} {
		var pools []fleet.Pool
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("p%d", i))
			pools = append(pools, pool(names[i], func(p *fleet.Pool) { p.Idle = 1 }))
		}
		w := newWorld(t, pools...)
		w.sync(everybody)
		w.wait(names...)
		var trips dbtest.RoundTrips
		traced, err := db.OpenTraced(w.ctx, w.url, &trips)
		w.ok(err)
		t.Cleanup(traced.Close)
		w.ok(traced.Ping(w.ctx))
		w.scaler.DB = traced
		before := trips.Count()
		_, err = w.scaler.Handle(w.ctx, trigger("p0"))
		w.ok(err)
		costs[n] = trips.Count() - before
		w.want(fmt.Sprint(n), `SELECT count(*) FROM api.leases`)
		w.want(fmt.Sprint(n-1), `SELECT count(*) FROM muster.run WHERE state = 'done'`)
	}
	if costs[2] != costs[200] || costs[2] == 0 {
		t.Errorf("round trips: %v by the number of pools, want as many", costs)
	}
	t.Logf("round trips: %v", costs)
}

// Replicas, events and syncs at once: none waits for another without end, none
// is lost, and no pool has more than its maximum.
func TestRoundsOfReplicasDecideOnAllAndStayBelowTheMaximum(t *testing.T) {
	t.Parallel()
	const pools, most = 8, 5
	var all []fleet.Pool
	var names []string
	for i := range pools {
		names = append(names, fmt.Sprintf("p%d", i))
		all = append(all, pool(names[i], func(p *fleet.Pool) {
			p.Max, p.Cooldown.Up, p.Step.Up = most, 0, fleet.Portion{Count: 1}
		}))
	}
	w := newWorld(t, all...)
	w.sync(everybody)
	for _, name := range names {
		w.queue(2*most, name)
	}
	w.queue(3, "nobody-has-this")
	var g errgroup.Group
	for i := range 6 {
		rng := rand.New(rand.NewPCG(uint64(i), 3))
		replica := w.replica()
		g.Go(func() error {
			for range 30 {
				name := names[rng.IntN(pools)]
				err := replica.DB.InTx(w.ctx, func(tx *db.Tx) error {
					some := triggers(names[rng.IntN(pools):]...)
					rng.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
					return tx.QueueOnce(w.ctx, some...)
				})
				if err != nil {
					return err
				}
				if _, err := replica.Handle(w.ctx, trigger(name)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	w.ok(g.Wait())
	w.wait(names...)
	w.decide(names[0])
	w.want(strings.TrimSpace(strings.Repeat(fmt.Sprintf("%d ", most), pools)), `
		SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM api.leases GROUP BY pool) x`)
	w.want(names[0], `SELECT string_agg(DISTINCT name, ' ') FROM muster.run WHERE state = 'queued'`)
	w.want("3", `SELECT detail->>'jobs' FROM api.findings`)
}

// decide decides on a pool.
func (w *world) decide(name string) {
	w.Helper()
	_, err := w.scaler.Handle(w.ctx, trigger(name))
	w.ok(err)
}

// GitHub shows a fleet offline that is at work, once, and then again. What it
// has may be back at any moment.
func TestHostsThatWentDarkTakeRoomUntilOthersWouldHaveBooted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Max = 12 }))
	w.sync(everybody)
	w.tx(func(tx *db.Tx) error {
		var rows []db.RunnerRow
		for i := range 10 {
			rows = append(rows, w.online(fmt.Sprintf("r%d", i)))
		}
		return tx.AddRunners(w.ctx, "acme", rows)
	})
	w.queue(10, "linux")
	w.scale()
	w.want("none", leases)

	w.exec(`UPDATE muster.runner SET status = 'offline', status_since = $1, last_online_at = $1, offline_since = $1`, w.clock())
	w.exec(`UPDATE muster.target SET suspect = 'mass_offline'`)
	w.pass(time.Minute)
	w.scale()
	w.want("none", leases)
	w.want("true", `SELECT reason LIKE '%the newest listing shows much of the target newly offline, 10 hosts of the pool among them; none is asked for until another listing shows it%' FROM api.pools`)

	// The next shows the same: as many come as there is room for if all come
	// back.
	w.exec(`UPDATE muster.target SET suspect = NULL`)
	w.scale()
	w.want("requested 1 2", leases)
	w.want("true", `SELECT reason LIKE '%10 went offline within boot_deadline and may come back%' FROM api.pools`)
	w.pass(5 * time.Minute)
	w.scale()
	w.want("requested 1 2", leases)

	// By now others would have been there: they are not waited for any longer.
	w.pass(5 * time.Minute)
	w.scale()
	w.want("requested 1 10", leases)
}

// A runner that takes one workflow job is no use once it has had it, whatever
// GitHub's newest listing showed.
func TestARunnerThatHadItsOneWorkflowJobIsNoSupply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Max = 3 }))
	w.sync(everybody)
	w.tx(func(tx *db.Tx) error {
		a, b := w.online("a"), w.online("b")
		a.Ephemeral = fleet.Yes
		return tx.AddRunners(w.ctx, "acme", []db.RunnerRow{a, b})
	})
	w.queue(2, "linux")
	w.scale()
	w.want("none", leases)
	w.exec(`UPDATE muster.workflow_job SET state = 'completed', runner_id = workflow_job_id, runner_name = '', completed_at = $1`, w.clock())
	w.queue(2, "linux")
	w.scale()
	w.want("requested 1 1", leases)
	w.want("1 1", `SELECT concat_ws(' ', online, draining) FROM api.pools`)
}

// A job that runs counts where it runs: one on a runner that is in no pool takes
// no host of any, whatever it asks for. Of one whose runner nobody knows yet its
// labels have to do.
func TestAJobThatRunsOutsideOfPoolsCountsForNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	w.sync(everybody)
	pet := w.online("pet")
	pet.Labels = []string{"arm64", "self-hosted"}
	w.tx(func(tx *db.Tx) error { return tx.AddRunners(w.ctx, "acme", []db.RunnerRow{pet}) })
	w.queue(2, "self-hosted")
	w.exec(`UPDATE muster.workflow_job SET state = 'in_progress', started_at = $1, runner_id = CASE workflow_job_id WHEN 1 THEN $2 ELSE 999 END`, w.clock(), pet.ID)
	w.scale()
	w.want("1 1", `SELECT concat_ws(' ', in_progress, desired) FROM api.pools`)
}

// What GitHub adds to the labels of runners may be asked of a pool that has none
// left, too: its next host will carry it like those before.
func TestAPoolAtZeroIsAskedForWhatItsRunnersCarried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil), pool("gpu", nil))
	w.sync(everybody)
	w.queue(1, "linux")
	w.scale()
	w.claim()
	w.sync(everybody)
	w.scale()
	w.exec(`UPDATE muster.workflow_job SET state = 'completed'`)
	w.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'ephemeral'`, w.clock())
	w.pass(time.Hour)
	w.decide("gpu") // the other pools are known, whoever is decided on
	w.scale()
	w.queue(2, "linux", "x64")
	preview, err := scale.Plan(w.ctx, w.db, w.pools[0], w.pools, fleet.HostNames{}, w.clock())
	w.ok(err)
	if got := preview.State.Demand.Queued; got != 2 {
		t.Errorf("Plan counts %d workflow jobs, want 2", got)
	}
	w.scale()
	w.want("2 2", `SELECT concat_ws(' ', queued, desired) FROM api.pools WHERE pool = 'linux'`)
	w.want("0", `SELECT count(*) FROM api.findings`)

	// Who changes the labels has other hosts from now on.
	w.exec(`UPDATE muster.pool SET labels = '{linux}' WHERE name = 'linux'`)
	w.scale()
	w.want("0", `SELECT queued FROM api.pools WHERE pool = 'linux'`)
	w.want("gpu 0", `SELECT string_agg(concat_ws(' ', pool, queued), ', ') FROM api.pools WHERE pool = 'gpu'`)
}

// A job that GitHub would have ended by now keeps no host, though nobody told of
// its end.
func TestAJobWhoseEndGotLostKeepsNoHostForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	w.sync(everybody)
	a := w.online("a")
	w.tx(func(tx *db.Tx) error { return tx.AddRunners(w.ctx, "acme", []db.RunnerRow{a}) })
	w.queue(1, "linux")
	w.exec(`UPDATE muster.workflow_job SET state = 'in_progress', started_at = $1, runner_id = $2`, w.clock(), a.ID)
	w.scale()
	w.want("1 1", `SELECT concat_ws(' ', busy, desired) FROM api.pools`)
	w.pass(fleet.LongestWorkflowJob)
	w.scale()
	w.want("0 0", `SELECT concat_ws(' ', busy, desired) FROM api.pools`)
}
