package standalone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// begin starts a server and stops it with the test.
func begin(t *testing.T, cfg PostgresConfig) *Postgres {
	t.Helper()
	cfg.Log = quiet()
	pg, err := StartPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return pg
}

// query runs one statement and returns the first column of its row as text.
func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var s string
	if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return s
}

// remember puts something into the database that remembers finds.
func remember(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), `CREATE TABLE kept AS SELECT 'yes' AS answer`); err != nil {
		t.Fatal(err)
	}
}

func remembers(t *testing.T, url string) {
	t.Helper()
	if got := query(t, url, `SELECT answer FROM kept`); got != "yes" {
		t.Errorf("the database holds %q, want yes", got)
	}
}

func postmasterPID(t *testing.T, dir string) int {
	t.Helper()
	pid, err := readPID(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil || pid == 0 {
		t.Fatalf("postmaster.pid: %d, %v", pid, err)
	}
	return pid
}

// gone waits until process pid no longer serves dir.
func gone(t *testing.T, pid int, dir string) {
	t.Helper()
	dir, err := resolve(dir)
	if err != nil {
		t.Fatal(err)
	}
	ok, err := poll(t.Context(), 30*time.Second, func() bool {
		return !serves(t.Context(), pid, filepath.Join(dir, "data"))
	})
	if err != nil || !ok {
		t.Fatalf("process %d still serves %s (%v)", pid, dir, err)
	}
}

func oneLine(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestPostgresKeepsItsDataOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := begin(t, PostgresConfig{DataDir: dir})
	remember(t, first.URL())
	pid := postmasterPID(t, dir)
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Stop: %v, want none", pid, err)
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Errorf("second Stop: %v", err)
	}

	second := begin(t, PostgresConfig{DataDir: dir})
	remembers(t, second.URL())
}

func TestPostgresSettings(t *testing.T) {
	t.Parallel()
	safe := begin(t, PostgresConfig{DataDir: t.TempDir()})
	fast := begin(t, PostgresConfig{DataDir: t.TempDir(), Fast: true})
	tests := []struct{ setting, safe, fast string }{
		{"fsync", "on", "off"},
		{"synchronous_commit", "on", "off"},
		{"full_page_writes", "on", "off"},
		{"listen_addresses", "127.0.0.1", "127.0.0.1"},
		{"unix_socket_directories", "", ""},
		{"TimeZone", "UTC", "UTC"},
		{"server_encoding", "UTF8", "UTF8"},
		{"max_connections", "100", "400"},
		{"password_encryption", "scram-sha-256", "scram-sha-256"},
	}
	for _, tt := range tests {
		show := `SELECT current_setting('` + tt.setting + `')`
		if got := query(t, safe.URL(), show); got != tt.safe {
			t.Errorf("%s = %q, want %q", tt.setting, got, tt.safe)
		}
		if got := query(t, fast.URL(), show); got != tt.fast {
			t.Errorf("%s with Fast = %q, want %q", tt.setting, got, tt.fast)
		}
	}
	if got := query(t, safe.URL(), `SELECT datcollate FROM pg_database WHERE datname = current_database()`); got != "C" {
		t.Errorf("collation %q, want C", got)
	}
}

func TestPostgresWantsItsPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var said bytes.Buffer
	pg, err := StartPostgres(t.Context(), PostgresConfig{
		DataDir: dir, Fast: true, Log: slog.New(slog.NewTextHandler(&said, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	cfg, err := pgx.ParseConfig(pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	if said.Len() == 0 || strings.Contains(said.String(), cfg.Password) {
		t.Errorf("logged %q, want the address without the password", &said)
	}
	cfg.Password = "guess"
	if conn, err := pgx.ConnectConfig(t.Context(), cfg); err == nil {
		_ = conn.Close(t.Context())
		t.Error("connected with a wrong password")
	}
	fi, err := os.Stat(filepath.Join(dir, "password"))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("password file has mode %o, want 600", fi.Mode().Perm())
	}
}

func TestPostgresMissingPasswordIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := begin(t, PostgresConfig{DataDir: dir, Fast: true}).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "password")); err != nil {
		t.Fatal(err)
	}
	_, err := StartPostgres(t.Context(), PostgresConfig{DataDir: dir, Log: quiet()})
	oneLine(t, err, "password", dir)
}

func TestPostgresSecondMusterIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pg := begin(t, PostgresConfig{DataDir: dir, Fast: true})
	_, err := StartPostgres(t.Context(), PostgresConfig{DataDir: dir, Fast: true, Log: quiet()})
	oneLine(t, err, dir, fmt.Sprintf("process %d", os.Getpid()), "data_dir")
	if got := query(t, pg.URL(), `SELECT 'up'`); got != "up" {
		t.Errorf("the first one is disturbed: %q", got)
	}
}

func TestPostgresPortTakenIsSaid(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = StartPostgres(t.Context(), PostgresConfig{DataDir: t.TempDir(), Fast: true, Port: port, Log: quiet()})
	oneLine(t, err, strconv.Itoa(port), "embedded.postgres_port", "MUSTER_DATABASE_URL")
}

// The path of a Unix socket would not fit.
func TestPostgresTakesTheGivenPortAndALongPath(t *testing.T) {
	t.Parallel()
	port, err := awaitPort(t.Context(), quiet(), "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	pg := begin(t, PostgresConfig{DataDir: dir, Fast: true, Port: port})
	if want := fmt.Sprintf("@127.0.0.1:%d/muster", port); !strings.Contains(pg.URL(), want) {
		t.Errorf("URL %q, want %q in it", pg.URL(), want)
	}
	// A terminal sends Ctrl-C to a whole group, and the server is to outlive
	// what muster still has to do.
	pid := postmasterPID(t, dir)
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("process group %d of process %d, %v, want one of its own", group, pid, err)
	}
}

func TestPostgresDataOfAnotherVersionIsSaid(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, version string
		want          []string
	}{
		{"too old", "14\n", []string{"PostgreSQL 14", "pg_upgrade"}},
		{"from before version 10", "9.6\n", []string{"9.6"}},
		{"newer than this machine", "99\n", []string{"PostgreSQL 99", "MUSTER_DATABASE_URL"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte(tt.version), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := StartPostgres(t.Context(), PostgresConfig{DataDir: dir, NoFetch: true, Log: quiet()})
			oneLine(t, err, tt.want...)
		})
	}
}

func TestPostgresDamagedClusterIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := begin(t, PostgresConfig{DataDir: dir, Fast: true}).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "data", "global", "pg_control")); err != nil {
		t.Fatal(err)
	}
	_, err := StartPostgres(t.Context(), PostgresConfig{DataDir: dir, Log: quiet()})
	oneLine(t, err, "postgres.log")
}

func TestPostgresStartGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := StartPostgres(ctx, PostgresConfig{DataDir: dir, Fast: true, Log: quiet()})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("StartPostgres = %v, want context.Canceled", err)
	}
	// Nothing holds on to the directory.
	begin(t, PostgresConfig{DataDir: dir, Fast: true})
}

func TestPostgresIsStoppedInAHurry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pg := begin(t, PostgresConfig{DataDir: dir, Fast: true})
	pid := postmasterPID(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pg.Stop(ctx); err != nil {
		t.Errorf("Stop with an ended context: %v", err)
	}
	gone(t, pid, dir)
}
