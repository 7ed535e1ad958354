package worker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/fleet"
)

// record is the rules of the real record in memory. Postgres cannot be had
// here: this package must not know it.
type record struct {
	mu         sync.Mutex
	runs       map[string]fleet.Run
	leases     map[string]time.Time
	letters    []fleet.DeadLetter
	rejections int   // transactions that rejected messages
	away       error // what every call answers while it is set
	joins      bool  // whether a run waits that triggers are joined to
	// retryAfter is what an Elsewhere says; zero: how long the lease lasts.
	retryAfter time.Duration
	extended   chan struct{}
	wrote      chan string // one word per change: begin, done, failed, given back, dead, rejected, fanned out
}

func newRecord() *record {
	return &record{runs: map[string]fleet.Run{}, leases: map[string]time.Time{}, wrote: make(chan string, 10000), extended: make(chan struct{}, 10000)}
}

func (r *record) Known(_ context.Context, triggers ...fleet.Trigger) ([]bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]bool, len(triggers))
	for i, t := range triggers {
		run, known := r.runs[t.ID]
		all[i] = known && run.Trigger.Job == t.Job && run.Trigger.Name == t.Name
	}
	return all, r.away
}

// Join queues the first trigger of each job and name, and joins the others to it.
func (r *record) Join(_ context.Context, triggers []fleet.Trigger) ([]fleet.Disposition, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return nil, r.away
	}
	first := map[string]string{}
	all := make([]fleet.Disposition, len(triggers))
	for i, t := range triggers {
		run, known := r.runs[t.ID]
		switch {
		case known && run.State.Ended():
			all[i] = fleet.DispositionFinished
		case known && run.State != fleet.RunQueued:
			all[i] = fleet.DispositionReady
		case first[t.Subject()] == "":
			first[t.Subject()] = t.ID
			all[i] = fleet.DispositionReady
			r.runs[t.ID] = fleet.Run{Trigger: t, State: fleet.RunQueued}
		default:
			all[i] = fleet.DispositionJoined
			r.runs[t.ID] = fleet.Run{Trigger: t, State: fleet.RunJoined, JoinedTo: first[t.Subject()]}
		}
	}
	return all, nil
}

func (r *record) Begin(_ context.Context, t fleet.Trigger, lease time.Duration) (fleet.Begun, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		r.wrote <- "begin refused"
		return fleet.Begun{}, r.away
	}
	run, known := r.runs[t.ID]
	if !known {
		run = fleet.Run{Trigger: t}
	}
	switch {
	case r.joins:
		r.wrote <- "joined"
		return fleet.Begun{Disposition: fleet.DispositionJoined, Run: run}, nil
	case run.State.Ended():
		r.wrote <- "finished"
		return fleet.Begun{Disposition: fleet.DispositionFinished, Run: run}, nil
	case run.State == fleet.RunRunning && time.Now().Before(r.leases[t.ID]):
		r.wrote <- "elsewhere"
		after := r.retryAfter
		if after == 0 {
			after = time.Until(r.leases[t.ID])
		}
		return fleet.Begun{Disposition: fleet.DispositionElsewhere, Run: run, RetryAfter: after}, nil
	}
	run.State = fleet.RunRunning
	run.Attempt++
	r.runs[t.ID], r.leases[t.ID] = run, time.Now().Add(lease)
	r.wrote <- "begin"
	return fleet.Begun{Disposition: fleet.DispositionStarted, Run: run}, nil
}

func (r *record) Extend(_ context.Context, id string, attempt int, lease time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return r.away
	}
	if r.runs[id].Attempt != attempt {
		return fleet.ErrConflict
	}
	r.leases[id] = time.Now().Add(lease)
	r.extended <- struct{}{}
	return nil
}

func (r *record) write(run fleet.Run, word string, more func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return r.away
	}
	if r.runs[run.Trigger.ID].Attempt != run.Attempt {
		return fmt.Errorf("run %s: %w", run.Trigger.ID, fleet.ErrConflict)
	}
	r.runs[run.Trigger.ID] = run
	if more != nil {
		more()
	}
	r.wrote <- word
	return nil
}

func (r *record) Finish(_ context.Context, run fleet.Run) error {
	return r.write(run, string(run.State), nil)
}

func (r *record) GiveBack(_ context.Context, run fleet.Run) error {
	return r.write(run, "given back", func() {
		run.Attempt--
		r.runs[run.Trigger.ID] = run
	})
}

func (r *record) Die(_ context.Context, run fleet.Run, letter fleet.DeadLetter) error {
	return r.write(run, "dead", func() { r.letters = append(r.letters, letter) })
}

func (r *record) Reject(_ context.Context, letters ...fleet.DeadLetter) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return r.away
	}
	r.rejections++
	for _, letter := range letters {
		r.letters = append(r.letters, letter)
		r.wrote <- "rejected"
	}
	return nil
}

func (r *record) FanOut(_ context.Context, run fleet.Run, names []string) error {
	return r.write(run, "fanned out", func() {
		for _, name := range names {
			child := fleet.Trigger{ID: uuid.NewString(), Job: run.Trigger.Job, Name: name, Source: run.Trigger.Source, Parent: run.Trigger.ID}
			r.runs[child.ID] = fleet.Run{Trigger: child, State: fleet.RunQueued}
		}
	})
}

func (r *record) run(id string) fleet.Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.runs[id]
}

// the is the only run there is.
func (r *record) the(t *testing.T) fleet.Run {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.runs) != 1 {
		t.Fatalf("%d runs, want 1: %v", len(r.runs), r.runs)
	}
	for _, run := range r.runs {
		return run
	}
	panic("unreachable")
}

func (r *record) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *record) expect(t *testing.T, words ...string) {
	t.Helper()
	for _, want := range words {
		if got := receive(t, r.wrote); got != want {
			t.Fatalf("the record says %q, want %q", got, want)
		}
	}
}

// until passes over everything before the word.
func (r *record) until(t *testing.T, word string) {
	t.Helper()
	for got := ""; got != word; {
		got = receive(t, r.wrote)
	}
}
