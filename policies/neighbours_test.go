package policies_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// online is a runner at work, with labels.
func online(id int64, labels ...string) fleet.Observed {
	r := due(id)
	r.Status, r.OfflineSince, r.OfflineFor, r.LastOnlineAt, r.Labels = fleet.StatusOnline, time.Time{}, 0, now, labels
	return r
}

func TestSurvivorsHaveTheSameLabels(t *testing.T) {
	t.Parallel()
	p := load(t, freezing("min_survivors: 2"))
	missing, removed := online(8, "linux"), online(9, "linux")
	missing.MissingSince, removed.RemovedAt = now, now
	tests := []struct {
		name   string
		others []fleet.Observed
		want   string
	}{
		{"enough", []fleet.Observed{online(2, "linux"), online(3, "linux")}, "1 act matched"},
		{"none", nil, "1 keep min_survivors"},
		{"one of them", []fleet.Observed{online(2, "linux")}, "1 keep min_survivors"},
		{"others have more labels or less", []fleet.Observed{online(2, "gpu", "linux"), online(3), online(4, "linux")}, "1 keep min_survivors"},
		{"others are offline too", []fleet.Observed{due(2), due(3), online(4, "linux")}, "1 keep min_survivors; 2 keep min_survivors; 3 keep min_survivors"},
		{"others are missing or removed", []fleet.Observed{online(2, "linux"), missing, removed}, "1 keep min_survivors"},
	}
	for _, tt := range tests {
		plan := policies.Decide(p, input(append(tt.others, due(1))...), now)
		if got := verdicts(plan); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	unlabelled := due(1)
	unlabelled.Labels = nil
	plan := policies.Decide(p, input(unlabelled, online(2), online(3)), now)
	if got := verdicts(plan); got != "1 keep min_survivors" {
		t.Errorf("labels that are not known: %q, want no survivors", got)
	}
	plan = policies.Decide(p, input(due(1), online(2, "linux")), now)
	if e := plan.Decisions[0].Evidence; e["survivors"] != 1 || e["min_survivors"] != 2 {
		t.Errorf("the evidence has survivors %v of %v, want 1 of 2", e["survivors"], e["min_survivors"])
	}
}

// Who looks at one runner again gives what stands around it; who forgets to
// gets nobody deleted.
func TestOneRunnerAloneNeedsItsNeighbours(t *testing.T) {
	t.Parallel()
	p := load(t, freezing("min_survivors: 2"))
	if !p.LooksAround() || load(t, document(longOffline)).LooksAround() {
		t.Errorf("LooksAround is not what min_survivors says")
	}
	in := input(due(1))
	if got := verdicts(policies.Decide(p, in, now)); got != "1 keep min_survivors" {
		t.Errorf("without neighbours: %q, want it kept", got)
	}
	in.Neighbours = map[int64]fleet.Neighbours{1: {Alike: 2}}
	if got := verdicts(policies.Decide(p, in, now)); got != "1 act matched" {
		t.Errorf("with two alike: %q, want act", got)
	}
}

func TestNewerRegistrationsCameAfterTheRunnerWasLastThere(t *testing.T) {
	t.Parallel()
	p := load(t, reporting(`runner.newer_registrations > 0`))
	old := due(1)
	old.Host, old.LastOnlineAt = "build-01", now.Add(-48*time.Hour)
	after, before, beside := online(2), online(3), online(4)
	after.Host, after.FirstSeenAt = "build-01", now.Add(-47*time.Hour)
	before.Host, before.FirstSeenAt = "build-01", now.Add(-49*time.Hour)
	beside.Host, beside.FirstSeenAt = "build-02", now.Add(-47*time.Hour)
	gone, missing, hostless, never := after, after, old, old
	gone.RemovedAt, missing.MissingSince, hostless.Host = now, now, ""
	never.LastOnlineAt, never.FirstSeenAt = time.Time{}, now.Add(-47*time.Hour)
	tests := []struct {
		name   string
		runner fleet.Observed
		others []fleet.Observed
		want   string
	}{
		{"registered after it went away", old, []fleet.Observed{after}, "1 act matched+report"},
		{"registered while it was there: a host of several runners", old, []fleet.Observed{before}, ""},
		{"another host", old, []fleet.Observed{beside}, ""},
		{"a newer one that is gone again", old, []fleet.Observed{gone, missing}, ""},
		{"nobody else", old, nil, ""},
		{"its host is not known", hostless, []fleet.Observed{after}, ""},
		{"never online, and of the same moment", never, []fleet.Observed{after}, ""},
	}
	for _, tt := range tests {
		plan := policies.Decide(p, policies.Input{Target: healthy(), Runners: append(tt.others, tt.runner)}, now)
		if got := verdicts(plan); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	in := policies.Input{Target: healthy(), Runners: []fleet.Observed{old}, Neighbours: map[int64]fleet.Neighbours{1: {Newer: 3}}}
	d := policies.Decide(p, in, now).Decisions[0]
	if d.Evidence["newer_registrations"] != 3 || d.Evidence["host"] != "build-01" {
		t.Errorf("the evidence has %v newer registrations of host %v, want 3 of build-01", d.Evidence["newer_registrations"], d.Evidence["host"])
	}
}

func TestMatchAndExemptionsLookAround(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		reporting(`runner.newer_registrations > 0`): true,
		reporting(`runner.busy`):                    false,
		strings.Replace(reporting(`runner.busy`), "  match:", "  exempt: {a: 'runner.newer_registrations == 0'}\n  match:", 1): true,
	} {
		if got := load(t, text).LooksAround(); got != want {
			t.Errorf("LooksAround = %t, want %t for\n%s", got, want, text)
		}
	}
	if policies.Operator().LooksAround() {
		t.Errorf("the operator's policy looks around")
	}
}
