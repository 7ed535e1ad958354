package main

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/demand"
)

func scrape(t *testing.T, m *metrics, read func(context.Context) ([]db.Gauge, error)) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.handlerReading(read, func() []string { return []string{"linux"} }).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("/metrics = %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// happen lets one of everything happen.
func happen(m *metrics) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m.sync(fleet.Sync{Target: "acme", StartedAt: began, FinishedAt: began.Add(2 * time.Second), Outcome: fleet.SyncComplete, Suspect: fleet.SuspectShrunk})
	m.githubCall("acme", []string{"acme", "widgets"}, github.Call{Op: github.OpRunners, Status: 200, Took: time.Second, RateRemaining: 4711})
	m.githubCall("octo", []string{"octo"}, github.Call{Op: github.OpRunner, Took: time.Second, RateRemaining: -1})
	m.githubWait(github.Wait{Priority: github.PrioritySync, Reason: github.ReasonPace, Took: 2 * time.Second, Sent: true})
	m.githubWait(github.Wait{Priority: github.PriorityToken, Reason: github.ReasonPause})
	m.limits.known = func() map[string]github.Limits {
		return map[string]github.Limits{"acme": {Limit: 5000, Paused: time.Now().Add(time.Hour)}, "octo": {}}
	}
	m.policy("reap", "acme", fleet.Counts{"act": 2, "keep": 3})
	m.action(fleet.Action{Target: "acme", Policy: "reap", State: fleet.ActionSpared})
	m.token("removal", "issued", time.Millisecond)
	m.trigger(worker.Outcome{Job: fleet.JobSync, Name: "acme", Result: worker.ResultDone, Lag: time.Second})
	m.tick("sync/acme", 3*time.Second, fleet.TickFired)
	m.event("acme", demand.ViaWebhook, demand.OutcomeFolded)
	m.heartbeats(demand.BeatStored, 3)
	m.reloaded(false)
}

func TestMetricsShowWhatHappened(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	happen(m)
	text := scrape(t, m, func(context.Context) ([]db.Gauge, error) {
		return []db.Gauge{
			{Name: db.GaugeRunners, Target: "acme", Value: 7},
			{Name: db.GaugePolicyHalted, Target: "acme", Policy: "reap", Value: 1},
			{Name: db.GaugeDeadLetters, Value: 2},
			{Name: db.GaugePoolDesired, Target: "acme", Pool: "linux", Value: 3},
			{Name: db.GaugePoolDesired, Target: "acme", Pool: "gone", Value: 4},
		}, nil
	})
	if strings.Contains(text, `"gone"`) {
		t.Error("/metrics shows a pool that is not configured any more")
	}
	for _, want := range []string{
		`muster_pool_desired{pool="linux",target="acme"} 3`,
		`muster_syncs_total{outcome="complete",reason="shrunk",target="acme"} 1`,
		`muster_sync_duration_seconds_sum{target="acme"} 2`,
		`muster_github_events_total{kind="webhook",outcome="folded",target="acme"} 1`,
		`muster_heartbeats_total{outcome="stored"} 3`,
		`muster_github_calls_total{code="2xx",kind="list_runners",target="acme"} 1`,
		`muster_github_calls_total{code="none",kind="get_runner",target="octo"} 1`,
		`muster_github_call_duration_seconds_count{kind="list_runners",target="acme"} 1`,
		`muster_github_rate_remaining{target="acme"} 4711`,
		`muster_github_rate_remaining{target="widgets"} 4711`,
		`muster_github_rate_limit{target="acme"} 5000`,
		`muster_github_pause_seconds{target="acme"} 35`, // of 3600, less what has passed
		`muster_github_pause_seconds{target="octo"} 0`,
		`muster_github_waits_total{kind="sync",outcome="sent",reason="pace"} 1`,
		`muster_github_waits_total{kind="token",outcome="given_up",reason="pause"} 1`,
		`muster_github_wait_duration_seconds_sum{kind="sync"} 2`,
		`muster_decisions_total{outcome="act",policy="reap",target="acme"} 2`,
		`muster_decisions_total{outcome="halt",policy="reap",target="acme"} 0`,
		`muster_actions_total{outcome="spared",policy="reap",target="acme"} 1`,
		`muster_tokens_total{kind="removal",outcome="issued"} 1`,
		`muster_token_duration_seconds_count{kind="removal"} 1`,
		`muster_triggers_total{job="sync",outcome="done",target="acme"} 1`,
		`muster_trigger_lag_seconds_sum{job="sync"} 1`,
		`muster_ticks_total{job="sync",outcome="fired",target="acme"} 1`,
		`muster_tick_lateness_seconds_sum{job="sync"} 3`,
		`muster_config_load_failed 1`,
		`muster_runners{target="acme"} 7`,
		`muster_policy_halted{policy="reap",target="acme"} 1`,
		`muster_dead_letters 2`,
		`muster_database_up 1`,
		`muster_build_info{`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if strings.Contains(text, `rate_remaining{target="octo"}`) || strings.Contains(text, `rate_limit{target="octo"}`) {
		t.Error("/metrics shows a rate limit where the server has none")
	}
}

// Runners, hosts and paths would make as many series as there are of them.
func TestMetricsHaveTheAgreedLabelsOnly(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	happen(m)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"target", "job", "kind", "outcome", "code", "policy", "pool", "reason"}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "muster_") {
			t.Errorf("%s does not begin with muster_", f.GetName())
		}
		for _, metric := range f.GetMetric() {
			for _, label := range metric.GetLabel() {
				if !slices.Contains(allowed, label.GetName()) && f.GetName() != "muster_build_info" {
					t.Errorf("%s has the label %s", f.GetName(), label.GetName())
				}
			}
		}
	}
}

func TestOperationsNamesEverySeriesAndNoOther(t *testing.T) {
	t.Parallel()
	described := make(chan *prometheus.Desc, 100)
	newMetrics().registry.Describe(described)
	recordGauges{}.Describe(described)
	close(described)
	shape := regexp.MustCompile(`fqName: "([^"]*)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
	value := regexp.MustCompile(`="[^"]*"`)
	labels := func(list string) string {
		all := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	have := map[string]string{}
	for d := range described {
		part := shape.FindStringSubmatch(d.String())
		if part == nil {
			t.Fatalf("%s is not what was expected", d)
		}
		have[part[1]] = labels(value.ReplaceAllString(part[2], "") + "," + part[3])
	}
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(muster_[a-z_]+)` \\| ([a-z, ]*)\\|").FindAllStringSubmatch(string(page), -1) {
		told[row[1]] = labels(row[2])
	}
	if diff := cmp.Diff(have, told); diff != "" {
		t.Errorf("series and their labels (-registered +docs/operations.md):\n%s", diff)
	}
}

func TestMetricsWithoutPostgresShowTheRest(t *testing.T) {
	t.Parallel()
	limited := false
	m := newMetrics()
	happen(m)
	text := scrape(t, m, func(ctx context.Context) ([]db.Gauge, error) {
		_, limited = ctx.Deadline()
		return nil, errors.New("away")
	})
	if !strings.Contains(text, "\nmuster_database_up 0\n") || !strings.Contains(text, "\nmuster_tokens_total{") {
		t.Errorf("/metrics = %s, want database_up 0 and the counters", text)
	}
	if !limited {
		t.Error("Postgres was asked without a deadline")
	}
}
