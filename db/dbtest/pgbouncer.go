package dbtest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer starts a PgBouncer before the server of a URL of this package and
// returns the URL through it. mode is session, transaction or statement. In
// transaction mode it gives out its sessions in turns, so that two transactions
// of a client hardly ever have the same one. The test fails where the program
// pgbouncer is missing; Debian has it in the package of that name.
func PgBouncer(t testing.TB, direct, mode string) string {
	t.Helper()
	program, err := findPgBouncer()
	if err != nil {
		t.Fatal(err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	config := bouncerFiles(t, u, mode, port)
	args := []string{config}
	if os.Geteuid() == 0 {
		args = []string{"-u", "nobody", config} // it refuses to run as root
	}
	cmd := exec.Command(program, args...)
	var log lockedText
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start pgbouncer: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // nothing of it is kept
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pgbouncer:\n%s", log.String())
		}
	})
	u.Host = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	awaitBouncer(t, u.String(), &log)
	return u.String()
}

func findPgBouncer() (string, error) {
	if path, err := exec.LookPath("pgbouncer"); err == nil {
		return path, nil
	}
	const debian = "/usr/sbin/pgbouncer" // the PATH of an ordinary user lacks it
	if _, err := os.Stat(debian); err != nil {
		return "", fmt.Errorf("there is no pgbouncer on this machine: install the package pgbouncer: %w", err)
	}
	return debian, nil
}

// bouncerFiles writes the configuration, in reach of the account that PgBouncer
// runs as. It looks the passwords of logins up in the server.
func bouncerFiles(t testing.TB, server *url.URL, mode string, port int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster-pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // of a test, below the directory for temporary files
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	host, serverPort := server.Hostname(), server.Port()
	password, _ := server.User.Password()
	for name, text := range map[string]string{
		"users.txt": fmt.Sprintf("%q %q\n", server.User.Username(), password),
		"pgbouncer.ini": fmt.Sprintf(`
[databases]
* = host=%s port=%s auth_user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
auth_query = SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1
pool_mode = %s
server_round_robin = 1
default_pool_size = 20
max_client_conn = 400
`, host, serverPort, server.User.Username(), port, filepath.Join(dir, "users.txt"), mode),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "pgbouncer.ini")
}

// awaitBouncer waits until PgBouncer takes logins.
func awaitBouncer(t testing.TB, address string, log *lockedText) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stopLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, address)
		if err == nil {
			_ = conn.Close(ctx) // nothing was asked
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("pgbouncer takes no login: %v\n%s", err, log.String())
		case <-tick.C:
		}
	}
}

// lockedText collects what a process writes.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
