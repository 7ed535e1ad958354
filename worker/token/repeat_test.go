package token_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
)

func TestARepeatGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	body := request(fleet.TokenRemoval, newID())
	first := r.ask(t, "build-01", body)
	if first.Token == "" {
		t.Fatalf("answer is %s", first.body)
	}
	r.pass(119 * time.Second)
	if again := r.ask(t, "build-01", body); again.body != first.body {
		t.Errorf("the repeat is answered %s, the first %s", again.body, first.body)
	}
	if n := len(r.minted()); n != 1 {
		t.Errorf("GitHub minted %d times, want once", n)
	}
	if n := r.seen.count("removal repeated"); n != 1 {
		t.Errorf("observed %d repeats, want one", n)
	}

	r.pass(2 * time.Second)
	if late := r.ask(t, "build-01", body); late.Token == "" || late.Token == first.Token {
		t.Errorf("after two minutes the repeat is answered %s", late.body)
	}
	if diff := cmp.Diff([]string{"1 issued", "2 issued"}, r.rows(t, "attempt, outcome")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
}

func TestRepeatsThatComeTogetherGetOneToken(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	body := request(fleet.TokenRemoval, newID())
	bodies := make([]string, 20)
	var asking sync.WaitGroup
	for n := range bodies {
		nc := r.client(t, "build-01")
		asking.Go(func() { bodies[n] = ask(t, nc, "build-01", body).body })
	}
	asking.Wait()
	for _, got := range bodies {
		if got != bodies[0] {
			t.Errorf("one is answered %s, another %s", bodies[0], got)
		}
	}
	if n := len(r.minted()); n != 1 {
		t.Errorf("GitHub minted %d times, want once", n)
	}
	if diff := cmp.Diff([]string{"TK100I", "TK101I"}, r.trail(t)); diff != "" {
		t.Errorf("trail: %s", diff)
	}
	r.stop()
	issued, repeated, lines := r.seen.count("removal issued"), r.seen.count("removal repeated"), strings.Count(r.log.String(), `"token issued"`)
	if issued != 1 || repeated != len(bodies)-1 || lines != 1 {
		t.Errorf("observed %d issued and %d repeated, with %d lines of log", issued, repeated, lines)
	}
}

func TestBodiesThatComeTogetherUnderOneIDDoNotBothGetAToken(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	id := newID()
	var replies [2]reply
	var asking sync.WaitGroup
	for n, kind := range []fleet.TokenKind{fleet.TokenRegistration, fleet.TokenRemoval} {
		nc := r.client(t, "build-01")
		asking.Go(func() { replies[n] = ask(t, nc, "build-01", request(kind, id)) })
	}
	asking.Wait()
	if replies[0].Code+replies[1].Code != 409 {
		t.Errorf("the answers are %s and %s", replies[0].body, replies[1].body)
	}
}

func TestARepeatElsewhereIsAFurtherAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.URL(t))
	here, there := w.replica(t, anyone()), w.replica(t, anyone())
	body := request(fleet.TokenRemoval, newID())
	first, second := here.ask(t, "build-01", body), there.ask(t, "build-01", body)
	if first.Token == "" || second.Token == "" || first.Token == second.Token {
		t.Errorf("answers are %s and %s", first.body, second.body)
	}
	if first.RequestID != second.RequestID || first.AuditID == second.AuditID {
		t.Errorf("answers are %s and %s", first.body, second.body)
	}
	if diff := cmp.Diff([]string{"1 issued", "2 issued"}, w.rows(t, "attempt, outcome")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
}

func TestAnIDIsAnsweredAsItWasWritten(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	const upper = "0199B1C2-0000-7000-8000-00000000ABCD" // as uuidgen of macOS writes it
	if got := r.ask(t, "build-01", request(fleet.TokenRegistration, upper)); got.RequestID != upper {
		t.Errorf("answer is %s", got.body)
	}
	if diff := cmp.Diff([]string{"0199b1c2-0000-7000-8000-00000000abcd"}, r.rows(t, "request_id::text")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
}
