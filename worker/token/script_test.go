package token_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
)

// script is docs/examples/token.sh, which users copy.
const script = "../../docs/examples/token.sh"

type ran struct {
	status         int
	stdout, stderr string
}

// runScript runs the script as host build-01, with nothing in its environment
// but what is given.
func runScript(t *testing.T, url string, env []string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "MUSTER_HOST=build-01", "MUSTER_NATS_URL=" + url}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", script, err)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// permissions are those that hosts have on a NATS that knows who they are.
func permissions(o *server.Options) {
	allow := func(subjects ...string) *server.SubjectPermission { return &server.SubjectPermission{Allow: subjects} }
	o.Users = []*server.User{
		{Username: "muster", Password: "m", Permissions: &server.Permissions{
			Publish:   allow("_INBOX_host.>", "$JS.API.>"),
			Subscribe: allow(queue.TokenSubject("*"), "_INBOX.>", "$JS.EVENT.ADVISORY.STREAM.>"),
		}},
		{Username: "build-01", Password: `p\"1 `, Permissions: &server.Permissions{
			Publish: allow(queue.TokenSubject("build-01")), Subscribe: allow("_INBOX_host.build-01.>"),
		}},
	}
}

func TestTheScriptGetsATokenWithNothingButASocket(t *testing.T) {
	t.Parallel()
	s := anyone()
	s.options, s.connect = permissions, "muster:m@"
	r := start(t, s)
	url := "nats://" + r.nats.Addr().String()
	login := []string{"NATS_USER=build-01", `NATS_PASSWORD=p\"1 `}

	got := runScript(t, url, login, "acme")
	lines := strings.Split(got.stdout, "\n")
	if got.status != 0 || got.stderr != "" || len(lines) != 3 || lines[2] != "" {
		t.Fatalf("the script gives %+v", got)
	}
	if _, _, err := r.sim.RegisterRunner(lines[0], githubsim.RunnerSpec{Name: "build-01", OS: "linux"}); err != nil {
		t.Errorf("the token does not register: %v", err)
	}
	web, err := fleet.Target{Name: "acme", Scope: acme, APIURL: r.sim.APIURL()}.WebURL()
	if err != nil || lines[1] != web {
		t.Errorf("the url is %q, want %q (%v)", lines[1], web, err)
	}

	again := append(login, "REQUEST_ID="+newID())
	one, two := runScript(t, url, again, "acme", "removal"), runScript(t, url, again, "acme", "removal")
	if one.status != 0 || one != two || one.stdout == got.stdout {
		t.Errorf("the same request twice gives %+v and %+v", one, two)
	}
	if other := runScript(t, url, append(login, "MUSTER_HOST=build-02"), "acme"); other.status != 3 ||
		!strings.Contains(other.stderr, "does not let this login ask as host build-02: 'Permissions Violation") {
		t.Errorf("as another host: %+v", other)
	}
	if stranger := runScript(t, url, []string{"NATS_USER=build-01", "NATS_PASSWORD=x"}, "acme"); stranger.status != 3 ||
		!strings.Contains(stranger.stderr, "does not accept the login") {
		t.Errorf("with a wrong password: %+v", stranger)
	}
}

func TestTheScriptLogsInWithAToken(t *testing.T) {
	t.Parallel()
	s := anyone()
	s.options, s.connect = func(o *server.Options) { o.Authorization = "s3cret" }, "s3cret@"
	r := start(t, s)
	for _, tt := range []struct{ url, env string }{
		{"nats://s3cret@" + r.nats.Addr().String(), "X="},
		{"nats://" + r.nats.Addr().String(), "NATS_TOKEN=s3cret"},
		{r.nats.Addr().String() + "/", "NATS_TOKEN=s3cret"},
	} {
		if got := runScript(t, tt.url, []string{tt.env}, "acme"); got.status != 0 {
			t.Errorf("%s, %s: %+v", tt.url, tt.env, got)
		}
	}
}

func TestTheScriptSaysWhyThereIsNoToken(t *testing.T) {
	t.Parallel()
	postgres := dbtest.Server(t)
	one := anyone()
	one.grants[0].PerHour = 1
	one.grants[0].Kinds = []fleet.TokenKind{fleet.TokenRegistration}
	r := newWorld(t, postgres.URL()).replica(t, one)
	url := r.nats.ClientURL()
	// check runs the script and looks for its status and for part of what it says.
	check := func(name, url string, env []string, args []string, status int, says string) {
		t.Helper()
		got := runScript(t, url, env, args...)
		if got.status != status || got.stdout != "" || !strings.Contains(got.stderr, says) || strings.Count(got.stderr, "token.sh: ") != 1 {
			t.Errorf("%s: %+v, want %d and %q", name, got, status, says)
		}
		if strings.Contains(got.stderr, "hunter2") {
			t.Errorf("%s: the password is in %q", name, got.stderr)
		}
	}
	acme := []string{"acme"}
	check("no grant", url, nil, []string{"acme", "removal"}, 3, "403 denied: no grant allows this (request ")
	check("no UUID", url, []string{"REQUEST_ID=7"}, acme, 2, "400 bad_request: request_id is not a UUID")
	r.sim.Down(true)
	check("GitHub away", url, nil, acme, 4, "502 github_error: GitHub gave no token")
	r.sim.Down(false)
	if got := runScript(t, url, nil, "acme"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	check("quota", url, nil, acme, 3, "429 quota: the limit of the grant is reached; ask again in 3")
	postgres.Stop()
	check("Postgres away", url, nil, acme, 4, "503 audit_unavailable: ")
	r.stop()
	check("nobody listens", url, nil, acme, 4, "nobody answers at "+url+"; is muster serve running?")
	r.nats.Shutdown()
	r.nats.WaitForShutdown()
	check("NATS away", url, nil, acme, 4, "cannot reach "+url)

	check("TLS", "tls://nats:4222", nil, acme, 2, `use the nats command: nats --inbox-prefix _INBOX_host.build-01 request muster.v1.token.build-01.issue '{"target":"acme","kind":"registration"}'`)
	check("no address", "http://build:hunter2@x y", nil, acme, 2, "is not nats://HOST:PORT")
	check("an escape", "nats://build:hunter2%20@x", nil, acme, 2, "use NATS_USER")
	check("target", url, nil, []string{"Acme"}, 2, `target "Acme" is not a name`)
	check("host", url, []string{"MUSTER_HOST=a.b"}, acme, 2, `host "a.b" is not a name`)
	check("kind", url, nil, []string{"acme", "jit"}, 2, "want registration or removal")
	check("timeout", url, []string{"MUSTER_TIMEOUT=0"}, acme, 2, "want whole seconds")
	check("line break", url, []string{"REQUEST_ID=a\nb"}, acme, 2, "control character")
	if got := runScript(t, url, nil); got.status != 2 || !strings.HasPrefix(got.stderr, "usage: ") {
		t.Errorf("no arguments: %+v", got)
	}
	if got := runScript(t, url, nil, "--help"); got.status != 0 || !strings.HasPrefix(got.stdout, "usage: ") {
		t.Errorf("--help: %+v", got)
	}
}

// What no nats-server does on demand is done by a few lines that listen.
func TestTheScriptCopesWithAnyServer(t *testing.T) {
	t.Parallel()
	const (
		info    = "INFO {\"headers\":true}\r\n"
		welcome = info + "+OK\r\n+OK\r\n" // to CONNECT and to SUB
	)
	const answer = `{"v":1,"url":"https://github.com/acme","token":"AAA"}`
	tests := []struct {
		name   string
		serve  func(send func(string), line func() string)
		status int
		says   string
	}{
		{"a server that pings, with an answer in pieces", func(send func(string), line func() string) {
			send(info)
			for range 2 {
				line()
				send("+OK\r\n")
			}
			for !strings.HasPrefix(line(), "{") {
			}
			send("+OK\r\nPI")
			send("NG\r\n")
			if got := line(); got != "PONG" {
				send("-ERR 'no PONG but " + got + "'\r\n")
			}
			send(fmt.Sprintf("HMSG _INBOX_host.build-01.x 1 12 %d\r\nNATS/1.0\r\n", 12+len(answer)))
			send("\r\n" + answer[:20])
			send(answer[20:] + "\r\n")
		}, 0, "AAA\nhttps://github.com/acme\n"},
		{"an answer without headers", func(send func(string), _ func() string) {
			send(welcome + fmt.Sprintf("MSG _INBOX_host.build-01.x 1 %d\r\n%s\r\n", len(answer), answer))
		}, 0, "AAA\nhttps://github.com/acme\n"},
		{"an answer that is none", func(send func(string), _ func() string) {
			send(welcome + "MSG x 1 2\r\n{}\r\n")
		}, 1, "the answer has no token or no url in it"},
		{"a web server", func(send func(string), _ func() string) { send("HTTP/1.1 400 Bad Request\r\n\r\n") }, 4, "is not a NATS server"},
		{"TLS required", func(send func(string), _ func() string) { send("INFO {\"headers\":true,\"tls_required\":true}\r\n") }, 2, "wants TLS"},
		{"no headers", func(send func(string), _ func() string) { send("INFO {}\r\n") }, 4, "too old"},
		{"a fault", func(send func(string), _ func() string) { send(info + "-ERR 'Maximum Connections'\r\n") }, 4, "says 'Maximum Connections'"},
		{"not the protocol", func(send func(string), _ func() string) { send(welcome + "MSG x y\r\n") }, 4, "sent what is not NATS"},
		{"an end in the middle", func(send func(string), _ func() string) { send(welcome + "MSG x 1 99\r\n{\"v\"") }, 4, "closed the connection"},
		{"an end at once", func(func(string), func() string) {}, 4, "closed the connection"},
		{"silence", func(_ func(string), line func() string) { line() }, 4, "no answer from nats://127.0.0.1:"},
		{"silence after the request", func(send func(string), line func() string) {
			send(welcome + "+OK\r\n")
			for line() != "" {
			}
		}, 4, "within 1 s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			t.Cleanup(func() {
				_ = l.Close()
				serving.Wait()
			})
			serving.Go(func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer func() { _ = conn.Close() }()
				lines := bufio.NewReader(conn)
				send := func(s string) { _, _ = io.WriteString(conn, s) }
				tt.serve(send, func() string {
					s, _ := lines.ReadString('\n')
					return strings.TrimSpace(s)
				})
				// Closing with something unread would take back what was sent.
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, lines)
			})
			limit := "MUSTER_TIMEOUT=20"
			if strings.HasPrefix(tt.name, "silence") {
				limit = "MUSTER_TIMEOUT=1"
			}
			got := runScript(t, "nats://"+l.Addr().String(), []string{limit}, "acme")
			if got.status != tt.status || !strings.Contains(got.stdout+got.stderr, tt.says) || (got.status == 0) != (got.stderr == "") {
				t.Errorf("the script gives %+v, want %d and %q", got, tt.status, tt.says)
			}
		})
	}
}
