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
	decisions     *prometheus.CounterVec
	actions       *prometheus.CounterVec
	tokens        *prometheus.CounterVec
	tokenSeconds  *prometheus.HistogramVec
	triggers      *prometheus.CounterVec
	triggerLag    *prometheus.HistogramVec
	ticks         *prometheus.CounterVec
	tickLateness  *prometheus.HistogramVec
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
		decisions:    counter("decisions_total", "Decisions on runners, by verdict.", "target", "policy", "outcome"),
		actions:      counter("actions_total", "Actions on runners that were settled, by state.", "target", "policy", "outcome"),
		tokens:       counter("tokens_total", "Requests for tokens, by outcome.", "kind", "outcome"),
		tokenSeconds: histogram("token_duration_seconds", "How long requests for tokens took to answer.", "kind"),
		triggers:     counter("triggers_total", "Deliveries of triggers, by what became of them.", "job", "target", "outcome"),
		triggerLag:   histogram("trigger_lag_seconds", "From the publishing of a trigger to its arrival here.", "job"),
		ticks:        counter("ticks_total", "Due moments of schedules that this process was first to record, by state.", "job", "target", "outcome"),
		tickLateness: histogram("tick_lateness_seconds", "How late due moments were noticed.", "job"),
	}
	m.registry.MustRegister(m.syncs, m.syncSeconds, m.calls, m.callSeconds, m.rateRemaining, m.decisions, m.actions,
		m.tokens, m.tokenSeconds, m.triggers, m.triggerLag, m.ticks, m.tickLateness, buildInfo())
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
// also where a part of it cannot be had.
func (m *metrics) handler(record func() *db.DB) http.Handler {
	return m.handlerReading(func(ctx context.Context) ([]db.Gauge, error) {
		if record() == nil {
			return nil, fleet.ErrUnavailable
		}
		return record().Gauges(ctx)
	})
}

func (m *metrics) handlerReading(read func(context.Context) ([]db.Gauge, error)) http.Handler {
	held := prometheus.NewRegistry()
	held.MustRegister(recordGauges{read})
	return promhttp.HandlerFor(prometheus.Gatherers{m.registry, held}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

func (m *metrics) sync(s fleet.Sync) {
	m.syncs.WithLabelValues(s.Target, string(s.Outcome), string(s.Suspect)).Inc()
	m.syncSeconds.WithLabelValues(s.Target).Observe(s.FinishedAt.Sub(s.StartedAt).Seconds())
}

func (m *metrics) githubCall(target string, c github.Call) {
	class := "none"
	if c.Status != 0 {
		class = strconv.Itoa(c.Status/100) + "xx"
	}
	m.calls.WithLabelValues(target, c.Op, class).Inc()
	m.callSeconds.WithLabelValues(target, c.Op).Observe(c.Took.Seconds())
	if c.RateRemaining >= 0 {
		m.rateRemaining.WithLabelValues(target).Set(float64(c.RateRemaining))
	}
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

// recordGauges collects what the record holds.
type recordGauges struct {
	read func(context.Context) ([]db.Gauge, error)
}

var (
	byTarget = []string{"target"}
	recorded = map[string]*prometheus.Desc{
		db.GaugeRunners:       describe(db.GaugeRunners, "Runners that are registered.", byTarget),
		db.GaugeRunnersOnline: describe(db.GaugeRunnersOnline, "Runners that are online.", byTarget),
		db.GaugeRunnersBusy:   describe(db.GaugeRunnersBusy, "Runners that run a workflow job.", byTarget),
		db.GaugeSyncAge:       describe(db.GaugeSyncAge, "Since the newest complete sync began; absent: there was none.", byTarget),
		db.GaugePolicyHalted:  describe(db.GaugePolicyHalted, "1 where the policy acts on nobody until it is resumed.", []string{"target", "policy"}),
		db.GaugeDeadLetters:   describe(db.GaugeDeadLetters, "Messages that failed for good and wait for somebody.", nil),
		db.GaugeOutboxAge:     describe(db.GaugeOutboxAge, "How long the oldest unpublished message has been waiting.", nil),
		db.GaugeOpenIntents:   describe(db.GaugeOpenIntents, "Deletions that were intended and have no outcome yet.", nil),
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
	for _, v := range gauges {
		d := recorded[v.Name]
		switch {
		case d == nil:
		case v.Policy != "":
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v.Value, v.Target, v.Policy)
		case v.Target != "":
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v.Value, v.Target)
		default:
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v.Value)
		}
	}
}
