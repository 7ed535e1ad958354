package main

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/scheduler"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// wellExamined is an examination by which all is well, at noon, of a target
// acme that is synced every two minutes.
func wellExamined(t *testing.T) (*examined, *config) {
	t.Helper()
	schedule, err := scheduler.Parse(scheduler.Spec{Job: fleet.JobSync, Name: "acme", Cron: "*/2 * * * *", Deadline: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	target := targetConfig{
		Target: fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}, MaxObservationGap: time.Hour},
		auth:   auth{source: "file /run/acme"},
	}
	c := &config{
		targets: []targetConfig{target}, schedules: []scheduler.Schedule{schedule},
		policies: []*policies.Policy{{Name: "reap", Enforcement: fleet.EnforcementEnforce, Targets: []string{"acme"}}},
	}
	e := &examined{
		record: recordExam{
			role: "muster_app", schema: db.SchemaStatus{Have: 12, Want: 12}, now: noon, at: noon,
			health:    db.Health{Server: "17.2", Replicas: 2},
			schedules: []db.ScheduleState{{Schedule: "sync/acme", After: noon.Add(-time.Minute), Lateness: 200 * time.Millisecond}},
			targets: map[string]db.TargetHealth{"acme": {
				TargetState:  fleet.TargetState{Target: target.Target, LastOutcome: fleet.SyncComplete, LastCompleteSyncAt: noon.Add(-time.Minute)},
				Capabilities: fleet.Capabilities{ServerVersion: "3.11.0", JIT: fleet.Yes, NameFilter: fleet.Yes, RunnerGroups: fleet.No, DeleteBusy: 422, ProbedAt: noon.Add(-time.Hour)},
			}},
		},
		nats: natsExam{found: "nats-server 2.12.6"},
		targets: []targetExam{{targetConfig: target, x: github.Examination{
			Server:  github.Sight{Answered: true, Version: "3.11.0"},
			Runners: 3, Classic: true, Scopes: []string{"admin:org"}, Expires: noon.Add(100 * 24 * time.Hour),
			ServerTime: noon, Asked: noon.Add(time.Second / 2), Answered: noon.Add(time.Second / 2),
			Limit: 5000, Remaining: 4000, Reset: noon.Add(time.Hour),
		}}},
	}
	return e, c
}

func TestDoctorWhenAllIsWell(t *testing.T) {
	t.Parallel()
	e, c := wellExamined(t)
	got := e.judge(c)
	for _, check := range got {
		if check.Level != levelOK || check.Mend != nil || check.Found == "" {
			t.Errorf("%+v, want ok without a mend", check)
		}
	}
	want := map[string]string{
		"replicas": "2 muster serve processes are alive",
		"postgres": "PostgreSQL 17.2 as muster_app, schema 12 of 12", "clock": "Postgres and this host agree within 1ms",
		"dead-letters": "none", "outbox": "none", "intents": "none",
		"ticks": "schedules served: 1; none overdue, the newest ticks at most 200ms late", "nats": "nats-server 2.12.6",
		"acme credential": "classic token with admin:org; it ends in 100d", "acme scope": "runners in org/acme: 3",
		"acme permission": "its OAuth scopes suffice", "acme clock": "GitHub and this host agree within 500ms",
		"acme rate": "4000 of 5000 requests are left until 2026-03-01T13:00:00Z", "acme server": "GitHub Enterprise Server 3.11.0",
		"acme capabilities": "has jit, name_filter; lacks runner_groups; not known yet: ephemeral, version; answers 422 to the deletion of a busy runner",
		"acme sync":         "complete; the last complete one began 1m ago", "acme policy": "none is halted",
	}
	if diff := cmp.Diff(want, found(got)); diff != "" {
		t.Errorf("doctor (-want +got):\n%s", diff)
	}
	if err := e.verdict(got); err != nil {
		t.Errorf("verdict: %v", err)
	}
}

// Each fault is a line of its own, and no other line changes its level.
func TestDoctorOnOneFault(t *testing.T) {
	t.Parallel()
	refusal := &github.Error{Op: github.OpExamine, Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}, Status: 403, Kind: fleet.ErrForbidden, Detail: "no"}
	tick := func(e *examined) *db.ScheduleState { return &e.record.schedules[0] }
	health := func(e *examined, change func(*db.TargetHealth)) {
		h := e.record.targets["acme"]
		change(&h)
		e.record.targets["acme"] = h
	}
	for _, tt := range []struct {
		name  string
		harm  func(*examined)
		check string
		level level
		found string
	}{
		{"the login of an owner", func(e *examined) {
			e.record.standing = db.Standing{Login: "muster", Powers: []string{"is or may become the owner of audit.event"}, Why: "login muster_serve_muster cannot be used: no"}
		}, "postgres", levelWarn,
			"PostgreSQL 17.2, login muster could weaken the audit trail: it is or may become the owner of audit.event; login muster_serve_muster cannot be used: no; " +
				"run muster migrate up as a role that may make roles, or give database_url a login that is a member of muster_app alone, and the owner's to migrate_url"},
		{"Postgres ahead", func(e *examined) {
			e.record.at, e.targets[0].x.ServerTime = noon.Add(-6*time.Second), noon.Add(3*time.Second) // GitHub is in between
		}, "clock", levelWarn,
			"Postgres is 6s ahead of this host; set the clocks by NTP"},
		{"a clock that went back", func(e *examined) {
			e.record.step = db.ClockStep{Steps: 1, At: noon.Add(-time.Hour), By: -3 * time.Hour}
		}, "clock", levelWarn,
			"Postgres's clock went back by 3h, 1h ago; it is 0s off this host's now; let NTP slew Postgres's clock instead of setting it; see CK900W in muster audit"},
		{"a clock that leapt", func(e *examined) { e.record.step = db.ClockStep{Steps: 2, At: noon, By: 3 * time.Hour} }, "clock", levelWarn,
			"Postgres's clock leapt ahead by 3h, less than a second ago; it is 0s off this host's now; let NTP slew Postgres's clock instead of setting it; see CK900W in muster audit"},
		{"a clock that stepped long ago", func(e *examined) {
			e.record.step = db.ClockStep{Steps: 2, At: noon.Add(-25 * time.Hour), By: time.Hour}
		}, "clock", levelOK,
			"Postgres and this host agree within 1ms"},
		{"a slow Postgres whose clock may be right", func(e *examined) { e.record.at, e.record.within = noon.Add(3*time.Second), 4*time.Second }, "clock", levelOK, "Postgres and this host agree within 4s"},
		{"dead letters", func(e *examined) { e.record.health.DeadLetters = 2 }, "dead-letters", levelWarn,
			"2 failed for good; see muster dead-letters, then retry or drop them"},
		{"an outbox that is worked on", func(e *examined) { e.record.health.Waiting, e.record.health.OldestWait = 3, 2*time.Second }, "outbox", levelOK,
			"3 messages wait for NATS, the oldest for 2s"},
		{"an outbox that waits", func(e *examined) { e.record.health.Waiting, e.record.health.OldestWait = 3, 2*time.Minute }, "outbox", levelWarn,
			"3 messages wait for NATS, the oldest for 2m; is NATS up, and does a muster serve run?"},
		{"an outbox that is stuck", func(e *examined) { e.record.health.Waiting, e.record.health.OldestWait = 3, time.Hour }, "outbox", levelFail,
			"3 messages wait for NATS, the oldest for 1h; is NATS up, and does a muster serve run?"},
		{"an open intent", func(e *examined) { e.record.health.OpenIntents, e.record.health.OldestOpen = 1, 6*time.Minute }, "intents", levelWarn,
			"1 deletion has no outcome yet, the oldest for 6m; a muster serve settles them: does one run, and does GitHub answer?"},
		{"nobody ticks", func(e *examined) { tick(e).After = noon.Add(-time.Hour) }, "ticks", levelFail,
			"overdue: sync/acme for 58m; does a muster serve run, with this configuration?"},
		{"a schedule nobody knows", func(e *examined) { e.record.schedules = nil }, "ticks", levelWarn,
			"no muster serve has ever served sync/acme; does a muster serve run, with this configuration?"},
		{"missed ticks", func(e *examined) { tick(e).Missed = 3 }, "ticks", levelWarn,
			"missed within a day: sync/acme 3 times; see api.ticks for when nobody was there"},
		{"late ticks", func(e *examined) { tick(e).Lateness = 2 * time.Minute }, "ticks", levelWarn,
			"the newest of a schedule came 2m late; is Postgres slow, or the machine?"},
		{"streams that are not there", func(e *examined) { e.nats.err = fmt.Errorf("stream X: %w", fleet.ErrNotFound) }, "nats", levelFail,
			"stream X: not found; muster serve makes the streams, and mends their settings, when it starts"},
		{"GitHub behind", func(e *examined) { e.targets[0].x.ServerTime = noon.Add(-2 * time.Minute) }, "acme clock", levelFail,
			"GitHub is 2m0s behind this host; set the clocks by NTP"},
		{"a fine-grained token", func(e *examined) { e.targets[0].x.Classic = false }, "acme permission", levelOK,
			"it may list; whether organization_self_hosted_runners is write shows when muster first acts"},
		{"a token that has acted", func(e *examined) {
			e.targets[0].x.Classic = false
			health(e, func(h *db.TargetHealth) { h.LastActAt = noon })
		}, "acme permission", levelOK, "GitHub let muster act on 2026-03-01T12:00:00Z"},
		{"a token that may list only", func(e *examined) { e.targets[0].x.Scopes = []string{"read:org"} }, "acme permission", levelFail,
			"it may list, and its OAuth scopes do not suffice to act; give the token one of the OAuth scopes admin:org, manage_runners:org"},
		{"an act refused", func(e *examined) {
			health(e, func(h *db.TargetHealth) { h.FaultOf, h.CredentialFault = db.RefusedAct, "403 at a deletion" })
		}, "acme permission", levelFail, "403 at a deletion; once GitHub allows it, muster goes on by itself within a quarter of an hour"},
		{"a refusal that is over", func(e *examined) {
			health(e, func(h *db.TargetHealth) { h.FaultOf, h.CredentialFault = db.RefusedList, "401" })
		}, "acme refusal", levelWarn, "401; it is accepted now: the next sync takes note, or muster trigger sync acme --wait"},
		{"little left", func(e *examined) { e.targets[0].x.Remaining = 499 }, "acme rate", levelWarn,
			"499 of 5000 requests are left until 2026-03-01T13:00:00Z; see what else uses the credential, or sync less often"},
		{"nothing left", func(e *examined) { e.targets[0].x.Remaining = 0 }, "acme rate", levelFail,
			"none of 5000 requests are left until 2026-03-01T13:00:00Z; muster waits; see what else uses the credential"},
		{"no limit", func(e *examined) { e.targets[0].x.Limit = 0 }, "acme rate", levelOK, "the server names no limit"},
		{"a pause", func(e *examined) {
			e.targets[0].x.Err = &github.Error{Op: github.OpExamine, Status: 429, Kind: fleet.ErrRateLimited, Wait: time.Minute}
		}, "acme scope", levelWarn, "examine credential: rate limited (HTTP 429); wait 1m0s"},
		{"a permission that GitHub names", func(e *examined) {
			e.targets[0].x.Err, e.targets[0].x.Classic, e.targets[0].x.Wants = refusal, false, "organization_self_hosted_runners=read"
		}, "acme scope", levelFail, "examine credential of org/acme: forbidden (HTTP 403): no; a classic token needs admin:org, and its user must own the organisation; an App needs write access to the organisation's self-hosted runners; GitHub wants the permission organization_self_hosted_runners=read"},
		{"a failed sync", func(e *examined) {
			health(e, func(h *db.TargetHealth) { h.LastOutcome, h.LastError = fleet.SyncFailed, "502" })
		}, "acme sync", levelFail, "the newest failed: 502; the last complete one began 1m ago; nothing counts as missing meanwhile; mend what it says"},
		{"a partial sync", func(e *examined) {
			health(e, func(h *db.TargetHealth) {
				h.LastOutcome, h.LastError, h.LastCompleteSyncAt = fleet.SyncPartial, "page 3", time.Time{}
			})
		}, "acme sync", levelWarn, "the newest was partial: page 3; there never was a complete one; nothing counts as missing meanwhile; see api.syncs"},
		{"a sync that is overdue", func(e *examined) {
			health(e, func(h *db.TargetHealth) { h.LastCompleteSyncAt = noon.Add(-20 * time.Minute) })
		}, "acme sync", levelWarn, "the last complete one began 20m ago, and its schedule was due since; does a muster serve run? muster trigger sync acme --wait"},
		{"a sync of yesterday", func(e *examined) {
			health(e, func(h *db.TargetHealth) { h.LastCompleteSyncAt = noon.Add(-24 * time.Hour) })
		}, "acme sync", levelFail, "the last complete one began 1d ago: longer than max_observation_gap, so that offline time does not count; does a muster serve run, and is there a schedule? muster trigger sync acme --wait"},
		{"a sync that began a moment ago", func(e *examined) {
			health(e, func(h *db.TargetHealth) { h.LastCompleteSyncAt = noon.Add(time.Second) })
		}, "acme sync", levelOK, "complete; the last complete one began less than a second ago"},
		{"items that could not be read", func(e *examined) {
			health(e, func(h *db.TargetHealth) {
				h.Unreadable, h.UnreadableItems = 2, []string{"runner 1 a: labels is missing", "item 2 of page 1: it is null or has no id"}
			})
		}, "acme unreadable", levelWarn,
			"2 items of the newest listing could not be read: runner 1 a: labels is missing; item 2 of page 1: it is null or has no id; " +
				"each is kept as it was known, and no policy deletes it; see api.syncs.unreadable_items, and register it anew where GitHub goes on showing it so"},
		{"no replica", func(e *examined) { e.record.health.Replicas = 0 }, "replicas", levelWarn,
			"no muster serve is alive; start one: without it nothing is synced, deleted, sized or handed out"},
		{"one replica", func(e *examined) { e.record.health.Replicas = 1 }, "replicas", levelOK, "1 muster serve is alive"},
		{"a suspect listing", func(e *examined) { health(e, func(h *db.TargetHealth) { h.Suspect = fleet.SuspectMassOffline }) }, "acme suspect", levelWarn,
			"the newest complete listing looks like a fault: mass_offline; look at GitHub; policies keep everybody until a complete sync looks like a fleet"},
		{"a halted policy", func(e *examined) {
			e.record.policies = []fleet.PolicyState{
				{Policy: "reap", Target: "acme", Halted: true, Reason: "too many"}, {Policy: "gone", Target: "acme", Halted: true},
			}
		}, "acme policy", levelWarn, "reap is halted: too many; see muster plan --policy reap, then muster policy resume reap --target acme --reason WHY"},
	} {
		e, c := wellExamined(t)
		tt.harm(e)
		got := e.judge(c)
		if text := found(got)[tt.check]; text != tt.found {
			t.Errorf("%s: %s\n got %q\nwant %q", tt.name, tt.check, text, tt.found)
		}
		for name, l := range levels(got) {
			want := levelOK
			if name == tt.check {
				want = tt.level
			}
			if l != want {
				t.Errorf("%s: %s is %s, want %s", tt.name, name, l, want)
			}
		}
		if err := e.verdict(got); (err != nil) != (tt.level == levelFail) {
			t.Errorf("%s: verdict %v", tt.name, err)
		}
	}
}

// Without the record, or with an old one, all that GitHub says is still said.
func TestDoctorWithoutTheRecord(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		harm  func(*recordExam)
		check string
		found string
	}{
		"away": {func(r *recordExam) { *r = recordExam{reach: errors.New("nobody\nthere")} }, "postgres",
			"nobody there; is it running, and is its address (database_url or MUSTER_DATABASE_URL) right?"},
		"none": {func(r *recordExam) {
			*r = recordExam{reach: noService("Postgres", postgresKeys, noConnection{"/x/connect.env"})}
		}, "postgres",
			"find Postgres: none is configured and no muster serve of yours is running (there is no /x/connect.env): start muster serve, or set database_url or MUSTER_DATABASE_URL"},
		"old": {func(r *recordExam) { r.schema = db.SchemaStatus{Have: 11, Want: 12, Missing: []string{"012_x.sql"}} }, "schema",
			"the database lacks migration 012_x.sql (it has 11 of 12); run muster migrate up"},
		"unreadable": {func(r *recordExam) { r.contentsErr = errors.New("no rights") }, "postgres", "no rights"},
	} {
		e, c := wellExamined(t)
		tt.harm(&e.record)
		got := e.judge(c)
		want := map[string]level{
			tt.check: levelFail, "nats": levelOK, "acme credential": levelOK, "acme scope": levelOK, "acme permission": levelOK,
			"acme clock": levelOK, "acme rate": levelOK,
		}
		if diff := cmp.Diff(want, levels(got)); diff != "" || found(got)[tt.check] != tt.found {
			t.Errorf("%s: %q, want %q (-want +got):\n%s", name, found(got)[tt.check], tt.found, diff)
		}
	}
}
