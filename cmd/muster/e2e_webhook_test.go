package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/github/githubsim"
)

const hookSecret = "hook-canary1c6bd40e92"

// hookedHead is head with a webhook's secret.
func hookedHead() string {
	return strings.Replace(head, "auth: {token_file: github.token}", "auth: {token_file: github.token}, webhook_secret_file: hook.secret", 1)
}

// hook has acme's events sent to muster, signed with the secret, and returns
// the status that the ping was answered with.
func (w *world) hook(p *process, secret string) (id int64, status int) {
	w.t.Helper()
	id, err := w.sim.AddHook(githubsim.Hook{Scope: acme, URL: "http://" + p.listens() + "/webhooks/github", Secret: secret})
	if err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, "the ping is answered", func() (string, bool) {
		pings := w.sim.Deliveries(id)
		if len(pings) == 0 {
			return "it has not gone out", false
		}
		status = pings[0].StatusCode
		return fmt.Sprintf("%+v", pings[0]), !pings[0].DeliveredAt.IsZero()
	})
	return id, status
}

// inject has something go wrong until the test ends.
func (w *world) inject(faults ...githubsim.Fault) {
	w.t.Helper()
	for _, f := range faults {
		if _, err := w.sim.Inject(f); err != nil {
			w.t.Fatal(err)
		}
	}
}

// untold counts the events of workflow jobs that have not gone out yet; those
// that were lost have.
func (w *world) untold() int {
	n, told := 0, map[string]bool{}
	for _, e := range w.sim.Log() {
		switch {
		case e.Change == githubsim.ChangeJob:
			n++
		case e.Change == githubsim.ChangeDelivered && e.Job != 0:
			told[e.Delivery] = true
		}
	}
	return n - len(told)
}

// GitHub repeats, delays, reorders and loses what it tells, and signs some of
// it badly. What it told and muster accepted is what muster knows.
func TestWebhooksAsGitHubSendsThem(t *testing.T) {
	t.Parallel()
	w := newWorldAt(t, dbtest.URL(t), "3.19")
	w.write("hook.secret", hookSecret+"\n")
	w.configure(hookedHead(), "")
	p := w.serve().up()
	hook, status := w.hook(p, hookSecret)
	if status != 202 {
		t.Fatalf("the ping was answered %d, want 202", status)
	}
	w.inject(
		githubsim.Fault{Kind: githubsim.FaultHookTwice, Probability: 0.5},
		githubsim.Fault{Kind: githubsim.FaultHookReordered, Probability: 0.4},
		githubsim.Fault{Kind: githubsim.FaultHookLate, Probability: 0.3, Delay: 100 * time.Millisecond},
		githubsim.Fault{Kind: githubsim.FaultHookDropped, Probability: 0.2},
		githubsim.Fault{Kind: githubsim.FaultHookSignature, Probability: 0.1},
		githubsim.Fault{Kind: githubsim.FaultHookType, Probability: 0.1},
		githubsim.Fault{Kind: githubsim.FaultHookUnknown, Probability: 0.1},
		githubsim.Fault{Kind: githubsim.FaultHookBig, Count: 5},
	)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const jobs = 60
	for i, runner := range w.runners("build-", jobs, githubsim.RunnerSpec{Online: true}) {
		job, err := w.sim.QueueJob(acme, githubsim.JobSpec{Waiting: i%3 == 0})
		must(err)
		if i%3 == 0 {
			must(w.sim.Approve(job))
		}
		if i%5 == 0 {
			continue // it stays in the queue
		}
		must(w.sim.RunJob(acme, runner, job))
		if i%2 == 0 {
			must(w.sim.FinishJob(job, "success"))
		}
	}
	rank := []string{"", "waiting", "queued", "in_progress", "completed"}
	var want [][]string
	statuses := map[int]int{}
	eventually(t, "everything is delivered", func() (string, bool) {
		state, waiting := map[int64]int{}, w.untold()
		clear(statuses)
		for _, d := range w.sim.Deliveries(hook) {
			if d.DeliveredAt.IsZero() {
				waiting++
				continue
			}
			statuses[d.StatusCode]++
			for r, action := range rank {
				if d.StatusCode == 202 && d.Job != 0 && action == d.Action && !strings.Contains(d.Fault, string(githubsim.FaultHookUnknown)) {
					state[d.Job] = max(state[d.Job], r)
				}
			}
		}
		want = nil
		for _, j := range w.sim.Jobs() {
			if r := state[j.ID]; r > 0 {
				row := []string{fmt.Sprint(j.ID), rank[r], "", ""}
				if r >= 3 {
					row[2] = j.RunnerName
				}
				if r == 4 {
					row[3] = j.Conclusion
				}
				want = append(want, row)
			}
		}
		if waiting > 0 { // one that is held back goes with the next
			_, err := w.sim.QueueJob(acme, githubsim.JobSpec{Skipped: true})
			must(err)
		}
		return fmt.Sprintf("%d wait", waiting), waiting == 0
	})
	got := w.rows(`SELECT j.workflow_job_id::text, state, runner_name, conclusion FROM api.workflow_jobs j WHERE target = 'acme' ORDER BY j.workflow_job_id`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("workflow jobs (-told and accepted +known):\n%s", diff)
	}
	for _, status := range []int{202, 401, 413, 415} {
		if statuses[status] == 0 {
			t.Errorf("nothing was answered %d, so that nothing is proved of it: %v", status, statuses)
		}
	}
	if len(statuses) != 4 {
		t.Errorf("answers %v, want 202, 401, 413 and 415 only", statuses)
	}
	_, metrics := p.get("/metrics")
	for _, outcome := range []string{"folded", "repeated"} {
		if series := `muster_github_events_total{kind="webhook",outcome="` + outcome + `",target="acme"}`; !strings.Contains(metrics, series) {
			t.Errorf("/metrics lacks %s", series)
		}
	}
	p.stop()
	if found := append(linesWith(p.log.String()+metrics, hookSecret), tablesWith(t, w, hookSecret)...); len(found) > 0 {
		t.Errorf("the secret is in %q", found)
	}
}

// A secret is given by SIGHUP, and changed by the file alone: first both, then
// the new one.
func TestTheSecretOfAWebhookIsChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head, "")
	p := w.serve().up()
	answers := func(secret string, want int) {
		t.Helper()
		if id, status := w.hook(p, secret); status != want {
			t.Errorf("the ping of hook %d was answered %d, want %d", id, status, want)
		}
	}
	answers(hookSecret, 401) // the target has no webhook
	answers("", 401)

	w.write("hook.secret", hookSecret+"\n")
	w.configure(hookedHead(), "")
	p.signal(syscall.SIGHUP)
	p.says(`msg="configuration taken over"`)
	answers(hookSecret, 202)
	answers("the-new-one", 401)
	w.write("hook.secret", "the-new-one\n"+hookSecret+"\n")
	answers("the-new-one", 202)
	answers(hookSecret, 202)
	w.write("hook.secret", "the-new-one\n")
	answers(hookSecret, 401)
	answers("the-new-one", 202)
	answers("", 401)
	p.stop()
}

func TestEventsAndHeartbeatsOverNATS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(head, "")
	p := w.serve().up()
	js, err := w.nats.connect().JetStream()
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("muster.v1.github.workflow_job")
	m.Data = []byte(`{"action":"in_progress","workflow_job":{"id":41,"runner_id":3,"runner_name":"build-03"},"organization":{"login":"acme"}}`)
	for name, value := range map[string]string{"X-GitHub-Event": "workflow_job", "X-GitHub-Delivery": "d1", "Muster-Target": "acme"} {
		m.Header.Set(name, value)
	}
	if _, err := js.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	w.becomes("in_progress build-03", `SELECT state || ' ' || runner_name FROM api.workflow_jobs WHERE workflow_job_id = 41`)
	eventually(t, "a heartbeat is heard", func() (string, bool) {
		w.nats.publish("muster.v1.host.build-01.heartbeat", `{"v":1,"runners":[{"target":"acme","name":"build-03","state":"busy"}]}`)
		rows, err := w.ask(`SELECT state || ' ' || (runners->0->>'state') FROM api.hosts WHERE host = 'build-01'`)
		return fmt.Sprint(rows, err), err == nil && len(rows) == 1 && rows[0][0] == "running busy"
	})
	_, metrics := p.get("/metrics")
	for _, series := range []string{`muster_github_events_total{kind="nats",outcome="folded",target="acme"} 1`, `muster_heartbeats_total{outcome="stored"}`} {
		if !strings.Contains(metrics, series) {
			t.Errorf("/metrics lacks %s", series)
		}
	}
	p.stop()
}
