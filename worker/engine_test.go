package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker"
)

const syncAcme = "muster.v1.trigger.sync.acme"

var errGitHub = errors.New("list runners of acme: unavailable")

func TestAMessageBecomesARunThatIsDone(t *testing.T) {
	t.Parallel()
	got := make(chan fleet.Trigger, 1)
	h := start(t, handler(func(_ context.Context, tr fleet.Trigger) (fleet.Counts, error) {
		got <- tr
		return fleet.Counts{"runners": 3}, nil
	}))
	h.run(t)
	h.publish(t, syncAcme, ` {"reason":"because \u00fc"} `)
	h.record.expect(t, "begin", "done")
	want := fleet.Trigger{ID: h.record.the(t).Trigger.ID, Job: fleet.JobSync, Name: "acme", Source: fleet.SourceNATS, Reason: "because ü"}
	if diff := cmp.Diff(want, receive(t, got)); diff != "" {
		t.Errorf("the job's trigger (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(fleet.Run{Trigger: want, Attempt: 1, State: fleet.RunDone, Counts: fleet.Counts{"runners": 3}}, h.record.the(t)); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
	if o := h.outcome(t); o.Job != fleet.JobSync || o.Name != "acme" || o.Result != worker.ResultDone {
		t.Errorf("outcome %+v", o)
	}
	h.settled(t, "muster-sync")
	h.settled(t, "muster-unrouted")
}

func TestAFailedRunIsTriedAgainUntilItIsDone(t *testing.T) {
	t.Parallel()
	h := start(t, answers(errGitHub, errGitHub))
	h.run(t)
	h.publish(t, syncAcme, "")
	h.record.expect(t, "begin", "failed")
	h.record.expect(t, "begin", "failed")
	h.record.expect(t, "begin", "done")
	run := h.record.the(t)
	if run.Attempt != 3 || run.Counts["seen"] != 7 {
		t.Errorf("run %+v", run)
	}
	h.settled(t, "muster-sync")
}

func TestTheLastAttemptDiesWithItsReason(t *testing.T) {
	t.Parallel()
	h := start(t, answers(errGitHub, fmt.Errorf("%w\x00\xff", errGitHub)))
	h.engine.MaxAttempts = 2
	h.run(t)
	h.publish(t, syncAcme, "{}")
	h.record.expect(t, "begin", "failed", "begin", "dead")
	run := h.record.the(t)
	want := fleet.DeadLetter{ID: run.Trigger.ID, Subject: syncAcme, TriggerID: run.Trigger.ID, Body: "{}",
		Error: errGitHub.Error() + "\uFFFD\uFFFD", Attempts: 2}
	if diff := cmp.Diff([]fleet.DeadLetter{want}, h.record.letters); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	if run.State != fleet.RunDead || run.Error != want.Error {
		t.Errorf("run %+v", run)
	}
	h.settled(t, "muster-sync")
}

func TestATriggerThatIsJoinedIsDoneWith(t *testing.T) {
	t.Parallel()
	h := start(t, handler(func(context.Context, fleet.Trigger) (fleet.Counts, error) {
		t.Error("the job ran for a trigger that is done with another")
		return nil, nil
	}))
	h.record.change(func() { h.record.joins = true })
	h.run(t)
	h.publish(t, syncAcme, "")
	h.record.expect(t, "joined")
	if o := h.outcome(t); o.Result != worker.ResultJoined || o.Name != "acme" {
		t.Errorf("outcome %+v", o)
	}
	h.settled(t, "muster-sync")
}

func TestAPermanentErrorDiesAtOnce(t *testing.T) {
	t.Parallel()
	h := start(t, answers(fmt.Errorf("sync acme: %w", worker.Permanent(errGitHub))))
	h.run(t)
	h.publish(t, syncAcme, "")
	h.record.expect(t, "begin", "dead")
	if run := h.record.the(t); run.Attempt != 1 || run.Error != "sync acme: "+errGitHub.Error() {
		t.Errorf("run %+v", run)
	}
	h.settled(t, "muster-sync")
}

func TestAJobMaySayWhenToTryAgain(t *testing.T) {
	t.Parallel()
	h := start(t, answers(fmt.Errorf("sync acme: %w", worker.RetryAfter(50*time.Millisecond, errGitHub))))
	h.engine.BackoffBase, h.engine.BackoffMax = time.Hour, time.Hour // would be too late for this test
	h.run(t)
	h.publish(t, syncAcme, "")
	h.record.expect(t, "begin", "failed", "begin", "done")
}

func TestMarkingNoErrorLeavesNone(t *testing.T) {
	t.Parallel()
	if err := worker.Permanent(nil); err != nil {
		t.Errorf("Permanent(nil) = %v", err)
	}
	if err := worker.RetryAfter(time.Second, nil); err != nil {
		t.Errorf("RetryAfter(1s, nil) = %v", err)
	}
	if err := worker.Permanent(worker.RetryAfter(time.Second, fleet.ErrBusy)); !errors.Is(err, fleet.ErrBusy) || err.Error() != fleet.ErrBusy.Error() {
		t.Errorf("marked error is %v", err)
	}
}

func TestAPanicIsAnErrorLikeOthers(t *testing.T) {
	t.Parallel()
	first := true
	h := start(t, handler(func(context.Context, fleet.Trigger) (fleet.Counts, error) {
		if first {
			first = false
			panic("index out of range")
		}
		return nil, nil
	}))
	h.run(t)
	h.publish(t, syncAcme, "")
	h.record.expect(t, "begin", "failed")
	h.record.expect(t, "begin", "done")
}

func TestAttemptsThatTookTheirProcessAlongComeToAnEnd(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	id := uuid.NewString()
	tr := fleet.Trigger{ID: id, Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCron}
	// Eight attempts began, and none has said how it ended.
	h.record.runs[id] = fleet.Run{Trigger: tr, Attempt: 8, State: fleet.RunRunning}
	h.run(t)
	if err := h.conn.Publish(t.Context(), tr.Outgoing()); err != nil {
		t.Fatal(err)
	}
	h.record.expect(t, "begin", "dead")
	if run := h.record.run(id); !strings.Contains(run.Error, "8 attempts began") {
		t.Errorf("run %+v", run)
	}
}

func TestWhatTheOutboxPublishedKeepsItsRecord(t *testing.T) {
	t.Parallel()
	got := make(chan fleet.Trigger, 1)
	h := start(t, handler(func(_ context.Context, tr fleet.Trigger) (fleet.Counts, error) {
		got <- tr
		return nil, nil
	}))
	h.run(t)
	tr := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCron, Parent: uuid.NewString()}
	h.record.change(func() { h.record.runs[tr.ID] = fleet.Run{Trigger: tr, State: fleet.RunQueued} })
	if err := h.conn.Publish(t.Context(), tr.Outgoing()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tr, receive(t, got)); diff != "" {
		t.Errorf("the job's trigger (-want +got):\n%s", diff)
	}
	h.record.expect(t, "begin", "done")
}

func TestARepeatIsAcknowledgedWithoutARun(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	id := uuid.NewString()
	tr := fleet.Trigger{ID: id, Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCron}
	h.record.runs[id] = fleet.Run{Trigger: tr, Attempt: 1, State: fleet.RunDone}
	h.run(t)
	if err := h.conn.Publish(t.Context(), tr.Outgoing()); err != nil {
		t.Fatal(err)
	}
	h.record.expect(t, "finished")
	if o := h.outcome(t); o.Result != worker.ResultRepeat {
		t.Errorf("outcome %+v", o)
	}
	h.settled(t, "muster-sync")
}

func TestARunUnderALiveLeaseIsLeftAloneAndThenTakenOver(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	id := uuid.NewString()
	tr := fleet.Trigger{ID: id, Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCron}
	h.record.runs[id] = fleet.Run{Trigger: tr, Attempt: 1, State: fleet.RunRunning}
	h.record.leases[id], h.record.retryAfter = time.Now().Add(time.Hour), time.Millisecond
	h.run(t)
	if err := h.conn.Publish(t.Context(), tr.Outgoing()); err != nil {
		t.Fatal(err)
	}
	h.record.expect(t, "elsewhere")
	h.record.change(func() { h.record.leases[id] = time.Now().Add(-time.Second) })
	for word := "elsewhere"; word == "elsewhere"; {
		word = receive(t, h.record.wrote)
	}
	h.record.expect(t, "done")
	if run := h.record.run(id); run.Attempt != 2 {
		t.Errorf("run %+v", run)
	}
}

func TestAnAllTriggerBecomesOnePerNameAndIsDone(t *testing.T) {
	t.Parallel()
	h := start(t, answers(errors.New("the job must not see all")))
	h.run(t)
	h.publish(t, "muster.v1.trigger.sync.all", "")
	h.record.expect(t, "begin", "fanned out")
	h.settled(t, "muster-sync")
	names := map[string]string{}
	parent := ""
	for id, run := range h.record.runs {
		if run.Trigger.Name == fleet.All {
			parent = id
			if run.State != fleet.RunDone || run.Counts["triggers"] != 2 {
				t.Errorf("parent %+v", run)
			}
			continue
		}
		names[run.Trigger.Name] = run.Trigger.Parent
	}
	if diff := cmp.Diff(map[string]string{"acme": parent, "octo": parent}, names); diff != "" {
		t.Errorf("parents by name (-want +got):\n%s", diff)
	}
}

func TestHousekeepingTakesAllForItself(t *testing.T) {
	t.Parallel()
	h := start(t, answers())
	h.run(t)
	h.publish(t, "muster.v1.trigger.housekeep.all", "")
	h.record.expect(t, "begin", "done")
}

func TestWhatIsNoTriggerIsRecordedAndTerminated(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, subject, body, want string }{
		{"unknown name", "muster.v1.trigger.sync.nobody", "", `job sync knows no "nobody": it is not in the configuration`},
		{"impossible name", "muster.v1.trigger.sync.No_Body", "", `"No_Body" cannot be a name`},
		{"housekeeping by name", "muster.v1.trigger.housekeep.acme", "", "job housekeep has no names: want muster.v1.trigger.housekeep.all"},
		{"unknown job", "muster.v1.trigger.scrub.acme", "", `unknown job "scrub"; want one of housekeep, sync`},
		{"no name", "muster.v1.trigger.sync", "", "want muster.v1.trigger.JOB.NAME"},
		{"too many parts", "muster.v1.trigger.sync.acme.now", "", "want muster.v1.trigger.JOB.NAME"},
		{"no json", syncAcme, "now!", `body: invalid character`},
		{"unknown field", syncAcme, `{"reason":"x","force":true}`, `body: unknown field "force"`},
		{"another case", syncAcme, `{"Reason":"x"}`, `body: unknown field "Reason"`},
		{"a number for a reason", syncAcme, `{"reason":1}`, "body: reason is not a string"},
		{"null", syncAcme, `null`, "body is null"},
		{"a list", syncAcme, `[]`, "body: json: cannot unmarshal array"},
		{"two documents", syncAcme, `{}{}`, "body: invalid character"},
		{"a NUL", syncAcme, `{"reason":"a\u0000b"}`, "body: reason holds a NUL"},
		{"no UTF-8", syncAcme, "{\"reason\":\"\xff\"}", "body is not UTF-8"},
	}
	h := start(t, answers(errors.New("the job must not run")))
	h.run(t)
	seen := map[string]bool{}
	for _, tt := range tests {
		h.publish(t, tt.subject, tt.body)
		h.record.expect(t, "rejected")
		h.record.change(func() {
			got := h.record.letters[len(h.record.letters)-1]
			if !strings.Contains(got.Error, tt.want) || got.Subject != tt.subject || got.TriggerID != "" || got.Attempts != 0 {
				t.Errorf("%s: got %+v, want an error with %q", tt.name, got, tt.want)
			}
			if len(got.Body) > 16<<10 || strings.ToValidUTF8(got.Body, "") != got.Body {
				t.Errorf("%s: body of %d bytes is not fit to be kept", tt.name, len(got.Body))
			}
			if _, err := uuid.Parse(got.ID); err != nil || seen[got.ID] {
				t.Errorf("%s: id %q: %v", tt.name, got.ID, err)
			}
			seen[got.ID] = true
		})
		if o := h.outcome(t); o.Result != worker.ResultRejected || o.Job != "" || o.Name != "" {
			t.Errorf("%s: outcome %+v", tt.name, o)
		}
	}
	h.settled(t, "muster-sync")
	h.settled(t, "muster-unrouted")
}

func TestAFaultInWhatTheOutboxPublishedEndsItsRun(t *testing.T) {
	t.Parallel()
	h := start(t, answers(errors.New("the job must not run")))
	h.run(t)
	tr := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "gone", Source: fleet.SourceCron}
	h.record.change(func() { h.record.runs[tr.ID] = fleet.Run{Trigger: tr, State: fleet.RunQueued} })
	if err := h.conn.Publish(t.Context(), tr.Outgoing()); err != nil {
		t.Fatal(err)
	}
	h.record.expect(t, "begin", "dead")
	if run := h.record.run(tr.ID); run.State != fleet.RunDead || !strings.Contains(run.Error, `knows no "gone"`) {
		t.Errorf("run %+v", run)
	}
	if o := h.outcome(t); o.Name != "" {
		t.Errorf("outcome %+v names somebody unknown", o)
	}
}

func TestAForgedIDTakesNobodysRun(t *testing.T) {
	t.Parallel()
	mine := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "octo", Source: fleet.SourceCron}
	for _, tt := range []struct {
		name, subject, id, body, word string
	}{
		{"another name's run", syncAcme, mine.ID, "{}", "done"},
		{"another job's run", "muster.v1.trigger.housekeep.all", mine.ID, "{}", "done"},
		{"a run that is yet to come", syncAcme, uuid.NewString(), "{}", "done"},
		{"a body that would bury it", mine.Subject(), mine.ID, "{", "rejected"},
		{"a body with words", mine.Subject(), mine.ID, `{"reason":"x"}`, "done"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, answers())
			h.record.runs[mine.ID] = fleet.Run{Trigger: mine, State: fleet.RunQueued}
			h.run(t)
			err := h.conn.Publish(t.Context(), fleet.OutboxMessage{
				ID: tt.id, Subject: tt.subject, Body: []byte(tt.body), Headers: map[string]string{fleet.HeaderTrigger: tt.id},
			})
			if err != nil {
				t.Fatal(err)
			}
			h.record.until(t, tt.word)
			if run := h.record.run(mine.ID); run.State != fleet.RunQueued || run.Attempt != 0 {
				t.Errorf("the run became %+v", run)
			}
			if tt.id != mine.ID && h.record.run(tt.id).Attempt != 0 {
				t.Error("whoever published it chose the id of its run")
			}
		})
	}
}

func TestASlowTargetHoldsUpNeitherItsJobNorAnother(t *testing.T) {
	t.Parallel()
	job, began, end := blocking()
	h := start(t, handler(func(ctx context.Context, tr fleet.Trigger) (fleet.Counts, error) {
		if tr.Name == "acme" {
			return job(ctx, tr)
		}
		return nil, nil
	}))
	h.run(t)
	h.publish(t, syncAcme, "")
	receive(t, began)
	h.publish(t, "muster.v1.trigger.sync.octo", "")
	h.record.expect(t, "begin", "begin", "done")
	h.publish(t, "muster.v1.trigger.housekeep.all", "")
	h.record.expect(t, "begin", "done")
	end <- nil
	h.record.expect(t, "done")
}

func TestEveryRequiredFieldIsMissed(t *testing.T) {
	t.Parallel()
	err := (&worker.Engine{Handlers: map[fleet.Job]worker.Handler{fleet.JobSync: nil}}).Run(t.Context())
	for _, field := range []string{"Log", "Conn", "Recorder", "Names", "a handler of sync"} {
		if err == nil || !strings.Contains(err.Error(), "engine: "+field+" is needed") {
			t.Errorf("Run() = %v, want a word about %s", err, field)
		}
	}
}
