package storm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/internal/standalone"
	"github.com/muster-fleet/muster/queue"
)

// answers is what a host makes of being asked whether a runner may go.
type answers string

const (
	answersTruth   answers = "whether it is at work"
	answersIdle    answers = "idle" // whatever is on it
	answersBusy    answers = "busy"
	answersNoise   answers = "what cannot be read"
	answersLate    answers = "too late"
	answersNothing answers = "nothing"
	answersDeaf    answers = "nothing, and does not listen"
)

// noise is what says nothing, however much it looks like it.
var noise = []string{"", "idle", `{"v":1}`, `{"v":2,"busy":false}`, `{"v":1,"busy":null}`, `{"v":1,"busy":false,"until":"noon"}`}

// oldLabel is on runners that the policy of a life drains.
const oldLabel = "old"

// wires are a life's connections to NATS: muster's and those of all hosts.
type wires struct {
	muster *queue.Conn
	hosts  *natsgo.Conn

	mu      sync.Mutex
	waiting map[string]*drainage // for an answer, by decision
}

// drainage is one drain that muster waits for the answer to.
type drainage struct {
	giveUp context.CancelFunc
	over   chan struct{} // closed when it waits no more
}

// take is the drain that a host is asked for; nil: nobody waits for it. As long as
// the host is at it, a request is under way.
func (w *world) take(decision string) *drainage {
	w.wires.mu.Lock()
	defer w.wires.mu.Unlock()
	d := w.wires.waiting[decision]
	if d != nil {
		w.calls.begin()
	}
	return d
}

// raiseNATS starts a server for all lives.
func (r *record) raiseNATS(t *testing.T) {
	t.Helper()
	server, err := standalone.StartNATS(t.Context(), standalone.NATSConfig{
		Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	r.nats = server.URL()
}

// wire connects muster and the hosts.
func (w *world) wire() {
	x := &wires{waiting: map[string]*drainage{}}
	var err error
	x.muster, err = queue.Connect(w.ctx, queue.Config{URL: w.record.nats, Name: "muster", Log: slog.New(slog.DiscardHandler)})
	w.ok(err)
	w.Cleanup(x.muster.Close)
	x.hosts, err = natsgo.Connect(w.record.nats)
	w.ok(err)
	w.Cleanup(x.hosts.Close)
	w.wires = x
}

// Drain asks a host, and gives up where the host will not answer in time: what
// muster waits for then are seconds of the real clock.
func (x *wires) Drain(ctx context.Context, r fleet.HostRequest) (bool, error) {
	asking, giveUp := context.WithCancel(ctx)
	d := &drainage{giveUp: giveUp, over: make(chan struct{})}
	x.mu.Lock()
	x.waiting[r.DecisionID] = d
	x.mu.Unlock()
	defer func() {
		giveUp()
		x.mu.Lock()
		delete(x.waiting, r.DecisionID)
		x.mu.Unlock()
		close(d.over)
	}()
	return x.muster.Drain(asking, r)
}

// host is the machine that a runner is on, and what it says of it.
type host struct {
	name, target, runner string
	scope                fleet.Scope
	id                   int64                 // of the runner
	says                 fleet.HostRunnerState // empty: nothing
	answers              answers
	ear                  *natsgo.Subscription // nil: it does not listen
}

// hostOf is the host that a runner is on.
func (w *world) hostOf(scope fleet.Scope, r githubsim.State) *host {
	key := runnerKey(scope, r.ID)
	if w.jobs.hosts[key] == nil {
		w.jobs.hosts[key] = &host{name: r.Name, target: w.targetOf(scope).Name, runner: r.Name, scope: scope, id: r.ID}
		w.teach(w.jobs.hosts[key], answersTruth)
	}
	return w.jobs.hosts[key]
}

// teach has a host answer drains so from now on.
func (w *world) teach(h *host, a answers) {
	h.answers = a
	if w.wires == nil {
		return
	}
	var err error
	switch {
	case a == answersDeaf && h.ear != nil:
		err = h.ear.Unsubscribe()
		h.ear = nil
	case a != answersDeaf && h.ear == nil:
		h.ear, err = w.wires.hosts.Subscribe(queue.DrainSubject(h.name), func(m *natsgo.Msg) { w.drained(h, m) })
	default:
		return
	}
	if err == nil {
		err = w.wires.hosts.Flush()
	}
	if err != nil {
		panic(err) // the server is in this process
	}
}

// drained is a host that is asked to let its runner go.
func (w *world) drained(h *host, m *natsgo.Msg) {
	var asked struct {
		DecisionID string `json:"decision_id"`
	}
	if err := json.Unmarshal(m.Data, &asked); err != nil {
		panic(err) // muster wrote it
	}
	d := w.take(asked.DecisionID)
	if d == nil {
		return // whoever asked is dead
	}
	defer w.calls.end()
	w.intervene(atDrain, githubsim.Request{Scope: h.scope, RunnerID: h.id})
	body, late := w.answerOf(h, asked.DecisionID)
	if late {
		d.giveUp()
		<-d.over
	}
	if body != "" {
		_ = m.Respond([]byte(body)) // the life may be over
	}
}

// answerOf is what a host says, empty for nothing, and whether it says so when
// nobody waits for it any more.
func (w *world) answerOf(h *host, decision string) (body string, late bool) {
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	w.jobs.drained[runnerKey(h.scope, h.id)]++
	r, there := w.runner(h.scope, h.id)
	atWork := there && r.Online && r.Busy
	w.mu.Lock()
	w.tally.count(fmt.Sprintf("hosts asked, at work %t, answer %s", atWork, h.answers))
	w.mu.Unlock()
	said := func(busy bool) string { return fmt.Sprintf(`{"v":1,"busy":%t}`, busy) }
	switch h.answers {
	case answersIdle:
		return said(false), false
	case answersBusy:
		return said(true), false
	case answersNoise:
		return noise[int(decision[len(decision)-1])%len(noise)], false
	case answersLate:
		return said(false), true
	case answersNothing, answersDeaf:
		return "", true
	case answersTruth:
	}
	return said(atWork), false
}

// isDrainable reports whether a runner may be drained in this life.
func (w *world) isDrainable(r githubsim.State) bool {
	return w.jobs.drains && has(r, oldLabel) || isPooled(r)
}

// raiseHosts puts runners that may be drained on hosts, which are heard of once
// at least.
func (w *world) raiseHosts() {
	for _, t := range w.targets {
		for _, r := range w.sim.Snapshot(t.Scope) {
			if w.isDrainable(r) {
				w.raiseHost(t.Scope, r)
			}
		}
	}
	// Where the host of a runner was never heard of, only the stranger speaks.
	for _, key := range w.hostKeys() {
		h := w.jobs.hosts[key]
		if r, there := w.runner(h.scope, h.id); there && !isPooled(r) && w.jobs.stranger != nil && w.oneIn(2, "is never heard of") {
			h.says = ""
		}
	}
	w.lapse(w.jobs.beatAge + 1)
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	for _, key := range w.hostKeys() {
		if h := w.jobs.hosts[key]; w.oneIn(2, "falls silent") {
			h.says = ""
		}
	}
}

// raiseHost puts a runner on a host of its own, which tells the truth or
// nothing as long as the runner has no work.
func (w *world) raiseHost(scope fleet.Scope, r githubsim.State) {
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	h := w.hostOf(scope, r)
	h.says = truthOf(r)
	w.teach(h, anyOf(w, "asked, the host answers", answersTruth, answersTruth, answersTruth, answersTruth, answersNoise, answersLate, answersNothing, answersDeaf, answersBusy))
}

// truthOf is what an honest host says of a runner.
func truthOf(r githubsim.State) fleet.HostRunnerState {
	switch {
	case !r.Online:
		return fleet.HostRunnerStopped
	case r.Busy:
		return fleet.HostRunnerBusy
	}
	return fleet.HostRunnerIdle
}

// sawDrains counts the deletions of those who were asked, and what hosts were
// told afterwards.
func (w *world) sawDrains() {
	for _, n := range read[struct {
		What string
		N    int
	}](w, `
		SELECT 'hosts released', count(*)
		FROM muster.outbox o
		JOIN muster.action a ON a.decision_id::text = convert_from(o.body, 'UTF8')::jsonb->>'decision_id'
		WHERE o.subject LIKE 'muster.v1.host.%.release' AND a.target = ANY($1)
		UNION ALL
		SELECT 'hosts that pools would give up', count(*)
		FROM muster.action
		WHERE target = ANY($1) AND policy = 'scale_down'
		UNION ALL
		SELECT policy || ' of drained runners: ' || state, count(*)
		FROM muster.action
		WHERE target = ANY($1) AND host IS NOT NULL
		GROUP BY 1`, w.targetNames()) {
		w.tally[n.What] += n.N
	}
	for _, n := range read[struct{ Host string }](w, `
		SELECT a.host
		FROM muster.outbox o
		JOIN muster.action a ON a.decision_id::text = convert_from(o.body, 'UTF8')::jsonb->>'decision_id'
		WHERE o.subject LIKE 'muster.v1.host.%.release' AND a.target = ANY($1) AND (a.drained_at IS NULL OR a.state NOT IN ('done', 'gone'))`,
		w.targetNames()) {
		w.Errorf("host %s is released, and was not drained or has its runner", n.Host)
	}
}

// drainPolicy draws what the policy that drains is like in a life.
func drainPolicy(w *world, names string) []byte {
	return fmt.Appendf(nil, `
apiVersion: muster/v1
kind: RunnerPolicy
metadata: {name: drain}
spec:
  enforcement: enforce
  scope: {targets: [%s]}
  match: runner.status == "online" && !runner.busy && "%s" in runner.labels
  exempt: {keep-label: '"%s" in runner.labels'}
  guards:
    grace: %s
    max: {count: 1000, percent: 100}
    rate: %d/m
  actions: [{drain_host: {}}, {delete_runner: {}}, {release_host: {}}]
`, names, oldLabel, keepLabel, anyOf(w, "grace of drains", "0m", "0m", "4m"), rapid.IntRange(1, 3).Draw(w.T, "drains a minute"))
}
