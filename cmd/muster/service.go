package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/web"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/scheduler"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/enforce"
	"github.com/muster-fleet/muster/worker/housekeep"
	"github.com/muster-fleet/muster/worker/inventory"
	"github.com/muster-fleet/muster/worker/remove"
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
	wiring    atomic.Pointer[wiring]

	// Set while it starts, read by health checks from then on.
	record  atomic.Pointer[db.DB]
	conn    atomic.Pointer[queue.Conn]
	usable  atomic.Bool // the schema is there and targets are who they were
	serving atomic.Bool // triggers and requests for tokens are taken
}

func newService(log *slog.Logger, c *config, load func() (*config, error)) (*service, error) {
	s := &service{log: log, first: c, load: load, metrics: newMetrics()}
	w, err := wire(c, s.metrics.githubCall)
	if err != nil {
		return nil, err
	}
	s.wiring.Store(w)
	return s, nil
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
	g, ctx := errgroup.WithContext(ctx)
	health := &web.Server{Log: s.log, Ready: s.ready, Metrics: s.metrics.handler(s.record.Load)}
	g.Go(func() error { return health.Serve(ctx, listener) })
	g.Go(func() error { return s.work(ctx, hangup, listener.Addr().String()) })
	err = g.Wait()
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
	g, ctx := errgroup.WithContext(ctx)
	record, conn := began.record, began.conn
	now := record.Now

	remover := &remove.Remover{
		Log: s.log, DB: record, Now: now, Observe: s.metrics.action,
		Targets: func() map[string]remove.Target { return s.wiring.Load().remove },
	}
	issuer := &token.Issuer{
		Log: s.log, DB: record, Conn: conn, Now: now, Observe: s.metrics.token,
		Targets:          func() map[string]token.Target { return s.wiring.Load().token },
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
	engine := &worker.Engine{
		Log: s.log, Conn: conn, Recorder: db.Runs{DB: record}, Observe: s.metrics.trigger,
		// Some twelve minutes until a trigger is given up: an outage of an hour
		// leaves a handful of dead letters, not one per tick.
		BackoffBase: 2 * time.Second, MaxAttempts: 12,
		Names: func(job fleet.Job) []string { return s.wiring.Load().names(job) },
		Handlers: map[fleet.Job]worker.Handler{
			fleet.JobSync: &inventory.Syncer{
				Log: s.log, DB: record, Now: now, Observe: s.metrics.sync,
				Targets: func() map[string]inventory.Target { return s.wiring.Load().inventory },
				Enforce: func(target string) bool { return s.wiring.Load().config.covered(target) },
			},
			fleet.JobEnforce: &enforce.Enforcer{
				Log: s.log, DB: record, Now: now, Remover: remover, Observe: s.metrics.policy,
				Policies: func() []*policies.Policy { return s.wiring.Load().config.policies },
			},
			fleet.JobHousekeep: &housekeep.Housekeeper{
				Log: s.log, DB: record, Now: now,
				Keep: func() time.Duration { return s.wiring.Load().config.retain },
			},
		},
	}
	ticking := &scheduler.Scheduler{Log: s.log, Store: db.Ticks{DB: record}, Observe: s.metrics.tick}
	relay := &queue.Relay{Log: s.log, Conn: conn, Outbox: db.Outbox{DB: record}}
	reload := newLive(s.log, s.first, s.load, func(ctx context.Context, next *config) error {
		return s.takeOver(ctx, record, next)
	})

	g.Go(func() error { return relay.Run(ctx) })
	g.Go(func() error {
		return ticking.Run(ctx, func() []scheduler.Schedule { return s.wiring.Load().schedules() }, reload.changed)
	})
	g.Go(func() error { return reload.run(ctx, hangup) })
	g.Go(func() error { return s.settle(ctx, remover, issuer, db.Runs{DB: record}) })
	g.Go(func() error { return began.watch(ctx) })
	g.Go(func() error {
		if err := s.awaitStreams(ctx, conn); err != nil {
			return err
		}
		g.Go(func() error { return conn.Guard(ctx) })
		g.Go(func() error { return engine.Run(ctx) })
		return issuer.Serve(ctx)
	})
	return g.Wait()
}

// takeOver prepares a new configuration and puts it into force.
func (s *service) takeOver(ctx context.Context, record *db.DB, next *config) error {
	if err := checkIdentities(ctx, record, next); err != nil {
		return err
	}
	w, err := wire(next, s.metrics.githubCall)
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
