package db_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// How long a runner has been idle must not depend on the id in an event alone:
// there may be none, or another scope's.
func TestWhenARunnerLastWorked(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return t0.Add(time.Duration(minutes) * time.Minute) }
	for _, tt := range []struct {
		name string
		jobs []fleet.WorkflowJob
		want time.Time
	}{
		{"none", nil, time.Time{}},
		{"by its id and name", []fleet.WorkflowJob{{RunnerID: 1, RunnerName: "R1", CompletedAt: at(9)}}, at(9)},
		{"by its id alone", []fleet.WorkflowJob{{RunnerID: 1, CompletedAt: at(9)}}, at(9)},
		{"by its name alone", []fleet.WorkflowJob{{RunnerName: "r1", CompletedAt: at(9)}}, at(9)},
		{"by its name in another case", []fleet.WorkflowJob{{RunnerName: "R1", CompletedAt: at(9)}}, at(9)},
		{"before it moved to another runner", []fleet.WorkflowJob{{
			RunnerID: 41, RunnerName: "r41", CompletedAt: at(9), Runners: []fleet.JobRunner{{ID: 1, Name: "R1"}, {ID: 41, Name: "r41"}},
		}}, at(9)},
		{"before it moved, by its id alone", []fleet.WorkflowJob{{
			RunnerID: 41, RunnerName: "r41", CompletedAt: at(9), Runners: []fleet.JobRunner{{ID: 1}, {ID: 41, Name: "r41"}},
		}}, at(9)},
		{"moved between others", []fleet.WorkflowJob{{
			RunnerID: 41, RunnerName: "r41", CompletedAt: at(9), Runners: []fleet.JobRunner{{ID: 2, Name: "r2"}, {ID: 41, Name: "r41"}},
		}}, time.Time{}},
		{"by its name, under an id of another scope", []fleet.WorkflowJob{{RunnerID: 41, RunnerName: "r1", CompletedAt: at(9)}}, at(9)},
		{"the newest, which has no id", []fleet.WorkflowJob{
			{RunnerID: 1, RunnerName: "r1", CompletedAt: at(5)}, {RunnerName: "r1", CompletedAt: at(9)}, {RunnerName: "r1", CompletedAt: at(7)},
		}, at(9)},
		{"another's of its id", []fleet.WorkflowJob{
			{RunnerID: 1, RunnerName: "r1", CompletedAt: at(5)}, {RunnerID: 1, RunnerName: "GitHub Actions 1", CompletedAt: at(9)},
		}, at(5)},
		{"of one before it of its name", []fleet.WorkflowJob{{RunnerID: 41, RunnerName: "r1", CompletedAt: at(-1)}}, time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.target()
			w.runner(1)
			w.tx(func(tx *db.Tx) error {
				for i, j := range tt.jobs {
					j.Target, j.ID, j.State, j.Repository = "acme", int64(i+1), fleet.WorkflowJobCompleted, "acme/widgets"
					if _, _, err := tx.AddWorkflowJob(w.ctx, j, t0); err != nil {
						return err
					}
				}
				return nil
			})
			live, err := w.db.LiveRunners(w.ctx, "acme")
			if err != nil || len(live) != 1 || !live[0].Work.LastDoneAt.Equal(tt.want) {
				t.Errorf("LiveRunners: %v, last work at %v, want %v", err, live[0].Work.LastDoneAt, tt.want)
			}
			one, err := w.db.Runner(w.ctx, "acme", 1)
			if err != nil || !one.Work.LastDoneAt.Equal(tt.want) {
				t.Errorf("Runner: %v, last work at %v, want %v", err, one.Work.LastDoneAt, tt.want)
			}
		})
	}
}
