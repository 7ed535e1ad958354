package db_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func TestAlarmCountsWhatWentDark(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	since, after := t0.Add(time.Hour), t0.Add(time.Hour+time.Minute)
	for i, tt := range []struct {
		name string
		set  string // with $1 the beginning of the window, $2 a minute later
		want string // offline missing removed
	}{
		{"online", `status = 'online'`, "0 0 0"},
		{"offline since then", `status_since = $2`, "1 0 0"},
		{"offline at the very beginning", `status_since = $1`, "0 0 0"},
		{"offline before", `status_since = $1::timestamptz - interval '1 s'`, "0 0 0"},
		{"registered since, and offline at first sight", `first_seen_at = $2, status_since = $2`, "0 0 0"},
		{"registered since, and offline later", `first_seen_at = $1::timestamptz + interval '1 s', status_since = $2`, "1 0 0"},
		{"an ephemeral one is offline", `status_since = $2, ephemeral = true`, "1 0 0"},
		{"online again", `status_since = $2, status = 'online'`, "0 0 0"},
		{"missing since then", `status = 'online', missing_since = $2`, "0 1 0"},
		{"missing before", `status = 'online', missing_since = $1`, "0 0 0"},
		{"offline and missing count once", `status_since = $2, missing_since = $2`, "0 1 0"},
		{"missing before, offline since", `status_since = $2, missing_since = $1`, "1 0 0"},
		{"long offline and missing now", `missing_since = $2`, "0 1 0"},
		{"vanished", `status = 'online', removed_at = $2, removal_cause = 'unknown'`, "0 0 1"},
		{"taken away at GitHub", `status = 'online', removed_at = $2, removal_cause = 'github'`, "0 0 1"},
		{"vanished before", `status = 'online', removed_at = $1, removal_cause = 'unknown'`, "0 0 0"},
		{"offline and then gone", `status_since = $2, removed_at = $2, removal_cause = 'unknown'`, "0 0 1"},
		{"long offline and then gone", `removed_at = $2, removal_cause = 'github'`, "0 0 0"},
		{"deleted by a policy", `status_since = $2, removed_at = $2, removal_cause = 'policy'`, "0 0 0"},
		{"deleted by hand", `status = 'online', removed_at = $2, removal_cause = 'operator'`, "0 0 0"},
		{"scaled down", `status = 'online', removed_at = $2, removal_cause = 'scale_down'`, "0 0 0"},
		{"taken out by its host", `status = 'online', removed_at = $2, removal_cause = 'host'`, "0 0 0"},
		{"did its one job", `status = 'online', removed_at = $2, removal_cause = 'ephemeral'`, "0 0 0"},
		{"ephemeral", `status = 'online', ephemeral = true, removed_at = $2, removal_cause = 'unknown'`, "0 0 0"},
		{"vanished at work", `status = 'online', busy = true, removed_at = $2, removal_cause = 'unknown'`, "0 0 0"},
		{"vanished after work", `status = 'online', last_busy_at = $2, removed_at = $2, removal_cause = 'unknown'`, "0 0 0"},
		{"worked long ago", `status = 'online', last_busy_at = $1, removed_at = $2, removal_cause = 'unknown'`, "0 0 1"},
		{"came and went", `status = 'online', first_seen_at = $2, removed_at = $2, removal_cause = 'unknown'`, "0 0 0"},
	} {
		id := int64(i + 1)
		w.runner(id)
		w.exec(`UPDATE muster.runner SET `+tt.set+` WHERE runner_id = $3 AND $1::timestamptz < $2::timestamptz`, since, after, id)
		got, err := w.db.Alarm(w.ctx, "acme", since)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(got.Offline, got.Missing, got.Removed); text != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, text, tt.want)
		}
		if got.First.IsZero() != (got.Newly() == 0) || got.Newly() > 0 && !got.First.Equal(after) || !got.Since.Equal(since) {
			t.Errorf("%s: the first at %v, since %v", tt.name, got.First, got.Since)
		}
		w.exec(`DELETE FROM muster.runner`)
	}

	// An event told of the job that one with an unknown nature did; none did of
	// one whose id is another's elsewhere too.
	w.runner(100)
	w.runner(101)
	w.exec(`UPDATE muster.runner SET status = 'online', removed_at = $1, removal_cause = 'unknown'`, after)
	w.exec(`
		INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, conclusion, changed_at)
		VALUES ('acme', 1, 1, 1, 'acme/a', '{}', 'completed', 100, 'r100', 'success', $1),
			('acme', 2, 2, 1, 'acme/a', '{}', 'completed', 101, 'GitHub Actions 101', 'success', $1)`, after)
	w.tx(func(tx *db.Tx) error {
		got, err := tx.Alarm(w.ctx, "acme", since)
		if got.Newly() != 1 {
			t.Errorf("a runner that did a workflow job and vanished counts, or one that did none does not: %+v, want 1", got)
		}
		return err
	})
	if got, err := w.db.Alarm(w.ctx, "widgets", t0); err != nil || got != (fleet.Alarm{Since: t0}) {
		t.Errorf("Alarm of a target that nobody knows = %+v, %v", got, err)
	}
}

// What an operator ends is what the brake told, and all that was on record
// then.
func TestResumeIsALookAtWhatTheBrakeTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.exec(`UPDATE muster.target SET last_walk_at = $1`, t0.Add(time.Minute))
	haltAndResume := func(by string) fleet.PolicyState {
		t.Helper()
		w.policy()
		w.tx(func(tx *db.Tx) error {
			if _, err := tx.Halt(w.ctx, "reap", "acme", by, "why", t0); err != nil {
				return err
			}
			_, err := tx.Resume(w.ctx, "reap", "", "seen", 0)
			return err
		})
		return w.policy()
	}
	if s := haltAndResume("over_max"); !s.BrakeFrom.IsZero() {
		t.Errorf("the end of another halt reads %+v", s)
	}
	if s := haltAndResume("brake"); !s.BrakeFrom.Equal(t0.Add(time.Minute)) {
		t.Errorf("the end of a halt of the brake reads %+v", s)
	}
	w.exec(`UPDATE muster.target SET last_walk_at = $1`, t0.Add(time.Hour))
	if s := haltAndResume("over_max"); !s.BrakeFrom.Equal(t0.Add(time.Minute)) {
		t.Errorf("the end of another halt moved it: %+v", s)
	}
}
