package main

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// stillRecord is a record of pauses whose clock stands.
type stillRecord struct {
	pauseRecord
	now time.Time
}

func (r stillRecord) Now(context.Context) (time.Time, error) { return r.now, nil }

// Two processes whose clocks are hours apart agree on when a pause ends.
func TestPausesAreSharedBetweenProcesses(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	store := dbtest.New(t)
	there := store // nil: Postgres is away
	process := func(clock time.Time) *github.Pauses {
		record := stillRecord{pauseRecord{db: func() *db.DB { return there }}, now}
		return &github.Pauses{Record: record, Clock: func() time.Time { return clock }}
	}
	here, ahead := process(now), process(now.Add(2*time.Hour))
	if !here.Told("acme", now.Add(90*time.Second+time.Millisecond), "HTTP 403") || !here.Told("acme", now.Add(time.Minute), "HTTP 429") {
		t.Error("a pause is not in the record")
	}
	if err := ahead.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	want := fleet.Pause{Credential: "acme", Until: now.Add(2*time.Hour + 91*time.Second), ToldAt: now.Add(2 * time.Hour), Reason: "HTTP 403"}
	if diff := cmp.Diff(want, ahead.Of("acme")); diff != "" {
		t.Errorf("to the other process (-want +got):\n%s", diff)
	}
	if got := ahead.Of("octo"); got != (fleet.Pause{}) {
		t.Errorf("another credential has %+v", got)
	}

	// Without the record a process knows what it was told, and says so later.
	there = nil
	for range 2 {
		if here.Told("octo", now.Add(time.Hour), "HTTP 503") {
			t.Error("a pause is said to be recorded that is not")
		}
	}
	if here.Refresh(ctx) == nil || ahead.Refresh(ctx) == nil {
		t.Error("no error without a record")
	}
	if got := ahead.Of("acme"); got != want {
		t.Errorf("without the record it is forgotten: %+v", got)
	}
	there = store
	for _, p := range []*github.Pauses{here, ahead} {
		if err := p.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := ahead.Of("octo").Until, now.Add(3*time.Hour+time.Second); !got.Equal(want) {
		t.Errorf("what was told without the record ends at %s, want %s", got, want)
	}

	later := process(now)
	later.Record = stillRecord{pauseRecord{db: func() *db.DB { return store }}, now.Add(91 * time.Second)}
	if err := later.Refresh(ctx); err != nil || later.Of("acme") != (fleet.Pause{}) {
		t.Errorf("a pause that is over: %+v, %v", later.Of("acme"), err)
	}
}

// The shared clock goes back by five hours while a pause stands: nobody takes that
// for five hours more, before the record is corrected and after it.
func TestAPauseOutlastsNoClockThatWentBack(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	store := dbtest.New(t)
	process := func(shared time.Time) *github.Pauses {
		record := stillRecord{pauseRecord{db: func() *db.DB { return store }}, shared}
		return &github.Pauses{Record: record, Clock: func() time.Time { return now }}
	}
	if !process(now).Told("acme", now.Add(10*time.Minute), "HTTP 403") {
		t.Fatal("the pause is not in the record")
	}
	other := process(now.Add(-5 * time.Hour))
	if err := other.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := fleet.Pause{Credential: "acme", Until: now.Add(10*time.Minute + time.Second), ToldAt: now, Reason: "HTTP 403"}
	if diff := cmp.Diff(want, other.Of("acme")); diff != "" {
		t.Errorf("to a process that hears of it after the step (-want +got):\n%s", diff)
	}
}

// A client that a reload makes keeps what is known of its credential before its
// first request, and only that.
func TestNewClientsKeepThePausesOfTheirCredential(t *testing.T) {
	t.Parallel()
	pauses := &github.Pauses{Record: pauseRecord{db: func() *db.DB { return nil }}}
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	c := loaded(t, t.TempDir(), targetsOf(
		"auth: {token_env: ONE}", "auth: {token_env: UNO}", "auth: {token_env: TWO}",
		"auth: {app: {id: 1, installation_id: 2, private_key_env: KEY}}", "auth: {app: {id: 1, installation_id: 3, private_key_env: KEY}}"))
	pauses.Told(c.targets[0].account(), until, "HTTP 403")
	pauses.Told(c.targets[3].account(), until, "HTTP 403")
	w, err := wire(c, nil, hearers{pauses: pauses, replicas: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"a": true, "b": true, "c": false, "d": true, "e": false}
	got := map[string]bool{}
	for target, client := range w.clients {
		got[target] = client.Limits().Paused.After(until)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paused (-want +got):\n%s", diff)
	}
	// What GitHub asks of an App that wants a token is for all its installations.
	pauses.Told(w.clients["e"].issuer, until, "HTTP 429")
	for target, want := range map[string]string{"c": "", "d": "HTTP 403", "e": "HTTP 429"} {
		if got := w.clients[target].paused(pauses, time.Now()).Reason; got != want {
			t.Errorf("%s is paused by %q, want %q", target, got, want)
		}
	}
}
