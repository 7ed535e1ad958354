package db_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func trigger() fleet.Trigger {
	return fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "acme", Source: fleet.SourceNATS, Reason: "because"}
}

// begin is Runs.Begin with what matters of its answer.
func (w *world) begin(t fleet.Trigger, lease time.Duration) fleet.Begun {
	w.Helper()
	b, err := db.Runs{DB: w.db}.Begin(w.ctx, t, lease)
	if err != nil {
		w.Fatal(err)
	}
	return b
}

func (w *world) started(t fleet.Trigger, lease time.Duration, attempt int) fleet.Run {
	w.Helper()
	b := w.begin(t, lease)
	if b.Disposition != fleet.DispositionStarted || b.Run.Attempt != attempt || b.Run.State != fleet.RunRunning {
		w.Fatalf("Begin = %+v, want attempt %d to start", b, attempt)
	}
	return b.Run
}

func conflict(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("%s = %v, want fleet.ErrConflict", what, err)
	}
}

func TestRunFromBeginToDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := db.Runs{DB: w.db}
	tr := trigger()
	run := w.started(tr, time.Minute, 1)
	if diff := cmp.Diff(tr, run.Trigger); diff != "" {
		t.Errorf("trigger (-want +got):\n%s", diff)
	}
	b := w.begin(tr, time.Minute)
	if b.Disposition != fleet.DispositionElsewhere || b.RetryAfter <= 0 || b.RetryAfter > time.Minute {
		t.Errorf("Begin under a live lease = %+v", b)
	}
	if err := runs.Extend(w.ctx, tr.ID, 1, time.Hour); err != nil {
		t.Error(err)
	}
	if b := w.begin(tr, time.Minute); b.RetryAfter <= time.Minute {
		t.Errorf("Begin after Extend may retry after %v, want the longer lease", b.RetryAfter)
	}
	run.State, run.Counts, run.Error = fleet.RunDone, fleet.Counts{"runners": 3}, ""
	if err := runs.Finish(w.ctx, run); err != nil {
		t.Fatal(err)
	}
	if b := w.begin(tr, time.Minute); b.Disposition != fleet.DispositionFinished {
		t.Errorf("Begin of what is done = %+v", b)
	}
	conflict(t, "Finish again", runs.Finish(w.ctx, run))
	conflict(t, "Extend of what is done", runs.Extend(w.ctx, tr.ID, 1, time.Hour))
	w.want(`sync acme nats 1 done {"runners": 3}`, `
		SELECT concat_ws(' ', job, name, source, attempt, state, error, counts) FROM api.runs WHERE finished_at >= started_at`)
}

func TestRunIsTakenOverWhenItsLeaseEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := db.Runs{DB: w.db}
	tr := trigger()
	old := w.started(tr, 0, 1)
	w.started(tr, time.Minute, 2)
	conflict(t, "Extend by the one before", runs.Extend(w.ctx, tr.ID, old.Attempt, time.Hour))
	old.State = fleet.RunDone
	conflict(t, "Finish by the one before", runs.Finish(w.ctx, old))
	conflict(t, "GiveBack by the one before", runs.GiveBack(w.ctx, old))
	conflict(t, "Die by the one before", runs.Die(w.ctx, old, fleet.DeadLetter{Subject: tr.Subject(), Error: "x"}))
	conflict(t, "FanOut by the one before", runs.FanOut(w.ctx, old, []string{"a"}))
	w.want("running 0 0", `
		SELECT concat_ws(' ', (SELECT string_agg(state, ' ') FROM muster.run),
			(SELECT count(*) FROM muster.outbox), (SELECT count(*) FROM muster.dead_letter))`)
}

func TestRunThatFailedIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := db.Runs{DB: w.db}
	tr := trigger()
	run := w.started(tr, time.Minute, 1)
	run.State, run.Error = fleet.RunFailed, "GitHub is away"
	if err := runs.Finish(w.ctx, run); err != nil {
		t.Fatal(err)
	}
	w.want("failed GitHub is away", `SELECT state || ' ' || error FROM api.runs`)
	run = w.started(tr, time.Minute, 2)

	// A stop is not the attempt's fault.
	run.State, run.Error = fleet.RunFailed, "interrupted"
	if err := runs.GiveBack(w.ctx, run); err != nil {
		t.Fatal(err)
	}
	w.started(tr, time.Minute, 2)
}

func TestRunIsKnownByAllOfItsTrigger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tr := trigger()
	w.tx(func(tx *db.Tx) error { return tx.Queue(w.ctx, tr) })
	asked := []fleet.Trigger{
		{ID: tr.ID, Job: tr.Job, Name: tr.Name},
		{ID: uuid.NewString(), Job: tr.Job, Name: tr.Name},
		{ID: tr.ID, Job: fleet.JobEnforce, Name: tr.Name},
		{ID: tr.ID, Job: tr.Job, Name: "widgets"},
		{ID: tr.ID, Job: tr.Job, Name: tr.Name},
	}
	got, err := db.Runs{DB: w.db}.Known(w.ctx, asked...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]bool{true, false, false, false, true}, got); diff != "" {
		t.Errorf("Known (-want +got):\n%s", diff)
	}
}

func TestEightBeginOneRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tr := trigger()
	begun := make([]fleet.Begun, 8)
	var g errgroup.Group
	for i := range begun {
		g.Go(func() error {
			var err error
			begun[i], err = db.Runs{DB: w.db}.Begin(w.ctx, tr, time.Minute)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	how := map[fleet.Disposition]int{}
	for _, b := range begun {
		how[b.Disposition]++
	}
	if want := map[fleet.Disposition]int{fleet.DispositionStarted: 1, fleet.DispositionElsewhere: 7}; !cmp.Equal(how, want) {
		t.Errorf("dispositions %v, want %v", how, want)
	}
}

func TestDeadRunHasALetterAndAnEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := db.Runs{DB: w.db}
	tr := trigger()
	run := w.started(tr, time.Minute, 1)
	run.Error = "no such target"
	letter := fleet.DeadLetter{ID: tr.ID, Subject: tr.Subject(), TriggerID: tr.ID, Body: "{}", Error: run.Error, Attempts: 1}
	if err := runs.Die(w.ctx, run, letter); err != nil {
		t.Fatal(err)
	}
	w.want("dead no such target", `SELECT state || ' ' || error FROM api.runs`)
	w.want("TR500E nats muster.v1.trigger.sync.acme acme no such target", `
		SELECT concat_ws(' ', code, actor_type, actor, target, reason) FROM api.audit WHERE trigger_id = $1`, tr.ID)
	letters, err := w.db.DeadLetters(w.ctx)
	if err != nil || len(letters) != 1 {
		t.Fatalf("DeadLetters = %+v, %v", letters, err)
	}
	letter.DiedAt = letters[0].DiedAt
	if diff := cmp.Diff(letter, letters[0]); diff != "" || letter.DiedAt.IsZero() {
		t.Errorf("letter (-want +got):\n%s", diff)
	}
	if b := w.begin(tr, time.Minute); b.Disposition != fleet.DispositionFinished {
		t.Errorf("Begin of what is dead = %+v", b)
	}
	conflict(t, "Die again", runs.Die(w.ctx, run, letter))
}

func TestRunDiesWhateverItsReasonSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, source := range []fleet.Source{fleet.SourceCLI, fleet.SourceNATS} {
		tr := trigger()
		tr.Source, tr.Reason = source, strings.Repeat("\x01", 16<<10)
		run := w.started(tr, time.Minute, 1)
		run.Error = strings.Repeat("\x01", 4<<10)
		letter := fleet.DeadLetter{ID: tr.ID, Subject: tr.Subject(), TriggerID: tr.ID, Error: run.Error, Attempts: 1}
		if err := (db.Runs{DB: w.db}).Die(w.ctx, run, letter); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
	w.want("cli, muster.v1.trigger.sync.acme", `SELECT string_agg(actor, ', ' ORDER BY actor) FROM api.audit WHERE code = 'TR500E'`)
	w.want("2", `SELECT count(*) FROM api.audit WHERE payload->'details' ? 'trigger_reason'`)
}

func TestRejectedMessageLeavesOneLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	letter := fleet.DeadLetter{ID: uuid.NewString(), Subject: "muster.v1.trigger.dance.acme", Body: "{", Error: "unknown job", Attempts: 1}
	for range 2 {
		if err := (db.Runs{DB: w.db}).Reject(w.ctx, letter); err != nil {
			t.Fatal(err)
		}
	}
	w.want("1 1 0", `SELECT concat_ws(' ', (SELECT count(*) FROM api.dead_letters), (SELECT count(*) FROM api.audit), (SELECT count(*) FROM api.runs))`)
}

func TestFanOutTwiceMakesNoMoreParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := db.Runs{DB: w.db}
	tr := trigger()
	tr.Name = fleet.All
	names := []string{"acme", "widgets"}
	run := w.started(tr, 0, 1)
	run.State = fleet.RunDone
	if err := runs.FanOut(w.ctx, run, names); err != nil {
		t.Fatal(err)
	}
	// As if the process had died before it could acknowledge, in a world where
	// the run was not recorded as done.
	w.exec(`UPDATE muster.run SET state = 'failed' WHERE trigger_id = $1`, tr.ID)
	run = w.started(tr, time.Minute, 2)
	run.State = fleet.RunDone
	if err := runs.FanOut(w.ctx, run, names); err != nil {
		t.Fatal(err)
	}
	parts, err := w.db.Parts(w.ctx, tr.ID)
	if err != nil || len(parts) != 2 {
		t.Fatalf("Parts = %+v, %v, want 2", parts, err)
	}
	for i, p := range parts {
		want := fleet.Trigger{ID: p.Trigger.ID, Job: tr.Job, Name: names[i], Source: tr.Source, Parent: tr.ID, Reason: tr.Reason}
		if diff := cmp.Diff(want, p.Trigger); diff != "" || p.State != fleet.RunQueued || p.Attempt != 0 {
			t.Errorf("part %+v, trigger (-want +got):\n%s", p, diff)
		}
	}
	messages, err := db.Outbox{DB: w.db}.Claim(w.ctx, "trigger", 10, time.Minute)
	if err != nil || len(messages) != 2 {
		t.Fatalf("outbox holds %+v, %v, want 2", messages, err)
	}
	for _, m := range messages {
		if m.Headers[fleet.HeaderTrigger] != m.ID {
			t.Errorf("message %+v does not carry its trigger", m)
		}
	}
	// Queued runs are nobody's business yet.
	w.want("1", `SELECT count(*) FROM api.runs`)
	// What the record knows of a part wins over what its message can say.
	part := parts[0].Trigger
	part.Parent, part.Source, part.Reason = "", fleet.SourceNATS, ""
	if got := w.started(part, time.Minute, 1); got.Trigger.Parent != tr.ID || got.Trigger.Reason != tr.Reason {
		t.Errorf("part began as %+v", got.Trigger)
	}
}

func TestQueuedRunWhoseMessageIsLostIsPublishedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	runs := db.Runs{DB: w.db}
	lost, young, waiting, begun := trigger(), trigger(), trigger(), trigger()
	begun.Name = "widgets" // else the others would be joined to it
	for _, tr := range []fleet.Trigger{lost, young, waiting, begun} {
		w.tx(func(tx *db.Tx) error { return tx.Queue(w.ctx, tr) })
	}
	w.exec(`DELETE FROM muster.outbox WHERE id <> $1`, waiting.ID)
	w.exec(`UPDATE muster.run SET queued_at = queued_at - interval '61 s' WHERE trigger_id <> $1`, young.ID)
	w.started(begun, time.Minute, 1)
	requeue := func(want int) {
		t.Helper()
		if n, err := runs.Requeue(w.ctx); n != want || err != nil {
			t.Errorf("Requeue = %d, %v, want %d", n, err, want)
		}
	}
	requeue(1)
	w.want("2", `SELECT count(*) FROM muster.outbox WHERE id IN ($1, $2)`, lost.ID, waiting.ID)
	messages, err := db.Outbox{DB: w.db}.Claim(w.ctx, "trigger", 10, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if m.ID != lost.ID && m.ID != waiting.ID || m.Subject != lost.Subject() || m.Headers[fleet.HeaderTrigger] != m.ID {
			t.Errorf("outbox holds %+v", m)
		}
	}
	w.exec(`DELETE FROM muster.outbox WHERE id = $1`, lost.ID)
	requeue(0) // not more often than once a minute
	w.exec(`UPDATE muster.run SET requeued_at = requeued_at - interval '61 s'`)
	requeue(1)
}

func TestQueueOnceLeavesOneOfAKindWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second, third := trigger(), trigger(), trigger()
	other := trigger()
	other.Name = "widgets"
	once := func(tr fleet.Trigger) {
		t.Helper()
		w.tx(func(tx *db.Tx) error { return tx.QueueOnce(w.ctx, tr) })
	}
	once(first)
	once(second)
	once(other)
	w.want("2 2", `SELECT concat_ws(' ', (SELECT count(*) FROM muster.run), (SELECT count(*) FROM muster.outbox))`)
	w.exec(`UPDATE muster.run SET queued_at = queued_at - interval '61 s' WHERE trigger_id = $1`, first.ID)
	once(second) // the first may be lost
	w.started(second, time.Minute, 1)
	once(third) // what has begun may have looked too early
	w.want("queued", `SELECT state FROM muster.run WHERE trigger_id = $1`, third.ID)

	// Whoever wants to begin the one that waits has to wait for the writer.
	began := make(chan error, 1)
	w.tx(func(tx *db.Tx) error {
		if err := tx.QueueOnce(w.ctx, trigger()); err != nil {
			return err
		}
		go func() {
			_, err := db.Runs{DB: w.db}.Begin(w.ctx, third, time.Minute)
			began <- err
		}()
		for w.value(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) == "0" {
			select {
			case err := <-began:
				t.Fatalf("Begin did not wait: %v", err)
			default:
			}
		}
		return nil
	})
	if err := <-began; err != nil {
		t.Error(err)
	}
}

func TestActorOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		source fleet.Source
		reason string
		want   fleet.Actor
	}{
		{fleet.SourceCron, "", fleet.Actor{Type: fleet.ActorCron, Name: "sync/acme"}},
		{fleet.SourceCLI, "alice", fleet.Actor{Type: fleet.ActorCLI, Name: "cli"}},
		{fleet.SourceCLI, "", fleet.Actor{Type: fleet.ActorCLI, Name: "cli"}},
		{fleet.SourceNATS, "x", fleet.Actor{Type: fleet.ActorNATS, Name: "muster.v1.trigger.sync.acme"}},
		{fleet.SourceSync, "", fleet.System},
	} {
		tr := trigger()
		tr.Source, tr.Reason = tt.source, tt.reason
		if got := db.ActorOf(tr); got != tt.want {
			t.Errorf("ActorOf(%s) = %+v, want %+v", tt.source, got, tt.want)
		}
	}
}

// What stands in the record when a run is taken along was written before it
// was, by whoever leaned on that run.
func TestQueuedRunsAreTakenAlong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	scale := func(name string) fleet.Trigger {
		return fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: name, Source: fleet.SourceSync, Parent: uuid.NewString(), Reason: "r"}
	}
	a, b, c, other := scale("a"), scale("b"), scale("c"), scale("elsewhere")
	again := scale("a")
	w.tx(func(tx *db.Tx) error { return tx.QueueOnce(w.ctx, a, b, c, other) })
	w.tx(func(tx *db.Tx) error { return tx.Queue(w.ctx, again, a) }) // of which one is known
	w.want("5 5", `SELECT concat_ws(' ', (SELECT count(*) FROM muster.run), (SELECT count(*) FROM muster.outbox))`)
	w.started(c, time.Minute, 1)

	leaning, begun := make(chan struct{}), make(chan struct{})
	leaned := make(chan error, 1)
	go func() {
		leaned <- w.db.InTx(context.WithoutCancel(w.ctx), func(tx *db.Tx) error {
			if err := tx.QueueOnce(w.ctx, scale("b")); err != nil {
				return err
			}
			close(leaning)
			<-begun
			return nil
		})
	}()
	<-leaning
	w.tx(func(tx *db.Tx) error {
		defer close(begun)
		taken, err := tx.TakeQueued(w.ctx, fleet.JobScale, []string{"a", "b", "c"})
		if err != nil {
			return err
		}
		if diff := cmp.Diff([]fleet.Trigger{a, again}, taken); diff != "" {
			t.Errorf("TakeQueued (-want +got):\n%s", diff)
		}
		// Nobody waits for whoever has taken a run: another is queued.
		return w.db.InTx(w.ctx, func(second *db.Tx) error {
			if err := second.QueueOnce(w.ctx, scale("a")); err != nil {
				return err
			}
			return tx.FinishTaken(w.ctx, map[string]fleet.Counts{a.ID: {"desired": 3}, again.ID: nil})
		})
	})
	if err := <-leaned; err != nil {
		t.Fatal(err)
	}
	w.want("a done 1 3, a done 1 , a queued 0 , b queued 0 , c running 1 , elsewhere queued 0 ", `
		SELECT string_agg(format('%s %s %s %s', name, state, attempt, counts->>'desired'), ', ' ORDER BY name, state, counts->>'desired') FROM muster.run`)
	if got := w.begin(a, time.Minute); got.Disposition != fleet.DispositionFinished {
		t.Errorf("a run that was taken along begins: %v", got.Disposition)
	}
	w.want("0", `SELECT count(*) FROM muster.run WHERE state = 'done' AND (started_at IS NULL OR finished_at IS NULL OR started_at < queued_at)`)
}
