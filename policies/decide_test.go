package policies_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

var now = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)

// due is a runner that the policies here act on unless something is changed.
func due(id int64) fleet.Observed {
	return fleet.Observed{
		Runner:       fleet.Runner{ID: id, Name: fmt.Sprintf("runner-%d", id), Status: fleet.StatusOffline, Labels: []string{"linux"}},
		Target:       "acme",
		FirstSeenAt:  now.Add(-1000 * time.Hour),
		LastSeenAt:   now.Add(-time.Minute),
		OfflineSince: now.Add(-300 * time.Hour),
		LastOnlineAt: now.Add(-301 * time.Hour),
		OfflineFor:   300 * time.Hour, OfflineListings: 900, OfflineSpan: 299 * time.Hour,
	}
}

// healthy is a target whose inventory lets every guard go.
func healthy() fleet.TargetState {
	return fleet.TargetState{
		Target:             fleet.Target{Name: "acme", Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}},
		LastCompleteSyncAt: now.Add(-time.Minute), LastOutcome: fleet.SyncComplete, Population: 1000,
	}
}

// input has runners that have matched long enough.
func input(runners ...fleet.Observed) policies.Input {
	in := policies.Input{Target: healthy(), Runners: runners, MatchedSince: map[int64]time.Time{}}
	for _, r := range runners {
		in.MatchedSince[r.ID] = now.Add(-48 * time.Hour)
	}
	return in
}

// verdicts writes a plan as ID VERDICT REASONS, one line a decision.
func verdicts(p policies.Plan) string {
	var lines []string
	for _, d := range p.Decisions {
		lines = append(lines, fmt.Sprintf("%d %s %s", d.RunnerID, d.Verdict, strings.Join(d.Reasons, "+")))
	}
	return strings.Join(lines, "; ")
}

// matched are the runners that keep their grace marks.
func matched(p policies.Plan) []int64 { return slices.Sorted(maps.Keys(p.Marks)) }

// says has the host speak of the runner, so long ago.
func says(state fleet.HostRunnerState, ago time.Duration) func(*policies.Input, *fleet.Observed) {
	return func(_ *policies.Input, r *fleet.Observed) {
		r.HostSays = fleet.HostReport{SeenAt: now.Add(-ago), Stopped: state == fleet.HostRunnerStopped}
		switch state {
		case fleet.HostRunnerBusy:
			r.HostSays.BusyAt = now.Add(-ago)
		case fleet.HostRunnerIdle:
			r.HostSays.IdleAt = now.Add(-ago)
		}
	}
}

func TestDeletionIsKeptByEachGuard(t *testing.T) {
	t.Parallel()
	p := load(t, document("runner.labels.size() > 0 && runner.offline_for > duration(\"168h\")"))
	tests := []struct {
		name   string
		change func(*policies.Input, *fleet.Observed)
		want   string
	}{
		{"nothing against it", func(*policies.Input, *fleet.Observed) {}, "1 act matched"},
		{"busy", func(_ *policies.Input, r *fleet.Observed) { r.Busy = true }, "1 keep busy"},
		{"missing", func(_ *policies.Input, r *fleet.Observed) { r.MissingSince = now }, "1 keep missing"},
		{"removed", func(_ *policies.Input, r *fleet.Observed) { r.RemovedAt = now }, "1 keep removed"},
		{"credential refused", func(in *policies.Input, _ *fleet.Observed) { in.Target.CredentialFault = "401" }, "1 keep credential"},
		{"newest sync partial", func(in *policies.Input, _ *fleet.Observed) { in.Target.LastOutcome = fleet.SyncPartial }, "1 keep inventory_incomplete"},
		{"newest sync failed", func(in *policies.Input, _ *fleet.Observed) { in.Target.LastOutcome = fleet.SyncFailed }, "1 keep inventory_incomplete"},
		{"inventory as old as allowed", func(in *policies.Input, _ *fleet.Observed) { in.Target.LastCompleteSyncAt = now.Add(-10 * time.Minute) }, "1 act matched"},
		{"inventory too old", func(in *policies.Input, _ *fleet.Observed) {
			in.Target.LastCompleteSyncAt = now.Add(-10*time.Minute - 1)
		}, "1 keep inventory_stale"},
		{"inventory from the future", func(in *policies.Input, _ *fleet.Observed) { in.Target.LastCompleteSyncAt = now.Add(11 * time.Minute) }, "1 keep inventory_stale"},
		{"no sync yet", func(in *policies.Input, _ *fleet.Observed) {
			in.Target.LastOutcome, in.Target.LastCompleteSyncAt = "", time.Time{}
		}, "1 keep inventory_incomplete+inventory_stale"},
		{"shrunken listing", func(in *policies.Input, _ *fleet.Observed) { in.Target.Suspect = fleet.SuspectShrunk }, "1 keep inventory_suspect"},
		{"one listing", func(_ *policies.Input, r *fleet.Observed) { r.OfflineListings = 1 }, "1 keep witness_listings"},
		{"listings just apart enough", func(_ *policies.Input, r *fleet.Observed) { r.OfflineSpan = 2 * time.Minute }, "1 act matched"},
		{"listings too close", func(_ *policies.Input, r *fleet.Observed) { r.OfflineSpan = 2*time.Minute - 1 }, "1 keep witness_apart"},
		{"grace just over", func(in *policies.Input, _ *fleet.Observed) { in.MatchedSince[1] = now.Add(-24 * time.Hour) }, "1 act matched"},
		{"grace not over", func(in *policies.Input, _ *fleet.Observed) { in.MatchedSince[1] = now.Add(-24*time.Hour + 1) }, "1 keep grace"},
		{"matched for the first time", func(in *policies.Input, _ *fleet.Observed) { in.MatchedSince = nil }, "1 keep grace"},
		{"matched since the future", func(in *policies.Input, _ *fleet.Observed) { in.MatchedSince[1] = now.Add(time.Hour) }, "1 keep grace"},
		{"a workflow job on it", func(_ *policies.Input, r *fleet.Observed) {
			r.Work = fleet.Work{OpenJob: 7, OpenSince: now.Add(-5 * 24 * time.Hour)}
		}, "1 keep open_job"},
		{"a workflow job that lost its end", func(_ *policies.Input, r *fleet.Observed) {
			r.Work = fleet.Work{OpenJob: 7, OpenSince: now.Add(-5*24*time.Hour - 1)}
		}, "1 act matched"},
		{"a workflow job with a date of years ago, heard of today", func(_ *policies.Input, r *fleet.Observed) {
			r.Work = fleet.Work{OpenJob: 7, OpenSince: now.Add(-1000 * 24 * time.Hour), HeardAt: now.Add(-5 * 24 * time.Hour)}
		}, "1 keep open_job"},
		{"a delivery that was refused", func(_ *policies.Input, r *fleet.Observed) {
			r.Refused = fleet.Refused{Deliveries: 1, Since: now.Add(-9 * 24 * time.Hour), Until: now.Add(-5 * 24 * time.Hour)}
		}, "1 keep deliveries_refused"},
		{"a delivery that was refused longer ago than a job may last", func(_ *policies.Input, r *fleet.Observed) {
			r.Refused = fleet.Refused{Deliveries: 1, Since: now.Add(-9 * 24 * time.Hour), Until: now.Add(-5*24*time.Hour - 1)}
		}, "1 act matched"},
		{"only workflow jobs that are done", func(_ *policies.Input, r *fleet.Observed) { r.Work = fleet.Work{LastDoneAt: now} }, "1 act matched"},
		{"its host says busy", says(fleet.HostRunnerBusy, 3*time.Minute-1), "1 keep host_busy"},
		{"its host says idle", says(fleet.HostRunnerIdle, 0), "1 keep host_alive"},
		{"its host says stopped", says(fleet.HostRunnerStopped, 0), "1 act matched"},
		{"its host is silent", says(fleet.HostRunnerBusy, 3*time.Minute), "1 act matched"},
		{"registered a moment ago", func(_ *policies.Input, r *fleet.Observed) {
			r.Host, r.HostSays.TokenAt = "build-01", now.Add(-12*time.Minute)
			r.FirstSeenAt, r.LastOnlineAt = now.Add(-10*time.Minute+1), time.Time{}
		}, "1 keep booting"},
		{"registered a moment ago, and online since", func(_ *policies.Input, r *fleet.Observed) {
			r.Host, r.HostSays.TokenAt, r.FirstSeenAt = "build-01", now.Add(-2*time.Minute), now.Add(-time.Minute)
		}, "1 act matched"},
		{"registered long ago", func(_ *policies.Input, r *fleet.Observed) {
			r.Host, r.HostSays.TokenAt = "build-01", now.Add(-12*time.Minute)
			r.FirstSeenAt, r.LastOnlineAt = now.Add(-10*time.Minute), time.Time{}
		}, "1 act matched"},
		{"held", func(_ *policies.Input, r *fleet.Observed) { r.Hold = fleet.Hold{At: now.Add(-time.Hour)} }, "1 keep hold"},
		{"a hold to its end", func(_ *policies.Input, r *fleet.Observed) {
			r.Hold = fleet.Hold{At: now.Add(-time.Hour), Until: now.Add(1)}
		}, "1 keep hold"},
		{"a hold that has ended", func(_ *policies.Input, r *fleet.Observed) {
			r.Hold = fleet.Hold{At: now.Add(-time.Hour), Until: now}
		}, "1 act matched"},
		{"everything at once", func(in *policies.Input, r *fleet.Observed) {
			says(fleet.HostRunnerBusy, 0)(in, r)
			r.Work, r.Hold = fleet.Work{OpenJob: 1, OpenSince: now}, fleet.Hold{At: now}
			r.Busy, r.MissingSince, r.RemovedAt, r.OfflineListings, r.OfflineSpan = true, now, now, 0, 0
			in.Target = fleet.TargetState{Target: in.Target.Target, Suspect: fleet.SuspectEmpty, CredentialFault: "403"}
			in.MatchedSince = nil
		}, "1 keep removed+missing+busy+open_job+host_busy+hold+credential+inventory_incomplete+inventory_stale+inventory_suspect+witness_listings+witness_apart+grace"},
	}
	for _, tt := range tests {
		r := due(1)
		in := input(r)
		tt.change(&in, &r)
		in.Runners = []fleet.Observed{r}
		plan := policies.Decide(p, in, now)
		if got := verdicts(plan); got != tt.want {
			t.Errorf("%s: Decide = %q, want %q", tt.name, got, tt.want)
		}
		if !cmp.Equal(matched(plan), []int64{1}) {
			t.Errorf("%s: Matched = %v, want 1 whatever the guards say", tt.name, matched(plan))
		}
	}
}

func TestDeletionIsForOfflineRunnersWhateverMatches(t *testing.T) {
	t.Parallel()
	p := policies.MatchingAll(load(t, document(longOffline)))
	for _, status := range []fleet.Status{fleet.StatusOnline, "", "idle"} {
		r := due(1)
		r.Status = status
		if got := verdicts(policies.Decide(p, input(r), now)); got != "1 keep online+grace" {
			t.Errorf("a runner with status %q: %q, want it kept as online, without grace", status, got)
		}
	}
}

func TestOnlyMatchedRunnersHaveDecisions(t *testing.T) {
	t.Parallel()
	fresh, unknown := due(2), due(3)
	fresh.OfflineFor = time.Hour
	unknown.OfflineSince = time.Time{}
	plan := policies.Decide(load(t, document(longOffline)), input(unknown, due(4), fresh, due(1)), now)
	if got, want := verdicts(plan), "1 act matched; 4 act matched"; got != want {
		t.Errorf("Decide = %q, want %q", got, want)
	}
	want := fleet.Counts{"evaluated": 4, "matched": 2, "unknown": 1, "errors": 0, "act": 2, "keep": 0, "halt": 0, "reason_matched": 2}
	if diff := cmp.Diff(want, plan.Counts); diff != "" {
		t.Errorf("Counts, want (-) got (+):\n%s", diff)
	}
}

func TestExpressionThatErrsKeepsTheRunner(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline+` && runner.labels[1] == "old"`))
	both, one := due(1), due(2)
	both.Labels = []string{"linux", "old"}
	plan := policies.Decide(p, input(both, one), now)
	if got, want := verdicts(plan), "1 act matched; 2 keep match_error"; got != want {
		t.Errorf("Decide = %q, want %q", got, want)
	}
	if !cmp.Equal(matched(plan), []int64{1}) || plan.Counts["errors"] != 1 {
		t.Errorf("Matched = %v, errors = %d, want only 1 matched and 1 error", matched(plan), plan.Counts["errors"])
	}
	if got := plan.Decisions[1].Evidence["error"]; got != "index out of bounds: 1" {
		t.Errorf("the evidence has error %v", got)
	}
}

// What an expression may cost is estimated for runners as GitHub has them, so
// no others are evaluated.
func TestOversizedRunnersAreKeptUnevaluated(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline))
	many, name, label, full := due(1), due(2), due(3), due(4)
	many.Labels = make([]string, 101)
	name.Name = strings.Repeat("n", 257)
	label.Labels = []string{strings.Repeat("ż", 257)}
	full.Labels, full.Name = make([]string, 100), strings.Repeat("ż", 256)
	plan := policies.Decide(p, input(many, name, label, full), now)
	if got, want := verdicts(plan), "1 keep match_error; 2 keep match_error; 3 keep match_error; 4 act matched"; got != want {
		t.Errorf("Decide = %q, want %q", got, want)
	}
	if got, want := plan.Decisions[0].Evidence["error"], "it has 101 labels, more than the 100 that expressions are made for"; got != want {
		t.Errorf("the evidence has error %v, want %v", got, want)
	}
}

func TestExemptionsAreEvaluatedEachAlone(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline+`
  exempt:
    keep-label: '"keep" in runner.labels'
    second: 'runner.labels[1] == "x"'
    young: 'runner.age < duration("1h")'
    release: 'runner.group == "release"'`))
	tests := []struct {
		name              string
		labels            []string
		group             string
		firstSeen         time.Time
		want, names, errs string
	}{
		{"none", []string{"a", "b"}, "ci", now.Add(-9 * time.Hour), "1 act matched", "", ""},
		{"one", []string{"a", "keep"}, "ci", now.Add(-9 * time.Hour), "1 keep exempt", "keep-label", ""},
		{"two", []string{"keep", "x"}, "ci", now.Add(-9 * time.Hour), "1 keep exempt", "keep-label, second", ""},
		{"an error keeps", []string{"a"}, "ci", now.Add(-9 * time.Hour), "1 keep exempt_error", "", "second: index out of bounds: 1"},
		{"the unknown keeps", []string{"a", "b"}, "", time.Time{}, "1 keep exempt_error", "",
			"release: rests on runner.group, which is unknown; young: rests on runner.age, which is unknown"},
		{"a true one hides no error", []string{"keep"}, "ci", now.Add(-9 * time.Hour), "1 keep exempt+exempt_error", "keep-label", "second: index out of bounds: 1"},
	}
	for _, tt := range tests {
		r := due(1)
		r.Labels, r.Group, r.FirstSeenAt = tt.labels, tt.group, tt.firstSeen
		plan := policies.Decide(p, input(r), now)
		if got := verdicts(plan); got != tt.want {
			t.Errorf("%s: Decide = %q, want %q", tt.name, got, tt.want)
		}
		names, _ := plan.Decisions[0].Evidence["exempt"].(string)
		errs, _ := plan.Decisions[0].Evidence["exempt_error"].(string)
		if names != tt.names || errs != tt.errs {
			t.Errorf("%s: evidence %q and %q, want %q and %q", tt.name, names, errs, tt.names, tt.errs)
		}
		if !cmp.Equal(matched(plan), []int64{1}) {
			t.Errorf("%s: Matched = %v, want 1: an exemption does not break the match", tt.name, matched(plan))
		}
	}
}

func TestReportIsKeptByTheInventoryAlone(t *testing.T) {
	t.Parallel()
	p := load(t, strings.Replace(document(`runner.labels.exists(l, l == "linux")`), "delete_runner", "report", 1))
	r := due(1)
	r.Status, r.Busy, r.OfflineListings, r.OfflineSpan, r.MissingSince = fleet.StatusOnline, true, 0, 0, now
	in := policies.Input{Target: healthy(), Runners: []fleet.Observed{r}, Acted: 1000, ActedLastMinute: 1000}
	in.Target.CredentialFault = "401"
	plan := policies.Decide(p, in, now)
	if got, want := verdicts(plan), "1 act matched+report"; got != want || plan.Decisions[0].Action != fleet.ActionReport {
		t.Errorf("Decide = %q, want %q", got, want)
	}
	in.Target.LastOutcome, in.Target.LastCompleteSyncAt, in.Target.Suspect = fleet.SyncPartial, time.Time{}, fleet.SuspectEmpty
	in.Runners[0].RemovedAt = now
	if got, want := verdicts(policies.Decide(p, in, now)), "1 keep removed+inventory_incomplete+inventory_stale+inventory_suspect"; got != want {
		t.Errorf("Decide = %q, want %q", got, want)
	}
}

func TestOperatorIsHeldByRulesAndRateAlone(t *testing.T) {
	t.Parallel()
	p := policies.Operator()
	fresh := due(1)
	fresh.OfflineFor, fresh.OfflineListings, fresh.OfflineSpan, fresh.OfflineSince = 0, 1, 0, now
	online, busy := fresh, fresh
	online.Status, busy.Busy = fleet.StatusOnline, true
	tests := []struct {
		name   string
		runner fleet.Observed
		change func(*policies.Input)
		want   string
	}{
		{"offline this moment", fresh, func(*policies.Input) {}, "1 act matched"},
		{"the caps are not for it", fresh, func(in *policies.Input) { in.Acted, in.Target.Population = 1000, 1 }, "1 act matched"},
		{"online", online, func(*policies.Input) {}, "1 keep online"},
		{"busy", busy, func(*policies.Input) {}, "1 keep busy"},
		{"rate", fresh, func(in *policies.Input) { in.ActedLastMinute = 10 }, "1 keep rate"},
		{"rate not reached", fresh, func(in *policies.Input) { in.ActedLastMinute = 9 }, "1 act matched"},
		{"stale", fresh, func(in *policies.Input) { in.Target.LastCompleteSyncAt = now.Add(-11 * time.Minute) }, "1 keep inventory_stale"},
		{"incomplete", fresh, func(in *policies.Input) { in.Target.LastOutcome = fleet.SyncFailed }, "1 keep inventory_incomplete"},
		{"any target", fresh, func(in *policies.Input) { in.Target.Name = "zeta" }, "1 act matched"},
	}
	for _, tt := range tests {
		in := policies.Input{Target: healthy(), Runners: []fleet.Observed{tt.runner}}
		tt.change(&in)
		plan := policies.Decide(p, in, now)
		if got := verdicts(plan); got != tt.want {
			t.Errorf("%s: Decide = %q, want %q", tt.name, got, tt.want)
		}
		if d := plan.Decisions[0]; d.Policy != "operator" || d.PolicySHA256 != "" {
			t.Errorf("%s: the decision is of %q with hash %q, want operator without one", tt.name, d.Policy, d.PolicySHA256)
		}
	}
}

func TestEnforcementDecidesWhetherNotWhat(t *testing.T) {
	t.Parallel()
	in := input(due(1), due(2))
	enforce := policies.Decide(load(t, document(longOffline)), in, now)
	audit := policies.Decide(load(t, strings.Replace(document(longOffline), "enforcement: enforce", "enforcement: audit", 1)), in, now)
	if verdicts(enforce) != verdicts(audit) || audit.Decisions[0].Enforcement != fleet.EnforcementAudit {
		t.Errorf("audit decides %q, enforce %q, want the same", verdicts(audit), verdicts(enforce))
	}
	disabled := policies.Decide(load(t, strings.Replace(document(longOffline), "enforcement: enforce", "enforcement: disabled", 1)), in, now)
	if diff := cmp.Diff(policies.Plan{Counts: fleet.Counts{}}, disabled); diff != "" {
		t.Errorf("a disabled policy has a plan (+):\n%s", diff)
	}
}

func TestPolicyDecidesNothingOutsideItsTargets(t *testing.T) {
	t.Parallel()
	in := input(due(1))
	in.Target.Name = "gamma"
	if got := verdicts(policies.Decide(load(t, document(longOffline)), in, now)); got != "" {
		t.Errorf("Decide for a target of others = %q, want nothing", got)
	}
	all := strings.Replace(strings.Replace(document(longOffline), "delete_runner", "report", 1), "[acme, beta]", "[all]", 1)
	if got := verdicts(policies.Decide(load(t, all), in, now)); got != "1 act matched+report" {
		t.Errorf("a report on all targets = %q", got)
	}
}

func TestDecisionCarriesItsEvidence(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline))
	in := input(due(7))
	in.Acted, in.ActedLastMinute, in.State.Allowance = 2, 1, 3
	plan := policies.Decide(p, in, now)
	want := []fleet.Decision{{
		At: now, Policy: "reap", PolicySHA256: p.SHA256, Enforcement: fleet.EnforcementEnforce, Target: "acme",
		RunnerID: 7, Name: "runner-7", Verdict: fleet.VerdictAct, Action: fleet.ActionDeleteRunner, Reasons: []string{"matched"},
		Evidence: fleet.Evidence{
			"status": "offline", "busy": false, "population": 1000,
			"inventory_outcome": "complete", "inventory_age_seconds": int64(60), "inventory_max_age_seconds": int64(600),
			"offline_since": "2026-03-01T21:26:53Z", "offline_for": "300h", "offline_for_seconds": int64(1_080_000),
			"last_online_at": "2026-03-01T20:26:53Z",
			"listings":       900, "span_seconds": int64(1_076_400), "listings_wanted": 2, "span_wanted_seconds": int64(120),
			"matched_since": "2026-03-12T09:26:53Z", "grace_until": "2026-03-13T09:26:53Z",
			"due": 1, "rate_per_minute": 10, "acted_last_minute": 1,
			"max_count": 5, "max_percent": 10, "min_population": 0, "max_window_seconds": int64(3600), "acted_in_window": 2,
			"allowance": 3, "allowed": 6,
		},
	}}
	if diff := cmp.Diff(want, plan.Decisions); diff != "" {
		t.Errorf("decisions, want (-) got (+):\n%s", diff)
	}
}

func TestEvidenceHoldsPlainValuesOnly(t *testing.T) {
	t.Parallel()
	r := due(1)
	r.Busy, r.MissingSince, r.RemovedAt, r.LastBusyAt = true, now, now, now
	in := input(r)
	in.Target.Suspect, in.Target.CredentialFault = fleet.SuspectEmpty, "401"
	for key, v := range policies.Decide(load(t, document(longOffline)), in, now).Decisions[0].Evidence {
		switch v.(type) {
		case string, bool, int, int64, float64:
		default:
			t.Errorf("evidence %s is a %T", key, v)
		}
	}
}
