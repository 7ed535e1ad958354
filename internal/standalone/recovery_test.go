package standalone

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPostgresSurvivesKillOfMuster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	muster, url := spawn(t, dir)
	remember(t, url)
	if err := muster.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = muster.Wait() // says that it was killed

	pg := begin(t, PostgresConfig{DataDir: dir})
	remembers(t, pg.URL())
}

// spawn runs a muster of its own process on dir.
func spawn(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // most tests have done it
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("helper said no URL: %v", err)
	}
	return cmd, strings.TrimSpace(url)
}

// orphan starts a server that does not end with its parent, as on systems
// whose kernel does not tie them together.
func orphan(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	dir, err := resolve(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, err := postgresAccount()
	if err != nil {
		t.Fatal(err)
	}
	bins, err := provide(t.Context(), PostgresConfig{Log: quiet()}, a, installed(t.Context()), rootHome, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := cluster{account: a, bins: bins, dir: dir, fast: true}
	port, err := awaitPort(t.Context(), quiet(), "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := tool(context.Background(), a, c.data(), filepath.Join(bins.dir, "postgres"), "-D", c.data(),
		"-c", "port="+strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // a dead child stays in the process table until then
		close(waited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // long gone where the test holds
		<-waited
	})
	ok, err := poll(t.Context(), 30*time.Second, func() bool { return c.ready(cmd.Process.Pid) })
	if err != nil || !ok {
		t.Fatalf("orphan did not come up: %v", err)
	}
	return cmd
}

func TestPostgresReplacesAStaleServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := begin(t, PostgresConfig{DataDir: dir, Fast: true})
	remember(t, first.URL())
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	stale := orphan(t, dir)

	pg := begin(t, PostgresConfig{DataDir: dir, Fast: true})
	remembers(t, pg.URL())
	if pid := postmasterPID(t, dir); pid == stale.Process.Pid {
		t.Error("the stale server is still the one that serves")
	}
	gone(t, stale.Process.Pid, dir)
}

func TestPostgresRecoversFromItsOwnKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := begin(t, PostgresConfig{DataDir: dir})
	remember(t, first.URL())
	if err := syscall.Kill(postmasterPID(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	pg := begin(t, PostgresConfig{DataDir: dir})
	remembers(t, pg.URL())
}

func TestPostgresIgnoresAPIDFileOfAnotherProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := begin(t, PostgresConfig{DataDir: dir, Fast: true}).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, first := range []string{strconv.Itoa(os.Getpid()), "not a number", "-1", ""} {
		stale := filepath.Join(dir, "data", "postmaster.pid")
		if err := os.WriteFile(stale, []byte(first+"\n/elsewhere\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		pg := begin(t, PostgresConfig{DataDir: dir, Fast: true})
		if got := query(t, pg.URL(), `SELECT 'up'`); got != "up" {
			t.Errorf("with pid file %q: %q", first, got)
		}
		if err := pg.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPostgresClearsHalfMadeClusters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	half := filepath.Join(dir, "initdb-1", "data")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	begin(t, PostgresConfig{DataDir: dir, Fast: true})
	left, err := filepath.Glob(filepath.Join(dir, "initdb-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
