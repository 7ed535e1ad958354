package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/internal/standalone"
)

// result is what a run of the program left.
type result struct {
	code           int
	stdout, stderr string
}

// muster runs the program with an environment.
func muster(t testing.TB, env map[string]string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, variables(env), strings.NewReader(""), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// decode reads the one JSON document of a result.
func decode[T any](t testing.TB, r result) T {
	t.Helper()
	var v T
	if r.code != exitDone {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	d := json.NewDecoder(strings.NewReader(r.stdout))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("stdout %q is not JSON: %v", r.stdout, err)
	}
	if d.More() {
		t.Fatalf("stdout holds more than one document: %s", r.stdout)
	}
	return v
}

// system is a running muster serve on a simulated GitHub.
type system struct {
	sim  *githubsim.Sim
	org  fleet.Scope
	env  map[string]string // for the program: where the configuration is
	http string            // of serve
}

// running starts everything on ports of its own and stops it with the test.
func running(t *testing.T) system {
	t.Helper()
	sim, stopSim, err := githubsim.Start(t.Context(), githubsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stopSim)
	org := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
	if err := sim.AddScope(org); err != nil {
		t.Fatal(err)
	}
	nats, err := standalone.StartNATS(t.Context(), standalone.NATSConfig{
		Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nats.Stop)

	dir := inDir(t, map[string]string{"muster.yaml": `
listen: 127.0.0.1:0
nats: {allow_shared_inbox: false}
targets:
  - {name: acme, scope: org/acme, api_url: "` + sim.APIURL() + `", auth: {token_env: TOKEN}}
grants:
  - {hosts: [build-01], targets: [acme], kinds: [registration, removal], per_hour: 2}
`})
	s := system{sim: sim, org: org, env: map[string]string{
		"MUSTER_CONFIG": filepath.Join(dir, "muster.yaml"), "TOKEN": "x", "HOME": dir,
		"MUSTER_DATABASE_URL": dbtest.URL(t), "MUSTER_NATS_URL": nats.URL(),
	}}
	var log lockedBuffer
	a := &app{env: variables(s.env), stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &log}
	ctx, stop := context.WithCancel(t.Context())
	up, ended := make(chan endpoints, 1), make(chan error, 1)
	go func() { ended <- a.serve(ctx, false, func(e endpoints) { up <- e }) }()
	select {
	case e := <-up:
		s.http = e.http
	case err := <-ended:
		t.Fatalf("serve ended: %v\n%s", err, log.String())
	}
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serve = %v\n%s", err, log.String())
		}
	})
	return s
}

func (s system) create(t *testing.T, name string, online bool) int64 {
	t.Helper()
	id, err := s.sim.Create(s.org, githubsim.RunnerSpec{Name: name, Labels: []string{"GPU"}, Online: online})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func runnerNamed(name string) githubsim.RunnerSpec { return githubsim.RunnerSpec{Name: name} }

// lockedBuffer may be read while it is written to.
type lockedBuffer struct {
	mu    sync.Mutex
	text  strings.Builder
	first chan struct{}
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	first := b.wrote()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text.Len() == 0 {
		close(first)
	}
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// wrote is closed with the first write.
func (b *lockedBuffer) wrote() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first == nil {
		b.first = make(chan struct{})
	}
	return b.first
}
