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

// migrationLock keeps migrations of one database apart. The number is that of
// tern, so that programs before this one are kept apart too.
const migrationLock = int64(9628173550095224)

// Migrate brings the schema up to date and names what it ran, which is all of
// it or, after an error, nothing: the migrations run in one transaction, which
// works through a pooler too. Its lock keeps replicas from racing. The URL must
// be that of a role that may create schemas.
func Migrate(ctx context.Context, url string) ([]string, error) {
	// Without a connection tern reads and numbers the files, and no more: it
	// takes a lock of the session, which a pooler may give to somebody else.
	files, err := migrate.NewMigrator(ctx, nil, versionTable)
	if err == nil {
		err = files.LoadMigrations(migrations.FS)
	}
	if err != nil {
		return nil, fmt.Errorf("read embedded migrations: %w", err)
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("migrate_url is not a Postgres URL or key=value string") // pgx would repeat it
	}
	conn, err := connectAlone(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is left to lose
	var ran []string
	err = pgx.BeginTxFunc(ctx, conn, aloneTx(cfg), func(tx pgx.Tx) error {
		ran, err = migrateIn(ctx, tx, files.Migrations)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("migrate the schema: %w", translate(err))
	}
	return ran, nil
}

// migrateIn runs the migrations that are missing.
func migrateIn(ctx context.Context, tx pgx.Tx, all []*migrate.Migration) ([]string, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, migrationLock); err != nil {
		return nil, err
	}
	have, err := schemaVersion(ctx, tx)
	if err != nil {
		return nil, err
	}
	if have == nil {
		_, err := tx.Exec(ctx, `
			CREATE TABLE IF NOT EXISTS `+versionTable+` (version int4 NOT NULL);
			INSERT INTO `+versionTable+` VALUES (0)`)
		if err != nil {
			return nil, err
		}
		have = new(int)
	}
	if err := (SchemaStatus{Have: *have, Want: len(all)}).Newer(); err != nil {
		return nil, err
	}
	var ran []string
	for _, m := range all[*have:] {
		if _, err := tx.Exec(ctx, m.UpSQL); err != nil {
			return ran, fmt.Errorf("%s: %w", m.Name, err)
		}
		if _, err := tx.Exec(ctx, `UPDATE `+versionTable+` SET version = $1`, m.Sequence); err != nil {
			return ran, err
		}
		ran = append(ran, m.Name)
	}
	return ran, nil
}

// schemaVersion is the number of the newest migration that has run; nil: there
// is nothing of muster yet.
func schemaVersion(ctx context.Context, q querier) (*int, error) {
	var exists bool
	err := q.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, versionTable).Scan(&exists)
	if err != nil || !exists {
		return nil, err
	}
	var have int
	err = q.QueryRow(ctx, `SELECT version FROM `+versionTable).Scan(&have)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &have, err
}

// Status compares the schema with what this program needs. It changes nothing.
func (db *DB) Status(ctx context.Context) (SchemaStatus, error) {
	files, err := migrations.FS.ReadDir(".")
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("read embedded migrations: %w", err)
	}
	s := SchemaStatus{Want: len(files)}
	have, err := schemaVersion(ctx, db.pool)
	if err != nil {
		return SchemaStatus{}, fmt.Errorf("read the schema's version: %w", translate(err))
	}
	if have != nil {
		s.Have = *have
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
