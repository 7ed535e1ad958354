// Package db is everything that speaks SQL. DB reads; Tx writes, and is to be
// had only from InTx, so that no state changes outside a transaction that can
// carry its audit event along.
package db

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-fleet/muster/fleet"
)

// appRole is the role the service works as where it exists; see 001_roles.sql.
const appRole = "muster_app"

// connectLimit is how long reaching a server may take where the address does
// not say.
const connectLimit = 5 * time.Second

// DB is the record. It is safe for concurrent use.
type DB struct {
	pool *connections
	wake chan struct{}
	// fronts say where the next claims from the outbox begin.
	fronts fronts
	role   atomic.Value // string: the role the newest connection works as
	// pooler says that a pooler stands before the server, so that settings are
	// those of a transaction and statements are not prepared.
	pooler atomic.Bool
	given  map[string]string     // parameters in the URL
	url    *pgx.ConnConfig       // as the URL says
	own    atomic.Pointer[login] // what connections log in with; nil: as the URL says
}

// Tx is a transaction: the only thing that writes.
type Tx struct {
	tx     pgx.Tx
	outbox bool // something was put into the outbox
}

// defaultConns is how many connections there may be where the URL does not say
// so with pool_max_conns.
const defaultConns = 16

// Open prepares a pool of connections. It connects lazily: an unreachable
// server shows at the first use, and Ping tells. Each connection becomes
// muster_app where that role exists and may be taken.
func Open(ctx context.Context, url string) (*DB, error) {
	return OpenTraced(ctx, url, nil)
}

// OpenTraced is Open with a tracer that sees every statement.
func OpenTraced(ctx context.Context, url string, tracer pgx.QueryTracer) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		// pgx repeats the URL without its password, but not every part of it
		// is worth the trust.
		return nil, errors.New("database_url is not a Postgres URL or key=value string")
	}
	db := &DB{wake: make(chan struct{}, 1), given: maps.Clone(cfg.ConnConfig.RuntimeParams)}
	db.role.Store("")
	db.url = cfg.ConnConfig.Copy()
	cfg.ConnConfig.Tracer = tracer
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectLimit
	}
	startParameters(&cfg.ConnConfig.Config)
	plan, err := poolParameters(url)
	if err != nil {
		return nil, err
	}
	if _, set := plan["pool_max_conns"]; !set {
		cfg.MaxConns = defaultConns
	}
	if _, set := plan["pool_max_conn_idle_time"]; !set {
		// Under the connection limit of a role, connections that one replica
		// does not need are what another one waits for.
		cfg.MaxConnIdleTime = time.Minute
		cfg.HealthCheckPeriod = min(cfg.HealthCheckPeriod, 15*time.Second)
	}
	cfg.BeforeConnect = db.beforeConnect
	cfg.AfterConnect = db.afterConnect
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", translate(err))
	}
	db.pool = newConnections(pool, db.beginning)
	return db, nil
}

// poolParameters are the parameters of a URL before the pool takes its own out.
func poolParameters(url string) (map[string]string, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("database_url is not a Postgres URL or key=value string")
	}
	return cfg.RuntimeParams, nil
}

// errPooler says that a connection leads through a pooler, which was not known
// when it was made.
var errPooler = errors.New("a pooler stands before the server")

func (db *DB) beforeConnect(_ context.Context, cfg *pgx.ConnConfig) error {
	if own := db.own.Load(); own != nil {
		cfg.User, cfg.Password = own.user, own.password
	}
	if db.pooler.Load() {
		// A prepared statement belongs to a session, and the next transaction
		// may have another.
		cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return nil
}

// afterConnect makes a connection what muster assumes of it.
func (db *DB) afterConnect(ctx context.Context, conn *pgx.Conn) error {
	if err := suits(conn); err != nil {
		return err
	}
	pooled, err := behindPooler(ctx, conn)
	if err != nil {
		return err
	}
	if pooled && !db.pooler.Swap(true) {
		return errPooler
	}
	if pooled {
		return db.knowRole(ctx, conn)
	}
	if err := assume(ctx, conn, db.given); err != nil {
		return err
	}
	return db.becomeApp(ctx, conn)
}

// beginning is what begins a transaction behind a pooler, and whether there is
// one.
func (db *DB) beginning() (string, bool) {
	if !db.pooler.Load() {
		return "", false
	}
	role := ""
	if db.Role() == appRole {
		role = appRole
	}
	return assumeLocally(db.given, role), true
}

// mayBeApp is SQL that is true where the login may become muster_app and that
// role has rights.
const mayBeApp = `
	EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app')
	AND pg_has_role(session_user, 'muster_app',
		CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END)
	AND EXISTS ( -- else there is nothing yet that the role has rights on
		SELECT FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'audit' AND c.relname = 'event')`

func (db *DB) becomeApp(ctx context.Context, conn *pgx.Conn) error {
	var role string
	err := conn.QueryRow(ctx, `
		SELECT CASE WHEN `+mayBeApp+` THEN set_config('role', 'muster_app', false) ELSE current_user::text END`).Scan(&role)
	if err != nil {
		return err
	}
	db.role.Store(role)
	return nil
}

// knowRole is becomeApp behind a pooler, where each transaction takes the role
// anew.
func (db *DB) knowRole(ctx context.Context, conn *pgx.Conn) error {
	var role string
	err := conn.QueryRow(ctx, `SELECT CASE WHEN `+mayBeApp+` THEN 'muster_app' ELSE session_user::text END`,
		pgx.QueryExecModeSimpleProtocol).Scan(&role)
	if err != nil {
		return err
	}
	db.role.Store(role)
	return nil
}

// Role is the role that connections work as; empty before the first one.
func (db *DB) Role() string { return db.role.Load().(string) }

// WorksAsApp reports whether connections have the narrow rights of muster_app.
func (db *DB) WorksAsApp() bool { return db.Role() == appRole }

// Reset drops the connections, so that the next ones see a new schema or role.
func (db *DB) Reset() { db.pool.Reset() }

// Close waits for connections in use and closes all.
func (db *DB) Close() { db.pool.Close() }

// Ping asks the server for a sign of life.
func (db *DB) Ping(ctx context.Context) error {
	if _, err := db.pool.Exec(ctx, `SELECT 1`); err != nil {
		return fmt.Errorf("reach Postgres: %w", translate(err))
	}
	return nil
}

// Now is Postgres's clock, the one that all replicas share.
func (db *DB) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	if err := db.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return time.Time{}, fmt.Errorf("read Postgres's clock: %w", translate(err))
	}
	return now.UTC(), nil
}

// InTx runs do in one transaction (READ COMMITTED) and commits it if do
// returns nil. A deadlock is tried again twice, so do may run more than once;
// it must use the Tx for everything and touch nothing outside the database.
func (db *DB) InTx(ctx context.Context, do func(*Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := db.once(ctx, do)
		var pg *pgconn.PgError
		if attempt < 3 && errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001") {
			continue
		}
		return translate(err)
	}
}

func (db *DB) once(ctx context.Context, do func(*Tx) error) error {
	tx, err := db.pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	t := &Tx{tx: tx}
	if err := do(t); err != nil {
		// The caller's context may be what ended do; the rollback must not
		// depend on it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tx.Rollback(ctx) // the connection is dropped where this fails, which rolls back as well
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	if t.outbox {
		select {
		case db.wake <- struct{}{}:
		default: // somebody has been woken and has not looked yet
		}
	}
	return nil
}

// translate makes the errors of pgx into those of fleet, where callers act on
// them. Everything else passes as it is.
func translate(err error) error {
	var pg *pgconn.PgError
	var network net.Error
	var connect *pgconn.ConnectError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fleet.ErrUnavailable), errors.Is(err, fleet.ErrNotFound):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w (%w)", fleet.ErrNotFound, err)
	case errors.As(err, new(*UnfitError)):
		return err
	case errors.As(refused(err), new(*UnfitError)):
		return refused(err)
	case errors.As(err, &connect):
		// Its text names user, host and database, never the password.
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, attempts{err})
	case errors.As(err, &pg):
		if away(pg.Code) {
			return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
		}
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &network), pgconn.SafeToRetry(err), errors.Is(err, net.ErrClosed),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	return err
}

// attempts is an error about connecting, on one line: pgx gives each attempt a
// line of its own. Those with and without TLS mostly fail alike, and are told
// once.
type attempts struct{ error }

func (e attempts) Error() string {
	var told []string
	for line := range strings.Lines(e.error.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(told, line) {
			told = append(told, line)
		}
	}
	return strings.ReplaceAll(strings.Join(told, "; "), ":; ", ": ")
}

func (e attempts) Unwrap() error { return e.error }

// away reports whether an error code is the server's trouble and not the
// statement's, so that time alone may mend it.
func away(code string) bool {
	switch code {
	case "25006", // the connection leads to a standby, as during a fail-over
		"25P03": // the server took an idle transaction for abandoned
		return true
	case "57014": // the statement was canceled, which a repetition may be too
		return false
	}
	switch code[:min(2, len(code))] {
	case "08", "53", "57", "58": // connection, resources, operator intervention, system
		return true
	}
	return false
}

// querier is what DB and Tx read with.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// orNull stores the zero value of a column that may be null as null.
func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// utc reads a nullable time; null is the zero time.
func utc(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func isNotFound(err error) bool { return errors.Is(err, fleet.ErrNotFound) }
