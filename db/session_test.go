package db_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
)

// hostile are settings of a database or a role that break what SQL assumes, with
// what a session of the service must have instead.
var hostile = []struct{ name, value, want string }{
	{"default_transaction_isolation", "serializable", ""},
	{"standard_conforming_strings", "off", "on"},
	{"search_path", "nowhere", "pg_catalog"},
	{"timezone", "Asia/Kolkata", "UTC"},
	{"datestyle", "German, DMY", "ISO, MDY"},
	{"intervalstyle", "iso_8601", "postgres"},
	{"client_encoding", "LATIN1", "UTF8"},
	{"statement_timeout", "2s", "0"},
	{"lock_timeout", "1ms", "0"},
	{"idle_session_timeout", "10s", "0"},
	{"idle_in_transaction_session_timeout", "5s", "30s"},
	{"synchronous_commit", "off", "on"},
	{"jit", "on", "off"},
}

// A server's defaults broke nothing but what nobody had looked at: the isolation
// level, strings, the encoding (issue 10).
func TestWhatIsAssumedOfASessionIsSet(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"direct", "session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			address := w.other("hostile", w.value(`current_user`))
			name := w.value(`current_database()`) + "_hostile"
			for _, s := range hostile {
				w.exec(`ALTER DATABASE ` + name + ` SET ` + s.name + ` = ` + quoted(s.name, s.value))
			}
			if mode != "direct" {
				address = dbtest.PgBouncer(t, address, mode)
			}
			if _, err := db.Migrate(w.ctx, address); err != nil {
				t.Fatalf("migrate: %v", err)
			}
			record, err := db.Open(w.ctx, address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(record.Close)
			assumed := func(where string, ask func(sql string) (string, error)) {
				t.Helper()
				for _, s := range hostile {
					if s.want == "" {
						continue
					}
					got, err := ask(`SELECT current_setting('` + s.name + `')`)
					if err != nil || got != s.want {
						t.Errorf("%s: %s = %q, %v, want %q", where, s.name, got, err, s.want)
					}
				}
				for name, want := range map[string]string{"transaction_isolation": "read committed", "role": "muster_app"} {
					if got, err := ask(`SELECT current_setting('` + name + `')`); err != nil || got != want {
						t.Errorf("%s: %s = %q, %v, want %q", where, name, got, err, want)
					}
				}
			}
			assumed("one statement", func(sql string) (string, error) {
				var got string
				err := record.Ask(w.ctx, sql, &got)
				return got, err
			})
			assumed("a transaction", func(sql string) (string, error) {
				table, err := record.ReadAPI(w.ctx, sql)
				if err != nil {
					return "", err
				}
				return table.Rows[0][0], nil
			})
			err = record.InTx(w.ctx, func(tx *db.Tx) error { return tx.Audit(w.ctx, event(), event()) })
			if err != nil {
				t.Errorf("write to the trail: %v", err)
			}
			if trail, err := record.Trail(w.ctx, db.TrailFilter{}); err != nil || len(trail) != 2 {
				t.Errorf("trail = %d events, %v, want 2", len(trail), err)
			}
		})
	}
}

// quoted is a value for ALTER DATABASE; lists stand without quotes.
func quoted(name, value string) string {
	if name == "search_path" {
		return value
	}
	return "'" + value + "'"
}

// Where the server has no connection left, requests queue until one is free.
func TestRequestsQueueForConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role, in := w.login()
	w.exec(`GRANT muster_app TO ` + role)
	w.exec(`ALTER ROLE ` + role + ` CONNECTION LIMIT 2`)
	other, another := connect(t, in(w.url)), connect(t, in(w.url)) // all there are

	record, err := db.Open(w.ctx, in(w.url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(record.Close)
	short, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	if err := record.Ping(short); err == nil || !strings.Contains(err.Error(), "too many connections for role") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ping without a connection to be had = %v, want why, and that time was up", err)
	}

	var requests errgroup.Group
	for range 20 {
		requests.Go(func() error {
			return record.InTx(w.ctx, func(tx *db.Tx) error { return tx.Audit(w.ctx, event()) })
		})
		requests.Go(func() error {
			_, err := record.Now(w.ctx)
			return err
		})
	}
	for _, conn := range []interface{ Close(context.Context) error }{other, another} {
		if err := conn.Close(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := requests.Wait(); err != nil {
		t.Errorf("a request failed instead of waiting: %v", err)
	}
	w.want("20", `SELECT count(*) FROM audit.event`)
}

// Where the server has no connection left and then stops answering, the error
// still says that it has none left: the end of the wait alone says too little.
func TestAFullServerIsNamedWhenTheWaitEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role, in := w.login()
	w.exec(`GRANT muster_app TO ` + role)
	w.exec(`ALTER ROLE ` + role + ` CONNECTION LIMIT 0`)

	record, err := db.Open(w.ctx, in(answersOnce(t, w.url)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(record.Close)
	short, cancel := context.WithTimeout(w.ctx, 2*time.Second)
	defer cancel()
	err = record.Ping(short)
	if err == nil || !strings.Contains(err.Error(), "too many connections for role") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ping without a connection to be had = %v, want why, and that time was up", err)
	}
}

// answersOnce is a server's address behind a proxy that passes one connection on
// and says nothing on any other.
func answersOnce(t *testing.T, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })

	host := u.Host
	go func() {
		for first := true; ; first = false {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = client.Close() })
			if !first {
				continue
			}
			backend, err := net.Dial("tcp", host)
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(backend, client) }()
			go func() {
				_, _ = io.Copy(client, backend)
				_ = client.Close()
				_ = backend.Close()
			}()
		}
	}()
	u.Host = listener.Addr().String()
	return u.String()
}
