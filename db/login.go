package db

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// loginPrefix begins the name of the login that the service uses; the name of
// the database follows. Roles belong to the whole cluster.
const loginPrefix = "muster_serve_"

// Standing is what the login of a connection could do to the audit trail.
type Standing struct {
	Login string
	// Powers are the ways in which the login could weaken the trail, in words;
	// empty: it could not.
	Powers []string
	// Why says why the service does not use a login of its own, where the login
	// has powers; empty: it has none.
	Why string
}

// Safe reports whether the login cannot weaken the trail.
func (s Standing) Safe() bool { return len(s.Powers) == 0 }

// powers is SQL that lists how the login could weaken the trail. Memberships
// count also where they are not inherited: the login may SET ROLE.
const powers = `
	WITH reach AS (
		SELECT oid, rolname, rolsuper, rolcreaterole
		FROM pg_roles
		WHERE rolname = session_user OR pg_has_role(session_user, oid, 'MEMBER')
	), owned (owner, what) AS (
		SELECT c.relowner, format('%I.%I', n.nspname, c.relname)
		FROM pg_class c
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'audit' AND c.relkind IN ('r', 'p') OR n.nspname = 'api' AND c.relname = 'audit'
		UNION ALL
		SELECT p.proowner, format('function %I.%I', n.nspname, p.proname)
		FROM pg_proc p
		JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname = 'audit'
		UNION ALL
		SELECT nspowner, format('schema %I', nspname) FROM pg_namespace WHERE nspname IN ('audit', 'api')
		UNION ALL
		SELECT datdba, 'the database' FROM pg_database WHERE datname = current_database()
	)
	SELECT 'is a superuser or may become one' WHERE EXISTS (SELECT FROM reach WHERE rolsuper)
	UNION ALL
	SELECT 'may make itself a member of any role (CREATEROLE)'
	WHERE EXISTS (SELECT FROM reach WHERE rolcreaterole) AND current_setting('server_version_num')::integer < 160000
	UNION ALL
	SELECT format('is or may become the owner of %s', string_agg(DISTINCT o.what, ', ' ORDER BY o.what))
	FROM owned o
	JOIN reach r ON r.oid = o.owner
	HAVING count(*) > 0
	UNION ALL
	SELECT 'may write files or run programs on the server'
	WHERE EXISTS (SELECT FROM reach WHERE rolname IN ('pg_write_server_files', 'pg_execute_server_program'))
	UNION ALL
	SELECT format('may %s audit.event', string_agg(DISTINCT p.privilege, ', ' ORDER BY p.privilege))
	FROM (VALUES ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('TRIGGER')) AS p (privilege)
	JOIN reach r ON has_table_privilege(r.oid, to_regclass('audit.event'), p.privilege)
	WHERE NOT EXISTS (SELECT FROM reach WHERE rolsuper)
	HAVING count(*) > 0`

// standing asks what the login of a connection could do.
func standing(ctx context.Context, tx pgx.Tx) (Standing, error) {
	var s Standing
	var trail bool
	err := tx.QueryRow(ctx, `SELECT session_user::text, to_regclass('audit.event') IS NOT NULL`).Scan(&s.Login, &trail)
	if err != nil || !trail {
		return s, err
	}
	rows, err := tx.Query(ctx, powers)
	if err == nil {
		s.Powers, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if len(s.Powers) == 0 {
		s.Powers = nil
	}
	if len(s.Powers) > 1 && strings.Contains(s.Powers[0], "superuser") {
		s.Powers = s.Powers[:1] // it says all
	}
	return s, err
}

// usable is nil where a login can do the work of the service.
func usable(ctx context.Context, tx pgx.Tx) error {
	var ok bool
	err := tx.QueryRow(ctx, `
		SELECT has_any_column_privilege('audit.event', 'INSERT') AND has_table_privilege('muster.target', 'SELECT, INSERT, UPDATE, DELETE')
			AND has_table_privilege($1, 'SELECT')`, versionTable).Scan(&ok)
	if err == nil && !ok {
		return errors.New("the role muster_app lacks rights on the schema, which was made before the role: GRANT them as migration 008 does")
	}
	return err
}

// secret is the password of a login, in memory alone. Every replica derives the
// same one from the password in its URL, and nobody else can: nothing has to be
// stored or handed out. Without a password in the URL there is none.
func secret(password, login string) string {
	if password == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(password))
	mac.Write([]byte("muster login of the service v1\x00" + login))
	return hex.EncodeToString(mac.Sum(nil))
}

// verifier is what Postgres stores of a password (RFC 5803). It is sent instead
// of the password, which then is in no log of the server.
func verifier(password string) (string, error) {
	const iterations = 4096
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive the verifier of a password: %w", err)
	}
	sign := func(text string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(sign("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(sign("Server Key"))), nil
}

// loginName is the login of the service for a database; a long name is cut, and
// told from others by a hash.
func loginName(database string) string {
	const most = 63
	name := loginPrefix + database
	if len(name) <= most {
		return name
	}
	sum := sha256.Sum256([]byte(database))
	return loginPrefix + hex.EncodeToString(sum[:8])
}

// madeFor is the comment on a login of the service: another login's replicas
// must not take it over, or each would lock the other out.
func madeFor(login string) string { return "login of muster serve, made for " + login }

// MakeLogin makes the login of the service where database_url alone would let it
// weaken the audit trail, and mends its password. owner is the URL of a role
// that may make roles, service that of database_url. It returns the login's
// name; empty: none is needed.
func MakeLogin(ctx context.Context, owner, service string) (string, error) {
	cfg, err := pgx.ParseConfig(service)
	if err != nil {
		return "", errors.New("database_url is not a Postgres URL or key=value string")
	}
	var found Standing
	var database string
	err = within(ctx, cfg, func(tx pgx.Tx) error {
		if found, err = standing(ctx, tx); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT current_database()`).Scan(&database)
	})
	if err != nil || found.Safe() {
		return "", err
	}
	login := loginName(database)
	try := cfg.Copy()
	try.User, try.Password = login, secret(cfg.Password, login)
	if tryLogin(ctx, try) == nil {
		return login, nil
	}
	by, err := pgx.ParseConfig(owner)
	if err != nil {
		return "", errors.New("migrate_url is not a Postgres URL or key=value string")
	}
	return login, makeLogin(ctx, by, found.Login, login, try.Password)
}

// within runs do in a transaction on a connection of its own.
func within(ctx context.Context, cfg *pgx.ConnConfig, do func(pgx.Tx) error) error {
	conn, err := connectAlone(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is left to lose
	return translate(pgx.BeginTxFunc(ctx, conn, aloneTx(cfg), do))
}

// tryLogin is nil where the service can work with a login and cannot weaken the
// trail.
func tryLogin(ctx context.Context, cfg *pgx.ConnConfig) error {
	return within(ctx, cfg, func(tx pgx.Tx) error {
		s, err := standing(ctx, tx)
		switch {
		case err != nil:
			return err
		case s.Login != cfg.User:
			return fmt.Errorf("the server knows login %s as %s", cfg.User, s.Login)
		case !s.Safe():
			return fmt.Errorf("login %s %s", s.Login, strings.Join(s.Powers, ", and "))
		}
		return usable(ctx, tx)
	})
}

// makeLogin makes a login or mends it, as a role that may.
func makeLogin(ctx context.Context, by *pgx.ConnConfig, madeBy, login, password string) error {
	return within(ctx, by, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('muster.roles', 0))`); err != nil {
			return err
		}
		var app, exists, connects bool
		var comment string
		err := tx.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app'), r.oid IS NOT NULL,
				coalesce(shobj_description(r.oid, 'pg_authid'), '')
			FROM (SELECT) AS one
			LEFT JOIN pg_roles r ON r.rolname = $1`, login).Scan(&app, &exists, &comment)
		switch {
		case err != nil:
			return err
		case !app:
			return errors.New("there is no role muster_app")
		case exists && comment != madeFor(madeBy):
			return fmt.Errorf("role %s exists and was not made for %s", login, madeBy)
		}
		word := "NULL"
		if password != "" {
			text, err := verifier(password)
			if err != nil {
				return err
			}
			word = "'" + text + "'"
		}
		name := pgx.Identifier{login}.Sanitize()
		if exists {
			_, err = tx.Exec(ctx, `ALTER ROLE `+name+` LOGIN PASSWORD `+word)
		} else {
			_, err = tx.Exec(ctx, `
				CREATE ROLE `+name+` LOGIN INHERIT NOCREATEROLE NOCREATEDB PASSWORD `+word+`;
				COMMENT ON ROLE `+name+` IS '`+strings.ReplaceAll(madeFor(madeBy), "'", "''")+`'`)
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `GRANT muster_app TO `+name); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `SELECT has_database_privilege($1, current_database(), 'CONNECT')`, login).Scan(&connects)
		if err == nil && !connects {
			_, err = tx.Exec(ctx, `DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), '`+strings.ReplaceAll(login, "'", "''")+`'); END $$`)
		}
		return err
	})
}

// login is what connections log in with instead of what the URL says.
type login struct{ user, password string }

// Secure sees to it that connections cannot weaken the audit trail, whatever the
// login of the URL may do: where that login could, all connections from then on
// use the service's own login, and nothing they send leads back. With mend the
// login is made, or its password mended, where it cannot be used as it is.
// Where it cannot be used at all, the answer says what the login in use could
// do, and why no other one is. An error is that Postgres could not be asked.
func (db *DB) Secure(ctx context.Context, mend bool) (Standing, error) {
	var s Standing
	err := db.pool.alone(ctx, func() error {
		var err error
		s, err = db.secure(ctx, mend)
		return err
	})
	if err != nil {
		return Standing{}, fmt.Errorf("ask what the login could do to the audit trail: %w", translate(err))
	}
	return s, nil
}

func (db *DB) secure(ctx context.Context, mend bool) (Standing, error) {
	if own := db.own.Load(); own != nil {
		return Standing{Login: own.user}, nil // it was tried
	}
	cfg := db.url
	var s Standing
	var database string
	err := within(ctx, cfg, func(tx pgx.Tx) error {
		var err error
		if s, err = standing(ctx, tx); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT current_database()`).Scan(&database)
	})
	if err != nil || s.Safe() {
		return s, err
	}
	name := loginName(database)
	try := cfg.Copy()
	try.User, try.Password = name, secret(cfg.Password, name)
	err = tryLogin(ctx, try)
	if err != nil && mend && !passing(err) {
		if err = makeLogin(ctx, cfg, s.Login, name, try.Password); err == nil {
			err = tryLogin(ctx, try)
		}
	}
	switch {
	case err != nil && passing(err):
		return s, err
	case err != nil:
		s.Why = fmt.Sprintf("login %s cannot be used: %s", name, strings.Join(strings.Fields(err.Error()), " "))
		return s, nil
	}
	db.own.Store(&login{try.User, try.Password})
	db.Reset()
	return Standing{Login: name}, nil
}

// passing reports whether an error says nothing of a login: the server is away,
// or has no connection left.
func passing(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		var connect *pgconn.ConnectError
		return errors.As(err, &connect) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	}
	const refusal = "08P01" // of PgBouncer, which has no code for a login that it does not know
	return full(err) || away(pg.Code) && pg.Code != refusal
}

// URL is the address with the login that connections use. It holds a password.
func (db *DB) URL() (string, error) {
	cfg := db.url
	u, err := url.Parse(cfg.ConnString())
	if err != nil || u.Host == "" {
		return "", errors.New("the address of Postgres is no URL") // its text may hold a password
	}
	if own := db.own.Load(); own != nil {
		u.User = url.UserPassword(own.user, own.password)
	}
	return u.String(), nil
}
