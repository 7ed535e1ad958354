package worker_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker"
)

const flood = 2000

// flooded publishes triggers for acme, each with a body of its own.
func (h *harness) flooded(t *testing.T, body func(i int) string) {
	t.Helper()
	for i := range flood {
		if err := h.nc.Publish(syncAcme, []byte(body(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func reason(i int) string { return fmt.Sprintf(`{"reason":"%d"}`, i) }

// A trigger of another target waits for some runs of a flood's, and not for one
// per message, also where one worker alone takes them in.
func TestAFloodForOneTargetHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	began := make(chan string, 2*flood)
	h := start(t, handler(func(_ context.Context, tr fleet.Trigger) (fleet.Counts, error) {
		began <- tr.Name
		return nil, nil
	}))
	h.engine.Workers = map[fleet.Job]int{fleet.JobSync: 1}
	h.flooded(t, reason)
	h.publish(t, "muster.v1.trigger.sync.octo", "")
	h.run(t)
	before := 0
	for receive(t, began) != "octo" {
		before++
	}
	if before > flood/100 {
		t.Errorf("%d runs of the flood's %d triggers began before another target's one", before, flood)
	}

	h.settled(t, "muster-sync")
	h.settled(t, "muster-unrouted")
	results := map[worker.Result]int{}
	for range flood + 1 {
		results[h.outcome(t).Result]++
	}
	if results[worker.ResultDone]+results[worker.ResultJoined] != flood+1 || results[worker.ResultJoined] < flood*9/10 {
		t.Errorf("outcomes %v", results)
	}
	h.record.change(func() {
		if len(h.record.runs) != flood+1 {
			t.Errorf("%d runs are on record, want one for each of %d triggers", len(h.record.runs), flood+1)
		}
	})
}

// Nor does a flood of what is no trigger: each message leaves its dead letter.
func TestAFloodOfRubbishHoldsUpNoTarget(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	h.engine.Workers = map[fleet.Job]int{fleet.JobSync: 1}
	h.flooded(t, func(i int) string { return fmt.Sprintf(`{"nonsense":%d}`, i) })
	h.publish(t, "muster.v1.trigger.sync.octo", "")
	h.run(t)
	h.settled(t, "muster-sync")
	h.record.change(func() {
		letters := map[string]bool{}
		for _, l := range h.record.letters {
			letters[l.ID] = true
		}
		if len(letters) != flood || len(h.record.letters) != flood {
			t.Errorf("%d dead letters of %d messages, want %d", len(h.record.letters), len(letters), flood)
		}
		if h.record.rejections > flood/10 {
			t.Errorf("%d messages were rejected in %d transactions", flood, h.record.rejections)
		}
	})
}

// What was taken together with a run that takes long goes to other workers.
func TestARunThatTakesLongHoldsUpNothingThatCameWithIt(t *testing.T) {
	t.Parallel()
	began, release := make(chan string, 2*flood), make(chan struct{})
	h := start(t, handler(func(_ context.Context, tr fleet.Trigger) (fleet.Counts, error) {
		began <- tr.Name
		<-release
		return nil, nil
	}))
	h.engine.Workers = map[fleet.Job]int{fleet.JobSync: 2}
	// Each is one of a pair that is taken together with the flood.
	h.publish(t, "muster.v1.trigger.sync.octo", "")
	for i := range 100 {
		if err := h.nc.Publish(syncAcme, []byte(reason(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	h.run(t)
	both := map[string]bool{receive(t, began): true, receive(t, began): true}
	if !both["acme"] || !both["octo"] {
		t.Errorf("runs of %v go at once, want one of each", both)
	}
	close(release)
	h.settled(t, "muster-sync")
}

// While the record is away nothing is settled, and no attempt spent.
func TestAFloodOutlivesTheRecordsAbsence(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	h.record.change(func() { h.record.away = errGitHub })
	h.flooded(t, reason)
	h.run(t)
	for range 100 {
		if o := h.outcome(t); o.Result != worker.ResultUnrecorded {
			t.Fatalf("outcome %+v while the record is away", o)
		}
	}
	h.record.change(func() { h.record.away = nil })
	h.settled(t, "muster-sync")
	h.record.change(func() {
		ended := 0
		for _, run := range h.record.runs {
			if run.State.Ended() && run.Attempt <= 1 {
				ended++
			}
		}
		if ended != flood {
			t.Errorf("%d of %d triggers have ended at their first attempt", ended, flood)
		}
	})
}

// A message of the outbox belongs to the run that it claims, if that is of its
// job and name.
func TestClaimsCountInAFloodAsElsewhere(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	h.engine.Workers = map[fleet.Job]int{fleet.JobSync: 1}
	mine, others := fleet.Trigger{ID: "7c1c4a4e-8d52-4b6c-9c66-111111111111", Job: fleet.JobSync, Name: "acme"},
		fleet.Trigger{ID: "7c1c4a4e-8d52-4b6c-9c66-222222222222", Job: fleet.JobEnforce, Name: "acme"}
	for _, tr := range []fleet.Trigger{mine, others} {
		h.record.runs[tr.ID] = fleet.Run{Trigger: tr, State: fleet.RunQueued}
	}
	for i := range 50 {
		h.publish(t, syncAcme, reason(i))
	}
	for _, id := range []string{mine.ID, others.ID} {
		claim := fleet.Trigger{ID: id, Job: fleet.JobSync, Name: "acme"}.Outgoing()
		if err := h.conn.Publish(t.Context(), claim); err != nil {
			t.Fatal(err)
		}
	}
	h.run(t)
	h.settled(t, "muster-sync")
	if run := h.record.run(mine.ID); !run.State.Ended() {
		t.Errorf("the run that a message claims is %+v", run)
	}
	if run := h.record.run(others.ID); run.State != fleet.RunQueued {
		t.Errorf("another job's run is %+v", run)
	}
	h.record.change(func() {
		if len(h.record.runs) != 53 {
			t.Errorf("%d runs, want 53", len(h.record.runs))
		}
	})
}
