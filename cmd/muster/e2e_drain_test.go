package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/github/githubsim"
)

// drains takes what is labelled old.
const drains = `apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: drains}
spec:
  enforcement: enforce
  scope: {targets: [acme]}
  match: runner.status == "online" && !runner.busy && "old" in runner.labels
  guards:
    grace: 1s
    max: {count: 1000, percent: 100}
    rate: 6000/m
  actions: [{drain_host: {}}, {delete_runner: {}}, {release_host: {}}]
`

// The grants let each host answer for the runner of its own name.
const tooManyGPUs = `
  - {host_prefix: old-, targets: [acme], kinds: [registration], per_hour: 10}
  - {host_prefix: gpu-, targets: [acme], kinds: [registration], per_hour: 10}
  - {host_prefix: new-, targets: [acme], kinds: [registration], per_hour: 10}
schedules:
  - {job: sync, targets: [acme], cron: "* * * * * *", overlap: queue}
  - {job: scale, pools: [gpu], cron: "* * * * * *", overlap: queue}
pools:
  - {name: gpu, target: acme, labels: [gpu], max: 9, min_lifetime: 0s, cooldown: {up: 0s, down: 0s}, step: {down: 9}}
`

// A policy and a pool take online runners away from under muster serve: those
// whose hosts say that they are idle, and those hosts are released.
func TestServeDrainsHostsAndReleasesThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head+tooManyGPUs, drains)
	w.runners("old-", 3, githubsim.RunnerSpec{Online: true, Labels: []string{"old"}})
	w.runners("new-", 3, githubsim.RunnerSpec{Online: true})
	beat := func(state string) {
		for _, host := range []string{"old-0", "old-1", "gpu-0", "gpu-1", "gpu-2", "gpu-3", "new-0", "new-1", "new-2"} {
			w.nats.publish("muster.v1.host."+host+".heartbeat", fmt.Sprintf(`{"v":1,"runners":[{"target":"acme","name":%q,"state":%q}]}`, host, state))
		}
	}

	// All hosts but old-2, of which nobody has heard: old-1 is at work, which
	// GitHub does not show.
	nc := w.nats.connect()
	var mu sync.Mutex
	asked, released := map[string]int{}, map[string]int{}
	hear := func(subject string, heard map[string]int, answer bool) {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			host := strings.Split(m.Subject, ".")[3]
			mu.Lock()
			heard[host]++
			mu.Unlock()
			if answer {
				_ = m.Respond(fmt.Appendf(nil, `{"v":1,"busy":%t}`, host == "old-1")) // muster may have been stopped
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	hear("muster.v1.host.*.drain", asked, true)
	hear("muster.v1.host.*.release", released, false)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}

	p := w.serve()
	p.up()
	eventually(t, "all hosts are known", func() (string, bool) {
		beat("idle")
		n := w.value(`SELECT count(*) FROM api.hosts`)
		return n, n == "9"
	})
	// Only now: a pool takes a step once a minute, and shall know their hosts.
	w.runners("gpu-", 4, githubsim.RunnerSpec{Online: true, Labels: []string{"gpu"}})
	w.becomes("gpu 4, old 1", `SELECT string_agg(family || ' ' || n, ', ' ORDER BY family) FROM (
		SELECT left(name, 3) AS family, count(*) AS n FROM api.runners WHERE removed_at IS NOT NULL GROUP BY 1) x`)
	w.becomes("true", `SELECT count(*) > 0 FROM api.actions WHERE name = 'old-1' AND state = 'spared' AND reason = 'host_busy'`)
	w.becomes("0", `SELECT count(*) FROM muster.outbox`)
	w.syncs(2) // nobody else follows
	if got := w.value(`SELECT string_agg(DISTINCT removal_cause || ' ' || left(name, 3), ', ') FROM api.runners WHERE removed_at IS NOT NULL`); got != "policy old, scale_down gpu" {
		t.Errorf("the causes are %s", got)
	}
	p.stop()

	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	left := map[string]bool{}
	for _, r := range w.sim.Snapshot(acme) {
		left[r.Name] = true
	}
	for host, n := range released {
		if n != 1 || left[host] || asked[host] != 1 {
			t.Errorf("%s was asked %d times and released %d times, and is there: %t", host, asked[host], n, left[host])
		}
	}
	if len(released) != 5 || asked["old-1"] == 0 || asked["old-2"] != 0 || !left["old-1"] || !left["old-2"] || len(left) != 5 {
		t.Errorf("asked %v, released %v, left %v", asked, released, left)
	}
	for _, e := range deletions(w.sim) {
		if !e.Online || e.Busy || !slices.Contains([]string{"old", "gpu"}, e.RunnerName[:3]) {
			t.Errorf("GitHub deleted %s, online %t, busy %t", e.RunnerName, e.Online, e.Busy)
		}
	}
}

// program is one of a runner application's, as drain.sh sees it.
func program(t *testing.T, directory, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(directory, "bin", name), "run")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd
}

// What docs/examples has for hosts stops the listener before it looks for a
// worker, and lets it go on where there is one.
func TestTheExampleDrains(t *testing.T) {
	t.Parallel()
	server := newNATS(t)
	const body = "#!/usr/bin/env bash\nwhile :; do read -r -t 0.2 <> <(:); done\n"
	directory := inDir(t, map[string]string{"bin/Runner.Listener": body, "bin/Runner.Worker": body})
	for _, name := range []string{"Listener", "Worker"} {
		if err := os.Chmod(filepath.Join(directory, "bin", "Runner."+name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	listener := program(t, directory, "Runner.Listener")
	state := func() string {
		out, _ := exec.Command("ps", "-o", "state=", "-p", fmt.Sprint(listener.Process.Pid)).Output() // empty where it is gone
		return strings.TrimSpace(string(out))
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	script := exec.CommandContext(ctx, "../../docs/examples/drain.sh", directory)
	script.Env = []string{"PATH=" + os.Getenv("PATH"), "MUSTER_NATS_URL=" + server.url, "MUSTER_HOST=build-01", "DRAIN_LIFE=3"}
	said := &lockedBuffer{}
	script.Stderr = said
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- script.Wait() }()
	nc := server.connect()
	ask := func(decision string) string {
		m, err := nc.Request("muster.v1.host.build-01.drain", fmt.Appendf(nil, `{"v":1,"runner":"build-01","reason":"drains","decision_id":%q}`, decision), patience)
		if err != nil {
			return err.Error()
		}
		return string(m.Data)
	}
	release := func(decision string) {
		if err := nc.Publish("muster.v1.host.build-01.release", fmt.Appendf(nil, `{"v":1,"runner":"build-01","reason":"drains","decision_id":%q}`, decision)); err != nil {
			t.Error(err)
		}
	}
	says := func(what string) {
		eventually(t, what, func() (string, bool) { return said.String(), strings.Contains(said.String(), what) })
	}
	says("listening for build-01")

	worker := program(t, directory, "Runner.Worker")
	if got := ask("d1"); got != `{"v":1,"busy":true}` || strings.HasPrefix(state(), "T") {
		t.Errorf("with a worker the answer is %s, the listener is %s", got, state())
	}
	_ = worker.Process.Kill()
	_ = worker.Wait()
	if got := ask("d2"); got != `{"v":1,"busy":false}` || !strings.HasPrefix(state(), "T") {
		t.Errorf("without a worker the answer is %s, the listener is %s", got, state())
	}
	release("d1")
	says("release of decision d1, whose drain does not stand: left")
	says("no release within 3 s: the runner goes on")
	eventually(t, "the listener goes on", func() (string, bool) { return state(), state() != "" && !strings.HasPrefix(state(), "T") })
	release("d2")
	says("release of decision d2, whose drain does not stand: left")

	if got := ask("d3"); got != `{"v":1,"busy":false}` {
		t.Errorf("asked again the answer is %s", got)
	}
	release("d3")
	if err := <-ended; err != nil {
		t.Errorf("drain.sh: %v\n%s", err, said)
	}
	if err := listener.Wait(); err == nil {
		t.Error("the listener ended by itself")
	}
}
