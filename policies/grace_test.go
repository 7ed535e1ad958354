package policies_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// Grace begins no earlier than the runner went offline (issue 10): a mark from
// a time when it was online, or offline once before, counts nothing.
func TestGraceBeginsWhenTheRunnerGoesOffline(t *testing.T) {
	t.Parallel()
	const grace = 24 * time.Hour
	p := load(t, document(longOffline))
	longAgo := now.Add(-1000 * time.Hour)
	tests := []struct {
		name   string
		marked time.Time
		change func(r *fleet.Observed)
		want   string
		since  time.Time
	}{
		{"offline for just the grace", longAgo, func(r *fleet.Observed) { r.OfflineSince = now.Add(-grace) }, "1 act matched", now.Add(-grace)},
		{"offline for less than the grace", longAgo, func(r *fleet.Observed) { r.OfflineSince = now.Add(-grace + 1) }, "1 keep grace", now.Add(-grace + 1)},
		{"offline for two minutes", longAgo, func(r *fleet.Observed) { r.OfflineSince = now.Add(-2 * time.Minute) }, "1 keep grace", now.Add(-2 * time.Minute)},
		{"marked later than it went offline", now.Add(-grace), func(*fleet.Observed) {}, "1 act matched", now.Add(-grace)},
		{"offline since nobody knows when", longAgo, func(r *fleet.Observed) { r.OfflineSince = time.Time{} }, "", time.Time{}},
	}
	for _, tt := range tests {
		r := due(1)
		tt.change(&r)
		in := input(r)
		in.MatchedSince[1] = tt.marked
		plan := policies.Decide(p, in, now)
		if got := verdicts(plan); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if got := plan.Marks[1]; !got.Equal(tt.since) {
			t.Errorf("%s: the mark to store is %v, want %v", tt.name, got, tt.since)
		}
		if tt.want == "1 keep grace" {
			until := tt.since.Add(grace).Format(time.RFC3339)
			if got := plan.Decisions[0].Evidence["grace_until"]; got != until {
				t.Errorf("%s: grace_until = %v, want %s", tt.name, got, until)
			}
		}
	}
}

// An online runner that matches gathers no grace, and neither does one of which
// nobody knows since when it is offline.
func TestNoGraceRunsOnline(t *testing.T) {
	t.Parallel()
	online := due(1)
	online.Status, online.OfflineSince, online.OfflineFor = fleet.StatusOnline, time.Time{}, 0
	unknown := due(2)
	unknown.OfflineSince = time.Time{}
	stale := due(3)
	stale.Status = fleet.StatusOnline // its OfflineSince is of before
	in := input(online, unknown, stale)
	p := policies.Operator() // matches whatever it is given
	p.Guards.Grace = time.Hour
	plan := policies.Decide(p, in, now)
	if diff := cmp.Diff(map[int64]time.Time{1: now, 2: now, 3: now}, plan.Marks); diff != "" {
		t.Errorf("marks (-want +got):\n%s", diff)
	}
	if got := verdicts(plan); got != "1 keep online+grace; 2 keep grace; 3 keep online+grace" {
		t.Error(got)
	}
}

// A drain takes runners that are online, and a report touches nobody: their
// grace counts from the match on.
func TestGraceOfOthersCountsFromTheMatch(t *testing.T) {
	t.Parallel()
	r := due(1)
	r.OfflineSince = now.Add(-time.Hour)
	in := input(r)
	for _, p := range []*policies.Policy{
		load(t, reporting("runner.offline_for > duration(\"1h\")")),
		{Name: "drain", Enforcement: fleet.EnforcementEnforce, Action: fleet.ActionDeleteRunner, Drain: true},
	} {
		if got := policies.Decide(p, in, now).Marks[1]; !got.Equal(in.MatchedSince[1]) {
			t.Errorf("%s: mark %v, want %v", p.Name, got, in.MatchedSince[1])
		}
	}
}
