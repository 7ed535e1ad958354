// Package dbtest gives each test a Postgres database of its own: migrated,
// with real commits, and safe to use in parallel with all others.
//
// Where the server comes from is said by MUSTER_TEST_POSTGRES:
//
//	auto       PostgreSQL on this machine, else a container, else fetched (the default)
//	local      PostgreSQL on this machine
//	container  a container of MUSTER_TEST_POSTGRES_IMAGE (default postgres:15)
//	postgres://…  that server, which stays; the user must be a superuser
//
// Without a server the test fails; it is never skipped.
package dbtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
)

const (
	modeVar  = "MUSTER_TEST_POSTGRES"
	imageVar = "MUSTER_TEST_POSTGRES_IMAGE"
)

// startLimit is for the slowest way, which pulls an image or fetches programs.
const startLimit = 5 * time.Minute

// stopLimit is when a server that does not stop is killed.
const stopLimit = 2 * time.Minute

// process holds what the tests of this process share.
var process struct {
	once sync.Once
	mu   sync.Mutex // guards the rest against Main, which may run beside a test that hangs

	source *source
	engine engine // nil where the server is somebody else's
	err    error
}

// shared starts the server of this process with the first test that asks.
func shared() (*source, error) {
	process.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		admin, eng, err := sharedServer(ctx, os.Getenv(modeVar))
		var src *source
		if err == nil {
			src, err = openSource(ctx, admin)
		}
		if src != nil {
			src.foreign = eng == nil
		}
		process.mu.Lock()
		defer process.mu.Unlock()
		process.source, process.engine, process.err = src, eng, err
	})
	return process.source, process.err
}

func sharedServer(ctx context.Context, mode string) (string, engine, error) {
	if isURL(mode) {
		return mode, nil, nil
	}
	ways, err := waysTo(mode)
	if err != nil {
		return "", nil, err
	}
	return first(ctx, ways, 0)
}

func isURL(mode string) bool {
	u, err := url.Parse(mode)
	return err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") && u.Host != ""
}

// Main runs the tests of a package and stops the server that they used:
//
//	func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	process.mu.Lock()
	defer process.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	if process.source != nil {
		process.source.close(ctx)
	}
	if process.engine != nil {
		if err := process.engine.remove(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "test postgres:", err)
			return max(code, 1)
		}
	}
	return code
}

// New opens a database of the test's own, with the newest schema and no rows
// but those that the migrations write. The pool is closed when the test ends. The
// database goes with the test or with the server; where the test is killed, with a
// later run.
func New(t testing.TB) *db.DB {
	t.Helper()
	store, err := db.Open(context.Background(), URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// URL is New for tests that open the database themselves.
func URL(t testing.TB) string {
	t.Helper()
	src, err := shared()
	if err != nil {
		t.Fatalf("test postgres (%s=%s): %v", modeVar, redacted(os.Getenv(modeVar)), err)
	}
	u, err := src.give(t)
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	return u
}

// redacted is mode without the password that a URL may hold.
func redacted(mode string) string {
	if u, err := url.Parse(mode); err == nil {
		return u.Redacted()
	}
	return strings.Map(func(rune) rune { return '?' }, mode)
}

// Private is a server of one test, which may stop it.
type Private struct {
	t      testing.TB
	engine engine
	url    string
}

// Server starts a server for this test alone, with one migrated database. It
// is gone when the test ends. A MUSTER_TEST_POSTGRES that is a URL counts as
// auto here, since a server that is somebody else's is not to be stopped.
func Server(t testing.TB) *Private {
	t.Helper()
	p := &Private{t: t}
	mode := os.Getenv(modeVar)
	if isURL(mode) {
		mode = ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	ways, err := waysTo(mode)
	if err != nil {
		t.Fatalf("test postgres: %v", err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatalf("test postgres: %v", err)
	}
	p.url, p.engine, err = first(ctx, ways, port)
	if err != nil {
		t.Fatalf("test postgres (%s=%s): %v", modeVar, mode, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		if err := p.engine.remove(ctx); err != nil {
			t.Errorf("test postgres: %v", err)
		}
	})
	if _, err := db.Migrate(ctx, p.url); err != nil {
		t.Fatal(err)
	}
	return p
}

// URL is that of the migrated database. It stays the same over Stop and Start.
func (p *Private) URL() string { return p.url }

// Stop cuts off all clients and returns when the server is gone.
func (p *Private) Stop() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	if err := p.engine.stop(ctx); err != nil {
		p.t.Fatalf("test postgres: %v", err)
	}
}

// Start returns when the server, which was stopped, answers again with the
// data that it had.
func (p *Private) Start() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	u, err := p.engine.start(ctx)
	if err != nil {
		p.t.Fatalf("test postgres: %v", err)
	}
	if u != p.url {
		p.t.Fatalf("test postgres came back at another address: %s", redacted(u))
	}
}
