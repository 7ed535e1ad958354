package main

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/demand"
)

// scrapeLimit is how long a scrape waits for Postgres; Prometheus itself gives
// up after 10 s unless told otherwise.
const scrapeLimit = 2 * time.Second

// seconds are the buckets of durations: from a quick answer to the ten minutes
// that an attempt at a job may take.
var seconds = []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600}

// metrics are what /metrics shows. Most methods are hooks for those who know
// that something happened; they are quick and safe for concurrent use.
type metrics struct {
	registry *prometheus.Registry

	syncs         *prometheus.CounterVec
	syncSeconds   *prometheus.HistogramVec
	calls         *prometheus.CounterVec
	callSeconds   *prometheus.HistogramVec
	rateRemaining *prometheus.GaugeVec
	limits        *limitGauges
	waits         *prometheus.CounterVec
	waitSeconds   *prometheus.HistogramVec
	decisions     *prometheus.CounterVec
	actions       *prometheus.CounterVec
	tokens        *prometheus.CounterVec
	tokenSeconds  *prometheus.HistogramVec
	triggers      *prometheus.CounterVec
	triggerLag    *prometheus.HistogramVec
	ticks         *prometheus.CounterVec
	tickLateness  *prometheus.HistogramVec
	loadFailed    prometheus.Gauge
	events        *prometheus.CounterVec
	beats         *prometheus.CounterVec
}

// newMetrics makes a registry of its own, so that there may be several.
func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "muster", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "muster", Name: name, Help: help, Buckets: seconds}, labels)
	}
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		syncs:       counter("syncs_total", "Syncs that ended, by outcome; reason is what made a complete one suspect.", "target", "outcome", "reason"),
		syncSeconds: histogram("sync_duration_seconds", "How long syncs took.", "target"),
		calls:       counter("github_calls_total", "Requests sent to GitHub, by operation and class of the answer; code none: no answer.", "target", "kind", "code"),
		callSeconds: histogram("github_call_duration_seconds", "How long GitHub took to answer, body included.", "target", "kind"),
		rateRemaining: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "muster", Name: "github_rate_remaining",
			Help: "Requests left in the current rate-limit window, as GitHub last said; absent where the server has no limit."}, []string{"target"}),
		limits: &limitGauges{},
		waits: counter("github_waits_total", "Requests that could not be sent at once, by priority, by what they waited for at first, and by whether they were sent in the end.",
			"kind", "reason", "outcome"),
		waitSeconds:  histogram("github_wait_duration_seconds", "How long such requests waited, by priority.", "kind"),
		decisions:    counter("decisions_total", "Decisions on runners, by verdict.", "target", "policy", "outcome"),
		actions:      counter("actions_total", "Actions on runners that were settled, by state.", "target", "policy", "outcome"),
		tokens:       counter("tokens_total", "Requests for tokens, by outcome.", "kind", "outcome"),
		tokenSeconds: histogram("token_duration_seconds", "How long requests for tokens took to answer.", "kind"),
		triggers:     counter("triggers_total", "Deliveries of triggers, by what became of them.", "job", "target", "outcome"),
		triggerLag:   histogram("trigger_lag_seconds", "From the publishing of a trigger to its arrival here.", "job"),
		ticks:        counter("ticks_total", "Due moments of schedules that this process was first to record, by state.", "job", "target", "outcome"),
		tickLateness: histogram("tick_lateness_seconds", "How late due moments were noticed.", "job"),
		loadFailed: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "muster", Name: "config_load_failed",
			Help: "1 where the configuration or a policy in its files was refused when it was read again, and the one before goes on."}),
		events: counter("github_events_total", "Events of GitHub, by the way they came and what became of them; without a target: taken for none.", "target", "kind", "outcome"),
		beats:  counter("heartbeats_total", "Heartbeats of hosts, by what became of them.", "outcome"),
	}
	m.registry.MustRegister(m.syncs, m.syncSeconds, m.calls, m.callSeconds, m.rateRemaining, m.limits, m.waits, m.waitSeconds, m.decisions, m.actions,
		m.tokens, m.tokenSeconds, m.triggers, m.triggerLag, m.ticks, m.tickLateness, m.loadFailed, m.events, m.beats, buildInfo())
	return m
}

func buildInfo() prometheus.Collector {
	b := readBuild()
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "muster", Name: "build_info", Help: "1; the labels say which muster this is.",
		ConstLabels: prometheus.Labels{"version": b.version, "commit": b.commit, "goversion": b.goVersion},
	})
	g.Set(1)
	return g
}

// handler serves the metrics with what the record holds, which is read once
// per scrape. record gives nil until there is one. What there is, is served
// also where a part of it cannot be had. Of pools it is what those that are
// configured now have.
func (m *metrics) handler(record func() *db.DB, pools func() []string) http.Handler {
	return m.handlerReading(func(ctx context.Context) ([]db.Gauge, error) {
		if record() == nil {
			return nil, fleet.ErrUnavailable
		}
		return record().Gauges(ctx)
	}, pools)
}

func (m *metrics) handlerReading(read func(context.Context) ([]db.Gauge, error), pools func() []string) http.Handler {
	held := prometheus.NewRegistry()
	held.MustRegister(recordGauges{read, pools})
	return promhttp.HandlerFor(prometheus.Gatherers{m.registry, held}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

func (m *metrics) sync(s fleet.Sync) {
	m.syncs.WithLabelValues(s.Target, string(s.Outcome), string(s.Suspect)).Inc()
	m.syncSeconds.WithLabelValues(s.Target).Observe(s.FinishedAt.Sub(s.StartedAt).Seconds())
}

// githubCall counts a call for its target. sharing are all targets with the
// same credential, whose budget is one.
func (m *metrics) githubCall(target string, sharing []string, c github.Call) {
	class := "none"
	if c.Status != 0 {
		class = strconv.Itoa(c.Status/100) + "xx"
	}
	m.calls.WithLabelValues(target, c.Op, class).Inc()
	m.callSeconds.WithLabelValues(target, c.Op).Observe(c.Took.Seconds())
	if c.RateRemaining < 0 {
		return
	}
	for _, name := range sharing {
		m.rateRemaining.WithLabelValues(name).Set(float64(c.RateRemaining))
	}
}

// githubWait counts a request that had to wait for its turn.
func (m *metrics) githubWait(w github.Wait) {
	outcome := "sent"
	if !w.Sent {
		outcome = "given_up"
	}
	m.waits.WithLabelValues(w.Priority.String(), string(w.Reason), outcome).Inc()
	m.waitSeconds.WithLabelValues(w.Priority.String()).Observe(w.Took.Seconds())
}

func (m *metrics) policy(policy, target string, counts fleet.Counts) {
	for _, v := range []fleet.Verdict{fleet.VerdictAct, fleet.VerdictKeep, fleet.VerdictHalt} {
		m.decisions.WithLabelValues(target, policy, string(v)).Add(float64(counts[string(v)]))
	}
}

func (m *metrics) action(a fleet.Action) {
	m.actions.WithLabelValues(a.Target, a.Policy, string(a.State)).Inc()
}

func (m *metrics) token(kind, outcome string, took time.Duration) {
	m.tokens.WithLabelValues(kind, outcome).Inc()
	m.tokenSeconds.WithLabelValues(kind).Observe(took.Seconds())
}

func (m *metrics) trigger(o worker.Outcome) {
	m.triggers.WithLabelValues(string(o.Job), o.Name, string(o.Result)).Inc()
	m.triggerLag.WithLabelValues(string(o.Job)).Observe(o.Lag.Seconds())
}

func (m *metrics) tick(schedule string, lateness time.Duration, state fleet.TickState) {
	job, name, _ := strings.Cut(schedule, "/")
	m.ticks.WithLabelValues(job, name, string(state)).Inc()
	m.tickLateness.WithLabelValues(job).Observe(lateness.Seconds())
}

func (m *metrics) reloaded(taken bool) {
	if m.loadFailed.Set(1); taken {
		m.loadFailed.Set(0)
	}
}

func (m *metrics) event(target string, via demand.Via, outcome demand.Outcome) {
	m.events.WithLabelValues(target, string(via), string(outcome)).Inc()
}

func (m *metrics) heartbeats(outcome demand.BeatOutcome, n int) {
	m.beats.WithLabelValues(string(outcome)).Add(float64(n))
}

// recordGauges collects what the record holds.
type recordGauges struct {
	read  func(context.Context) ([]db.Gauge, error)
	pools func() []string // names of those configured now
}

var (
	byTarget = []string{"target"}
	byPool   = []string{"target", "pool"}
	recorded = map[string]*prometheus.Desc{
		db.GaugeRunners:           describe(db.GaugeRunners, "Runners that are registered.", byTarget),
		db.GaugeRunnersOnline:     describe(db.GaugeRunnersOnline, "Runners that are online.", byTarget),
		db.GaugeRunnersBusy:       describe(db.GaugeRunnersBusy, "Runners that run a workflow job.", byTarget),
		db.GaugeSyncAge:           describe(db.GaugeSyncAge, "Since the newest complete sync began; absent: there was none.", byTarget),
		db.GaugePolicyHalted:      describe(db.GaugePolicyHalted, "1 where the policy acts on nobody until it is resumed.", []string{"target", "policy"}),
		db.GaugeDeadLetters:       describe(db.GaugeDeadLetters, "Messages that failed for good and wait for somebody.", nil),
		db.GaugeOutboxAge:         describe(db.GaugeOutboxAge, "How long the oldest unpublished message has been waiting.", nil),
		db.GaugeOpenIntents:       describe(db.GaugeOpenIntents, "Deletions that were intended and have no outcome yet.", nil),
		db.GaugeClockSteps:        describe(db.GaugeClockSteps, "How often Postgres's clock was found to have gone back or leapt ahead.", nil),
		db.GaugeFindings:          describe(db.GaugeFindings, "Things that are wrong with a target: see api.findings.", byTarget),
		db.GaugeDemandAge:         describe(db.GaugeDemandAge, "Since all workflow jobs of a target with pools were compared with GitHub's; absent: never.", byTarget),
		db.GaugePoolMin:           describe(db.GaugePoolMin, "Fewest hosts of the pool, by its newest decision, as all muster_pool_ figures are.", byPool),
		db.GaugePoolMax:           describe(db.GaugePoolMax, "Most hosts of the pool, those that boot included.", byPool),
		db.GaugePoolDesired:       describe(db.GaugePoolDesired, "How many hosts the pool should have.", byPool),
		db.GaugePoolOnline:        describe(db.GaugePoolOnline, "Runners of the pool that are online and not being taken away.", byPool),
		db.GaugePoolBusy:          describe(db.GaugePoolBusy, "Those of them that are or may be at work.", byPool),
		db.GaugePoolBooting:       describe(db.GaugePoolBooting, "Hosts asked for or registered that are not online yet.", byPool),
		db.GaugePoolDraining:      describe(db.GaugePoolDraining, "Runners of the pool that are being taken away.", byPool),
		db.GaugePoolQueued:        describe(db.GaugePoolQueued, "Workflow jobs that wait for the pool.", byPool),
		db.GaugePoolInProgress:    describe(db.GaugePoolInProgress, "Workflow jobs that run on the pool.", byPool),
		db.GaugePoolLeasesExpired: describe(db.GaugePoolLeasesExpired, "Hosts asked for in a row that did not come online in time.", byPool),
		db.GaugePoolDecisionAge:   describe(db.GaugePoolDecisionAge, "Since the pool was last decided on.", byPool),
	}
	recordUp = describe("database_up", "1 where Postgres answered this scrape; else the figures it holds are absent.", nil)
)

func describe(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("muster_"+name, help, labels, nil)
}

func (g recordGauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range recorded {
		to <- d
	}
	to <- recordUp
}

func (g recordGauges) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit) // collectors are given none
	defer cancel()
	gauges, err := g.read(ctx)
	if err != nil {
		to <- prometheus.MustNewConstMetric(recordUp, prometheus.GaugeValue, 0)
		return
	}
	to <- prometheus.MustNewConstMetric(recordUp, prometheus.GaugeValue, 1)
	configured := map[string]bool{}
	for _, name := range g.pools() {
		configured[name] = true
	}
	for _, v := range gauges {
		d := recorded[v.Name]
		switch {
		case d == nil:
		case v.Pool != "" && !configured[v.Pool]: // its row goes a day later
		case v.Pool != "":
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v.Value, v.Target, v.Pool)
		case v.Policy != "":
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v.Value, v.Target, v.Policy)
		case v.Target != "":
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v.Value, v.Target)
		default:
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v.Value)
		}
	}
}
