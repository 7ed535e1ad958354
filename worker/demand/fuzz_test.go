package demand_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/worker/demand"
)

// Whatever two bodies say of one job, the order in which they come is nothing
// to the result, and the record can hold it.
func FuzzFoldOfAnyTwoEvents(f *testing.F) {
	f.Add([]byte(`{"action":"queued","workflow_job":{"id":1,"labels":["b","a"],"created_at":"2026-03-01T12:00:00Z"}}`),
		[]byte(`{"action":"in_progress","workflow_job":{"id":1,"runner_id":3,"runner_name":"a\u0000b","started_at":"0001-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"action":"completed","workflow_job":{"id":1,"runner_id":3,"runner_name":"x","conclusion":"success","completed_at":"9999-12-31T23:59:59+14:00"}}`),
		[]byte(`{"action":"completed","workflow_job":{"id":1,"runner_id":4,"conclusion":"failure","completed_at":"0000-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"action":"pending","workflow_job":{"id":9223372036854775807}}`), []byte(`{"workflow_job":{"id":1,"labels":["\ud800"]}}`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		a, err := github.ReadWorkflowJob(one)
		if err != nil {
			return
		}
		recordable(t, a.Job)
		b, err := github.ReadWorkflowJob(two)
		if err != nil {
			return
		}
		b.Job.ID = a.Job.ID
		ab, ba := demand.Fold(a.Job, b.Job), demand.Fold(b.Job, a.Job)
		if diff := cmp.Diff(ab, ba, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("in the other order (-want +got):\n%s", diff)
		}
		for _, again := range []fleet.WorkflowJob{a.Job, b.Job, ab} {
			if diff := cmp.Diff(ab, demand.Fold(ab, again), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("heard again (-want +got):\n%s", diff)
			}
		}
	})
}

// recordable fails the test where Postgres would not take the job as it is.
func recordable(t *testing.T, j fleet.WorkflowJob) {
	t.Helper()
	for _, s := range append([]string{j.Repository, j.RunnerName, j.Conclusion}, j.Labels...) {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) || len(s) > 1024 {
			t.Errorf("%q cannot be recorded", s)
		}
	}
	for _, at := range []time.Time{j.QueuedAt, j.StartedAt, j.CompletedAt} {
		if at.Year() < -1 || at.Year() > 10000 || !at.Equal(at.Truncate(time.Microsecond)) {
			t.Errorf("%s cannot be recorded", at)
		}
	}
	if j.ID <= 0 || j.RunID < 0 || j.RunnerID < 0 || int64(j.RunAttempt) != int64(int32(j.RunAttempt)) {
		t.Errorf("numbers of %+v cannot be recorded", j)
	}
}
