package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db/dbtest"
)

// asProgram makes the test binary muster itself, so that tests can kill it.
const asProgram = "MUSTER_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main() // does not return
	}
	// Most of what these tests do is waiting for seconds to pass elsewhere. A
	// -parallel on the command line wins.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(dbtest.Main(m))
}

const (
	// patience bounds every wait; hardly any is expected to last. What has to
	// outlast leases (10 s and 60 s, looked for every 15 s) takes longest.
	patience = 2 * time.Minute
	// stopLimit is 20 s for what runs, and as much again for the rest.
	stopLimit = 40 * time.Second
	// pollEvery is how often a condition is looked at.
	pollEvery = 50 * time.Millisecond
)

// eventually waits until something holds. found says how far it is, for the
// message of a test that fails.
func eventually(t testing.TB, what string, holds func() (found string, ok bool)) {
	t.Helper()
	limit := time.Now().Add(patience)
	for {
		found, ok := holds()
		if ok {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s: not after %s: %s", what, patience, found)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		case <-time.After(pollEvery):
		}
	}
}

// process is a muster of its own, as a user runs it.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	log  *output // what it writes to stderr
	out  *output
	done chan struct{} // closed when it has ended
}

// start runs muster with the environment of the test and these variables,
// which win.
func start(t testing.TB, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, out: &output{}}
	p.start(p.out, env, args...)
	return p
}

// start is the function start, with another place for results.
func (p *process) start(stdout io.Writer, env []string, args ...string) {
	t := p.t
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd, p.log, p.done = exec.Command(self, args...), &output{}, make(chan struct{})
	p.cmd.Env = append(append(cleanEnvironment(), asProgram+"=1"), env...)
	p.cmd.Stdout, p.cmd.Stderr = stdout, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start muster: %v", err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the state tells
	})
	t.Cleanup(func() {
		p.kill()
		waiting.Wait()
		if t.Failed() {
			t.Logf("log of muster %s:\n%s", strings.Join(args, " "), tail(p.log.String(), 30))
		}
	})
}

// cleanEnvironment is the test's own without what configures muster.
func cleanEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MUSTER_") {
			env = append(env, v)
		}
	}
	return env
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only where it has ended
	<-p.done
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v", s, err)
	}
}

// exit waits for the end and returns the status.
func (p *process) exit() int {
	p.t.Helper()
	return p.exitWithin(patience)
}

func (p *process) exitWithin(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("muster has not ended after %s", limit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop is SIGTERM, which has to end in status 0.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.exitWithin(stopLimit); code != 0 {
		p.t.Fatalf("exit status after SIGTERM = %d, want 0", code)
	}
}

// says waits until the log has what the pattern describes, and returns its
// first group.
func (p *process) says(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	var match []string
	eventually(p.t, "muster logs "+pattern, func() (string, bool) {
		if match = re.FindStringSubmatch(p.log.String()); match != nil {
			return "", true
		}
		select {
		case <-p.done:
			p.t.Fatalf("muster ended with status %d before it logged %s", p.cmd.ProcessState.ExitCode(), pattern)
		default:
		}
		return "not yet", false
	})
	return match[len(match)-1]
}

// listens waits for the address of health and metrics.
func (p *process) listens() string {
	p.t.Helper()
	return p.says(`msg="web listener ready" address=(\S+)`)
}

// up waits until everything works.
func (p *process) up() *process {
	p.t.Helper()
	p.says(`msg="muster is up"`)
	return p
}

// get asks health or metrics.
func (p *process) get(path string) (int, string) {
	p.t.Helper()
	client := http.Client{Timeout: patience}
	answer, err := client.Get("http://" + p.listens() + path)
	if err != nil {
		p.t.Fatalf("GET %s: %v", path, err)
	}
	defer func() { _ = answer.Body.Close() }() // was read
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		p.t.Fatalf("GET %s: %v", path, err)
	}
	return answer.StatusCode, string(body)
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
