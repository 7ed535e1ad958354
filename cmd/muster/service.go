package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/standalone"
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
	log     *slog.Logger
	first   *config // what it began with; what may change is in wiring
	load    func() (*config, error)
	up      func(endpoints)
	metrics *metrics
	wiring  atomic.Pointer[wiring]

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
				Enforce: func(target string) bool { return s.wiring.Load().enforces(target) },
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
	g.Go(func() error { return s.settle(ctx, remover, issuer) })
	g.Go(func() error { return began.watch(ctx) })
	g.Go(func() error {
		if err := s.awaitStreams(ctx, conn); err != nil {
			return err
		}
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

// begun is what the start left to be stopped at the end.
type begun struct {
	postgres             *standalone.Postgres
	nats                 *standalone.NATS
	record               *db.DB
	conn                 *queue.Conn
	databaseURL, natsURL string
	connectFile          string
}

// begin starts what is embedded and waits for what is not there yet. What it
// returns is to be stopped also with an error.
func (s *service) begin(ctx context.Context) (*begun, error) {
	c, b := s.first, &begun{}
	b.databaseURL, b.natsURL = c.databaseURL.Reveal(), c.nats.url.Reveal()
	var started connection
	if c.databaseURL.IsZero() || c.nats.url.IsZero() {
		if err := os.MkdirAll(c.dataDir, 0o711); err != nil {
			return b, usage("make data_dir %s: %w", c.dataDir, pathless(err))
		}
	}
	if c.databaseURL.IsZero() {
		var err error
		b.postgres, err = standalone.StartPostgres(ctx, standalone.PostgresConfig{
			DataDir: filepath.Join(c.dataDir, "postgres"), Port: c.embedded.postgresPort, Log: s.log,
		})
		if err != nil {
			return b, err
		}
		b.databaseURL = b.postgres.URL()
		started.databaseURL = fleet.NewSecret(b.databaseURL)
	}
	if c.nats.url.IsZero() {
		var err error
		b.nats, err = standalone.StartNATS(ctx, standalone.NATSConfig{
			Listen: c.embedded.natsListen, StoreDir: filepath.Join(c.dataDir, "nats"), Log: s.log,
		})
		if err != nil {
			return b, err
		}
		b.natsURL = b.nats.URL()
		started.natsURL = fleet.NewSecret(b.natsURL)
	}
	var err error
	if b.record, err = db.Open(ctx, b.databaseURL); err != nil {
		return b, usage("%w", err)
	}
	s.record.Store(b.record)
	if err := s.awaitRecord(ctx, b); err != nil {
		return b, err
	}
	nats := queue.Config{
		URL: b.natsURL, CredsFile: c.nats.credsFile, Name: "muster", Replicas: c.nats.replicas, Log: s.log,
	}
	if b.nats != nil {
		nats.InProcess = b.nats.Server()
	}
	if b.conn, err = queue.Connect(ctx, nats); err != nil {
		return b, usage("%w", err)
	}
	s.conn.Store(b.conn)
	if !started.databaseURL.IsZero() || !started.natsURL.IsZero() {
		if err := writeConnection(c.dataDir, started); err != nil {
			return b, err
		}
		b.connectFile = filepath.Join(c.dataDir, connectFile)
	}
	return b, nil
}

// awaitRecord waits until Postgres answers, migrates it where it is muster's
// own, and refuses a schema or targets that it cannot work with.
func (s *service) awaitRecord(ctx context.Context, b *begun) error {
	err := s.await(ctx, "waiting for Postgres", func(ctx context.Context) error {
		if b.postgres != nil {
			ran, err := db.Migrate(ctx, b.databaseURL)
			if err != nil {
				return err
			}
			if len(ran) > 0 {
				s.log.InfoContext(ctx, "schema migrated", "ran", ran)
				b.record.Reset() // connections made before could not take the role
			}
		}
		if err := b.record.CheckSchema(ctx); err != nil {
			return err
		}
		return checkIdentities(ctx, b.record, s.first)
	})
	if err == nil {
		s.usable.Store(true)
	}
	return err
}

// awaitStreams waits until NATS answers and has the streams.
func (s *service) awaitStreams(ctx context.Context, conn *queue.Conn) error {
	return s.await(ctx, "waiting for NATS", conn.EnsureStreams)
}

// await tries until it works, fails for good, or ctx ends. It says once that
// it waits, and for what.
func (s *service) await(ctx context.Context, message string, try func(context.Context) error) error {
	said := false
	for {
		err := try(ctx)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !errors.Is(err, fleet.ErrUnavailable) {
			return err
		}
		if !said {
			said = true
			s.log.WarnContext(ctx, message, "err", err)
		}
		pause := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}

// settle closes the open intents of processes that are gone, at once and every
// 15 s, until ctx ends.
func (s *service) settle(ctx context.Context, remover *remove.Remover, issuer *token.Issuer) error {
	failing := false
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		err := errors.Join(remover.Settle(ctx), issuer.Settle(ctx))
		if err != nil && !failing && ctx.Err() == nil {
			s.log.WarnContext(ctx, "open intents could not be settled, trying again", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watch ends the service when the Postgres that it started has ended.
func (b *begun) watch(ctx context.Context) error {
	if b.postgres == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-b.postgres.Done():
		return exit(exitUnreachable, "the Postgres that muster started has ended: see postgres.log in its data directory")
	}
}

// stop ends what was started, in the order that lets each say its last word.
func (b *begun) stop(log *slog.Logger) {
	if b.conn != nil {
		b.conn.Close()
	}
	if b.record != nil {
		b.record.Close()
	}
	if b.nats != nil {
		b.nats.Stop()
	}
	if b.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := b.postgres.Stop(ctx); err != nil {
			log.ErrorContext(ctx, "stop Postgres", "err", err)
		}
	}
	if b.connectFile != "" {
		if err := os.Remove(b.connectFile); err != nil {
			log.Warn("remove the connection file", "err", err)
		}
	}
}

// ready lists what is not as it should be.
func (s *service) ready(ctx context.Context) []web.Fault {
	var faults []web.Fault
	record, conn := s.record.Load(), s.conn.Load()
	add := func(detail bool, format string, args ...any) {
		faults = append(faults, web.Fault{Text: fmt.Sprintf(format, args...), Detail: detail})
	}
	switch {
	case record == nil:
		add(false, "postgres: not started yet")
	default:
		if err := record.Ping(ctx); err != nil {
			add(false, "postgres: %v", err)
		} else if !s.usable.Load() {
			add(false, "postgres: the schema is not ready yet")
		}
	}
	if conn == nil {
		add(false, "nats: not connected yet")
	} else if err := conn.Ready(); err != nil {
		add(false, "%v", err)
	}
	if record == nil || len(faults) > 0 {
		return faults
	}
	if !s.serving.Load() {
		add(false, "muster: still starting, no requests are taken yet")
	}
	if !record.WorksAsApp() {
		add(true, "postgres: working as %s, not as the role muster_app: the audit trail is protected by triggers alone", record.Role())
	}
	states, err := record.TargetStates(ctx)
	if err != nil {
		add(true, "targets: %v", err)
	}
	for _, t := range states {
		if t.CredentialFault != "" {
			add(true, "target %s: %s", t.Name, t.CredentialFault)
		}
	}
	halted, err := record.PolicyStates(ctx)
	if err != nil {
		add(true, "policies: %v", err)
	}
	for _, p := range halted {
		if p.Halted {
			add(true, "policy %s on %s is halted: %s", p.Policy, p.Target, p.Reason)
		}
	}
	return faults
}
