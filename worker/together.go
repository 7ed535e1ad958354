package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

// batch is messages that wait together, on their way to verdicts.
type batch struct {
	*queue.Batch
	began time.Time
	// rest are the indexes of messages that go on one by one.
	rest []int
}

// deliverTogether handles messages that were taken together, because many wait. So
// that a flood for one name holds up no other, the triggers of one job and name
// become one: the others are joined to it in one transaction. What is left is
// begun, each name in turn. The first run that takes long ends the batch: the
// others are given back, to workers and replicas that are free.
func (e *Engine) deliverTogether(work context.Context, messages *queue.Batch) {
	b := &batch{Batch: messages, began: time.Now()}
	e.settleQuickly(work, b)

	// A message that was given back before goes first.
	slices.SortStableFunc(b.rest, func(x, y int) int { return b.Messages[y].Delivered - b.Messages[x].Delivered })
	for _, i := range b.rest {
		began := time.Now()
		how, run := e.open(work, b.Messages[i])
		if run != nil {
			b.GiveBack(i)
			how = run()
		}
		e.tell(work, b.Messages[i], began, how)
		b.Settle(work, how.verdict, i)
		if run != nil {
			return
		}
	}
}

// deliverUnrouted rejects those messages of a batch that no job's consumer sees.
func (e *Engine) deliverUnrouted(work context.Context, messages *queue.Batch) {
	b := &batch{Batch: messages, began: time.Now()}
	var routed, invalid []int
	faults := make([]error, len(b.Messages))
	for i, m := range b.Messages {
		if e.routed(m) {
			routed = append(routed, i)
			continue
		}
		_, faults[i] = e.parse(m)
		invalid = append(invalid, i)
	}
	b.Settle(work, queue.Ack(), routed...)
	e.rejectTogether(work, b, invalid, faults)
}

// settleQuickly joins and rejects what can be joined and rejected, in one
// transaction each, and leaves the rest.
func (e *Engine) settleQuickly(work context.Context, b *batch) {
	triggers := make([]fleet.Trigger, len(b.Messages))
	faults := make([]error, len(b.Messages))
	for i, m := range b.Messages {
		triggers[i], faults[i] = e.parse(m)
	}
	ours, err := e.oursTogether(work, b.Messages, triggers)
	if err != nil {
		err = fmt.Errorf("look for the runs they claim: %w", err)
		for i := range b.Messages {
			e.settle(work, b, i, e.unrecorded(triggers[i], b.Messages[i].Delivered, err))
		}
		return
	}

	var valid, invalid []int
	for i, m := range b.Messages {
		switch {
		case faults[i] == nil:
			valid = append(valid, i)
		case ours[i]:
			b.rest = append(b.rest, i) // its run is buried
		default:
			invalid = append(invalid, i)
		}
		if ours[i] {
			triggers[i].ID = m.Claimed
		}
	}
	e.rejectTogether(work, b, invalid, faults)
	e.joinTogether(work, b, valid, triggers)
}

// settle ends one message of a batch.
func (e *Engine) settle(work context.Context, b *batch, i int, how end) {
	e.tell(work, b.Messages[i], b.began, how)
	b.Settle(work, how.verdict, i)
}

// oursTogether reports of each message whether the record has the run that it
// claims to be of.
func (e *Engine) oursTogether(work context.Context, messages []queue.Message, triggers []fleet.Trigger) ([]bool, error) {
	ours := make([]bool, len(messages))
	var claims []fleet.Trigger
	var indexes []int
	for i, m := range messages {
		if mayClaim(m, triggers[i]) {
			claims = append(claims, claimed(m, triggers[i]))
			indexes = append(indexes, i)
		}
	}
	if len(claims) == 0 {
		return ours, nil
	}
	known, err := e.known(work, claims...)
	if err != nil {
		return nil, err
	}
	for n, i := range indexes {
		ours[i] = known[n]
	}
	return ours, nil
}

func (e *Engine) rejectTogether(work context.Context, b *batch, indexes []int, faults []error) {
	if len(indexes) == 0 {
		return
	}
	letters := make([]fleet.DeadLetter, len(indexes))
	for n, i := range indexes {
		letters[n] = letter(b.Messages[i], faults[i])
	}
	err := e.record(work, func(ctx context.Context) error { return e.Recorder.Reject(ctx, letters...) })
	for n, i := range indexes {
		if err != nil {
			e.settle(work, b, i, e.notRejected(b.Messages[i], faults[i], err))
			continue
		}
		e.settle(work, b, i, end{result: ResultRejected, verdict: queue.Term(letters[n].Error), err: faults[i]})
	}
}

// joinTogether settles the triggers that are joined, or were done before.
func (e *Engine) joinTogether(work context.Context, b *batch, indexes []int, all []fleet.Trigger) {
	if len(indexes) == 0 {
		return
	}
	triggers := make([]fleet.Trigger, len(indexes))
	for n, i := range indexes {
		triggers[n] = all[i]
	}
	var dispositions []fleet.Disposition
	err := e.record(work, func(ctx context.Context) error {
		var err error
		dispositions, err = e.Recorder.Join(ctx, triggers)
		return err
	})
	if err != nil {
		err = fmt.Errorf("join triggers: %w", err)
		for n, i := range indexes {
			e.settle(work, b, i, e.unrecorded(triggers[n], b.Messages[i].Delivered, err))
		}
		return
	}

	var done []int
	for n, i := range indexes {
		var result Result
		switch dispositions[n] {
		case fleet.DispositionFinished:
			result = ResultRepeat
		case fleet.DispositionJoined:
			result = ResultJoined
		default:
			b.rest = append(b.rest, i)
			continue
		}
		e.tell(work, b.Messages[i], b.began, end{result: result, verdict: queue.Ack(), trigger: triggers[n]})
		done = append(done, i)
	}
	b.Settle(work, queue.Ack(), done...)
}
