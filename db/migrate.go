package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/migrations"
)

// versionTable holds the number of the newest migration that has run. It lies
// in the public schema because the first migration makes the others.
const versionTable = "public.muster_schema_version"

// SchemaStatus says how far the schema is.
type SchemaStatus struct {
	Have, Want int
	// Missing names the migrations that have not run, in order.
	Missing []string
}

// Migrate brings the schema up to date and names what it ran. It holds tern's
// advisory lock, so that replicas do not race. The URL must be that of a role
// that may create schemas.
func Migrate(ctx context.Context, url string) ([]string, error) {
	m, conn, err := migrator(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is left to lose
	var ran []string
	m.OnStart = func(_ int32, name, _, _ string) { ran = append(ran, name) }
	if err := m.Migrate(ctx); err != nil {
		return ran, fmt.Errorf("migrate the schema: %w", translate(err))
	}
	return ran, nil
}

func migrator(ctx context.Context, url string) (*migrate.Migrator, *pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, nil, errors.New("migrate_url is not a Postgres URL or key=value string") // pgx would repeat it
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectLimit
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("reach Postgres: %w", translate(err))
	}
	m, err := migrate.NewMigrator(ctx, conn, versionTable)
	if err == nil {
		err = m.LoadMigrations(migrations.FS)
	}
	if err != nil {
		_ = conn.Close(ctx) // the error at hand says more
		return nil, nil, fmt.Errorf("prepare migrations: %w", translate(err))
	}
	return m, conn, nil
}

// Status compares the schema with what this program needs. It changes nothing.
func (db *DB) Status(ctx context.Context) (SchemaStatus, error) {
	files, err := migrations.FS.ReadDir(".")
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("read embedded migrations: %w", err)
	}
	s := SchemaStatus{Want: len(files)}
	var exists bool
	err = db.pool.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, versionTable).Scan(&exists)
	if err == nil && exists {
		err = db.pool.QueryRow(ctx, `SELECT version FROM public.muster_schema_version`).Scan(&s.Have)
		if errors.Is(err, pgx.ErrNoRows) {
			err = nil
		}
	}
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("read the schema's version: %w", translate(err))
	}
	for i, f := range files {
		if i >= s.Have {
			s.Missing = append(s.Missing, f.Name())
		}
	}
	return s, nil
}

// CheckSchema is nil where the schema is one that this program can work with.
func (db *DB) CheckSchema(ctx context.Context) error {
	s, err := db.Status(ctx)
	switch {
	case err != nil:
		return err
	case len(s.Missing) > 0:
		return &SchemaError{Status: s}
	}
	return nil
}

// Newer is an error where a newer program has migrated the schema: this one does
// not know what has changed.
func (s SchemaStatus) Newer() error {
	if s.Have <= s.Want {
		return nil
	}
	return fmt.Errorf("the schema is newer than this program: it has migration %d, the program knows %d: run the version that migrated it: %w",
		s.Have, s.Want, fleet.ErrConflict)
}

// SchemaError says that migrations are missing.
type SchemaError struct{ Status SchemaStatus }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("the database lacks migration %s (it has %d of %d): run muster migrate up",
		e.Status.Missing[0], e.Status.Have, e.Status.Want)
}

// Is makes a missing schema a conflict: waiting does not help.
func (e *SchemaError) Is(target error) bool { return target == fleet.ErrConflict }
