package db_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func workflowJob(id int64) fleet.WorkflowJob {
	return fleet.WorkflowJob{
		Target: "acme", ID: id, RunID: 7, RunAttempt: 2, Repository: "acme/widgets", Labels: []string{"linux", "self-hosted"},
		State: fleet.WorkflowJobInProgress, RunnerID: 3, RunnerName: "build-03", QueuedAt: t0, StartedAt: t0.Add(time.Minute),
		Runners: []fleet.JobRunner{
			{ID: 2, Name: "build-02", State: fleet.WorkflowJobInProgress, StartedAt: t0},
			{ID: 3, Name: "build-03", State: fleet.WorkflowJobInProgress, StartedAt: t0.Add(time.Minute)},
		},
	}
}

func TestWorkflowJobsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bare := fleet.WorkflowJob{Target: "acme", ID: 1, State: fleet.WorkflowJobQueued}
	full := workflowJob(2)
	w.tx(func(tx *db.Tx) error {
		for _, j := range []fleet.WorkflowJob{bare, full} {
			if _, added, err := tx.AddWorkflowJob(w.ctx, j, t0); err != nil || !added {
				t.Errorf("AddWorkflowJob(%d) = %v, %v, want news", j.ID, added, err)
			}
		}
		return nil
	})
	done := full
	done.State, done.Conclusion, done.CompletedAt = fleet.WorkflowJobCompleted, "success", t0.Add(time.Hour)
	w.tx(func(tx *db.Tx) error {
		for _, j := range []fleet.WorkflowJob{bare, full} {
			known, added, err := tx.AddWorkflowJob(w.ctx, fleet.WorkflowJob{Target: "acme", ID: j.ID, State: fleet.WorkflowJobWaiting}, t0)
			if j.Labels == nil {
				j.Labels = []string{}
			}
			if diff := cmp.Diff(j, known); err != nil || added || diff != "" {
				t.Errorf("AddWorkflowJob(%d) again = %v, %v (-want +got):\n%s", j.ID, added, err, diff)
			}
		}
		return tx.SaveWorkflowJob(w.ctx, done, t0.Add(time.Hour))
	})
	table, err := w.db.ReadAPI(w.ctx, `
		SELECT target, workflow_job_id, run_id, repository, labels::text, state, runner_id, runner_name,
			queued_at::text, started_at::text, completed_at::text, conclusion
		FROM api.workflow_jobs
		ORDER BY workflow_job_id`)
	want := [][]string{
		{"acme", "1", "", "", "{}", "queued", "", "", "", "", "", ""},
		{"acme", "2", "7", "acme/widgets", "{linux,self-hosted}", "completed", "3", "build-03",
			"2026-03-01 12:00:00+00", "2026-03-01 12:01:00+00", "2026-03-01 13:00:00+00", "success"},
	}
	if diff := cmp.Diff(want, table.Rows); err != nil || diff != "" {
		t.Errorf("api.workflow_jobs: %v (-want +got):\n%s", err, diff)
	}
	w.want("2026-03-01 13:00:00+00", `SELECT changed_at FROM muster.workflow_job WHERE workflow_job_id = 2`)
}

func TestADeliveryIsNewsOncePerTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var got []bool
	for _, target := range []string{"acme", "acme", "widgets"} {
		w.tx(func(tx *db.Tx) error {
			news, err := tx.AddDelivery(w.ctx, target, "0199b1c2", t0)
			got = append(got, news)
			return err
		})
	}
	if diff := cmp.Diff([]bool{true, false, true}, got); diff != "" {
		t.Errorf("news (-want +got):\n%s", diff)
	}
}

func beat(host string, after time.Duration, runners ...fleet.HostRunner) fleet.Heartbeat {
	return fleet.Heartbeat{Host: host, Runners: runners, At: t0.Add(after)}
}

func hostRunner(name string, state fleet.HostRunnerState) fleet.HostRunner {
	return fleet.HostRunner{Target: "acme", Name: name, State: state}
}

func (w *world) heard(beats ...fleet.Heartbeat) {
	w.Helper()
	w.tx(func(tx *db.Tx) error { return tx.SaveHeartbeats(w.ctx, beats) })
}

func TestHeartbeatsReplaceWhatTheirHostSaidBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := func(want string) {
		t.Helper()
		w.want(want, `SELECT string_agg(host || ' ' || extract(epoch FROM last_heartbeat_at - $1::timestamptz)::int || coalesce((
				SELECT string_agg(' ' || name || '=' || state || '@' || extract(epoch FROM at - $1::timestamptz)::int, '' ORDER BY name)
				FROM muster.host_runner r WHERE r.host = h.host), ''), ', ' ORDER BY host)
			FROM muster.host h`, t0)
	}
	w.heard() // nothing is nothing
	w.heard(
		beat("b", 0, hostRunner("b1", fleet.HostRunnerIdle), hostRunner("b2", fleet.HostRunnerBusy)),
		beat("a", 0, hostRunner("a1", fleet.HostRunnerIdle)), beat("c", 0))
	all("a 0 a1=idle@0, b 0 b1=idle@0 b2=busy@0, c 0")
	// What is as it was keeps its time, what is not listed any more is gone.
	w.heard(
		beat("b", 30*time.Second, hostRunner("b1", fleet.HostRunnerIdle), hostRunner("b3", fleet.HostRunnerBusy)),
		beat("a", 30*time.Second, hostRunner("a1", fleet.HostRunnerBusy)))
	all("a 30 a1=busy@30, b 30 b1=idle@0 b3=busy@30, c 0")
	// A late one, by way of another replica.
	w.heard(beat("a", 20*time.Second), beat("c", 40*time.Second, hostRunner("c1", fleet.HostRunnerStopped)))
	all("a 30 a1=busy@30, b 30 b1=idle@0 b3=busy@30, c 40 c1=stopped@40")
	w.heard(beat("a", 60*time.Second))
	all("a 60, b 30 b1=idle@0 b3=busy@30, c 40 c1=stopped@40")
}

func TestStatesOfHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		name      string
		heartbeat string // how long ago; empty: never
		stopped   string
		token     string
		want      fleet.HostState
	}{
		{"it talks", "179 s", "false", "", fleet.HostRunning},
		{"it talks and has no runner", "1 s", "null", "", fleet.HostRunning},
		{"it talks and has asked for the next token", "10 s", "false", "1 s", fleet.HostRunning},
		{"it has not talked for a while", "180 s", "false", "", fleet.HostSilent},
		{"it has not talked for a day", "24 h", "false", "", fleet.HostGone},
		{"it says that all is over", "1 s", "true", "", fleet.HostGone},
		{"it boots", "", "null", "599 s", fleet.HostBooting},
		{"it did not boot", "", "null", "600 s", fleet.HostSilent},
		{"it boots again after a long time", "48 h", "false", "1 min", fleet.HostBooting},
		{"it boots again after it said that all is over", "2 min", "true", "1 min", fleet.HostBooting},
		{"its token was used, and all is over again", "1 min", "true", "2 min", fleet.HostGone},
		{"it booted, talked and fell silent", "4 min", "false", "5 min", fleet.HostSilent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{T: t, ctx: t.Context(), sql: w.sql}
			w.want(string(tt.want), `SELECT muster.host_state($4::timestamptz - nullif($1, '')::interval, nullif($2, 'null')::boolean,
				$4::timestamptz - nullif($3, '')::interval, $4)`, tt.heartbeat, tt.stopped, tt.token, t0)
			// What policies see is the same.
			h := fleet.HostReport{SeenAt: before(t, tt.heartbeat), Stopped: tt.stopped == "true", TokenAt: before(t, tt.token)}
			if got := h.State(t0); got != tt.want {
				t.Errorf("%+v is %q, want %q", h, got, tt.want)
			}
		})
	}
}

// before is t0 less an interval as Postgres reads it; zero for none.
func before(t *testing.T, interval string) time.Time {
	t.Helper()
	if interval == "" {
		return time.Time{}
	}
	d, err := time.ParseDuration(strings.NewReplacer(" ", "", "min", "m").Replace(interval))
	if err != nil {
		t.Fatal(err)
	}
	return t0.Add(-d)
}

func TestHostsAreThoseThatTalkOrBoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now, err := w.db.Now(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	w.heard(
		fleet.Heartbeat{Host: "talks", At: now, Runners: []fleet.HostRunner{hostRunner("r2", fleet.HostRunnerBusy), hostRunner("r1", fleet.HostRunnerIdle)}},
		fleet.Heartbeat{Host: "over", At: now, Runners: []fleet.HostRunner{hostRunner("r3", fleet.HostRunnerStopped)}},
		fleet.Heartbeat{Host: "silent", At: now.Add(-time.Hour)})
	for host, token := range map[string]struct {
		kind, outcome string
		ago           time.Duration
	}{
		"boots":   {"registration", "issued", time.Minute},
		"late":    {"registration", "issued", 11 * time.Minute},
		"leaves":  {"removal", "issued", time.Minute},
		"refused": {"registration", "denied", time.Minute},
	} {
		w.exec(`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at, issued_at, expires_at)
			VALUES ($1, gen_random_uuid(), 1, 'acme', $2, $3, '', $4, $4, $5)`, host, token.kind, token.outcome, now.Add(-token.ago), now.Add(time.Hour))
	}
	since := func(name, state string) string {
		return fmt.Sprintf(`{"name": %q, "since": "%s", "state": %q, "target": "acme"}`, name, now.Format("2006-01-02T15:04:05.999999+00:00"), state)
	}
	table, err := w.db.ReadAPI(w.ctx, `SELECT host, state, last_heartbeat_at IS NOT NULL, runners::text FROM api.hosts ORDER BY host`)
	want := [][]string{
		{"boots", "booting", "false", "[]"},
		{"over", "gone", "true", "[" + since("r3", "stopped") + "]"},
		{"silent", "silent", "true", "[]"},
		{"talks", "running", "true", "[" + since("r1", "idle") + ", " + since("r2", "busy") + "]"},
	}
	if diff := cmp.Diff(want, table.Rows); err != nil || diff != "" {
		t.Errorf("api.hosts: %v (-want +got):\n%s", err, diff)
	}
}
