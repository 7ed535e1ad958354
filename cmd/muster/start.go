package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/standalone"
	"github.com/muster-fleet/muster/queue"
)

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
			DataDir: filepath.Join(c.dataDir, "postgres"), Port: c.embedded.postgresPort, Fast: s.throwaway, Log: s.log,
		})
		if err != nil {
			return b, err
		}
		b.databaseURL = b.postgres.URL()
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
	if b.postgres != nil {
		// Commands get the login of the service: the superuser's stays here.
		if b.databaseURL, err = b.record.URL(); err != nil {
			return b, err
		}
		started.databaseURL = fleet.NewSecret(b.databaseURL)
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
		if err := s.secure(ctx, b); err != nil {
			return err
		}
		return checkIdentities(ctx, b.record, s.first)
	})
	if err == nil {
		s.usable.Store(true)
	}
	return err
}

// secure gives up what the login of the URL could do to the audit trail. Where
// that is not possible, /readyz and doctor say so; with a Postgres of muster's
// own it always is.
func (s *service) secure(ctx context.Context, b *begun) error {
	standing, err := b.record.Secure(ctx, true)
	if err != nil {
		return err
	}
	if b.postgres != nil && !standing.Safe() {
		return exit(exitFailed, "the service cannot give up the superuser of its own Postgres: %s", standing.Why)
	}
	s.standing.Store(&standing)
	return nil
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
