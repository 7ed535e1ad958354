package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/github/githubsim"
)

// roomyDir is a directory that the account of an embedded Postgres can enter,
// which those of testing are not for root. What muster puts elsewhere because
// not even that is in reach goes with it.
func roomyDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clear up: %v", err)
		}
	})
	return dir
}

// processesNaming are the command lines, of any process, that hold a text.
func processesNaming(t testing.TB, text string) []string {
	t.Helper()
	var lines []string
	if entries, err := filepath.Glob("/proc/[0-9]*/cmdline"); err == nil && len(entries) > 0 {
		for _, name := range entries {
			b, err := os.ReadFile(name)
			if err == nil { // else it has ended
				lines = append(lines, name+" "+strings.ReplaceAll(string(b), "\x00", " "))
			}
		}
	} else {
		out, err := exec.CommandContext(t.Context(), "ps", "-axww", "-o", "pid=,command=").Output()
		if err != nil {
			t.Fatalf("list processes: %v", err)
		}
		lines = strings.Split(string(out), "\n")
	}
	var found []string
	for _, line := range lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// listening reports whether anybody accepts connections there.
func listening(address string) bool {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was said
	return true
}

// embedded is a muster that has nothing but a data directory.
type embedded struct {
	t   testing.TB
	sim *githubsim.Sim
	dir string
}

func newEmbedded(t testing.TB, listen string) *embedded {
	t.Helper()
	sim, stop, err := githubsim.Start(context.Background(), githubsim.Config{Tokens: []string{credential}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if err := sim.AddScope(acme); err != nil {
		t.Fatal(err)
	}
	e := &embedded{t: t, sim: sim, dir: roomyDir(t)}
	for name, text := range map[string]string{
		"github.token": credential,
		"muster.yaml": fmt.Sprintf(`
data_dir: data
embedded: {nats_listen: "127.0.0.1:0", postgres_port: 0}
listen: %s
targets:
  - {name: acme, scope: org/acme, api_url: %q, auth: {token_file: github.token}}
`, listen, sim.APIURL()),
	} {
		if err := os.WriteFile(filepath.Join(e.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func (e *embedded) serve() *process {
	e.t.Helper()
	return start(e.t, nil, "serve", "--config", filepath.Join(e.dir, "muster.yaml"))
}

// connection reads connect.env as a program does that a shell starts which has
// sourced it.
func (e *embedded) connection() (database, nats string) {
	e.t.Helper()
	name := filepath.Join(e.dir, "data", "connect.env")
	info, err := os.Stat(name)
	if err != nil {
		e.t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		e.t.Errorf("connect.env has mode %o, want 600: it holds a password", info.Mode().Perm())
	}
	out, err := exec.CommandContext(e.t.Context(), "sh", "-c", `. "$0" && env | grep ^MUSTER_DATABASE_URL= && env | grep ^MUSTER_NATS_URL=`, name).Output()
	if err != nil {
		e.t.Fatalf("source connect.env: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 {
		e.t.Fatalf("connect.env says %q, want two addresses", lines)
	}
	_, database, _ = strings.Cut(lines[0], "=")
	_, nats, _ = strings.Cut(lines[1], "=")
	return database, nats
}

// scopes reads the record at an address.
func (e *embedded) scopes(database string) string {
	e.t.Helper()
	conn, err := pgx.Connect(e.t.Context(), database)
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = conn.Close(e.t.Context()) }() // nothing was written
	var scopes string
	if err := conn.QueryRow(e.t.Context(), `SELECT coalesce(string_agg(scope, ','), '') FROM api.targets`).Scan(&scopes); err != nil {
		e.t.Fatal(err)
	}
	return scopes
}

// refuses is serve for somebody who is in the way of another one. It wants one
// line, apart from the log, and returns it with the exit status.
func (e *embedded) refuses() (int, string) {
	e.t.Helper()
	p := e.serve()
	code := p.exit()
	lines := regexp.MustCompile(`(?m)^muster: .*$`).FindAllString(p.log.String(), -1)
	if len(lines) != 1 {
		e.t.Fatalf("muster says %q, want one line", lines)
	}
	return code, lines[0]
}

func TestEmbeddedServersComeAndGoWithMuster(t *testing.T) {
	t.Parallel()
	e := newEmbedded(t, "127.0.0.1:0")
	p := e.serve().up()
	pgDir := p.says(`msg="postgres started" .*dir=(\S+)`)
	t.Cleanup(func() { _ = os.RemoveAll(pgDir) }) // of roomyDir, mostly
	database, nats := e.connection()
	server := &natsServer{t: t, url: nats}
	server.publish("muster.v1.trigger.sync.acme", "")
	// Another user of the machine has no login. token.sh takes it from the address:
	// it is heard, and refused for lack of a grant.
	for address, want := range map[string]string{"nats://" + server.address(): "does not accept the login", nats: "403 denied"} {
		script := exec.CommandContext(t.Context(), "../../docs/examples/token.sh", "acme", "registration")
		script.Env = []string{"PATH=" + os.Getenv("PATH"), "MUSTER_NATS_URL=" + address, "MUSTER_HOST=build-01"}
		said, err := script.CombinedOutput()
		var ended *exec.ExitError
		if !errors.As(err, &ended) || ended.ExitCode() != exitRefused || !strings.Contains(string(said), want) {
			t.Errorf("token.sh says %q and ends with %v, want %q and status %d", said, err, want, exitRefused)
		}
	}
	eventually(t, "the record has a target", func() (string, bool) {
		scopes := e.scopes(database)
		return scopes, scopes == "org/acme"
	})

	if code, line := e.refuses(); code == 0 || !strings.Contains(line, "another") {
		t.Errorf("a second serve on the data directory: exit status %d, %q, want a refusal that names another muster", code, line)
	}
	if !listening((&natsServer{t: t, url: nats}).address()) {
		t.Error("a second serve that was refused has stopped the first one's NATS")
	}
	e.scopes(database)

	// Killed, it leaves its servers behind or half dead.
	p.kill()
	again := e.serve().up()
	database, nats = e.connection()
	if got := e.scopes(database); got != "org/acme" {
		t.Errorf("after kill -9 the record has the targets %q, want org/acme", got)
	}
	again.signal(syscall.SIGTERM)
	if code := again.exitWithin(stopLimit); code != 0 {
		t.Errorf("exit status after SIGTERM = %d, want 0", code)
	}
	if left := processesNaming(t, pgDir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	for what, address := range map[string]string{"Postgres": u.Host, "NATS": (&natsServer{t: t, url: nats}).address(), "health": again.listens()} {
		if listening(address) {
			t.Errorf("somebody still listens where %s did, at %s", what, address)
		}
	}
	if _, err := os.Stat(filepath.Join(e.dir, "data", "connect.env")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("connect.env is still there: %v", err)
	}
}

func TestASecondServeOnTheAddressSaysSo(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	taken, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }() // nobody speaks to it
	e := newEmbedded(t, taken.Addr().String())
	began := time.Now()
	code, line := e.refuses()
	if code != exitUsage || !strings.Contains(line, taken.Addr().String()) || !strings.Contains(line, "listen in muster.yaml") {
		t.Errorf("exit status %d, %q, want %d and the key to change", code, line, exitUsage)
	}
	if _, err := os.Stat(filepath.Join(e.dir, "data")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it has begun all the same, after %s: %v", time.Since(began), err)
	}
}
