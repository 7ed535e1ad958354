package queue

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func named(subject string) Request { return Request{Subject: subject} }

// pushed puts requests named KEY1, KEY2… into the queue, and returns who had to go.
func pushed(q *fairQueue, key string, n int) []string {
	var away []string
	for i := range n {
		if r, full := q.push(key, named(fmt.Sprint(key, i+1))); full {
			away = append(away, r.Subject)
		}
	}
	return away
}

// popped takes n requests that are handled at once.
func popped(q *fairQueue, n int) []string {
	var all []string
	for range n {
		key, r, _ := q.pop()
		all = append(all, r.Subject)
		q.done(key)
	}
	return all
}

func TestKeysAreServedInTurn(t *testing.T) {
	t.Parallel()
	q := newFairQueue(1, 1, 7, 15)
	pushed(q, "flood", 5)
	pushed(q, "a", 2)
	pushed(q, "b", 1)
	want := []string{"flood1", "a1", "b1", "flood2", "a2", "flood3", "flood4", "flood5"}
	if diff := cmp.Diff(want, popped(q, len(want))); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if len(q.lines) != 0 || q.waiting != 0 {
		t.Errorf("%d lines with %d requests are left", len(q.lines), q.waiting)
	}
}

func TestAKeyFillsItsOwnLineOnly(t *testing.T) {
	t.Parallel()
	q := newFairQueue(1, 1, 2, 15)
	if diff := cmp.Diff([]string{"flood4", "flood5"}, pushed(q, "flood", 5)); diff != "" {
		t.Errorf("turned away (-want +got):\n%s", diff)
	}
	if away := pushed(q, "a", 3); len(away) > 0 {
		t.Errorf("%q had to go for a flood", away)
	}
}

// Many keys fill the queue together: who has the most gives way.
func TestAFullQueueTurnsAwayTheLongestLine(t *testing.T) {
	t.Parallel()
	q := newFairQueue(1, 1, 3, 5)
	pushed(q, "x", 4)
	pushed(q, "y", 2)
	if diff := cmp.Diff([]string{"x4"}, pushed(q, "a", 1)); diff != "" {
		t.Errorf("for the first of a (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"x3"}, pushed(q, "a", 1)); diff != "" {
		t.Errorf("for the second of a (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"x5"}, func() []string { r, _ := q.push("x", named("x5")); return []string{r.Subject} }()); diff != "" {
		t.Errorf("for another of x (-want +got):\n%s", diff)
	}
	want := []string{"x1", "y1", "a1", "x2", "y2", "a1"}
	if diff := cmp.Diff(want, popped(q, len(want))); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// One key's requests are handled by so many workers and no more.
func TestAKeyOccupiesItsShareOfTheWorkers(t *testing.T) {
	t.Parallel()
	q := newFairQueue(3, 2, 6, 13)
	pushed(q, "flood", 6)
	first, _, _ := q.pop()
	if key, _, _ := q.pop(); key != "flood" || first != "flood" {
		t.Fatalf("took %s and %s, want two of the flood", first, key)
	}
	pushed(q, "a", 1)
	if key, r, _ := q.pop(); key != "a" || r.Subject != "a1" {
		t.Errorf("the third worker has %s, want a1", r.Subject)
	}
	q.done("flood")
	if _, r, _ := q.pop(); r.Subject != "flood3" {
		t.Errorf("the worker that is free again has %s, want flood3", r.Subject)
	}
}
