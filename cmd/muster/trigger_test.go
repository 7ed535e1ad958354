package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"

	"github.com/muster-fleet/muster/fleet"
)

func TestTheOutcomeOfARun(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for want, run := range map[string]fleet.Run{
		"scale linux done in 5ms desired=3 up=2": {
			Trigger: fleet.Trigger{Job: fleet.JobScale, Name: "linux"}, State: fleet.RunDone, Attempt: 1, Counts: fleet.Counts{"up": 2, "desired": 3},
		},
		"sync acme dead in 5ms, attempt 3: HTTP 502": {
			Trigger: fleet.Trigger{Job: fleet.JobSync, Name: "acme"}, State: fleet.RunDead, Attempt: 3, Error: "HTTP 502",
		},
		"scale linux done in 5ms no_inventory=1: nothing was decided, since there is no inventory yet: muster trigger sync brings one": {
			Trigger: fleet.Trigger{Job: fleet.JobScale, Name: "linux"}, State: fleet.RunDone, Attempt: 1, Counts: fleet.Counts{fleet.CountNoInventory: 1},
		},
	} {
		run.StartedAt, run.FinishedAt = begun, begun.Add(5*time.Millisecond)
		if got := outcome(run); got != want {
			t.Errorf("outcome = %q, want %q", got, want)
		}
	}
}

// follows follows a trigger for so long, after which it has ended, and returns
// what was shown.
func follows(t *testing.T, store *db.DB, id string, longest time.Duration) (shown string, err error) {
	t.Helper()
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out}
	ctx, stop := context.WithTimeoutCause(t.Context(), longest, errWaited)
	defer stop()
	err = a.follow(ctx, store, id)
	return out.String(), err
}

// shortWait is a --timeout that ends, and leaves a busy machine time to look once.
const shortWait = 3 * time.Second

// beganRecord is a record with the run of a trigger that has been begun.
func beganRecord(t *testing.T) (*db.DB, fleet.Run) {
	t.Helper()
	store, err := db.Open(t.Context(), dbtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, begunRun(t, store)
}

func begunRun(t *testing.T, store *db.DB) fleet.Run {
	t.Helper()
	trigger := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCLI}
	begun, err := (db.Runs{DB: store}).Begin(t.Context(), trigger, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if begun.Run.Trigger.ID == "" {
		t.Fatalf("Begin = %+v", begun)
	}
	return begun.Run
}

func finished(t *testing.T, store *db.DB, run fleet.Run) {
	t.Helper()
	if err := (db.Runs{DB: store}).Finish(t.Context(), run); err != nil {
		t.Fatal(err)
	}
}

func TestWaitEndsWithItsTimeout(t *testing.T) {
	t.Parallel()
	store, run := beganRecord(t)
	_, err := follows(t, store, uuid.NewString(), shortWait)
	if exitCode(err) != exitUnreachable || !strings.Contains(err.Error(), "has not ended within --timeout: nobody has begun it") {
		t.Errorf("a trigger that nobody begins: exit %d, %v", exitCode(err), err)
	}
	_, err = follows(t, store, run.Trigger.ID, shortWait)
	if exitCode(err) != exitUnreachable || !strings.Contains(err.Error(), "attempt 1 is going") {
		t.Errorf("a run that goes on: exit %d, %v", exitCode(err), err)
	}
	run.State, run.Error = fleet.RunFailed, "HTTP 502"
	finished(t, store, run)
	shown, err := follows(t, store, run.Trigger.ID, shortWait)
	if exitCode(err) != exitUnreachable || !strings.Contains(err.Error(), "attempt 1 failed, and it is tried again: HTTP 502") {
		t.Errorf("a run that is tried again: exit %d, %v, %s", exitCode(err), err, shown)
	}
}

func TestWaitEndsAtOnceWhereNoRepetitionHelps(t *testing.T) {
	t.Parallel()
	store, run := beganRecord(t)
	run.State, run.Lasting, run.Error = fleet.RunFailed, true, "credential not accepted (HTTP 401)"
	finished(t, store, run)
	shown, err := follows(t, store, run.Trigger.ID, time.Minute)
	if exitCode(err) != exitFailed || !strings.Contains(err.Error(), "no repetition mends") || !strings.Contains(shown, "sync acme failed in ") {
		t.Errorf("follow = %q, exit %d, %v", shown, exitCode(err), err)
	}
}

func TestWaitFollowsARunThatIsJoined(t *testing.T) {
	t.Parallel()
	store, going := beganRecord(t)
	waits, joins := begunRun(t, store), begunRun(t, store)
	going.State = fleet.RunDone
	finished(t, store, going)
	begun, err := (db.Runs{DB: store}).Begin(t.Context(), waits.Trigger, time.Hour)
	if err != nil || begun.Disposition != fleet.DispositionStarted {
		t.Fatalf("Begin = %+v, %v", begun, err)
	}
	run := begun.Run
	run.State, run.Counts = fleet.RunDone, fleet.Counts{"runners": 7}
	finished(t, store, run)
	shown, err := follows(t, store, joins.Trigger.ID, time.Minute)
	if err != nil || !strings.Contains(shown, "sync acme is done with trigger "+waits.Trigger.ID) || !strings.Contains(shown, "runners=7") {
		t.Errorf("follow = %q, %v", shown, err)
	}
}
