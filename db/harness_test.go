package db_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

// patience bounds every wait; none is expected to last.
const patience = 30 * time.Second

// t0 is when the virtual clocks of these tests begin.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is one migrated database, seen through db and past it.
type world struct {
	*testing.T
	ctx context.Context
	url string
	db  *db.DB
	sql *pgx.Conn // as the owner of everything
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return openWorld(t, dbtest.URL(t))
}

func openWorld(t *testing.T, url string) *world {
	t.Helper()
	w := &world{T: t, ctx: t.Context(), url: url, sql: connect(t, url)}
	var err error
	if w.db, err = db.Open(w.ctx, url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	return w
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// as is a connection that works as a role.
func (w *world) as(role string) *pgx.Conn {
	w.Helper()
	conn := connect(w.T, w.url)
	mustExec(w.T, conn, `SET ROLE `+role)
	return conn
}

func (w *world) tx(do func(tx *db.Tx) error) {
	w.Helper()
	if err := w.db.InTx(w.ctx, do); err != nil {
		w.Fatal(err)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.Helper()
	mustExec(w.T, w.sql, sql, args...)
}

func mustExec(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// value reads one value as text; null is "<null>".
func (w *world) value(sql string, args ...any) string {
	w.Helper()
	var v *string
	if err := w.sql.QueryRow(w.ctx, `SELECT (`+sql+`)::text`, args...).Scan(&v); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	if v == nil {
		return "<null>"
	}
	return *v
}

// want compares what a query gives with a text.
func (w *world) want(want, sql string, args ...any) {
	w.Helper()
	if got := w.value(sql, args...); got != want {
		w.Errorf("%s\n= %s, want %s", sql, got, want)
	}
}

// code is the Postgres code of an error; empty: it has none.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

const insufficientPrivilege = "42501"

// other makes another database on the server, owned by role, and returns its
// URL with that role's credential.
func (w *world) other(suffix, role string) string {
	w.Helper()
	name := w.value(`current_database()`) + "_" + suffix
	w.exec(`CREATE DATABASE ` + name + ` TEMPLATE template0 OWNER ` + role)
	w.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), w.url)
		if err == nil {
			_, err = conn.Exec(context.Background(), `DROP DATABASE `+name+` WITH (FORCE)`)
			_ = conn.Close(context.Background())
		}
		if err != nil {
			w.Errorf("drop %s: %v", name, err)
		}
	})
	u, err := url.Parse(w.url)
	if err != nil {
		w.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// login makes a role without any right of its own.
func (w *world) login() (role string, in func(url string) string) {
	w.Helper()
	role = "muster_test_" + uuid.NewString()[:8]
	w.exec(`CREATE ROLE ` + role + ` LOGIN NOCREATEROLE NOSUPERUSER PASSWORD 'muster'`)
	w.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), w.url)
		if err == nil {
			_, err = conn.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role)
			_ = conn.Close(context.Background())
		}
		if err != nil {
			w.Errorf("drop role %s: %v", role, err)
		}
	})
	return role, func(at string) string {
		u, err := url.Parse(at)
		if err != nil {
			w.Fatal(err)
		}
		u.User = url.UserPassword(role, "muster")
		return u.String()
	}
}

// acme is a target that the database knows.
var acme = fleet.Target{
	Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"},
	APIURL: "https://ghes.example.com/api/v3", MaxObservationGap: time.Hour,
}

func (w *world) target() {
	w.Helper()
	w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, acme, t0) })
}

// runner stores an offline runner.
func (w *world) runner(id int64) {
	w.Helper()
	w.tx(func(tx *db.Tx) error {
		return tx.AddRunners(w.ctx, acme.Name, []db.RunnerRow{{
			Runner: fleet.Runner{
				ID: id, Name: fmt.Sprintf("r%d", id), OS: "linux", Status: fleet.StatusOffline, Labels: []string{"linux", "self-hosted"},
			},
			Fingerprint: id, FirstSeenAt: t0, SeenAt: t0, StatusSince: t0, OfflineSince: t0,
		}})
	})
}

// event is a complete event of the trail.
func event() fleet.AuditEvent {
	return fleet.AuditEvent{
		Code: fleet.AuditDeleteIntended, Actor: fleet.Actor{Type: fleet.ActorPolicy, Name: "reap"},
		Target: "acme", RunnerID: 7, RunnerName: "r7", Policy: "reap", TriggerID: uuid.NewString(), Reason: "why",
		Details: map[string]any{"action_id": "a", "decision_id": "d", "evidence": map[string]any{"n": 1, "html": "<&>"}},
	}
}

// connectLate is a connection for clearing up, as the owner of everything.
func connectLate(w *world) *pgx.Conn {
	w.Helper()
	conn, err := pgx.Connect(w.late(), w.url)
	if err != nil {
		w.Fatal(err)
	}
	return conn
}

// late is a context for clearing up, when that of the test has ended.
func (w *world) late() context.Context { return context.WithoutCancel(w.ctx) }
