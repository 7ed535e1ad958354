package storm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/internal/clock"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/demand"
	"github.com/muster-fleet/muster/worker/enforce"
	"github.com/muster-fleet/muster/worker/inventory"
	"github.com/muster-fleet/muster/worker/remove"
	"github.com/muster-fleet/muster/worker/scale"
)

// lease is how long a run is its replica's alone, by Postgres's clock.
const lease = 30 * time.Second

// replica is one process: what cmd/muster wires, without its triggers' NATS.
type replica struct {
	name       string
	log        *slog.Logger
	credential string
	ctx        context.Context
	stop       context.CancelFunc // as a signal does
	dead       atomic.Bool

	db       *db.DB
	github   *github.Client
	pauses   *github.Pauses
	watch    *clock.Watch
	lookAt   time.Duration // when it looks at the clock next, by elapsed time
	account  string        // of its credential
	asked    time.Time     // what the others were told
	runs     db.Runs
	remover  *remove.Remover
	comparer *demand.Reconciler // in lives with comparisons of workflow jobs
	handlers map[fleet.Job]worker.Handler
}

func (r *replica) String() string { return "replica " + r.name }

// boot starts the replica at place i, in place of the one that was there.
func (w *world) boot(i int) {
	w.boots++
	r := &replica{name: fmt.Sprintf("%d.%d", i, w.boots), log: slog.New(slog.DiscardHandler), credential: "ghp_shared"}
	if !w.shared {
		r.credential = fmt.Sprintf("ghp_replica%d", i)
	}
	r.ctx, r.stop = context.WithCancel(w.ctx)
	var err error
	r.db, err = db.Open(w.ctx, w.record.url)
	w.ok(err)
	r.watch = w.watch(r.db)
	r.account = fmt.Sprintf("storm%d %s", w.life, r.credential)
	r.pauses = &github.Pauses{Record: pauseRecord{db.Pauses{DB: r.db}, w.clock}, Clock: w.clock.now}
	client, err := github.New(github.Config{
		APIURL: w.api, UserAgent: "muster/storm", Now: w.clock.now, Sleep: w.sleep,
		Token: func(context.Context) (fleet.Secret, error) {
			if r.dead.Load() {
				return fleet.Secret{}, errDead
			}
			return fleet.NewSecret(r.credential), nil
		},
		OnPause: func(until time.Time, reason string) { w.told(r, until, reason) },
	})
	w.ok(err)
	r.github = client
	w.ok(w.refresh(r))
	lists, deletes := map[string]inventory.Target{}, map[string]remove.Target{}
	for _, t := range w.targets {
		lists[t.Name] = inventory.Target{Target: t.Target, GitHub: client}
		deletes[t.Name] = remove.Target{Target: t.Target, GitHub: client}
	}
	log := r.log
	all := w.reap.all
	r.runs = db.Runs{DB: r.db}
	r.remover = &remove.Remover{
		Log: log, DB: r.db, Now: w.clock.tell, Steady: r.steady, Targets: func() map[string]remove.Target { return deletes },
	}
	if w.wires != nil {
		r.remover.Hosts = w.wires
	}
	r.handlers = map[fleet.Job]worker.Handler{
		fleet.JobSync: &inventory.Syncer{
			Log: log, DB: r.db, Now: w.clock.tell, Targets: func() map[string]inventory.Target { return lists },
			Enforce: w.reap.policy.Covers, Pools: w.poolsOf,
		},
		fleet.JobEnforce: &enforce.Enforcer{
			Log: log, DB: r.db, Now: w.clock.tell, Remover: r.remover, Policies: func() []*policies.Policy { return all },
		},
	}
	if len(w.pools) > 0 {
		pools := w.checkedPools()
		r.handlers[fleet.JobScale] = &scale.Scaler{
			Log: log, DB: r.db, Now: w.clock.tell, Remover: r.remover, Pools: func() []*policies.Pool { return pools },
		}
	}
	if w.jobs != nil && w.jobs.compares {
		r.comparer = w.comparer(r, w.signedNow())
	}
	w.replicas[i] = r
	w.look()
	w.tell("%v starts", r)
}

var (
	errDead      = errors.New("this process is dead")
	errElsewhere = errors.New("another replica is at it")
)

// crash ends the process as a kill does: nothing more is asked of GitHub, and
// nothing written.
func (r *replica) crash() {
	r.dead.Store(true)
	r.stop()
	r.db.Close()
}

// delivery is what became of one: whether the trigger need not come again, and
// else the pause until it may.
type delivery struct {
	done  bool
	pause time.Duration
	err   error
}

// handle is a delivery of a trigger, as the engine does it.
func (r *replica) handle(t fleet.Trigger) delivery {
	begun, err := r.runs.Begin(r.ctx, t, lease)
	switch {
	case err != nil:
		return delivery{err: err}
	case begun.Disposition == fleet.DispositionFinished, begun.Disposition == fleet.DispositionJoined:
		return delivery{done: true}
	case begun.Disposition != fleet.DispositionStarted:
		return delivery{err: errElsewhere}
	}
	run := begun.Run
	_, err = r.handlers[t.Job].Handle(r.ctx, run.Trigger)
	run.State = fleet.RunDone
	if err != nil {
		run.State, run.Error = fleet.RunFailed, err.Error()
	}
	finish := r.runs.Finish
	if err != nil && r.ctx.Err() != nil {
		finish = r.runs.GiveBack
	}
	if ferr := finish(context.WithoutCancel(r.ctx), run); ferr != nil {
		return delivery{err: errors.Join(err, ferr)} // it is dead, and the trigger comes again
	}
	d := delivery{done: err == nil, err: err}
	var refused *github.Error
	if errors.As(err, &refused) {
		d.pause = refused.Wait
	}
	return d
}
