package main

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
)

// withRecord makes a database of the test's own, and the environment of commands
// that use it.
func withRecord(t *testing.T) (*db.DB, map[string]string) {
	t.Helper()
	url := dbtest.URL(t)
	store, err := db.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store, map[string]string{"MUSTER_DATABASE_URL": url, "HOME": t.TempDir(), "MUSTER_CONFIG": "testdata/empty.yaml"}
}

func inTx(t *testing.T, store *db.DB, do func(*db.Tx) error) {
	t.Helper()
	if err := store.InTx(t.Context(), do); err != nil {
		t.Fatal(err)
	}
}

// outbox claims what waits in the outbox.
func outbox(t *testing.T, store *db.DB) []fleet.OutboxMessage {
	t.Helper()
	var all []fleet.OutboxMessage
	for _, lane := range []string{"trigger", "event"} {
		waiting, err := db.Outbox{DB: store}.Claim(t.Context(), lane, 100, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, waiting...)
	}
	return all
}

func TestPolicyResume(t *testing.T) {
	t.Parallel()
	store, env := withRecord(t)
	inTx(t, store, func(tx *db.Tx) error {
		for _, target := range []string{"acme", "octo"} {
			scope := fleet.Scope{Kind: fleet.ScopeOrg, Owner: target}
			if err := tx.EnsureTarget(t.Context(), fleet.Target{Name: target, Scope: scope, APIURL: fleet.DefaultAPIURL}, time.Now()); err != nil {
				return err
			}
			state := fleet.PolicyState{Policy: "reap", Target: target, Enforcement: fleet.EnforcementEnforce}
			if _, err := tx.LockPolicy(t.Context(), state); err != nil {
				return err
			}
			if _, err := tx.Halt(t.Context(), "reap", target, "over_max", "37 runners are due, 25 allowed", time.Now()); err != nil {
				return err
			}
		}
		return nil
	})

	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"without a reason", []string{"reap"}, exitUsage, "muster: policy resume wants --reason: it goes into the audit trail\n"},
		{"without a name", []string{"--reason", "x"}, exitUsage, "muster: accepts 1 arg(s), received 0\n"},
		{"a negative allowance", []string{"reap", "--reason", "x", "--allow", "-1"}, exitUsage, "muster: --allow -1 is out of bounds, want 0 to 1000000\n"},
		{"an unknown target", []string{"reap", "--reason", "x", "--target", "nope"}, exitUsage, "muster: --target: target \"nope\" is unknown: there is none under targets: in muster.yaml\n"},
		{"an unknown policy", []string{"raep", "--reason", "x"}, exitFailed, "muster: resume policy raep: it never ran; there is reap\n"},
	} {
		r := muster(t, env, append([]string{"policy", "resume"}, tt.args...)...)
		if r.code != tt.code || r.stderr != tt.want || r.stdout != "" {
			t.Errorf("%s: %+v, want exit %d and %q", tt.name, r, tt.code, tt.want)
		}
	}

	r := muster(t, env, "policy", "resume", "reap", "--target", "acme", "--reason", "first day", "--allow", "37")
	if r.code != exitDone || r.stdout != "reap resumed on acme\n" {
		t.Fatalf("policy resume = %+v", r)
	}
	state, err := store.PolicyState(t.Context(), "reap", "acme")
	if err != nil || state.Halted || state.Allowance != 37 || state.Reason != "first day" {
		t.Errorf("state on acme = %+v, %v, want active with 37 allowed", state, err)
	}
	if state, _ := store.PolicyState(t.Context(), "reap", "octo"); !state.Halted {
		t.Error("octo was resumed too")
	}
	events := decode[[]auditRow](t, muster(t, env, "audit", "--code", "PL221I", "-o", "json"))
	if len(events) != 1 || events[0].ActorType != fleet.ActorCLI || deref(events[0].Target) != "acme" || deref(events[0].Reason) != "first day" {
		t.Errorf("trail = %+v, want one event of acme by the operator", events)
	}
	waiting := outbox(t, store)
	if len(waiting) != 1 || waiting[0].Subject != "muster.v1.event.policy.resumed" {
		t.Fatalf("outbox = %+v, want policy.resumed", waiting)
	}
	var event struct {
		Source, Subject string
		Data            map[string]any
	}
	if err := json.Unmarshal(waiting[0].Body, &event); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"policy": "reap", "target": "acme", "state": "active", "reason": "first day", "allow": 37.0}
	if diff := cmp.Diff(want, event.Data); diff != "" || event.Source != "muster/acme" || event.Subject != "reap" {
		t.Errorf("event of %s about %s (-want +got):\n%s", event.Source, event.Subject, diff)
	}

	if r := muster(t, env, "policy", "resume", "reap", "--reason", "octo"); r.code != exitDone || r.stdout != "reap resumed on octo\n" {
		t.Errorf("policy resume where it is halted = %+v", r)
	}
	if r := muster(t, env, "policy", "resume", "reap", "--reason", "again"); r.code != exitFailed || r.stderr != "muster: resume policy reap: it is halted on no target\n" {
		t.Errorf("policy resume where it is halted nowhere = %+v", r)
	}
	if r := muster(t, env, "policy", "resume", "reap", "--target", "acme", "--reason", "again"); r.code != exitFailed || r.stderr != "muster: resume policy reap on acme: it is not halted there\n" {
		t.Errorf("a second time = %+v", r)
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	store, env := withRecord(t)
	if r := muster(t, env, "dead-letters"); r.code != exitDone || r.stdout != "" || r.stderr != "no dead letters\n" {
		t.Errorf("dead-letters of nothing = %+v", r)
	}
	good, bad := uuid.NewString(), uuid.NewString()
	for id, subject := range map[string]string{good: "muster.v1.trigger.sync.acme", bad: "muster.v1.trigger.clean\x1b[2J.acme"} {
		err := db.Runs{DB: store}.Reject(t.Context(), fleet.DeadLetter{ID: id, Subject: subject, Error: "no target of that name"})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"dead-letters"}, {"dead-letters", "list"}} {
		r := muster(t, env, args...)
		if r.code != exitDone || strings.Count(r.stdout, "\n") != 3 || !strings.Contains(r.stdout, "no target of that name") || strings.Contains(r.stdout, "\x1b") {
			t.Errorf("%v = %+v, want a table of two without control characters", args, r)
		}
	}

	if r := muster(t, env, "dead-letters", "retry", bad); r.code != exitFailed || !strings.Contains(r.stderr, "muster dead-letters drop "+bad) {
		t.Errorf("retry of no trigger = %+v, want a word about drop", r)
	}
	r := muster(t, env, "dead-letters", "retry", good)
	id := strings.TrimSpace(r.stdout)
	sent, err := store.Run(t.Context(), id)
	if r.code != exitDone || err != nil || sent.State != fleet.RunQueued || sent.Trigger.Job != fleet.JobSync || sent.Trigger.Name != "acme" || id == good {
		t.Errorf("retry = %+v, run %+v, %v, want a queued sync of acme under a new id", r, sent, err)
	}
	if waiting := outbox(t, store); len(waiting) != 1 || waiting[0].ID != id {
		t.Errorf("outbox = %+v, want the trigger", waiting)
	}
	if r := muster(t, env, "dead-letters", "retry", good); r.code != exitFailed || !strings.Contains(r.stderr, "there is no dead letter "+good) {
		t.Errorf("a second retry = %+v", r)
	}

	if r := muster(t, env, "dead-letters", "drop", bad); r.code != exitUsage {
		t.Errorf("drop without a reason = %+v", r)
	}
	if r := muster(t, env, "dead-letters", "drop", bad, "--reason", "a slip"); r.code != exitDone {
		t.Errorf("drop = %+v", r)
	}
	if left := decode[[]deadLetterRow](t, muster(t, env, "dead-letters", "-o", "json")); len(left) != 0 {
		t.Errorf("left = %+v, want none", left)
	}
	var codes []fleet.AuditCode
	for _, e := range decode[[]auditRow](t, muster(t, env, "audit", "-o", "json")) {
		codes = append(codes, e.Code)
	}
	if diff := cmp.Diff([]fleet.AuditCode{"TR500E", "TR500E", "TR501I", "TR502I"}, codes); diff != "" {
		t.Errorf("trail (-want +got):\n%s", diff)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	_, env := withRecord(t)
	s := decode[schemaRow](t, muster(t, env, "migrate", "status", "-o", "json"))
	if s.Have == 0 || s.Have != s.Want || s.Missing == nil || len(s.Missing) != 0 {
		t.Errorf("migrate status = %+v, want nothing missing", s)
	}
	up := regexp.MustCompile(`^the schema is up to date\nmuster serve works as muster_serve_\S+, which can add to the audit trail and change nothing there\n$`)
	if r := muster(t, env, "migrate", "up"); r.code != exitDone || r.stdout != "" || !up.MatchString(r.stderr) {
		t.Errorf("migrate up = %+v", r)
	}
}

func TestFollowingADeath(t *testing.T) {
	t.Parallel()
	store, _ := withRecord(t)
	runs := db.Runs{DB: store}
	trigger := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCLI}
	begun, err := runs.Begin(t.Context(), trigger, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	begun.Run.Error = "GitHub refuses the credential"
	letter := fleet.DeadLetter{ID: trigger.ID, Subject: trigger.Subject(), TriggerID: trigger.ID, Error: begun.Run.Error, Attempts: 1}
	if err := runs.Die(t.Context(), begun.Run, letter); err != nil {
		t.Fatal(err)
	}
	var out, errs lockedBuffer
	a := &app{stdout: &out, stderr: &errs}
	err = a.follow(t.Context(), store, trigger.ID)
	if exitCode(err) != exitFailed || err.Error() != "1 of 1 failed for good: muster dead-letters list shows why" {
		t.Errorf("follow = %v (exit %d), want exit 1", err, exitCode(err))
	}
	if got := out.String(); !strings.HasPrefix(got, "sync acme dead in ") || !strings.HasSuffix(got, ": GitHub refuses the credential\n") {
		t.Errorf("follow printed %q", got)
	}
}

func TestFollowingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	store, _ := withRecord(t)
	trigger := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCLI}
	if _, err := (db.Runs{DB: store}).Begin(t.Context(), trigger, time.Minute); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), followEvery)
	defer stop()
	var out lockedBuffer
	a := &app{stdout: &out, stderr: &out}
	if err := a.follow(ctx, store, trigger.ID); !errors.Is(err, context.DeadlineExceeded) || exitCode(err) != exitFailed || out.String() != "" {
		t.Errorf("follow = %v, printed %q, want the context's error and nothing", err, out.String())
	}
}
