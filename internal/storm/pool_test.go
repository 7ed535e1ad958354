package storm_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/policies"
)

// poolLabel is on the hosts of pools, and wanted by their workflow jobs.
const poolLabel = "pooled"

// pool is a pool of a life.
type pool struct {
	*policies.Pool
	scope fleet.Scope
}

func has(r githubsim.State, label string) bool { return slices.Contains(r.Labels, label) }

// isPooled reports whether a runner is on a host of a pool. None of those comes
// back to life, or is shown offline by mistake: else a pool that had asked for
// others in their place would be above its maximum, and right.
func isPooled(r githubsim.State) bool { return has(r, poolLabel) }

// drawPools gives some targets a pool with hosts that are there already.
func (w *world) drawPools() {
	for _, t := range w.targets {
		if len(w.pools) > 0 && w.oneIn(2, "no pool") {
			continue
		}
		most := anyOf(w, "max", 3, 5, 8)
		p, wrong := policies.NewPool(fleet.Pool{
			Name: t.Name + "-pool", Target: t.Name, Labels: []string{poolLabel},
			PoolBounds:        fleet.PoolBounds{Min: anyOf(w, "min", 0, 0, 1, 2), Max: most, Idle: anyOf(w, "idle", 0, 0, 1)},
			TargetUtilisation: 1,
			BootDeadline:      time.Duration(anyOf(w, "boot deadline", 6, 12)) * time.Minute,
			MinLifetime:       time.Duration(anyOf(w, "min lifetime", 0, 0, 4)) * time.Minute,
			Cooldown:          fleet.PoolCooldown{Up: 0, Down: time.Duration(anyOf(w, "cooldown", 0, 0, 5)) * time.Minute},
			Step:              fleet.PoolStep{Up: fleet.Portion{Count: anyOf(w, "step up", 10, 2)}, Down: fleet.Portion{Count: anyOf(w, "step down", 2, 1, 3)}},
		})
		if wrong != nil {
			w.Fatalf("pool: %v", wrong)
		}
		w.pools = append(w.pools, &pool{Pool: p, scope: t.Scope})
		for range anyOf(w, "hosts", 4, 2, most) {
			w.addHost(t.Scope, w.hostName())
		}
	}
}

func (w *world) hostName() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names++
	return fmt.Sprintf("h%d-p%d", w.life, w.names)
}

// addHost registers the runner of a host that was asked for.
func (w *world) addHost(scope fleet.Scope, name string) {
	id, err := w.sim.Create(scope, githubsim.RunnerSpec{Name: name, Online: true, Labels: []string{poolLabel}})
	w.ok(err)
	if r, there := w.runner(scope, id); there {
		w.raiseHost(scope, r)
	}
}

func (w *world) checkedPools() []*policies.Pool {
	all := make([]*policies.Pool, len(w.pools))
	for i, p := range w.pools {
		all[i] = p.Pool
	}
	return all
}

// poolsFor are the pools that workflow jobs of a target may wait for.
func (w *world) poolsFor(target string, labels []string, _ int) []string {
	if !slices.Contains(labels, poolLabel) {
		return nil
	}
	return w.poolsOf(target)
}

func (w *world) poolsOf(target string) []string {
	var names []string
	for _, p := range w.pools {
		if p.Target == target {
			names = append(names, p.Name)
		}
	}
	return names
}

// wantHosts is what befalls pools between two rounds: workflow jobs come and are
// called off, and provisioners do what they were asked for, or not.
func (w *world) wantHosts() {
	for _, p := range w.pools {
		for range anyOf(w, "queued", 0, 0, 0, 1, 2, 12) {
			w.queueJob(p)
		}
		if !w.oneIn(3, "they go on waiting") {
			w.finishJobs(p, func(j githubsim.Job) bool { return j.State == githubsim.JobQueued })
		}
		for _, l := range w.requests(p) {
			switch anyOf(w, "provisioner", "boots", "boots", "boots", "waits", "fails") {
			case "boots":
				w.provide(p, l)
			case "fails":
				w.claim(l, w.hostName())
			}
		}
	}
	if len(w.pools) > 0 {
		w.lapse(w.jobs.beatAge + 1) // by which new hosts are heard of
	}
}

func (w *world) queueJob(p *pool) {
	_, err := w.sim.QueueJob(p.scope, githubsim.JobSpec{Labels: []string{poolLabel}})
	w.ok(err)
}

// jobsOf are the open workflow jobs of a pool.
func (w *world) jobsOf(p *pool) []githubsim.Job {
	return w.openJobs(func(j githubsim.Job) bool { return j.Scope == p.scope && slices.Contains(j.Labels, poolLabel) })
}

func (w *world) finishJobs(p *pool, of func(githubsim.Job) bool) {
	for _, j := range w.jobsOf(p) {
		if of(j) {
			w.ok(w.sim.FinishJob(j.ID, "cancelled"))
		}
	}
}

// requests are for the hosts that a pool waits for and that nobody has made yet.
func (w *world) requests(p *pool) []string {
	var ids []string
	for _, l := range read[struct{ ID string }](w, `
		SELECT request_id::text FROM muster.lease
		WHERE pool = $1 AND state = 'requested' AND deadline > $2
		ORDER BY requested_at, request_id`, p.Name, w.clock.shared(w.clock.now())) {
		ids = append(ids, l.ID)
	}
	return ids
}

func (w *world) claim(lease, host string) {
	w.ok(w.ears.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.ClaimLease(w.ctx, lease, host, w.clock.shared(w.clock.now())) }))
}

func (w *world) provide(p *pool, lease string) {
	name := w.hostName()
	w.claim(lease, name)
	w.addHost(p.scope, name)
}

// wantWithinMax checks that no pool that waits for hosts has more of them, or
// will have, than it may.
func (w *world) wantWithinMax() {
	for _, p := range w.pools {
		waits := w.count(`SELECT count(*) FROM muster.lease WHERE pool = $1 AND state IN ('requested', 'claimed', 'registered')`, p.Name)
		there := w.count(`
			SELECT count(*) FROM muster.runner
			WHERE target = $1 AND $2 = ANY(labels) AND status = 'online' AND removed_at IS NULL`, p.Target, poolLabel)
		if waits > 0 && waits+there > p.Max {
			w.Errorf("pool %s has %d hosts and waits for %d, and may have %d", p.Name, there, waits, p.Max)
		}
		w.tally["hosts that pools waited for"] += waits
		if waits > 0 && waits+there == p.Max {
			w.tally.count("rounds at the maximum of a pool")
		}
	}
}

// calmPools checks that pools get as many hosts as they want, first while nobody
// waits and then while workflow jobs do: one that had more than it may have gives
// them up as work allows.
func (w *world) calmPools() {
	for _, p := range w.pools {
		w.finishJobs(p, func(githubsim.Job) bool { return true })
	}
	w.wantSizes("while nobody waits")
	for _, p := range w.pools {
		for range anyOf(w, "queued in the calm", p.Max+2, p.Max, 2) {
			w.queueJob(p)
		}
	}
	w.wantSizes("while workflow jobs wait")
}

// decideTogether has replicas decide on all pools at once, asked four times for
// each. A trigger that waits for another decision on its pool comes again.
func (w *world) decideTogether() {
	var g errgroup.Group
	for _, p := range w.pools {
		for i := range 4 {
			r := w.replicas[i%len(w.replicas)]
			g.Go(func() error {
				trigger := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: p.Name, Source: fleet.SourceCLI}
				d := r.handle(trigger)
				for errors.Is(d.err, errElsewhere) {
					d = r.handle(trigger)
				}
				if d.done || d.pause > 0 {
					return nil
				}
				return fmt.Errorf("%v on %s: %w", r, p.Name, d.err)
			})
		}
	}
	if err := g.Wait(); err != nil {
		w.Fatalf("all at once in the calm: %v", err)
	}
	w.wantWithinMax()
}

// sizeWanted is the size that is right for a pool.
func (w *world) sizeWanted(p *pool) int { return min(max(len(w.jobsOf(p))+p.Idle, p.Min), p.Max) }

// sizeOf is how many hosts a pool has.
func (w *world) sizeOf(p *pool) int {
	n := 0
	for _, r := range w.sim.Snapshot(p.scope) {
		if isPooled(r) && r.Online {
			n++
		}
	}
	return n
}

func (w *world) sizesRight() bool {
	return !slices.ContainsFunc(w.pools, func(p *pool) bool { return w.sizeOf(p) != w.sizeWanted(p) })
}

// longestResize is what a pool may take to get the size that it wants: the
// longest wait after hosts that did not come, and a step down for each host.
const longestResize = 90 * time.Minute

func (w *world) wantSizes(when string) {
	together := false
	for since := w.clock.now(); w.clock.now().Sub(since) < longestResize && !w.sizesRight(); {
		w.pass(cycle)
		w.compareAll()
		if !together {
			w.decideTogether()
			together = true
		}
		w.syncAll()
		w.handleCollected()
		for _, p := range w.pools {
			w.mustHandle(fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: p.Name, Source: fleet.SourceCron})
			for _, l := range w.requests(p) {
				w.provide(p, l)
			}
		}
		w.honestHosts()
		w.lapse(w.jobs.beatAge + 1)
		w.settle()
		w.wantWithinMax()
	}
	for _, p := range w.pools {
		if got, want := w.sizeOf(p), w.sizeWanted(p); got != want {
			state, err := w.ears.db.PoolState(w.ctx, p.Name)
			w.Fatalf("pool %s has %d hosts %s, and wants %d of at most %d; last decision: %+v, %s %v",
				p.Name, got, when, want, p.Max, state.Decision, state.Reason, err)
		}
	}
}
