package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/scale"
)

// pooled has pools decided on every second, beside a sync of every second.
const pooled = `
schedules:
  - {job: sync, targets: [acme], cron: "* * * * * *", overlap: queue}
  - {job: scale, pools: [linux], cron: "* * * * * *", overlap: queue}
pools:
  - {name: linux, target: acme, labels: [self-hosted, linux], max: MAX, target_utilisation: 1, boot_deadline: BOOT, cooldown: {up: 0s}, step: {up: 7}}
`

func pools(most int, boot string) string {
	return strings.NewReplacer("MAX", fmt.Sprint(most), "BOOT", boot).Replace(pooled)
}

// provisioners are programs that share one consumer and make hosts.
type provisioners struct {
	w      *world
	taken  atomic.Int64 // messages, repeats included
	denied atomic.Int64 // hosts that came for what another had

	mu sync.Mutex
	by map[string]int // hosts with a token, by request
}

// provision starts n of them; stop ends them.
func (w *world) provision(n int) (p *provisioners, stop func()) {
	w.t.Helper()
	p = &provisioners{w: w, by: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	js, err := jetstream.New(w.nats.connect(), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = js.CreateOrUpdateConsumer(ctx, "MUSTER_PROVISION", jetstream.ConsumerConfig{
		Durable: "linux", FilterSubject: "muster.v1.provision.linux", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	var g sync.WaitGroup
	for i := range n {
		nc := w.nats.connect(nats.CustomInboxPrefix("_INBOX"))
		g.Go(func() { p.work(ctx, i, nc) })
	}
	stop = sync.OnceFunc(func() {
		cancel()
		g.Wait()
	})
	w.t.Cleanup(stop)
	return p, stop
}

func (p *provisioners) work(ctx context.Context, number int, nc *nats.Conn) {
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		p.w.t.Errorf("provisioner %d: %v", number, err)
		return
	}
	c, err := js.Consumer(ctx, "MUSTER_PROVISION", "linux")
	for made := 0; err == nil && ctx.Err() == nil; {
		var batch jetstream.MessageBatch
		if batch, err = c.Fetch(1, jetstream.FetchMaxWait(time.Second)); err != nil {
			break
		}
		for m := range batch.Messages() {
			// Every fifth program dies with what it has taken, before or after
			// the host has its token: somebody else is given the message.
			before := p.taken.Add(1)
			if before%5 == 0 {
				continue
			}
			made++
			p.host(ctx, fmt.Sprintf("build-%d-%d", number, made), nc, m)
			if before%5 == 1 {
				continue
			}
			if err := m.Ack(); err != nil && ctx.Err() == nil {
				p.w.t.Errorf("provisioner %d: acknowledge: %v", number, err)
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		p.w.t.Errorf("provisioner %d: %v", number, err)
	}
}

// host is what a message asks for: it asks for a token and registers.
func (p *provisioners) host(ctx context.Context, name string, nc *nats.Conn, m jetstream.Msg) {
	var wanted struct {
		RequestID string    `json:"request_id"`
		Target    string    `json:"target"`
		Deadline  time.Time `json:"deadline"`
	}
	if err := json.Unmarshal(m.Data(), &wanted); err != nil {
		p.w.t.Errorf("request %s: %v", m.Data(), err)
		return
	}
	h := &host{name: name, nc: nc}
	var r reply
	err := context.Canceled
	for err != nil { // a replica may have died with the question, or the answer
		if ctx.Err() != nil {
			return
		}
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		r, err = h.ask(limited, fmt.Sprintf(`{"target":%q,"kind":"registration","demand_id":%q}`, wanted.Target, wanted.RequestID))
		cancel()
	}
	switch {
	case r.Code == 409:
		p.denied.Add(1)
		return
	case r.Token == "":
		p.w.t.Errorf("host %s gets no token: %+v", name, r)
		return
	}
	p.mu.Lock()
	p.by[wanted.RequestID]++
	p.mu.Unlock()
	scope, id, err := p.w.sim.RegisterRunner(r.Token, githubsim.RunnerSpec{Name: name})
	if err == nil {
		err = p.w.sim.Connect(scope, id)
	}
	if err != nil {
		p.w.t.Errorf("host %s: %v", name, err)
	}
}

// watch looks until stop whether there are ever more runners than max, or more
// hosts asked for.
func (w *world) watch(most int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var g sync.WaitGroup
	g.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			if n := len(w.sim.Snapshot(acme)); n > most {
				w.t.Errorf("there are %d runners, %d are allowed", n, most)
				return
			}
			rows, err := w.ask(`
				SELECT n::text, (n > $1)::text
				FROM (SELECT (SELECT count(*) FROM api.runners WHERE status = 'online' AND removed_at IS NULL)
					+ (SELECT count(*) FROM api.leases WHERE state IN ('requested', 'claimed', 'registered')) AS n) x`, most)
			if err == nil && rows[0][1] == "true" {
				w.t.Errorf("%s hosts are there or asked for, %d are allowed", rows[0][0], most)
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		cancel()
		g.Wait()
	})
}

// Three replicas decide and fifty programs make hosts, some of which die with
// what they have taken; a replica dies too. There is never a host too many, and
// every one that was asked for comes.
func TestProvisionersAndReplicasRaceAtTheMaximum(t *testing.T) {
	t.Parallel()
	const most, jobs, programs = 30, 100, 50
	w := newWorldAt(t, dbtest.URL(t), "3.19")
	w.write("hook.secret", hookSecret+"\n")
	w.configure(hookedHead()+pools(most, "2m"), "")
	first, second, third := w.serve(), w.serve(), w.serve()
	for _, p := range []*process{first, second, third} {
		p.up()
	}
	w.hook(first, hookSecret)
	stopWatch := w.watch(most)
	defer stopWatch()
	p, stop := w.provision(programs)
	for range jobs {
		if _, err := w.sim.QueueJob(acme, githubsim.JobSpec{}); err != nil {
			t.Fatal(err)
		}
	}
	w.becomes("true", `SELECT count(*) > 0 FROM api.leases`)
	second.kill()
	w.becomes(fmt.Sprint(most), `SELECT count(*) FROM api.leases WHERE state = 'online'`)
	w.becomes(fmt.Sprintf("%d %d 0 %d", most, most, jobs), `SELECT concat_ws(' ', desired, online, booting, queued) FROM api.pools`)
	w.syncs(2)
	stop()
	stopWatch()
	if n := w.value(`SELECT count(*) FROM api.leases`); n != fmt.Sprint(most) {
		t.Errorf("%s hosts were asked for, want %d: each came", n, most)
	}
	for request, hosts := range p.by {
		if hosts != 1 {
			t.Errorf("%d hosts were given a token for request %s", hosts, request)
		}
	}
	if n := len(w.sim.Snapshot(acme)); n != most {
		t.Errorf("there are %d runners, want %d", n, most)
	}
	if p.denied.Load() == 0 {
		t.Error("no host came second: nothing raced")
	}
	t.Logf("%d messages for %d hosts, %d of which came second", p.taken.Load(), most, p.denied.Load())
	w.tellsOfItsPool(t)
	first.stop()
	third.stop()
}

// Without any webhook, as on a server that sends no events, workflow jobs are
// found all the same: as many as there are.
func TestAPoolHearsOfWorkflowJobsWithoutAWebhook(t *testing.T) {
	t.Parallel()
	w := newWorldAt(t, dbtest.URL(t), "3.1")
	w.configure(head+pools(300, "10m"), "")
	first, err := w.sim.QueueJob(acme, githubsim.JobSpec{Repository: "acme/widgets"})
	if err != nil {
		t.Fatal(err)
	}
	run := w.sim.Jobs()[0].RunID
	for range 149 {
		if _, err := w.sim.QueueJob(acme, githubsim.JobSpec{RunID: run}); err != nil {
			t.Fatal(err)
		}
	}
	p := w.serve()
	p.up()
	w.becomes("150 known", `SELECT concat_ws(' ', queued, confidence) FROM api.pools`)
	w.becomes(fmt.Sprint(first), `SELECT min(workflow_job_id) FROM api.workflow_jobs`)
	r := muster(t, nil, "doctor", "-o", "json", "--config", filepath.Join(w.dir, "muster.yaml"))
	if !strings.Contains(r.stdout, "all workflow jobs were compared with GitHub's") || !strings.Contains(r.stdout, "its API is asked for them") {
		t.Errorf("doctor: %s", r.stdout)
	}
	p.stop()
}

// tellsOfItsPool looks at what commands say of a pool that is full.
func (w *world) tellsOfItsPool(t *testing.T) {
	t.Helper()
	ask := func(args ...string) result {
		return muster(t, nil, append(args, "--config", filepath.Join(w.dir, "muster.yaml"))...)
	}
	listed := decode[[]scale.Row](t, ask("pools", "-o", "json"))
	if len(listed) != 1 || listed[0].Pool != "linux" || listed[0].Online != 30 || listed[0].Queued != 100 || listed[0].Confidence != "known" {
		t.Errorf("muster pools: %+v", listed)
	}
	plan := decode[poolPlan](t, ask("plan", "--pool", "linux", "-o", "json"))
	if plan.Direction != "hold" || plan.Desired != 30 || strings.Join(plan.Reasons, " ") != "demand max enough" {
		t.Errorf("muster plan --pool: %+v", plan)
	}
	story := decode[poolStory](t, ask("explain", "--pool", "linux", "-o", "json"))
	if len(story.Leases) != mostLeases || story.Leases[0].State != "online" || story.Last == nil || story.GrewAt == nil {
		t.Errorf("muster explain --pool: %+v", story)
	}
	for _, tt := range []struct {
		args, want string
	}{
		{"pools", "more than max, which is 30: jobs wait for hosts that finish; 30 are online; 30 are desired: nothing to do now\n"},
		{"plan --pool linux", "  more than max, which is 30: jobs wait for hosts that finish\n  30 are online\n  30 are desired: nothing to do now\n"},
		{"explain --pool linux", "\nHosts asked for, newest first\nASKED"},
	} {
		if r := ask(strings.Fields(tt.args)...); r.code != exitDone || !strings.Contains(r.stdout, tt.want) || r.stderr != "" {
			t.Errorf("muster %s: exit %d, %s\n%s\nwant in it %s", tt.args, r.code, r.stderr, r.stdout, tt.want)
		}
	}
}

// runnerApplication stands for GitHub's: config.sh registers at the simulator,
// and run.sh is connected until its one job is over, which is at once.
var runnerApplication = map[string]string{
	"config.sh": `#!/usr/bin/env bash
while (($#)); do
	case $1 in
	--name) name=$2 ;;
	--token) token=$2 ;;
	--labels) labels=$2 ;;
	esac
	shift
done
[[ $labels == linux,self-hosted ]] || { echo "labels $labels"; exit 1; }
curl -sf "$SIM/_sim/register" -d "{\"token\":\"$token\",\"name\":\"$name\",\"labels\":[\"linux\"]}" >registered
`,
	"run.sh": `#!/usr/bin/env bash
id=$(sed 's/.*"id": *\([0-9]*\).*/\1/' <<<$(tr -d '\n' <registered))
curl -sf "$SIM/_sim/connect" -d "{\"scope\":\"org/acme\",\"ids\":[$id]}"
`,
}

// What docs/examples has for whoever has nothing yet makes the hosts of a pool.
func TestTheExamplesMakeHosts(t *testing.T) {
	t.Parallel()
	const hosts = 4
	w := newWorld(t)
	w.configure(head+strings.Replace(pools(9, "5m"), "max: 9", "max: 9, min: 4", 1), "")
	p := w.serve().up()
	control := httptest.NewServer(w.sim.ControlHandler())
	defer control.Close()
	application := inDir(t, runnerApplication)
	for name := range runnerApplication {
		if err := os.Chmod(filepath.Join(application, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	examples, err := filepath.Abs("../../docs/examples")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var g sync.WaitGroup
	for range 2 {
		g.Go(func() {
			cmd := exec.CommandContext(ctx, filepath.Join(examples, "provision.sh"), "linux", filepath.Join(examples, "local-host.sh"))
			cmd.Env = []string{
				"PATH=" + os.Getenv("PATH"), "MUSTER_NATS_URL=" + w.nats.url, "SIM=" + control.URL, "PROVISION_COUNT=" + fmt.Sprint(hosts/2),
				"RUNNER=" + application, "HOSTS=" + filepath.Join(w.dir, "hosts"), "HOST_PREFIX=build",
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("provision.sh: %v\n%s", err, out)
			}
		})
	}
	g.Wait()
	w.becomes(fmt.Sprint(hosts), `SELECT count(*) FROM api.leases WHERE state = 'online' AND host LIKE 'build-%'`)
	w.becomes("4 4 0", `SELECT concat_ws(' ', desired, online, booting) FROM api.pools`)
	p.stop()
}
