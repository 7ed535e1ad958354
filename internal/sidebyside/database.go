package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
)

// server is the Postgres that all contenders use.
type server struct {
	url      *url.URL // as its superuser
	conn     *pgx.Conn
	template string // name of a migrated database
	made     int    // databases, which count up
}

// openServer prepares a database with the newest schema, to be cloned.
func openServer(ctx context.Context, address string) (*server, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the server's URL cannot be read") // its text may hold a password
	}
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("reach Postgres: %w", err)
	}
	s := &server{url: u, conn: conn, template: fmt.Sprintf("sidebyside_%d", os.Getpid())}
	err = s.exec(ctx, `CREATE DATABASE `+quote(s.template))
	if err == nil {
		_, err = db.Migrate(ctx, s.in(s.template))
	}
	if err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

// close drops what openServer has made.
func (s *server) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	err := s.exec(ctx, `DROP DATABASE IF EXISTS `+quote(s.template)+` (FORCE)`)
	_ = s.conn.Close(ctx) // the server ends the session in any case
	return err
}

// stopLimit is how long clearing up may take.
const stopLimit = 10 * time.Second

func (s *server) exec(ctx context.Context, sql string) error {
	if _, err := s.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func quote(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }

// in is the URL of another database of the server.
func (s *server) in(database string) string {
	u := *s.url
	u.Path = "/" + database
	return u.String()
}

// database is one that nothing has been synced into yet.
type database struct {
	server *server
	name   string
	url    string
	conn   *pgx.Conn
}

func (s *server) fresh(ctx context.Context) (*database, error) {
	s.made++
	name := fmt.Sprintf("%s_%d", s.template, s.made)
	if err := s.exec(ctx, `CREATE DATABASE `+quote(name)+` TEMPLATE `+quote(s.template)); err != nil {
		return nil, err
	}
	d := &database{server: s, name: name, url: s.in(name)}
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reach Postgres: %w", err), d.drop(ctx))
	}
	d.conn = conn
	if _, err := d.conn.Exec(ctx, shellTables); err != nil {
		return nil, errors.Join(err, d.drop(ctx))
	}
	return d, nil
}

// drop removes the database, even where ctx has ended.
func (d *database) drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if d.conn != nil {
		_ = d.conn.Close(ctx) // the server ends the session in any case
	}
	return d.server.exec(ctx, `DROP DATABASE `+quote(d.name)+` (FORCE)`)
}

// settle does to the tables what autovacuum does within a minute, at a moment
// when nobody measures.
func (d *database) settle(ctx context.Context) error {
	_, err := d.conn.Exec(ctx, `VACUUM (ANALYZE) muster.runner, muster.page, muster.runner_history, muster.outbox, shell_plain, shell_tuned`)
	return err
}

// mark is a moment in the life of the server.
type mark struct {
	lsn  string // end of the write-ahead log
	next int64  // the next transaction's number
}

func (d *database) mark(ctx context.Context) (mark, error) {
	var m mark
	err := d.conn.QueryRow(ctx, `
		SELECT pg_current_wal_insert_lsn()::text, (pg_snapshot_xmax(pg_current_snapshot())::text::bigint % (1::bigint << 32))`).Scan(&m.lsn, &m.next)
	return m, err
}

// since adds what was written since then: WAL bytes of the whole server, and
// rows of the table.
func (d *database) since(ctx context.Context, m mark, table string, f *figures) error {
	// Bytes first: counting may write to the log too.
	if err := d.conn.QueryRow(ctx, `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::bigint`, m.lsn).Scan(&f.WALBytes); err != nil {
		return err
	}
	return d.conn.QueryRow(ctx, `SELECT count(*) FROM `+table+` WHERE xmin::text::bigint >= $1`, m.next).Scan(&f.Rows)
}

// wrong counts the runners that the table shows otherwise than muster's does.
func (d *database) wrong(ctx context.Context, table string, runners int) (int, error) {
	var n int
	err := d.conn.QueryRow(ctx, `
		SELECT count(*)
		FROM (SELECT runner_id, name, os, status, busy, labels FROM muster.runner WHERE target = $1) r
		FULL JOIN `+table+` s ON s.id = r.runner_id
		WHERE (s.name, s.os, s.status, s.busy, s.labels) IS DISTINCT FROM (r.name, r.os, r.status, r.busy, r.labels)`,
		org(runners).Owner).Scan(&n)
	return n, err
}

// export writes the rows of muster.runner to a file, as COPY takes them.
func (d *database) export(ctx context.Context, runners int, name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	sql := fmt.Sprintf(`COPY (SELECT r.* FROM muster.runner r WHERE target = '%s') TO STDOUT (FORMAT binary)`, org(runners).Owner)
	_, err = d.conn.PgConn().CopyTo(ctx, file, sql)
	return errors.Join(err, file.Close())
}

// describe names the server and what of its settings matters here.
func (s *server) describe(ctx context.Context) (string, error) {
	var text string
	err := s.conn.QueryRow(ctx, `
		SELECT 'PostgreSQL ' || current_setting('server_version') || ', ' || string_agg(name || '=' || current_setting(name), ' ' ORDER BY name)
		FROM pg_settings
		WHERE name IN ('fsync', 'synchronous_commit', 'shared_buffers', 'max_wal_size', 'full_page_writes')`).Scan(&text)
	return text, err
}
