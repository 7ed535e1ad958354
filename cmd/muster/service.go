package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/internal/clock"
	"github.com/muster-fleet/muster/internal/web"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/scheduler"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/demand"
	"github.com/muster-fleet/muster/worker/enforce"
	"github.com/muster-fleet/muster/worker/housekeep"
	"github.com/muster-fleet/muster/worker/inventory"
	"github.com/muster-fleet/muster/worker/remove"
	"github.com/muster-fleet/muster/worker/scale"
	"github.com/muster-fleet/muster/worker/token"
)

// settleEvery is how often open intents of processes that are gone are looked
// for.
const settleEvery = 15 * time.Second

// service is muster serve: everything wired to everything.
type service struct {
	log   *slog.Logger
	first *config // what it began with; what may change is in wiring
	load  func() (*config, error)
	up    func(endpoints)
	// throwaway says that nobody wants the embedded Postgres's data after a
	// crash of the machine, so that it need not wait for the disk.
	throwaway bool
	metrics   *metrics
	pauses    *github.Pauses
	id        string // of this replica among others
	prober    *prober
	replicas  atomic.Int64 // that share GitHub's limits; 0: not known yet
	wiring    atomic.Pointer[wiring]
	refused   atomic.Pointer[string] // why the configuration in the file is not in force; nil: it is

	// Set while it starts, read by health checks from then on.
	record   atomic.Pointer[db.DB]
	standing atomic.Pointer[db.Standing] // what the login in use could do to the audit trail
	conn     atomic.Pointer[queue.Conn]
	usable   atomic.Bool // the schema is there and targets are who they were
	serving  atomic.Bool // triggers and requests for tokens are taken
	intake   atomic.Pointer[demand.Intake]

	refusals *demand.Refusals // deliveries that were turned away, not recorded yet
}

func newService(log *slog.Logger, c *config, load func() (*config, error)) (*service, error) {
	s := &service{log: log, first: c, load: load, metrics: newMetrics(), id: uuid.NewString(), refusals: &demand.Refusals{}}
	s.pauses = &github.Pauses{Record: pauseRecord{db: s.record.Load}}
	w, err := wire(c, nil, s.hearers())
	if err != nil {
		return nil, err
	}
	s.wiring.Store(w)
	s.prober = &prober{every: probeEvery, now: time.Now, probe: func(ctx context.Context) []web.Fault {
		return probeAll(ctx, s.record.Load(), s.conn.Load())
	}}
	s.metrics.limits.known = s.limits
	return s, nil
}

func (s *service) hearers() hearers {
	return hearers{
		call: s.metrics.githubCall, waited: s.metrics.githubWait, pauses: s.pauses, replicas: int(s.replicas.Load()),
	}
}

// run starts what is embedded, waits for what is not, and works until ctx
// ends. What it started is gone when it returns.
func (s *service) run(ctx context.Context, hangup <-chan os.Signal) error {
	for _, warning := range s.first.warnings {
		s.log.WarnContext(ctx, "configuration", "reason", warning)
	}
	listener, err := s.listener(ctx)
	if err != nil {
		return err
	}
	asked := ctx
	g, ctx := errgroup.WithContext(ctx)
	health := &web.Server{Log: s.log, Ready: s.ready, Metrics: s.metrics.handler(s.record.Load, func() []string { return s.wiring.Load().config.poolNames() }), Webhooks: s}
	g.Go(func() error { return health.Serve(ctx, listener) })
	g.Go(func() error { return s.work(ctx, hangup, listener.Addr().String()) })
	// The log tells when the stop began, and when it is over.
	said := context.AfterFunc(asked, func() { s.log.Info("stop asked for: finishing what has begun") })
	err = g.Wait()
	said()
	if asked.Err() != nil {
		s.log.Info("muster has stopped")
	}
	if errors.Is(err, context.Canceled) {
		return nil // the stop that was asked for
	}
	return err
}

// work is run without its health checks.
func (s *service) work(ctx context.Context, hangup <-chan os.Signal, http string) error {
	began, err := s.begin(ctx)
	// What was started before an error is stopped all the same.
	defer began.stop(s.log)
	if err != nil {
		return err
	}
	if err := s.await(ctx, "waiting for Postgres", s.join); err != nil {
		return err
	}
	defer s.leave(ctx)
	g, ctx := errgroup.WithContext(ctx)
	record, conn := began.record, began.conn
	now := record.Now
	watch := &clock.Watch{Log: s.log, Record: db.Clock{DB: record}}

	remover := &remove.Remover{
		Log: s.log, DB: record, Now: now, Hosts: conn, Observe: s.metrics.action,
		Steady: func(ctx context.Context) error {
			_, err := watch.Sure(ctx)
			return err
		},
		Targets: func() map[string]remove.Target { return s.wired().remove },
	}
	issuer := &token.Issuer{
		Log: s.log, DB: record, Conn: conn, Now: now, Observe: s.metrics.token,
		Targets:          func() map[string]token.Target { return s.wired().token },
		Grants:           func() []token.Grant { return s.wiring.Load().grants },
		AllowSharedInbox: s.first.nats.allowSharedInbox,
		Ready: func() {
			s.serving.Store(true)
			s.log.InfoContext(ctx, "muster is up", "host", http, "role", record.Role())
			if s.up != nil {
				at := endpoints{databaseURL: began.databaseURL, natsURL: began.natsURL, http: http}
				if began.postgres != nil {
					at.postgresDir = began.postgres.Dir()
				}
				s.up(at)
			}
		},
	}
	intake := &demand.Intake{
		Log: s.log, DB: record, Conn: conn, Now: now, Observe: s.metrics.event, Refusals: s.refusals,
		Targets: func() map[string]demand.Target { return s.wiring.Load().demand },
		Pools: func(target string, labels []string, most int) []string {
			return s.wiring.Load().matcher.Pools(target, labels, most)
		},
	}
	s.intake.Store(intake)
	reconciler := &demand.Reconciler{
		Intake: intake, Targets: func() map[string]demand.Compared { return s.wired().compared },
	}
	listener := &demand.Listener{Log: s.log, DB: record, Conn: conn, Now: now, Observe: s.metrics.heartbeats}
	engine := &worker.Engine{
		Log: s.log, Conn: conn, Recorder: db.Runs{DB: record}, Observe: s.metrics.trigger,
		// Some twelve minutes until a trigger is given up: an outage of an hour
		// leaves a handful of dead letters, not one per tick.
		BackoffBase: 2 * time.Second, MaxAttempts: 12,
		Names: func(job fleet.Job) []string { return s.wiring.Load().names(job) },
		Handlers: map[fleet.Job]worker.Handler{
			fleet.JobSync: &inventory.Syncer{
				Log: s.log, DB: record, Now: now, Observe: s.metrics.sync,
				Targets: func() map[string]inventory.Target { return s.wired().inventory },
				Enforce: func(target string) bool { return s.wiring.Load().config.covered(target) },
				Pools:   func(target string) []string { return scale.Of(s.wiring.Load().config.pools, target) },
			},
			fleet.JobEnforce: &enforce.Enforcer{
				Log: s.log, DB: record, Now: now, Remover: remover, Observe: s.metrics.policy,
				Policies: func() []*policies.Policy { return s.wiring.Load().config.policies },
			},
			fleet.JobScale: &scale.Scaler{
				Log: s.log, DB: record, Now: now, Remover: remover,
				Pools: func() []*policies.Pool { return s.wiring.Load().config.pools },
			},
			fleet.JobHousekeep: &housekeep.Housekeeper{
				Log: s.log, DB: record, Now: sure(watch),
				Keep:  func() time.Duration { return s.wiring.Load().config.retain },
				Pools: func() []string { return s.wiring.Load().names(fleet.JobScale) },
			},
		},
	}
	ticking := &scheduler.Scheduler{Log: s.log, Store: db.Ticks{DB: record}, Observe: s.metrics.tick}
	relay := &queue.Relay{Log: s.log, Conn: conn, Outbox: db.Outbox{DB: record}}
	reload := newLive(s.log, s.first, s.load, func(ctx context.Context, next *config) error {
		return s.takeOver(ctx, record, next)
	})
	reload.told = func(ctx context.Context, err error) { s.reloaded(ctx, record, err) }

	g.Go(func() error { return watch.Run(ctx) })
	g.Go(func() error { return relay.Run(ctx) })
	g.Go(func() error {
		return ticking.Run(ctx, func() []scheduler.Schedule { return s.wiring.Load().schedules() }, reload.changed)
	})
	g.Go(func() error { return reload.run(ctx, hangup) })
	g.Go(func() error { return s.settle(ctx, remover, issuer, db.Runs{DB: record}) })
	g.Go(func() error { return s.shareLimits(ctx) })
	g.Go(func() error { return intake.Run(ctx) })
	g.Go(func() error { return reconciler.Run(ctx) })
	g.Go(func() error { return began.watch(ctx) })
	g.Go(func() error {
		if err := s.awaitStreams(ctx, conn); err != nil {
			if errors.Is(err, queue.ErrUnsafe) {
				issuer.ExposedSoFar(context.WithoutCancel(ctx))
			}
			return err
		}
		g.Go(func() error { return conn.Guard(ctx) })
		g.Go(func() error { return engine.Run(ctx) })
		g.Go(func() error { return intake.Consume(ctx) })
		g.Go(func() error { return listener.Serve(ctx) })
		return issuer.Serve(ctx)
	})
	return g.Wait()
}

// sure reads the watched clock for jobs that cannot be undone. While it is in
// doubt the job comes again when it may be believed.
func sure(watch *clock.Watch) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (time.Time, error) {
		now, err := watch.Sure(ctx)
		var doubt *clock.InDoubt
		if errors.As(err, &doubt) {
			return now, worker.RetryAfter(doubt.Left+time.Second, err)
		}
		return now, err
	}
}

// Check begins to check the signature of a webhook's delivery. It needs nothing but
// the configuration.
func (s *service) Check(ctx context.Context, signature string) fleet.SignatureCheck {
	return demand.CheckSignature(ctx, s.wiring.Load().demand, signature, func(o demand.Outcome) { s.metrics.event("", demand.ViaWebhook, o) })
}

// Take takes in a webhook's delivery, once there is something to record it with.
func (s *service) Take(ctx context.Context, d fleet.Delivery, targets []string) error {
	intake := s.intake.Load()
	if intake == nil {
		err := fmt.Errorf("take in a webhook: muster is still starting: %w", fleet.ErrUnavailable)
		s.Refuse(ctx, d, targets, err.Error())
		return err
	}
	return intake.Take(ctx, d, targets)
}

// Refuse notes that a webhook's delivery was turned away. Until there is a record,
// it is kept in memory.
func (s *service) Refuse(ctx context.Context, d fleet.Delivery, targets []string, why string) {
	intake := s.intake.Load()
	if intake != nil {
		intake.Refuse(ctx, d, targets, why)
		return
	}
	if len(targets) == 0 {
		targets = demand.Hooked(s.wiring.Load().demand)
	}
	if d.TellsOfJobs() {
		s.refusals.Add(targets, d.ID, why)
	}
}

// wired is the wiring in force, once it has been seen to that targets whose
// files no longer hold the same token do not share a client.
func (s *service) wired() *wiring {
	w := s.wiring.Load()
	if !parted(w.config.targets, w.clients) {
		return w
	}
	next, err := wire(w.config, w, s.hearers())
	if err != nil {
		s.log.Error("give targets clients of their own", "err", err)
		return w
	}
	s.wiring.CompareAndSwap(w, next) // a reload in between has seen to it too
	return s.wiring.Load()
}

// takeOver prepares a new configuration and puts it into force.
func (s *service) takeOver(ctx context.Context, record *db.DB, next *config) error {
	if err := checkIdentities(ctx, record, next); err != nil {
		return err
	}
	w, err := wire(next, s.wiring.Load(), s.hearers())
	if err != nil {
		return err
	}
	s.wiring.Store(w)
	return nil
}

// settle closes the open intents of processes that are gone, and publishes the
// triggers again that NATS has lost, at once and every 15 s, until ctx ends.
func (s *service) settle(ctx context.Context, remover *remove.Remover, issuer *token.Issuer, runs db.Runs) error {
	failing := false
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		again, err := runs.Requeue(ctx)
		if again > 0 {
			s.log.WarnContext(ctx, "queued triggers published again", "counts", again)
		}
		err = errors.Join(remover.Settle(ctx), issuer.Settle(ctx), err)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.WarnContext(ctx, "what is open could not be settled, trying again", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
