package demand_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
)

// An event that comes after the runner was found gone says why, once.
func TestALateEventExplainsARemoval(t *testing.T) {
	t.Parallel()
	const acme = "hook-canary-acme"
	w := newWorld(t)
	runner := func(ephemeral bool, cause string) {
		w.Helper()
		w.exec(`DELETE FROM muster.runner`)
		w.exec(`INSERT INTO muster.target (name, scope, api_url, first_used_at, max_observation_gap) VALUES ('acme', 'org/acme', '', $1, '1 h') ON CONFLICT DO NOTHING`, t0)
		w.exec(`INSERT INTO muster.runner (target, runner_id, name, os, status, busy, labels, ephemeral, fingerprint, first_seen_at, seen_at, status_since, removed_at, removal_cause)
			VALUES ('acme', 3, 'build-03', 'linux', 'online', false, '{}', $2, 0, $1, $1, $1, CASE WHEN $3 = '' THEN NULL ELSE $1::timestamptz + interval '2 min' END, nullif($3, ''))`,
			t0.Add(-10*time.Minute), ephemeral, cause)
	}
	const causes = `SELECT coalesce(removal_cause, 'registered') FROM api.runners`
	const trail = `SELECT runner_name, payload->'details'->>'removal_cause', payload->'details'->>'workflow_job_id' FROM api.audit WHERE code = 'RN111I'`
	tests := []struct {
		name      string
		ephemeral bool
		cause     string
		state     fleet.WorkflowJobState
		want      string
		trail     []string
	}{
		{"it was its only job", true, "unknown", fleet.WorkflowJobCompleted, "ephemeral", []string{"build-03 ephemeral 41"}},
		{"a persistent one's job says nothing", false, "unknown", fleet.WorkflowJobCompleted, "unknown", []string{}},
		{"a job that has no runner yet says nothing", true, "unknown", fleet.WorkflowJobQueued, "unknown", []string{}},
		{"what is known stays", true, "host", fleet.WorkflowJobCompleted, "host", []string{}},
		{"it is still registered", true, "", fleet.WorkflowJobCompleted, "registered", []string{}},
	}
	told := 0
	for _, tt := range tests {
		runner(tt.ephemeral, tt.cause)
		w.forget()
		for _, id := range []string{tt.name, tt.name, tt.name + ", said again"} {
			b := body(41, tt.state)
			if tt.state == fleet.WorkflowJobCompleted {
				b = strings.Replace(b, `"labels"`, `"completed_at":"`+t0.Add(-9*time.Minute).Format(time.RFC3339)+`","labels"`, 1)
			}
			d := delivery(strings.ReplaceAll(id, " ", "-"), "workflow_job", b, acme)
			if err := w.intake.Receive(t.Context(), d); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
		}
		if got := w.rows(causes); len(got) != 1 || got[0] != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
		events := w.rows(trail + ` ORDER BY event_id`)[told:]
		if diff := cmp.Diff(tt.trail, events); diff != "" {
			t.Errorf("%s: trail (-want +got):\n%s", tt.name, diff)
		}
		told += len(events)
	}
}
