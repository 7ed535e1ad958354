package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-fleet/muster/fleet"
)

// oldestServer is the first PostgreSQL that has what the schema needs.
const oldestServer = 15

// settings are what muster assumes of a session, whatever the server, the
// database or the role have as their default. They are set on each connection,
// or in each transaction where a pooler stands between.
var settings = []struct {
	name, value string
	yours       bool // a value in the URL wins
}{
	// Reading a large fleet is costly by the planner's guess and takes a second
	// or two; compiling the statement, anew each time, took as long.
	{"jit", "off", true},
	// A transaction that hangs would hold its locks, and stall whoever seals the
	// trail, for ever.
	{"idle_in_transaction_session_timeout", "30000", true},
	// Contexts bound statements. A limit of the role would fail what takes long.
	{"statement_timeout", "0", true},
	{"lock_timeout", "0", true},
	{"idle_session_timeout", "0", true},
	{"search_path", "pg_catalog", false}, // every name has its schema
	{"intervalstyle", "postgres", false},
	// An intent that a crash of the server loses is a deletion without a record.
	{"synchronous_commit", "on", false},
}

// beginReadCommitted begins a transaction where it is sent with settings.
const beginReadCommitted = "BEGIN ISOLATION LEVEL READ COMMITTED"

// UnfitError says that a server, or what stands before it, cannot be used as it
// is. Waiting does not help.
type UnfitError struct{ why string }

func (e *UnfitError) Error() string { return "Postgres cannot be used: " + e.why }

// Is makes an unfit server a conflict.
func (e *UnfitError) Is(target error) bool { return target == fleet.ErrConflict }

func unfit(format string, args ...any) error { return &UnfitError{fmt.Sprintf(format, args...)} }

// startParameters sets what goes with the first message of a connection. They
// are the parameters that PgBouncer keeps for each of its clients; it refuses
// all others.
func startParameters(cfg *pgconn.Config) {
	if _, set := cfg.RuntimeParams["application_name"]; !set {
		cfg.RuntimeParams["application_name"] = "muster"
	}
	for name, value := range map[string]string{
		"timezone": "UTC", "client_encoding": "UTF8", "datestyle": "ISO, MDY", "standard_conforming_strings": "on",
	} {
		maps.DeleteFunc(cfg.RuntimeParams, func(key, _ string) bool { return strings.EqualFold(key, name) })
		cfg.RuntimeParams[name] = value
	}
}

// suits checks what the server says of itself when a connection begins.
func suits(conn *pgx.Conn) error {
	said := conn.PgConn().ParameterStatus
	if encoding := said("server_encoding"); encoding != "UTF8" {
		return unfit("the encoding of database %s is %s, and names of runners and people need UTF8: make a database with ENCODING 'UTF8' TEMPLATE template0",
			conn.Config().Database, encoding)
	}
	version := said("server_version")
	major, err := strconv.Atoi(strings.FieldsFunc(version, func(r rune) bool { return r < '0' || r > '9' })[0])
	if err == nil && major < oldestServer {
		return unfit("the server is PostgreSQL %s, and muster needs %d or later", version, oldestServer)
	}
	return nil
}

// behindPooler reports whether a pooler such as PgBouncer stands between. It
// gives out numbers of processes that are not the server's.
func behindPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var pid uint32
	// The simple protocol leaves nothing behind in a session that others share.
	if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`, pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
		return false, err
	}
	return pid != conn.PgConn().PID(), nil
}

// assume sets what is assumed of a session on a connection that has the session
// to itself. given are parameters of the URL.
func assume(ctx context.Context, conn *pgx.Conn, given map[string]string) error {
	names, values := []string{"default_transaction_isolation", "transaction_timeout"}, []string{"read committed", "0"}
	for _, s := range settings {
		if _, set := given[s.name]; set && s.yours {
			continue
		}
		names, values = append(names, s.name), append(values, s.value)
	}
	// Servers before PostgreSQL 17 have no transaction_timeout.
	_, err := conn.Exec(ctx, `
		SELECT set_config(s.name, s.value, false)
		FROM unnest($1::text[], $2::text[]) AS s (name, value)
		JOIN pg_settings p ON lower(p.name) = s.name
		WHERE p.setting <> s.value AND (s.name <> 'synchronous_commit' OR p.setting = 'off')`, names, values)
	if err != nil {
		return fmt.Errorf("set what is assumed of a session: %w", err)
	}
	return nil
}

// assumeLocally is assume for the transaction that has just begun, as SQL to be
// sent along.
func assumeLocally(given map[string]string, role string) string {
	var sql strings.Builder
	for _, s := range settings {
		if _, set := given[s.name]; set && s.yours {
			continue
		}
		fmt.Fprintf(&sql, "; SET LOCAL %s = '%s'", s.name, s.value)
	}
	if role != "" {
		sql.WriteString("; SET LOCAL ROLE " + pgx.Identifier{role}.Sanitize())
	}
	return sql.String()
}

// refused makes a refusal that nothing but another configuration mends an
// UnfitError that names what refused.
func refused(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch {
	case strings.HasPrefix(pg.Message, "unsupported startup parameter"):
		return unfit("PgBouncer takes no such parameter in database_url (%s): leave it out there, or name it in ignore_startup_parameters of PgBouncer", pg.Message)
	case strings.Contains(pg.Message, "statement pooling mode"):
		return unfit("PgBouncer is in statement mode (%s), in which there are no transactions: set pool_mode to transaction or session", pg.Message)
	}
	return err
}

// connectAlone connects outside the pool, for a few statements in transactions
// that aloneTx begins. It prepares no statement, so that a pooler does not
// matter.
func connectAlone(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	cfg = cfg.Copy()
	for name := range cfg.RuntimeParams {
		if strings.HasPrefix(name, "pool_") {
			delete(cfg.RuntimeParams, name) // of the pool, not of the server
		}
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectLimit
	}
	startParameters(&cfg.Config)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("reach Postgres: %w", translate(err))
	}
	if err := suits(conn); err != nil {
		_ = conn.Close(ctx) // the error at hand says more
		return nil, err
	}
	return conn, nil
}

// aloneTx are the options of a transaction on a connection of connectAlone.
func aloneTx(cfg *pgx.ConnConfig) pgx.TxOptions {
	return pgx.TxOptions{BeginQuery: beginReadCommitted + assumeLocally(cfg.RuntimeParams, "")}
}
