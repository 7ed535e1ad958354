package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// All that is known of a runner that a deletion keeps, in every field.
func TestEvidenceOfAnOfflineRunner(t *testing.T) {
	t.Parallel()
	r := due(1)
	r.RemovedAt, r.MissingSince, r.LastBusyAt = now.Add(-1*time.Minute), now.Add(-2*time.Minute), now.Add(-3*time.Minute)
	r.Work = fleet.Work{OpenJob: 7, OpenSince: now.Add(-4 * time.Minute), LastDoneAt: now.Add(-5 * time.Minute)}
	r.HostSays = fleet.HostReport{SeenAt: now.Add(-time.Minute), TokenAt: now.Add(-6 * time.Minute), BusyAt: now.Add(-time.Minute)}
	r.Hold = fleet.Hold{At: now.Add(-time.Hour), Until: now.Add(time.Hour), Reason: "looked at", By: "alice"}
	r.Host = "build-01"
	in := input(r)
	in.Target.Suspect, in.Target.CredentialFault = fleet.SuspectShrunk, "401"
	want := fleet.Evidence{
		"status": "offline", "busy": false, "population": 1000,
		"inventory_outcome": "complete", "inventory_age_seconds": int64(60), "inventory_max_age_seconds": int64(600),
		"inventory_suspect": "shrunk", "credential_fault": "401",
		"removed_at": "2026-03-14T09:25:53Z", "missing_since": "2026-03-14T09:24:53Z", "last_busy_at": "2026-03-14T09:23:53Z",
		"last_online_at": "2026-03-01T20:26:53Z",
		"open_job":       int64(7), "open_job_since": "2026-03-14T09:22:53Z", "last_job_done_at": "2026-03-14T09:21:53Z",
		"host_state": "running", "host_seen_at": "2026-03-14T09:25:53Z", "token_at": "2026-03-14T09:20:53Z", "host_says": "busy",
		"hold_reason": "looked at", "hold_by": "alice", "hold_until": "2026-03-14T10:26:53Z",
		"offline_since": "2026-03-01T21:26:53Z", "offline_for": "300h", "offline_for_seconds": int64(1_080_000),
		"listings": 900, "span_seconds": int64(1_076_400), "listings_wanted": 2, "span_wanted_seconds": int64(120),
		"matched_since": "2026-03-12T09:26:53Z", "grace_until": "2026-03-13T09:26:53Z",
	}
	d := policies.Decide(load(t, document(longOffline)), in, now).Decisions[0]
	if diff := cmp.Diff(want, d.Evidence); diff != "" || d.Verdict != fleet.VerdictKeep {
		t.Errorf("%s, evidence want (-) got (+):\n%s", d.Verdict, diff)
	}
}

// A drain has what speaks of the host as well, and no offline time.
func TestEvidenceOfADrain(t *testing.T) {
	t.Parallel()
	p := load(t, strings.Replace(draining(), "guards: {", "guards: {min_survivors: 1, ", 1))
	r := idle(1)
	r.SparedAt = now.Add(-time.Minute)
	in := input(r)
	in.Neighbours = map[int64]fleet.Neighbours{1: {Alike: 4}}
	want := fleet.Evidence{
		"status": "online", "busy": false, "population": 1000,
		"inventory_outcome": "complete", "inventory_age_seconds": int64(60), "inventory_max_age_seconds": int64(600),
		"last_online_at": "2026-03-14T09:25:53Z", "last_busy_at": "2026-03-13T23:26:53Z", "idle_since": "2026-03-13T23:26:53Z",
		"first_seen_at": r.FirstSeenAt.Format(time.RFC3339), "spared_at": "2026-03-14T09:25:53Z", "host": "runner-1",
		"survivors": 4, "min_survivors": 1,
		"matched_since": "2026-03-12T09:26:53Z", "grace_until": "2026-03-13T09:26:53Z",
	}
	d := policies.Decide(p, in, now).Decisions[0]
	if diff := cmp.Diff(want, d.Evidence); diff != "" || d.Verdict != fleet.VerdictKeep {
		t.Errorf("%s, evidence want (-) got (+):\n%s", d.Verdict, diff)
	}
	unknown := idle(1)
	unknown.Host = ""
	in = input(unknown)
	in.Neighbours = map[int64]fleet.Neighbours{}
	if host, there := policies.Decide(p, in, now).Decisions[0].Evidence["host"]; there {
		t.Errorf("the host of a runner on nobody's host is told as %v", host)
	}
}

// The drain of a pool names the pool and the least age that it asks for; a
// policy without grace has no marks to tell.
func TestEvidenceOfAPool(t *testing.T) {
	t.Parallel()
	checked, faults := policies.NewPool(fleet.Pool{
		Name: "linux", Target: "acme", Labels: []string{"linux"}, PoolBounds: fleet.PoolBounds{Max: 20}, TargetUtilisation: 1,
		BootDeadline: 10 * time.Minute, MinLifetime: 10 * time.Minute,
		Step: fleet.PoolStep{Up: fleet.Portion{Count: 1}, Down: fleet.Portion{Count: 1}},
	})
	if faults != nil {
		t.Fatal(faults)
	}
	e := policies.Decide(policies.ScaleDown(checked), input(idle(1)), now).Decisions[0].Evidence
	if e["pool"] != "linux" || e["min_lifetime_seconds"] != int64(600) {
		t.Errorf("pool %v, least age %v, want linux and 600", e["pool"], e["min_lifetime_seconds"])
	}
	for _, key := range []string{"matched_since", "grace_until", "min_survivors", "survivors", "listings_wanted", "span_wanted_seconds", "max_count"} {
		if value, there := e[key]; there {
			t.Errorf("evidence %s = %v of a drain that asks for none", key, value)
		}
	}
	e = policies.Decide(policies.Operator(), input(due(1)), now).Decisions[0].Evidence
	for _, key := range []string{"matched_since", "listings_wanted", "span_wanted_seconds", "min_lifetime_seconds", "pool", "host"} {
		if value, there := e[key]; there {
			t.Errorf("evidence %s = %v of a deletion by hand", key, value)
		}
	}
}

// A guard of one kind alone is told with both of its numbers.
func TestEvidenceOfOneWitnessGuard(t *testing.T) {
	t.Parallel()
	for _, g := range []policies.Guards{{Listings: 1}, {Apart: time.Second}} {
		p := policies.Operator()
		p.Guards = g
		p.Guards.MaxAge, p.Guards.MinSurvivors, p.Guards.MinLifetime, p.Guards.Grace = 10*time.Minute, 1, 1, 1
		in := input(due(1))
		in.Neighbours = map[int64]fleet.Neighbours{1: {Alike: 1}}
		d := policies.Decide(p, in, now).Decisions[0]
		if d.Evidence["listings_wanted"] != g.Listings || d.Evidence["span_wanted_seconds"] != int64(g.Apart/time.Second) {
			t.Errorf("%+v: evidence %v", g, d.Evidence)
		}
		for _, key := range []string{"min_survivors", "min_lifetime_seconds", "matched_since"} {
			if _, there := d.Evidence[key]; !there {
				t.Errorf("%+v: the evidence lacks %s", g, key)
			}
		}
	}
}

// A report looks at the inventory alone, and says so.
func TestEvidenceOfAReport(t *testing.T) {
	t.Parallel()
	r := due(1)
	r.Host = "build-01"
	in := input(r)
	e := policies.Decide(load(t, reporting(`runner.offline_for > duration("1h")`)), in, now).Decisions[0].Evidence
	for _, key := range []string{"matched_since", "grace_until", "listings_wanted", "host", "newer_registrations", "survivors"} {
		if value, there := e[key]; there {
			t.Errorf("evidence %s = %v of a report", key, value)
		}
	}
	in.Neighbours = map[int64]fleet.Neighbours{1: {Newer: 2}}
	asks := load(t, reporting(`runner.offline_for > duration("1h") && runner.newer_registrations > 1`))
	if e := policies.Decide(asks, in, now).Decisions[0].Evidence; e["host"] != "build-01" || e["newer_registrations"] != 2 {
		t.Errorf("host %v with %v newer registrations, want build-01 and 2", e["host"], e["newer_registrations"])
	}
	in.Runners[0].Host = ""
	nameless := load(t, reporting(`has(runner.newer_registrations) || runner.offline_for > duration("1h")`))
	if e := policies.Decide(nameless, in, now).Decisions[0].Evidence; e["host"] != nil {
		t.Errorf("host %v of a runner whose host is not known", e["host"])
	}
	// The runner that was offline is online now: its offline time is over.
	back := due(1)
	back.Status = fleet.StatusOnline
	e = policies.Decide(load(t, reporting("!runner.busy")), input(back), now).Decisions[0].Evidence
	if value, there := e["offline_since"]; there {
		t.Errorf("offline_since = %v of an online runner", value)
	}
}

// A runner without a name is kept: nobody could say whose job it has.
func TestARunnerWithoutANameIsKept(t *testing.T) {
	t.Parallel()
	r := due(1)
	r.Name = ""
	if got := verdicts(policies.Decide(load(t, document(longOffline)), input(r), now)); got != "1 keep nameless" {
		t.Errorf("Decide = %q, want it kept", got)
	}
}

// A deletion needs a complete inventory also where its guards do not ask.
func TestADeletionNeedsACompleteInventory(t *testing.T) {
	t.Parallel()
	for _, drain := range []bool{false, true} {
		p := policies.Operator()
		p.Guards.Complete, p.Drain = false, drain
		in := input(due(1))
		if drain {
			in = input(idle(1))
		}
		if got := verdicts(policies.Decide(p, in, now)); got != "1 act matched" {
			t.Errorf("drain %v: %q, want act", drain, got)
		}
		in.Target.LastOutcome = fleet.SyncPartial
		if got := verdicts(policies.Decide(p, in, now)); got != "1 keep inventory_incomplete" {
			t.Errorf("drain %v after a partial sync: %q, want it kept", drain, got)
		}
		in.Target.LastOutcome, in.Target.Suspect = fleet.SyncComplete, fleet.SuspectShrunk
		if got := verdicts(policies.Decide(p, in, now)); got != "1 keep inventory_suspect" {
			t.Errorf("drain %v after a suspect listing: %q, want it kept", drain, got)
		}
	}
	report := load(t, strings.Replace(reporting("!runner.busy"), "actions:", "guards: {inventory: {complete: false}}\n  actions:", 1))
	in := input(due(1))
	in.Target.LastOutcome = fleet.SyncPartial
	if got := verdicts(policies.Decide(report, in, now)); got != "1 act matched+report" {
		t.Errorf("a report that asks for no complete inventory: %q", got)
	}
	asks := load(t, strings.Replace(reporting("!runner.busy"), "actions:", "guards: {inventory: {complete: true}}\n  actions:", 1))
	if got := verdicts(policies.Decide(asks, in, now)); got != "1 keep inventory_incomplete" {
		t.Errorf("a report that asks for a complete inventory: %q", got)
	}
}

// The brake's halt names the number that decided: the least number where the
// share alone would not have halted it.
func TestTheBrakeNamesTheNumberThatDecided(t *testing.T) {
	t.Parallel()
	reap := load(t, document(longOffline))
	for _, tt := range []struct {
		of   int
		want string
	}{
		// 20 % of 40 are 8, and the least of 10 lets 9 pass.
		{40, "at most 9, below the brake's min of 10, may"},
		{45, "at most 20%, which is 9, may"},
		{50, "at most 20%, which is 10, may"},
	} {
		in := input(due(1))
		in.Alarm = fleet.Alarm{Offline: 12, Missing: 1, Removed: 1, Of: tt.of, Since: now.Add(-15 * time.Minute), First: now}
		got := policies.Decide(reap, in, now).Halt
		if !strings.Contains(got, tt.want) || !strings.Contains(got, "(12 offline, 1 missing, 1 removed, not by muster)") {
			t.Errorf("of %d: %q, want %q", tt.of, got, tt.want)
		}
	}
}

// A freeze that has just ended keeps nobody, and neither does it beside another
// that holds.
func TestFreezesOneAfterAnother(t *testing.T) {
	t.Parallel()
	for freezes, until := range map[string]string{
		`{cron: "26 9 * * *", duration: 1h}, {cron: "26 8 * * *", duration: 1h}`: "2026-03-14T10:26:00Z",
		`{cron: "26 8 * * *", duration: 1h}, {cron: "26 9 * * *", duration: 1h}`: "2026-03-14T10:26:00Z",
		`{cron: "0 9 * * *", duration: 2h}, {cron: "0 8 * * *", duration: 2h}`:   "2026-03-14T11:00:00Z",
		`{cron: "0 8 * * *", duration: 2h}, {cron: "0 9 * * *", duration: 2h}`:   "2026-03-14T11:00:00Z",
		`{cron: "26 8 * * *", duration: 1h}, {cron: "0 10 * * *", duration: 1h}`: "",
	} {
		d := policies.Decide(load(t, freezing("freeze: ["+freezes+"]")), input(due(1)), now).Decisions[0]
		got, _ := d.Evidence["freeze_until"].(string)
		if got != until || (d.Verdict == fleet.VerdictKeep) != (until != "") {
			t.Errorf("%s: %s until %q, want until %q", freezes, d.Verdict, got, until)
		}
	}
}

// What halted a policy stands with the decisions of later passes.
func TestTheReasonOfAHaltStaysInTheEvidence(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline))
	in := input(due(1))
	in.State.Halted, in.State.Reason = true, "too many"
	if e := policies.Decide(p, in, now).Decisions[0].Evidence; e["halt"] != "too many" {
		t.Errorf("halt = %v, want the stored reason", e["halt"])
	}
	in.State.Reason = ""
	if e := policies.Decide(p, in, now).Decisions[0].Evidence; e["halt"] != nil {
		t.Errorf("halt = %v without a stored reason", e["halt"])
	}
	in.State.Halted, in.State.Reason = false, "an old one"
	if e := policies.Decide(p, in, now).Decisions[0].Evidence; e["halt"] != nil {
		t.Errorf("halt = %v of a policy that goes on", e["halt"])
	}
	// One runner gone dark is told already.
	in = input(due(1))
	in.Alarm = fleet.Alarm{Offline: 1, Of: 1000, Since: now}
	if e := policies.Decide(p, in, now).Decisions[0].Evidence; e["newly_offline"] != 1 {
		t.Errorf("newly_offline = %v, want 1", e["newly_offline"])
	}
}

// An exemption that cannot be evaluated counts as an error each time.
func TestErrorsOfExemptionsAreCounted(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline+"\n  exempt: {first: 'runner.labels[1] == \"x\"', second: 'runner.labels[2] == \"x\"'}"))
	plan := policies.Decide(p, input(due(1)), now)
	if plan.Counts[policies.CountErrors] != 2 {
		t.Errorf("errors = %d, want 2", plan.Counts[policies.CountErrors])
	}
	// One allowance is told with the halt.
	in := input(due(1), due(2), due(3), due(4), due(5), due(6), due(7))
	in.State.Allowance = 1
	if got := policies.Decide(load(t, document(longOffline)), in, now).Halt; !strings.Contains(got, ", 1 by allowance") {
		t.Errorf("Halt = %q, want it to tell the allowance", got)
	}
}

// More distinct times than are kept as text are written all the same.
func TestManyTimesAreAllTold(t *testing.T) {
	t.Parallel()
	var runners []fleet.Observed
	for id := range int64(2100) {
		r := due(id + 1)
		r.LastBusyAt, r.LastOnlineAt = now.Add(-time.Duration(id)*time.Second), now.Add(-time.Duration(id)*time.Minute)
		runners = append(runners, r)
	}
	for _, d := range policies.Decide(load(t, document(longOffline)), input(runners...), now).Decisions {
		busy := now.Add(-time.Duration(d.RunnerID-1) * time.Second).Format(time.RFC3339)
		if d.Evidence["last_busy_at"] != busy {
			t.Fatalf("runner %d: last_busy_at = %v, want %s", d.RunnerID, d.Evidence["last_busy_at"], busy)
		}
	}
}
