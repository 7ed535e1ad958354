package dbtest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func names(t *testing.T, conn *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestNewIsMigrated(t *testing.T) {
	t.Parallel()
	store := New(t)
	status, err := store.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if status.Want == 0 || status.Have != status.Want || len(status.Missing) > 0 {
		t.Errorf("schema is at %+v, want all of it", status)
	}
}

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	const parallel = 8
	urls := make([]string, parallel)
	var wg sync.WaitGroup
	for i := range urls {
		wg.Go(func() {
			src, err := shared()
			if err != nil {
				t.Error(err)
				return
			}
			if urls[i], err = src.clone(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, url := range urls {
		conn := connect(t, url)
		// Fails where two share a database.
		run(t, conn, `CREATE TABLE mine ()`)
		if got := names(t, conn, `SELECT nspname::text FROM pg_namespace WHERE nspname IN ('api', 'audit') ORDER BY 1`); len(got) != 2 {
			t.Errorf("schemas %v, want api and audit", got)
		}
	}
}

func TestServerStopsAndComesBack(t *testing.T) {
	t.Parallel()
	srv := Server(t)
	store, err := db.Open(t.Context(), srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	run(t, connect(t, srv.URL()), `CREATE TABLE public.kept AS SELECT 'yes' AS answer`)
	if status, err := store.Status(t.Context()); err != nil || status.Have != status.Want {
		t.Errorf("schema is at %+v, %v, want all of it", status, err)
	}

	srv.Stop()
	if err := store.Ping(t.Context()); err == nil {
		t.Error("a stopped server answers")
	}

	srv.Start()
	if got := names(t, connect(t, srv.URL()), `SELECT answer FROM public.kept`); !cmp.Equal(got, []string{"yes"}) {
		t.Errorf("after a restart the table holds %v, want yes", got)
	}
	if err := store.Ping(t.Context()); err != nil {
		t.Errorf("a pool from before the stop: %v", err)
	}
}

// On a server of its own, since it counts what is there.
func TestTemplates(t *testing.T) {
	t.Parallel()
	admin := Server(t).URL()
	conn := connect(t, admin)

	t.Run("processes that start together share one", func(t *testing.T) {
		sources := make([]*source, 4)
		var g errgroup.Group
		for i := range sources {
			g.Go(func() error {
				src, err := openSource(t.Context(), admin)
				sources[i] = src
				return err
			})
		}
		err := g.Wait()
		for _, src := range sources {
			if src != nil {
				defer src.close(context.Background())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		got := names(t, conn, `SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)`, prefix)
		if want := []string{sources[0].template}; !cmp.Equal(got, want) {
			t.Errorf("databases %v, want %v", got, want)
		}
		for _, src := range sources {
			if src.template != sources[0].template {
				t.Errorf("templates %q and %q, want one", src.template, sources[0].template)
			}
		}
	})

	t.Run("what earlier runs left is dropped", func(t *testing.T) {
		now := time.Now()
		old, young := now.Add(-2*leftoverAge).Unix(), now.Add(-leftoverAge/2).Unix()
		hash, err := schemaHash()
		if err != nil {
			t.Fatal(err)
		}
		called := func(kind string, made int64, rest string) string {
			return fmt.Sprintf("%s%s_%d_%s", prefix, kind, made, rest)
		}
		busy := called(kindClone, old, "2_1")
		keep := []string{
			busy,
			called(kindClone, young, "1_1"),
			called(kindBuilding, young, "1"),
			called(kindTemplate, old, hash),
			called(kindTemplate, old, "0000000000aa"),
			prefix + "of_somebody_else",
			"unrelated",
		}
		drop := []string{
			called(kindClone, old, "1_1"),
			called(kindBuilding, old, "1"),
			called(kindTemplate, old, "0000000000bb"),
		}
		for _, database := range append(append([]string(nil), keep...), drop...) {
			run(t, conn, `CREATE DATABASE `+quote(database))
		}
		u, err := inDatabase(admin, busy)
		if err != nil {
			t.Fatal(err)
		}
		run(t, connect(t, u), `SELECT 1`)
		// A process of another checkout, whose template this is.
		run(t, connect(t, admin), `SELECT pg_advisory_lock_shared(hashtext('0000000000aa'))`)

		src, err := openSource(t.Context(), admin)
		if err != nil {
			t.Fatal(err)
		}
		defer src.close(context.Background())
		if got := names(t, conn, `SELECT datname::text FROM pg_database WHERE datname = ANY ($1)`, drop); len(got) > 0 {
			t.Errorf("still there: %v", got)
		}
		got := names(t, conn, `SELECT datname::text FROM pg_database WHERE datname = ANY ($1)`, keep)
		if len(got) != len(keep) {
			t.Errorf("kept %v, want %v", got, keep)
		}
	})
}

// On a server that outlives the tests no database does: each goes with its test,
// and what a killed run left goes with the next one, but nothing of a run that is
// alive.
func TestDatabasesGoWithTheirTests(t *testing.T) {
	t.Parallel()
	admin := Server(t).URL()
	conn := connect(t, admin)
	clones := func() []string {
		return names(t, conn, `SELECT datname::text FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1`, prefix+kindClone)
	}
	out, err := child(t, "TestURLIsSaid", modeVar+"="+admin)
	if left := clones(); err != nil || len(left) != 0 {
		t.Fatalf("after a run that ended: %v, databases %v\n%s", err, left, out)
	}

	// Two runs side by side, of which one is killed.
	alive, killed := hang(t, admin), hang(t, admin)
	if got := clones(); len(got) != 2 {
		t.Fatalf("two runs have %v", got)
	}
	killed.kill()
	src, err := openSource(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	defer src.close(context.Background())
	mine, err := src.clone(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := clones()
	for name, url := range map[string]string{"the run that is alive": alive.url, "this run": mine} {
		if !slices.ContainsFunc(got, func(database string) bool {
			return strings.HasSuffix(url, "/"+database) || strings.Contains(url, "/"+database+"?")
		}) {
			t.Errorf("the database of %s is gone, there are %v", name, got)
		}
	}
	if len(got) != 2 {
		t.Errorf("there are %v, want those of the run that is alive and of this one", got)
	}
	// Not even by those who would clear up in the very process.
	if err := src.sweep(t.Context(), "no-such-hash", time.Now().Add(2*leftoverAge)); err != nil {
		t.Fatal(err)
	}
	if again := clones(); !cmp.Equal(again, got) {
		t.Errorf("a later look left %v of %v", again, got)
	}
	if err := src.dropClone(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if again := clones(); len(again) != 1 {
		t.Errorf("there are %v, want that of the run that is alive", again)
	}
}

// hung is a run whose test has a database and does not end.
type hung struct {
	url  string
	kill func()
}

// hang starts a run whose test hangs once it has a database.
func hang(t *testing.T, admin string) hung {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestURLIsSaid$", "-test.v")
	cmd.Env = append(os.Environ(), modeVar+"="+admin, sayVar+"=hang")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var owner string
	kill := func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
		// The server notices the end of its sessions in its own time.
		sessions := connect(t, admin)
		for t.Context().Err() == nil && len(names(t, sessions, `SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint = (hashtext($1)::bigint & 4294967295)`, owner)) > 0 {
			<-time.After(time.Millisecond)
		}
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have been killed
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, url, ok := strings.Cut(lines.Text(), "url="); ok {
			url = strings.Fields(url)[0]
			owner = url[strings.LastIndex(url, "_"+ownerMark)+1:]
			owner, _, _ = strings.Cut(owner, "_")
			return hung{url, kill}
		}
	}
	t.Fatalf("the run that should hang said no URL: %v", lines.Err())
	return hung{}
}

// child runs one test of this package in a process of its own.
func child(t *testing.T, test string, env ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestMissingServerFailsTheTest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, mode, want string
	}{
		{"nobody at the URL", "postgres://postgres:hush@127.0.0.1:1/postgres", "127.0.0.1:1"},
		{"not a mode", "docker", "want auto, local, container or a postgres:// URL"},
		{"not a mode, but a password", "mysql://root:hush@127.0.0.1/x", "want auto, local, container or a postgres:// URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, err := child(t, "TestNewIsMigrated", modeVar+"="+tt.mode)
			if err == nil || !strings.Contains(out, "--- FAIL") || strings.Contains(out, "SKIP") {
				t.Errorf("want a failure, got %v:\n%s", err, out)
			}
			if !strings.Contains(out, tt.want) {
				t.Errorf("output does not say %q:\n%s", tt.want, out)
			}
			if strings.Contains(out, "hush") {
				t.Errorf("output holds the password:\n%s", out)
			}
		})
	}
}

// Not parallel: a child of any other test would be seen as well.
func TestMainLeavesNothingBehind(t *testing.T) {
	temp := t.TempDir()
	// TempDir closes its parent to the account that root has Postgres run as.
	if err := os.Chmod(filepath.Dir(temp), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := child(t, "TestURLIsSaid", "TMPDIR="+temp, sayVar+"=1")
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("left behind: %s", entry.Name())
	}
	_, rest, ok := strings.Cut(out, "url=")
	if !ok {
		t.Fatalf("no URL in:\n%s", out)
	}
	url := strings.Fields(rest)[0]
	if isURL(os.Getenv(modeVar)) {
		return // that server stays
	}
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		_ = conn.Close(context.Background())
		t.Error("the server is still there")
	}
}

const sayVar = "MUSTER_DBTEST_SAY_URL"

func TestURLIsSaid(t *testing.T) {
	url := URL(t)
	if os.Getenv(sayVar) != "" {
		fmt.Println("url=" + url)
	}
	if os.Getenv(sayVar) == "hang" {
		<-make(chan struct{})
	}
}
