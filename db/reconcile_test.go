package db_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestAComparisonIsClaimedByOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	claim := func(at time.Time) (r db.Reconciliation, mine bool) {
		w.tx(func(tx *db.Tx) error {
			var err error
			r, mine, err = tx.ClaimReconciliation(w.ctx, "acme", at, at.Add(3*time.Minute))
			return err
		})
		return r, mine
	}
	if r, err := w.db.Reconciliation(w.ctx, "acme"); err != nil || !cmp.Equal(r, db.Reconciliation{}) {
		t.Errorf("Reconciliation of what was never compared = %+v, %v", r, err)
	}
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Minute, false}, {3 * time.Minute, true}, {4 * time.Minute, false}} {
		if _, mine := claim(t0.Add(tt.after)); mine != tt.want {
			t.Errorf("after %s: claimed %v, want %v", tt.after, mine, tt.want)
		}
	}
	want := db.Reconciliation{
		BeganAt: t0, ListedAt: t0.Add(-time.Hour), AsOf: t0.Add(-time.Minute), Fault: "bad gateway",
		GroupsAt: t0.Add(-time.Second), GroupsFault: "not found",
		Unreadable: 2, UnreadableItems: []string{"repository 2 of page 1: it is null", "repository 3 of page 1: it is null"},
	}
	w.tx(func(tx *db.Tx) error { return tx.SaveReconciliation(w.ctx, "acme", want, t0.Add(5*time.Minute)) })
	if got, mine := claim(t0.Add(6 * time.Minute)); !mine || !cmp.Equal(want, got) {
		t.Errorf("claim = %+v, %v, want %+v", got, mine, want)
	}
	w.tx(func(tx *db.Tx) error {
		got, err := tx.Reconciliation(w.ctx, "acme")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Reconciliation: %v (-want +got):\n%s", err, diff)
		}
		return nil
	})
}

func TestRepositoriesAreThoseListedAndThoseHeardOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := func(id int64, repository string, at time.Time) {
		w.tx(func(tx *db.Tx) error {
			_, _, err := tx.AddWorkflowJob(w.ctx, fleet.WorkflowJob{Target: "acme", ID: id, Repository: repository, State: fleet.WorkflowJobQueued}, at)
			return err
		})
	}
	job(1, "acme/old", t0.Add(-time.Hour))
	job(2, "acme/young", t0)
	job(3, "", t0)
	var all []db.KnownRepository
	w.tx(func(tx *db.Tx) error {
		if err := tx.ListRepositories(w.ctx, "acme", []string{"acme/listed", "acme/young", "acme/left"}, []string{"acme/young"}, t0); err != nil {
			return err
		}
		if err := tx.HearRepositories(w.ctx, "acme", t0.Add(-time.Minute)); err != nil {
			return err
		}
		if err := tx.CompareRepository(w.ctx, "acme", "acme/listed", t0); err != nil {
			return err
		}
		if err := tx.ListRepositories(w.ctx, "acme", []string{"acme/listed"}, nil, t0); err != nil {
			return err
		}
		var err error
		all, err = tx.KnownRepositories(w.ctx, "acme")
		return err
	})
	want := []db.KnownRepository{{Repository: "acme/young", HeardAt: t0, Listed: true}, {Repository: "acme/listed", ComparedAt: t0, Listed: true}}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("repositories (-want +got):\n%s", diff)
	}
	open, err := w.db.OpenJobsOf(w.ctx, "acme", "acme/young", t0.Add(time.Second))
	if err != nil || len(open) != 1 || open[2].Repository != "acme/young" {
		t.Errorf("OpenJobsOf = %v, %v, want workflow job 2", open, err)
	}
	if open, err = w.db.OpenJobsOf(w.ctx, "acme", "acme/young", t0); err != nil || len(open) != 0 {
		t.Errorf("OpenJobsOf before it was told of = %v, %v, want none", open, err)
	}
	some, err := w.db.WorkflowJobs(w.ctx, "acme", []int64{1, 3, 99})
	if err != nil || len(some) != 2 || some[1].Repository != "acme/old" || some[3].ID != 3 {
		t.Errorf("WorkflowJobs = %v, %v, want 1 and 3", some, err)
	}
}
