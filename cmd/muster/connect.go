package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// reachLimit is how long a command tries to reach Postgres or NATS.
const reachLimit = 5 * time.Second

// Where the addresses may stand.
const (
	postgresKeys = "database_url or MUSTER_DATABASE_URL"
	natsKeys     = "nats.url or MUSTER_NATS_URL"
)

// connectFile, in the data directory, holds the addresses of what a muster
// serve has started.
const connectFile = "connect.env"

// connection is what connectFile says.
type connection struct{ databaseURL, natsURL fleet.Secret }

// writeConnection writes connectFile for its owner alone. A shell that sources
// it hands the addresses, with their logins, to the programs that it starts.
func writeConnection(dataDir string, c connection) error {
	path := filepath.Join(dataDir, connectFile)
	var text strings.Builder
	for _, v := range []struct {
		name  string
		value fleet.Secret
	}{{"MUSTER_DATABASE_URL", c.databaseURL}, {"MUSTER_NATS_URL", c.natsURL}} {
		if v.value.IsZero() {
			continue
		}
		value := v.value.Reveal()
		if strings.ContainsAny(value, " &;|<>()$`\\\"'*#~!{}[]") {
			value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		}
		fmt.Fprintf(&text, "export %s=%s\n", v.name, value)
	}
	f, err := os.CreateTemp(dataDir, connectFile+".*") // for its owner alone
	if err != nil {
		return fmt.Errorf("write %s: %w", path, pathless(err))
	}
	_, err = f.WriteString(text.String())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error at hand says more
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readConnection reads connectFile. Where there is none, no muster serve runs
// that has started anything, and the error is fleet.ErrUnavailable.
func readConnection(dataDir string) (connection, error) {
	path := filepath.Join(dataDir, connectFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return connection{}, noConnection{path}
	}
	if err != nil {
		return connection{}, fmt.Errorf("read %s: %w", path, pathless(err))
	}
	var c connection
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if !ok {
			continue
		}
		if strings.HasPrefix(value, "'") {
			value = strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(value, "'"), "'"), `'\''`, "'")
		}
		switch name {
		case "MUSTER_DATABASE_URL":
			c.databaseURL = fleet.NewSecret(value)
		case "MUSTER_NATS_URL":
			c.natsURL = fleet.NewSecret(value)
		}
	}
	return c, nil
}

// noConnection says that there is no connectFile at a path.
type noConnection struct{ path string }

func (e noConnection) Error() string { return "there is no " + e.path }
func (e noConnection) Unwrap() error { return fleet.ErrUnavailable }

// databaseURL is the configured one, or that of a running muster serve.
func databaseURL(c *config) (fleet.Secret, error) {
	if !c.databaseURL.IsZero() {
		return c.databaseURL, nil
	}
	found, err := readConnection(c.dataDir)
	if err != nil || found.databaseURL.IsZero() {
		return fleet.Secret{}, noService("Postgres", postgresKeys, err)
	}
	return found.databaseURL, nil
}

func noService(what, keys string, why error) error {
	const none = "find %s: none is configured and no muster serve of yours "
	if why == nil {
		return exit(exitUnreachable, none+"has started one: start muster serve, or set %s", what, keys)
	}
	return exit(exitUnreachable, none+"is running (%w): start muster serve, or set %s", what, why, keys)
}

// openDB opens the record and makes sure that it answers and has the schema
// that this program needs. The caller closes it.
func openDB(ctx context.Context, c *config) (*db.DB, error) {
	url, err := databaseURL(c)
	if err != nil {
		return nil, err
	}
	store, err := db.Open(ctx, url.Reveal())
	if err != nil {
		return nil, usage("%w", err)
	}
	limited, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	if err := store.Ping(limited); err != nil {
		store.Close()
		return nil, unreached(ctx, postgresKeys, err)
	}
	if err := store.CheckSchema(limited); err != nil {
		store.Close()
		return nil, err
	}
	return store, nil
}

// withRecord runs a command that wants the configuration and the record.
func (a *app) withRecord(ctx context.Context, do func(*config, *db.DB) error) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	return onRecord(ctx, c, func(store *db.DB) error { return do(c, store) })
}

// onRecord opens the record for as long as do runs.
func onRecord(ctx context.Context, c *config, do func(*db.DB) error) error {
	store, err := openDB(ctx, c)
	if err != nil {
		return err
	}
	defer store.Close()
	return do(store)
}

// unreached is a fault on the way to a server: that it is away, unless the
// caller himself has given up.
func unreached(ctx context.Context, keys string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return exit(exitUnreachable, "%w: %s", err, addressMend(keys))
}

// addressMend is what to look at where a server does not answer; keys are where
// its address may stand.
func addressMend(keys string) string {
	return "is it running, and is its address (" + keys + ") right?"
}

// connectNATS connects to NATS and makes sure that it answers. The caller
// closes the connection. inbox is where answers arrive; empty: the usual
// place.
func connectNATS(ctx context.Context, c *config, inbox string) (*queue.Conn, error) {
	conn, err := openNATS(ctx, c, inbox)
	if err != nil {
		return nil, err
	}
	if err := conn.Reached(); err != nil {
		conn.Close()
		return nil, unreached(ctx, natsKeys, err)
	}
	return conn, nil
}

// openNATS is connectNATS for somebody who finds out himself whether it answers.
func openNATS(ctx context.Context, c *config, inbox string) (*queue.Conn, error) {
	url := c.nats.url
	if url.IsZero() {
		found, err := readConnection(c.dataDir)
		if err != nil || found.natsURL.IsZero() {
			return nil, noService("NATS", natsKeys, err)
		}
		url = found.natsURL
	}
	limited, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	conn, err := queue.Connect(limited, queue.Config{
		URL: url.Reveal(), CredsFile: c.nats.credsFile, Name: "muster", Replicas: c.nats.replicas,
		InboxPrefix: inbox, Log: slog.New(slog.DiscardHandler), // what is wrong comes back as an error
	})
	if err != nil {
		return nil, usage("%w", err)
	}
	return conn, nil
}
