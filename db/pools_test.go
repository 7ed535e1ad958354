package db_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

var linux = fleet.Pool{Name: "linux", Target: "acme", Labels: []string{"linux", "self-hosted"}, PoolBounds: fleet.PoolBounds{Min: 1, Max: 9}}

var windows = fleet.Pool{Name: "windows", Target: "acme", Labels: []string{"self-hosted", "windows"}}

// decided is a full state of a pool.
func decided() db.PoolState {
	return db.PoolState{
		Pool: "linux", Target: "acme", Labels: linux.Labels, Groups: []string{"1", "7"}, Carried: []string{"linux", "self-hosted", "x64"},
		Decision: fleet.SizeDecision{
			At: t0, Pool: "linux", Bounds: fleet.PoolBounds{Min: 1, Max: 9, Idle: 2}, Desired: 5, Direction: fleet.SizeUp, Change: 3,
			Reasons: []string{"demand"}, Evidence: fleet.Evidence{"wanted": 5.0},
			Memory: fleet.SizeMemory{
				Since: t0.Add(-time.Hour), At: t0, UpAt: t0,
				Spans: []fleet.DesiredSpan{{Desired: 7, Until: t0.Add(-time.Minute)}, {Desired: 5, Until: t0}},
			},
		},
		Supply: fleet.Supply{Online: 1, Busy: 1, Booting: 1, Draining: 1, Expired: 4},
		Demand: fleet.Demand{Queued: 2, InProgress: 1, OldestAt: t0.Add(-time.Minute), At: t0.Add(-2 * time.Minute), Confidence: fleet.ConfidenceKnown},
		Reason: "because",
	}
}

func lock(tx *db.Tx) (db.PoolState, error) {
	all, err := tx.LockPools(context.Background(), []fleet.Pool{linux})
	return all["linux"], err
}

// What hysteresis rests on outlives the process that decided, and is the same
// for all replicas.
func TestAPoolComesBackAsItWasDecidedOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := decided()
	w.tx(func(tx *db.Tx) error {
		was, err := lock(tx)
		fresh := db.PoolState{
			Pool: "linux", Target: "acme", Labels: []string{}, Groups: []string{}, Carried: []string{},
			Decision: fleet.SizeDecision{Pool: "linux"}, Demand: fleet.Demand{Confidence: fleet.ConfidenceUnknown},
		}
		if diff := cmp.Diff(fresh, was); err != nil || diff != "" {
			t.Errorf("LockPools of a new pool: %v (-want +got):\n%s", err, diff)
		}
		return nil
	})
	if all, err := w.db.PoolStates(w.ctx); err != nil || len(all) != 0 {
		t.Errorf("PoolStates before any decision = %v, %v, want none", all, err)
	}
	w.tx(func(tx *db.Tx) error { return tx.SavePools(w.ctx, []db.PoolState{want}) })
	w.tx(func(tx *db.Tx) error {
		got, err := lock(tx)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("LockPools: %v (-want +got):\n%s", err, diff)
		}
		return nil
	})
	got, err := w.db.PoolStates(w.ctx)
	if diff := cmp.Diff([]db.PoolState{want}, got); err != nil || diff != "" {
		t.Errorf("PoolStates: %v (-want +got):\n%s", err, diff)
	}
	unknown, err := w.db.PoolState(w.ctx, "windows")
	if diff := cmp.Diff(db.PoolState{Pool: "windows"}, unknown); err != nil || diff != "" {
		t.Errorf("PoolState of a pool that is not there: %v (-want +got):\n%s", err, diff)
	}
	w.want("linux acme 1 9 5 1 1 1 1 2 1 known 4 because", `
		SELECT concat_ws(' ', pool, target, min, max, desired, online, busy, booting, draining, queued, in_progress, confidence, leases_expired, reason)
		FROM api.pools`)
}

func TestPoolsAreDecidedOnOneAfterAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	locked, done := make(chan struct{}), make(chan error)
	w.tx(func(tx *db.Tx) error {
		if _, err := tx.LockPools(w.ctx, []fleet.Pool{windows, linux}); err != nil {
			return err
		}
		go func() {
			done <- w.db.InTx(w.ctx, func(tx *db.Tx) error {
				all, err := tx.LockPools(context.WithoutCancel(w.ctx), []fleet.Pool{linux, windows})
				if d := all["linux"].Decision; d.Desired != 5 {
					t.Errorf("the second sees %+v, want what the first stored", d)
				}
				if len(all) != 2 {
					t.Errorf("LockPools = %v, want both pools", all)
				}
				close(locked)
				return err
			})
		}()
		const waiting = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`
		for end := time.Now().Add(patience); w.value(waiting) != "true"; {
			if time.Now().After(end) {
				return errors.New("nobody waits for the lock")
			}
		}
		select {
		case <-locked:
			t.Error("two hold the lock of one pool")
		default:
		}
		return tx.SavePools(w.ctx, []db.PoolState{decided()})
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSupplyCountsEachRunnerOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.db.Census(w.ctx, "acme", t0, t0); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Census of a target that nobody knows: %v, want not found", err)
	}
	w.target()
	if _, err := w.db.Census(w.ctx, "acme", t0, t0); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Census of a target that was never synced: %v, want not found", err)
	}
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, t0)
	w.exec(`UPDATE muster.target SET suspect = 'mass_offline'`)
	for id := range int64(14) {
		w.runner(id + 1)
	}
	w.exec(`UPDATE muster.runner SET status = 'online' WHERE runner_id <= 5`)
	w.exec(`UPDATE muster.runner SET busy = true WHERE runner_id = 1`)
	w.exec(`UPDATE muster.runner SET labels = '{gpu}' WHERE runner_id = 5`)
	w.exec(`UPDATE muster.runner SET runner_group = '7' WHERE runner_id = 3`)
	w.exec(`UPDATE muster.runner SET last_online_at = $1 WHERE runner_id IN (6, 13)`, t0)
	w.exec(`UPDATE muster.runner SET last_online_at = $1, status_since = $1 WHERE runner_id = 14`, t0.Add(-time.Hour))
	w.exec(`UPDATE muster.runner SET ephemeral = true WHERE runner_id IN (3, 11, 12, 13)`)
	w.exec(`UPDATE muster.runner SET status = 'online', busy = true WHERE runner_id = 11`)
	w.exec(`UPDATE muster.runner SET status = 'online' WHERE runner_id = 12`)
	w.exec(`UPDATE muster.runner SET first_seen_at = $1 WHERE runner_id = 7`, t0.Add(-time.Hour))
	w.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'github' WHERE runner_id = 10`, t0)
	w.exec(`INSERT INTO muster.lease (request_id, pool, target, host, claimed_at, state, runner_id, attempt, requested_at, deadline)
		VALUES (gen_random_uuid(), 'linux', 'acme', 'h', $1, 'registered', 8, 1, $1, $1)`, t0)
	w.tx(func(tx *db.Tx) error {
		for id, name := range map[int64]string{2: "r2", 3: "GitHub Actions 3"} { // of which the latter is another
			job := workflowJob(id)
			job.RunnerID, job.RunnerName = id, name
			if _, _, err := tx.AddWorkflowJob(w.ctx, job, t0); err != nil {
				return err
			}
		}
		for id, name := range map[int64]string{1: "r1", 11: "R11", 12: "GitHub Actions 12", 13: ""} {
			job := workflowJob(100 + id)
			job.State, job.RunnerID, job.RunnerName = fleet.WorkflowJobCompleted, id, name
			if _, _, err := tx.AddWorkflowJob(w.ctx, job, t0); err != nil {
				return err
			}
		}
		return nil
	})
	w.tx(func(tx *db.Tx) error {
		d := decision(4, fleet.VerdictAct, "matched")
		stored := []fleet.Decision{d}
		if err := tx.SaveDecisions(w.ctx, stored); err != nil {
			return err
		}
		a := action(4)
		a.DecisionID = stored[0].ID
		return tx.Intend(w.ctx, a, 0, false)
	})
	got, err := w.db.Census(w.ctx, "acme", t0.Add(-time.Minute), t0)
	want := db.Census{Suspect: fleet.SuspectMassOffline, Sets: []db.LabelSet{
		{Labels: []string{"gpu"}, Online: 1},
		// 1 and 2 are at work, 3 and 12 wait, 4 is being deleted and 11 has had
		// its one job; 9 boots, 8 is a lease's and 7 is too old; 6 went dark, 13
		// after its one job, and 14 too long ago.
		{Labels: []string{"linux", "self-hosted"}, Online: 3, Busy: 2, Draining: 2, Registered: []time.Time{t0}, Dark: []time.Time{t0}},
		{Labels: []string{"linux", "self-hosted"}, Group: "7", Online: 1},
	}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Census: %v (-want +got):\n%s", err, diff)
	}
}

func TestOpenJobsAreThoseThatGitHubHasNotEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.runner(3)
	now := t0.Add(time.Hour)
	job := func(id int64, state fleet.WorkflowJobState, at time.Time, runner int64) fleet.WorkflowJob {
		return fleet.WorkflowJob{Target: "acme", ID: id, Repository: "acme/widgets", Labels: []string{"linux"}, State: state, QueuedAt: at, StartedAt: at, RunnerID: runner}
	}
	w.tx(func(tx *db.Tx) error {
		for _, j := range []fleet.WorkflowJob{
			job(1, fleet.WorkflowJobQueued, t0, 0),
			job(2, fleet.WorkflowJobQueued, now.Add(-24*time.Hour), 0),
			job(3, fleet.WorkflowJobInProgress, now.Add(-24*time.Hour), 3),
			job(4, fleet.WorkflowJobInProgress, now.Add(-5*24*time.Hour), 3),
			job(5, fleet.WorkflowJobWaiting, t0, 0),
			job(6, fleet.WorkflowJobCompleted, t0, 3),
			job(7, fleet.WorkflowJobQueued, time.Time{}, 0), // when it was queued was not told
			job(8, fleet.WorkflowJobQueued, t0.Add(time.Minute), 0),
			job(9, fleet.WorkflowJobQueued, t0, 0), job(10, fleet.WorkflowJobQueued, t0, 0), job(11, fleet.WorkflowJobQueued, t0, 0),
			job(12, fleet.WorkflowJobInProgress, t0, 3), // on a machine of GitHub's with that id
			job(13, fleet.WorkflowJobQueued, now.Add(2*time.Hour), 0),
			job(14, fleet.WorkflowJobQueued, now.Add(-3*365*24*time.Hour), 0),
			job(15, fleet.WorkflowJobInProgress, now.Add(10*365*24*time.Hour), 3),
		} {
			switch j.ID {
			case 12:
				j.Labels, j.RunnerName = []string{"ubuntu-latest"}, "GitHub Actions 3"
			case 1:
				j.Repository = "acme/gadgets"
			case 9, 10:
				j.Labels, j.Repository = nil, "acme/bare"
			case 11:
				j.Labels, j.Repository = nil, "acme/bones"
			}
			heard := t0
			switch j.ID {
			case 2:
				heard = now.Add(-24 * time.Hour)
			case 4, 15: // whatever the date, it was last heard of too long ago
				heard = now.Add(-5 * 24 * time.Hour)
			}
			if _, _, err := tx.AddWorkflowJob(w.ctx, j, heard); err != nil {
				return err
			}
		}
		return nil
	})
	got, err := w.db.OpenJobs(w.ctx, "acme", now)
	want := []db.OpenJobs{
		{State: "in_progress", Labels: []string{"linux"}, RunnerLabels: []string{"linux", "self-hosted"}, Count: 1, OldestAt: now.Add(-24 * time.Hour), Repository: "acme/widgets"},
		{State: "in_progress", Labels: []string{"ubuntu-latest"}, Count: 1, OldestAt: t0, Repository: "acme/widgets"},
		{State: "queued", Labels: []string{}, Count: 2, OldestAt: t0, Repository: "acme/bare"},
		{State: "queued", Labels: []string{}, Count: 1, OldestAt: t0, Repository: "acme/bones"},
		{State: "queued", Labels: []string{"linux"}, Count: 1, OldestAt: t0, Repository: "acme/gadgets"},
		{State: "queued", Labels: []string{"linux"}, Count: 2, OldestAt: t0.Add(time.Minute), Repository: "acme/widgets"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("OpenJobs: %v (-want +got):\n%s", err, diff)
	}
}

func TestFindingsAreThoseOfNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kinds := []fleet.FindingKind{fleet.FindingUnlabelledJob, fleet.FindingUnservedJob}
	save := func(at time.Time, findings ...fleet.Finding) {
		w.tx(func(tx *db.Tx) error { return tx.SaveFindings(w.ctx, "acme", kinds, findings, at) })
	}
	gpu := fleet.Finding{Kind: fleet.FindingUnservedJob, Target: "acme", Subject: "gpu", Since: t0, Detail: fleet.Evidence{"jobs": 2}}
	bare := fleet.Finding{Kind: fleet.FindingUnlabelledJob, Target: "acme", Subject: "acme/widgets", Detail: fleet.Evidence{"jobs": 1}}
	w.exec(`INSERT INTO muster.finding (kind, target, subject, since, detail) VALUES
		('unserved_job', 'widgets', 'gpu', $1, '{}'), ('other', 'acme', 'x', $1, '{}')`, t0)
	show := `SELECT string_agg(concat_ws(' ', target, kind, subject, since AT TIME ZONE 'UTC', detail->>'jobs'), E'\n' ORDER BY target, kind) FROM api.findings`
	save(t0.Add(time.Minute), gpu, bare)
	w.want("acme other x 2026-03-01 12:00:00\nacme unlabelled_job acme/widgets 2026-03-01 12:01:00 1\n"+
		"acme unserved_job gpu 2026-03-01 12:00:00 2\nwidgets unserved_job gpu 2026-03-01 12:00:00", show)
	// The job that waited longest is served; others wait for the same.
	gpu.Since, gpu.Detail = t0.Add(time.Hour), fleet.Evidence{"jobs": 1}
	save(t0.Add(time.Hour), gpu, bare)
	w.want("acme other x 2026-03-01 12:00:00\nacme unlabelled_job acme/widgets 2026-03-01 12:01:00 1\n"+
		"acme unserved_job gpu 2026-03-01 12:00:00 1\nwidgets unserved_job gpu 2026-03-01 12:00:00", show)
	read, err := w.db.Findings(w.ctx)
	want := []fleet.Finding{
		{Kind: "other", Target: "acme", Subject: "x", Since: t0, Detail: fleet.Evidence{}},
		{Kind: fleet.FindingUnservedJob, Target: "acme", Subject: "gpu", Since: t0, Detail: fleet.Evidence{"jobs": 1.0}},
		{Kind: fleet.FindingUnlabelledJob, Target: "acme", Subject: "acme/widgets", Since: t0.Add(time.Minute), Detail: fleet.Evidence{"jobs": 1.0}},
		{Kind: fleet.FindingUnservedJob, Target: "widgets", Subject: "gpu", Since: t0, Detail: fleet.Evidence{}},
	}
	if diff := cmp.Diff(want, read); diff != "" || err != nil {
		t.Errorf("Findings: %v (-want +got):\n%s", err, diff)
	}
	before := w.value(`SELECT string_agg(xmin::text, ' ') FROM muster.finding`)
	save(t0.Add(time.Hour), gpu, bare)
	w.want(before, `SELECT string_agg(xmin::text, ' ') FROM muster.finding`)
	save(t0.Add(time.Hour))
	w.want("acme other x 2026-03-01 12:00:00\nwidgets unserved_job gpu 2026-03-01 12:00:00", show)
}
