package storm_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/internal/web"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/demand"
)

// Which witness a stretch of work is told by.
type witness string

const (
	byListing witness = "listing" // all listings
	byLook    witness = "look"    // GET by id
	byWebhook witness = "webhook" // its in_progress, over HTTP or NATS
	byHost    witness = "host"    // its heartbeats
	byDrain   witness = "drain"   // its host's answer, where it is asked to let the runner go
)

// hookSecret is what the webhook of a target signs with. One secret for all
// would have workflow jobs count for enterprises too.
func hookSecret(target string) string { return "signed " + target }

// ears are how a world hears of its runners beside GitHub's API: webhooks of
// all targets, and heartbeats. They outlive the replicas, of which any might
// hear what comes.
type ears struct {
	db     *db.DB
	signed map[string]demand.Target
	hooks  []int64
	beats  func(context.Context, queue.Request)
	// stored hears when heartbeats are written, all that came before included.
	stored chan int
	// beatAt is when heartbeats come that are sent now, by the shared clock and since 1970.
	beatAt atomic.Int64
}

// post hands what is published to whoever consumes or serves it, as NATS does,
// and without a server.
type post struct {
	events chan func(context.Context, queue.Message) queue.Verdict
	beats  chan func(context.Context, queue.Request)
}

func (n post) Consume(ctx context.Context, _ queue.Consumer, handle func(context.Context, queue.Message) queue.Verdict) error {
	n.events <- handle
	<-ctx.Done()
	return nil
}

func (n post) Serve(ctx context.Context, _ queue.Service, handle func(context.Context, queue.Request)) error {
	n.beats <- handle
	<-ctx.Done()
	return nil
}

// listen opens the ears.
func (w *world) listen() {
	store, err := db.Open(w.ctx, w.record.url)
	w.ok(err)
	e := &ears{db: store, stored: make(chan int, 100)}
	w.ears = e
	ctx, stop := context.WithCancel(w.ctx)
	var g sync.WaitGroup
	w.Cleanup(func() {
		stop()
		g.Wait()
		store.Close()
	})
	n := post{make(chan func(context.Context, queue.Message) queue.Verdict, 1), make(chan func(context.Context, queue.Request), 1)}
	log := slog.New(slog.DiscardHandler)
	e.signed = map[string]demand.Target{}
	for _, t := range w.targets {
		e.signed[t.born] = demand.Target{Target: t.Target, Secrets: func(context.Context) ([]fleet.Secret, error) {
			return []fleet.Secret{fleet.NewSecret(hookSecret(t.born))}, nil
		}}
	}
	intake := &demand.Intake{
		Log: log, DB: store, Now: w.clock.tell, Targets: func() map[string]demand.Target { return e.signed }, Conn: n,
		Pools: w.poolsFor, Refusals: &demand.Refusals{},
	}
	beats := &demand.Listener{
		Log: log, DB: store, Conn: n,
		Now: func(context.Context) (time.Time, error) { return time.Unix(0, e.beatAt.Load()).UTC(), nil },
		Observe: func(outcome demand.BeatOutcome, n int) {
			if outcome != demand.BeatStored {
				panic(fmt.Sprintf("%d heartbeats: %s", n, outcome))
			}
			e.stored <- n
		},
	}
	g.Go(func() { _ = intake.Consume(ctx) }) // its connection is not closed
	g.Go(func() { _ = beats.Serve(ctx) })
	e.beats = <-n.beats
	receivers := map[string]http.Handler{
		"http": (&web.Server{Log: log, Metrics: http.NotFoundHandler(), Webhooks: intake}).Handler(),
		"nats": handOn(<-n.events),
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, way, _ := strings.Cut(r.URL.RawQuery, "via=")
		way, r.URL.RawQuery, _ = strings.Cut(way, "&")
		receivers[way].ServeHTTP(rw, r)
	}))
	w.Cleanup(server.Close)
	w.drawSlowBodies(server.Listener.Addr().String())
	for _, t := range w.targets {
		way := anyOf(w, "webhooks", "http", "nats")
		id, err := w.sim.AddHook(githubsim.Hook{
			Scope: t.Scope, Secret: hookSecret(t.Name), URL: server.URL + "/webhooks/github?via=" + way + "&target=" + t.Name,
		})
		w.ok(err)
		e.hooks = append(e.hooks, id)
	}
}

// handOn is somebody's receiver that checks signatures and publishes what it is
// sent.
func handOn(publish func(context.Context, queue.Message) queue.Verdict) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		target := r.URL.Query().Get("target")
		if err != nil || !github.Signed(body, r.Header.Get("X-Hub-Signature-256"), fleet.NewSecret(hookSecret(target))) {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		headers := map[string][]string(r.Header.Clone())
		headers["Muster-Target"] = []string{target}
		event := r.Header.Get("X-GitHub-Event")
		m := queue.Message{Subject: queue.GitHubSubject(event), Headers: headers, Body: body, Delivered: 1}
		if publish(r.Context(), m) != queue.Ack() {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
	})
}

// toldOf are the workflow jobs of which webhooks have told that they are now so.
func (w *world) toldOf(action string) map[int64]bool {
	jobs := map[int64]bool{}
	for _, hook := range w.ears.hooks {
		for _, d := range w.sim.Deliveries(hook) {
			if d.Action == action && d.StatusCode/100 == 2 {
				jobs[d.Job] = true
			}
		}
	}
	return jobs
}

// beat has those hosts speak that do. What they say arrives at that time, which
// may be a moment that all others have yet to live through.
func (w *world) beat(at time.Time) {
	w.ears.beatAt.Store(w.clock.shared(at).UnixNano())
	n := 0
	for _, key := range w.hostKeys() {
		if h := w.jobs.hosts[key]; h.says != "" {
			w.ears.beats(w.ctx, queue.Request{
				Subject: queue.HeartbeatSubject(h.name),
				Body:    fmt.Appendf(nil, `{"v":1,"runners":[{"target":%q,"name":%q,"state":%q}]}`, h.target, h.runner, h.says),
			})
			n++
		}
	}
	if body := w.jobs.stranger.beat(); body != "" {
		w.ears.beats(w.ctx, queue.Request{Subject: queue.HeartbeatSubject(w.jobs.stranger.name), Body: []byte(body)})
		n++
	}
	for n > 0 {
		n -= <-w.ears.stored
	}
}

// hostKeys are those of all hosts, in an order that is always the same.
func (w *world) hostKeys() []string { return slices.Sorted(maps.Keys(w.jobs.hosts)) }

// lapse lets time pass in which hosts speak, and webhooks arrive. It may be
// called from hooks.
func (w *world) lapse(d time.Duration) {
	if w.ears == nil {
		for _, piece := range w.pieces(d) {
			w.clock.pass(piece)
			w.look()
		}
		return
	}
	w.jobs.mu.Lock()
	defer w.jobs.mu.Unlock()
	w.lapseLocked(d)
}

func (w *world) lapseLocked(d time.Duration) {
	for _, piece := range w.pieces(d) {
		w.beat(w.clock.now().Add(piece - w.jobs.beatAge))
		w.clock.pass(piece)
		w.sim.Deliver(w.ctx)
		w.look()
	}
}

// sleep passes the time that somebody wants to wait.
func (w *world) sleep(ctx context.Context, d time.Duration) error {
	w.lapse(d)
	return ctx.Err()
}

// hookWeather is what befalls the webhooks of jobs that are queued or completed.
// Of what is in progress each stretch of work says itself what its webhook does.
func (w *world) hookWeather() {
	for _, lift := range w.jobs.hookFaults {
		lift()
	}
	w.jobs.hookFaults = nil
	for range rapid.IntRange(0, 2).Draw(w.T, "webhook troubles") {
		lift, err := w.sim.Inject(githubsim.Fault{
			Kind: anyOf(w, "webhook fault", githubsim.FaultHookDropped, githubsim.FaultHookLate, githubsim.FaultHookTwice,
				githubsim.FaultHookReordered, githubsim.FaultHookSignature),
			Event:       anyOf(w, "webhook event", "workflow_job.completed", "workflow_job.completed", "workflow_job.queued"),
			Delay:       anyOf(w, "webhook delay", 2*time.Minute, 20*time.Minute),
			Probability: anyOf(w, "probability", 0, 0.5),
		})
		w.ok(err)
		w.jobs.hookFaults = append(w.jobs.hookFaults, lift)
	}
}
