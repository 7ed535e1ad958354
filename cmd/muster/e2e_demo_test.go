package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/internal/demo"
)

// startDemo runs the demo on the smallest fleet, in a temporary directory of
// its own.
func startDemo(t testing.TB) (*process, string) {
	t.Helper()
	dir := roomyDir(t)
	return start(t, []string{"TMPDIR=" + dir}, "demo", "--runners", fmt.Sprint(demo.MinRunners)), dir
}

// nothingLeft looks for files, and for processes that know the directory.
func nothingLeft(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
	}
	if left := processesNaming(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestDemoHoldsItsPromisesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	p, dir := startDemo(t)
	if code := p.exit(); code != 0 {
		t.Errorf("exit status = %d, want 0:\n%s", code, p.out)
	}
	told := p.out.String()
	n := strings.Count(told, "\n  ok    ")
	if n < 12 || !strings.Contains(told, fmt.Sprintf("All %d checks hold.", n)) || strings.Contains(told, "FAIL") {
		t.Errorf("%d checks hold, want all of at least 12:\n%s", n, tail(told, 30))
	}
	for _, part := range []string{"SELECT", "gpu-01 gets a registration token", "stranger-01 asks for a token and is refused", "the policy halts itself", "empty body",
		"more for the pool", "was drained and is released"} {
		if !strings.Contains(told, part) {
			t.Errorf("the account does not tell %q:\n%s", part, told)
		}
	}
	if p.log.String() != "" {
		t.Errorf("stderr = %s, want nothing", p.log)
	}
	nothingLeft(t, dir)
}

func TestDemoStopsCleanlyAtAnyMoment(t *testing.T) {
	t.Parallel()
	moments := []struct {
		name string
		come func(p *process, dir string) bool
	}{
		{"while Postgres is made", func(_ *process, dir string) bool {
			found, err := filepath.Glob(filepath.Join(dir, "muster-demo-*", "data", "*"))
			return err == nil && len(found) > 0
		}},
		{"when the service is up", func(p *process, _ string) bool { return strings.Contains(p.out.String(), "muster serve is up") }},
		{"while hosts ask", func(p *process, _ string) bool { return strings.Contains(p.out.String(), "build-01 gets") }},
		{"while runners come and go", func(p *process, _ string) bool { return strings.Contains(p.out.String(), "went offline") }},
	}
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			p, dir := startDemo(t)
			eventually(t, "the moment comes", func() (string, bool) { return p.out.String(), m.come(p, dir) })
			p.signal(syscall.SIGINT)
			if code := p.exitWithin(stopLimit); code != exitFailed {
				t.Errorf("exit status = %d, want %d", code, exitFailed)
			}
			if !regexp.MustCompile(`^muster: the demo was stopped after \d+s\n$`).MatchString(p.log.String()) {
				t.Errorf("stderr = %q, want one line", p.log)
			}
			nothingLeft(t, dir)
		})
	}
}

// muster demo | head
func TestDemoStopsCleanlyWhenNobodyReads(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := roomyDir(t)
	p := &process{t: t}
	p.start(write, []string{"TMPDIR=" + dir}, "demo", "--runners", fmt.Sprint(demo.MinRunners))
	_ = write.Close() // the process has its own
	for lines := bufio.NewScanner(read); lines.Scan() && !strings.Contains(lines.Text(), "muster serve is up"); {
	}
	if err := read.Close(); err != nil {
		t.Fatal(err)
	}
	if code := p.exitWithin(stopLimit); code != exitFailed {
		t.Errorf("exit status = %d, want %d", code, exitFailed)
	}
	nothingLeft(t, dir)
}

// The demo's own judgement has teeth. GitHub lies to the last look about the
// runner that came back, so that muster deletes one that is online: no guard of
// muster's can see that, and the checks must.
func TestDemoFailsWhereAGuardIsBroken(t *testing.T) {
	t.Parallel()
	var out, stderr bytes.Buffer
	a := &app{env: variables(nil), stdin: strings.NewReader(""), stdout: &out, stderr: &stderr}
	err := a.demo(t.Context(), demo.Options{Runners: demo.MinRunners, Out: &out, Prepare: breakLastLook}, false)
	if !errors.Is(err, demo.ErrChecks) || exitCode(err) != exitFailed {
		t.Errorf("demo = %v, exit status %d, want %v and %d:\n%s\n%s", err, exitCode(err), demo.ErrChecks, exitFailed, &out, &stderr)
	}
	for _, check := range []string{
		"no runner was deleted while it worked, or was online and not drained: 1 of ",
		"GitHub saw no deletion of anybody else, but for hosts of the pool: 1",
		"the one that came back at the last look was spared: done 204",
	} {
		if !strings.Contains(out.String(), "FAIL  "+check) {
			t.Errorf("the check %q does not fail:\n%s", check, tail(out.String(), 24))
		}
	}
	// A demo that fails keeps its log, and says where.
	place := regexp.MustCompile(`(/\S+)/muster\.log`).FindStringSubmatch(stderr.String())
	if place == nil {
		t.Fatalf("stderr = %s, want the place of the log", &stderr)
	}
	if _, err := os.Stat(place[0]); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(place[1], "data")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data is still there: %v", err)
	}
	if err := os.RemoveAll(place[1]); err != nil {
		t.Error(err)
	}
}

// breakLastLook also gives the story somebody else to spare: it ends when two
// have been.
func breakLastLook(sim *githubsim.Sim, cast demo.Cast) {
	scope := acme
	spared := cast.Dead["acme"][0]
	sim.Before(func(r githubsim.Request) {
		if r.RunnerID == spared && r.Method == http.MethodDelete {
			_ = sim.Assign(scope, spared) // once: it keeps the job
		}
	})
	states := sim.Snapshot(scope)
	i := slices.IndexFunc(states, func(s githubsim.State) bool { return s.ID == cast.Comeback })
	path := fmt.Sprintf("/api/v3/orgs/acme/actions/runners/%d", cast.Comeback)
	sim.Intercept(func(r *http.Request) http.Handler {
		if r.Method != http.MethodGet || r.URL.Path != path {
			return nil
		}
		_ = sim.Connect(scope, cast.Comeback) // gone: nothing to lie about
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_ = json.NewEncoder(w).Encode(map[string]any{ // the asker may have gone
				"id": cast.Comeback, "name": states[i].Name, "os": "linux", "status": "offline", "busy": false, "labels": []any{},
			})
		})
	})
}
