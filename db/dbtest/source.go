package dbtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/migrations"
)

// Databases of this package are called PREFIX KIND_TIME_REST, the time in Unix
// seconds, so that a later run can tell what was left behind. The rest of a clone
// is OWNER_NUMBER. Its owner is a process, which holds an advisory lock of that
// name for as long as it lives.
const (
	prefix       = "muster_test_"
	kindTemplate = "template"
	kindBuilding = "building"
	kindClone    = "clone"
)

// loginPrefix begins the name of the login that muster serve makes for a
// database.
const loginPrefix = "muster_serve_"

var ours = regexp.MustCompile(`^` + prefix + `(` + kindTemplate + `|` + kindBuilding + `|` + kindClone + `)_([0-9]+)_([0-9a-z_]+)$`)

// templateLock is held by whoever makes a template or clears up: any number,
// the same in every process.
const templateLock = 7_205_759_403_792_794

// source makes databases by cloning a migrated template, which takes a
// fraction of what the migrations take.
type source struct {
	admin    string // URL of a superuser
	template string
	// keeper is a session that marks the template, and the clones, as in use.
	keeper *pgx.Conn
	owner  string // of the clones
	clones atomic.Int64
	// foreign is whether the server outlives this process: then each clone goes
	// with its test.
	foreign bool
}

// openSource finds the template on the server or makes it. Processes that
// share the server take turns.
func openSource(ctx context.Context, admin string) (*source, error) {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return nil, err
	}
	s := &source{admin: admin, keeper: conn, owner: ownerMark + uuid.NewString()[24:]}
	_, err = conn.Exec(ctx, `SELECT pg_advisory_lock(hashtext($1))`, s.owner)
	if err == nil {
		err = s.findTemplate(ctx)
	}
	if err != nil {
		s.close(ctx)
		return nil, err
	}
	return s, nil
}

func (s *source) close(ctx context.Context) { _ = s.keeper.Close(ctx) } // the server ends the session in any case

func (s *source) findTemplate(ctx context.Context) error {
	hash, err := schemaHash()
	if err != nil {
		return err
	}
	// Waiting here is waiting for another process to migrate.
	if _, err := s.keeper.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(templateLock)); err != nil {
		return err
	}
	if _, err := s.keeper.Exec(ctx, `SELECT pg_advisory_lock_shared(hashtext($1))`, hash); err != nil {
		return err
	}
	if err := s.sweep(ctx, hash, time.Now()); err != nil {
		return fmt.Errorf("clear up after earlier runs: %w", err)
	}
	err = s.keeper.QueryRow(ctx, `
		SELECT datname
		FROM pg_database
		WHERE datname ~ $1
		ORDER BY datname DESC
		LIMIT 1`,
		"^"+prefix+kindTemplate+"_[0-9]+_"+hash+"$").Scan(&s.template)
	if errors.Is(err, pgx.ErrNoRows) {
		s.template, err = s.makeTemplate(ctx, hash)
	}
	if err != nil {
		return err
	}
	_, err = s.keeper.Exec(ctx, `SELECT pg_advisory_unlock($1)`, int64(templateLock))
	return err
}

// makeTemplate migrates a database and only then gives it the name by which
// others find it.
func (s *source) makeTemplate(ctx context.Context, hash string) (string, error) {
	building, template := name(kindBuilding, strconv.Itoa(os.Getpid())), name(kindTemplate, hash)
	if err := s.run(ctx, `CREATE DATABASE `+quote(building)); err != nil {
		return "", err
	}
	u, err := inDatabase(s.admin, building)
	if err != nil {
		return "", err
	}
	if _, err := db.Migrate(ctx, u); err != nil {
		return "", err
	}
	if err := s.run(ctx, `ALTER DATABASE `+quote(building)+` RENAME TO `+quote(template)); err != nil {
		return "", err
	}
	// Somebody who looks into the template would stand in the way of cloning.
	return template, s.run(ctx, `ALTER DATABASE `+quote(template)+` ALLOW_CONNECTIONS false`)
}

// clone makes a database and returns its URL. It is safe for concurrent use.
func (s *source) clone(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is left to lose
	clone := name(kindClone, fmt.Sprintf("%s_%d", s.owner, s.clones.Add(1)))

	// A copy of the files takes a third of the time of the default, which writes
	// every block of the template to the write-ahead log.
	_, err = conn.Exec(ctx, `CREATE DATABASE `+quote(clone)+` TEMPLATE `+quote(s.template)+` STRATEGY FILE_COPY`)
	if err != nil {
		return "", err
	}

	return inDatabase(s.admin, clone)
}

// give makes a database for a test. On a server that outlives this process the
// database goes with the test.
func (s *source) give(t testing.TB) (string, error) {
	clone, err := s.clone(t.Context())
	if err != nil || !s.foreign {
		return clone, err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		if err := s.dropClone(ctx, clone); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	return clone, nil
}

// dropClone drops a database that clone made, whoever is connected to it.
func (s *source) dropClone(ctx context.Context, clone string) error {
	u, err := url.Parse(clone)
	if err != nil {
		return errors.New("the database's URL cannot be read") // its text may hold a password
	}
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing is left to lose
	_, err = conn.Exec(ctx, `DROP DATABASE IF EXISTS `+quote(strings.TrimPrefix(u.Path, "/"))+` WITH (FORCE)`)
	return err
}

// ownerMark begins the name of an owner. Clones of earlier versions have the
// process id there.
const ownerMark = "p"

// abandoned reports whether a clone's owner is dead. Where that cannot be told,
// its age has to say.
func (s *source) abandoned(ctx context.Context, kind, rest string, age time.Duration) (bool, error) {
	owner, _, _ := strings.Cut(rest, "_")
	if kind != kindClone || !strings.HasPrefix(owner, ownerMark) {
		return age >= leftoverAge, nil
	}
	if owner == s.owner {
		return false, nil // this session would get its own lock again
	}
	var dead bool
	err := s.keeper.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtext($1))`, owner).Scan(&dead)
	if err != nil || !dead {
		return false, err
	}
	_, err = s.keeper.Exec(ctx, `SELECT pg_advisory_unlock(hashtext($1))`, owner)
	return true, err
}

// sweep drops what earlier runs left on a server that outlives them, except
// the template of this schema: clones whose process is dead, and of the rest what
// is old. Nobody else clears up or makes a template meanwhile.
func (s *source) sweep(ctx context.Context, hash string, now time.Time) error {
	rows, err := s.keeper.Query(ctx, `
		SELECT datname
		FROM pg_database AS d
		WHERE starts_with(datname, $1)
			AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.datid = d.oid AND a.backend_type = 'client backend')`,
		prefix)
	if err != nil {
		return err
	}
	idle, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, database := range idle {
		m := ours.FindStringSubmatch(database)
		if m == nil {
			continue
		}
		made, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil || m[1] == kindTemplate && m[3] == hash {
			continue
		}
		over, err := s.abandoned(ctx, m[1], m[3], now.Sub(time.Unix(made, 0)))
		if err != nil {
			return err
		}
		if !over {
			continue
		}
		if err := s.drop(ctx, database, m[1], m[3]); err != nil {
			return err
		}
	}
	return s.sweepLogins(ctx)
}

// sweepLogins drops the logins that services made for databases which are gone:
// roles belong to the whole server.
func (s *source) sweepLogins(ctx context.Context) error {
	rows, err := s.keeper.Query(ctx, `
		SELECT rolname
		FROM pg_roles
		WHERE starts_with(rolname, $1)
			AND NOT EXISTS (SELECT FROM pg_database WHERE datname = substr(rolname, length($2) + 1))`,
		loginPrefix+prefix, loginPrefix)
	if err != nil {
		return err
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, login := range left {
		if err := s.run(ctx, `DROP ROLE IF EXISTS `+quote(login)); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) drop(ctx context.Context, database, kind, rest string) error {
	if kind == kindTemplate {
		var unused bool
		err := s.keeper.QueryRow(ctx, `
			SELECT pg_try_advisory_lock(hashtext($1))`, rest).Scan(&unused)
		if err != nil || !unused {
			return err
		}
		defer func() {
			// The session's end would do it too.
			_, _ = s.keeper.Exec(ctx, `SELECT pg_advisory_unlock(hashtext($1))`, rest)
		}()
	}
	err := s.run(ctx, `DROP DATABASE IF EXISTS `+quote(database))
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "55006" { // object_in_use: somebody connected meanwhile
		return nil
	}
	return err
}

func (s *source) run(ctx context.Context, sql string) error {
	_, err := s.keeper.Exec(ctx, sql)
	return err
}

func name(kind, rest string) string {
	return fmt.Sprintf("%s%s_%d_%s", prefix, kind, time.Now().Unix(), rest)
}

func quote(identifier string) string { return pgx.Identifier{identifier}.Sanitize() }

// inDatabase is the URL of another database on the same server.
func inDatabase(admin, database string) (string, error) {
	u, err := url.Parse(admin)
	if err != nil {
		return "", errors.New("the server's URL cannot be read") // its text may hold a password
	}
	u.Path = "/" + database
	return u.String(), nil
}

// schemaHash names a state of the migrations.
func schemaHash() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(migrations.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(migrations.FS, path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
		return err
	})
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:6]), nil
}
