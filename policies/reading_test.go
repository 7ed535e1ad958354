package policies_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// readings writes what a policy reads, a clause a line; * is one that decides.
func readings(all []policies.Reading) string {
	var text strings.Builder
	for _, r := range all {
		fmt.Fprintf(&text, "%s%s\n", strings.TrimLeft(r.Name+": ", ": "), r.Answer)
		for _, c := range r.Clauses {
			mark := " "
			if c.Decides {
				mark = "*"
			}
			fmt.Fprintf(&text, "%s %s %s", mark, c.Answer, c.Text)
			if len(c.Known) > 0 {
				fmt.Fprintf(&text, " (%s)", strings.Join(c.Known, ", "))
			}
			text.WriteString("\n")
		}
	}
	return text.String()
}

func TestRead(t *testing.T) {
	t.Parallel()
	young := due(7)
	young.OfflineFor = 26 * time.Hour
	online := due(7)
	online.Status, online.OfflineSince = fleet.StatusOnline, time.Time{}
	short, unlabelled := online, due(7)
	short.Ephemeral, short.OS, short.Host = fleet.No, "", "build-7"
	unlabelled.Labels = nil
	large := due(7)
	large.Name = strings.Repeat("x", 300)
	const exempt = "\n  exempt: {keep: '\"keep\" in runner.labels', old: 'runner.labels[3] == \"x\" || host.silent_for < duration(\"1h\")'}"
	tests := []struct {
		name, policy string
		runner       fleet.Observed
		want         string
	}{
		{"the clause that is not true decides", document(longOffline), young, `
no
  yes runner.status == "offline" (runner.status = "offline")
* no runner.offline_for > duration("168h") (runner.offline_for = 26h)
`},
		{"what is known and what is not", document(longOffline + ` && (runner.ephemeral || runner.os == "x" || runner.newer_registrations > 3)`), short, `
no
* no runner.status == "offline" (runner.status = "online")
  unknown runner.offline_for > duration("168h") (runner.offline_for = unknown)
  unknown runner.ephemeral || runner.os == "x" || runner.newer_registrations > 3 (runner.ephemeral = false, runner.os = unknown, runner.newer_registrations = 0)
`},
		{"labels that are not known", document(longOffline + ` && "x" in runner.labels`), unlabelled, `
unknown
  yes runner.status == "offline" (runner.status = "offline")
  yes runner.offline_for > duration("168h") (runner.offline_for = 300h)
* unknown "x" in runner.labels (runner.labels = unknown)
`},
		{"all decide together", document(longOffline + ` && !runner.busy`), due(7), `
yes
* yes runner.status == "offline" (runner.status = "offline")
* yes runner.offline_for > duration("168h") (runner.offline_for = 300h)
* yes !runner.busy (runner.busy = false)
`},
		{"no is stronger than unknown", document(longOffline), online, `
no
* no runner.status == "offline" (runner.status = "online")
  unknown runner.offline_for > duration("168h") (runner.offline_for = unknown)
`},
		{"either, and what is within one stays together", document(longOffline + ` && (runner.busy || runner.labels.exists(l, l == "linux"))`), due(7), `
yes
* yes runner.status == "offline" (runner.status = "offline")
* yes runner.offline_for > duration("168h") (runner.offline_for = 300h)
* yes runner.busy || runner.labels.exists(l, l == "linux") (runner.busy = false, runner.labels = [linux])
`},
		{"one clause, with params", withParams("teams: [linux, gpu]", `runner.labels.exists(l, l in params.teams)`), due(7), `
yes
* yes runner.labels.exists(l, l in params.teams) (runner.labels = [linux])
`},
		{"exemptions too, with their errors", document(longOffline + exempt), due(7), `
yes
* yes runner.status == "offline" (runner.status = "offline")
* yes runner.offline_for > duration("168h") (runner.offline_for = 300h)
keep: no
* no "keep" in runner.labels (runner.labels = [linux])
old: unknown
  error runner.labels[3] == "x" (runner.labels = [linux], index out of bounds: 3)
* unknown host.silent_for < duration("1h") (host.silent_for = unknown)
`},
		{"a runner that nothing is made for", document(longOffline), large, `
error
* error match (the text "xxxxxxxxxxxxxxxxxxxx"… is longer than the 256 characters that expressions are made for)
`},
	}
	for _, tt := range tests {
		p := load(t, tt.policy)
		got := readings(p.Read(&tt.runner, 0, healthy(), now))
		if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// Whatever the fleet, a reading agrees with the decision, and its clauses with
// the whole.
func TestReadAgreesWithDecide(t *testing.T) {
	t.Parallel()
	fleetOf := largeFleet(200)
	for i := range fleetOf {
		if i%7 == 0 {
			fleetOf[i].Labels = []string{"keep", "linux"}
		}
		if i%11 == 0 {
			fleetOf[i].OfflineSince, fleetOf[i].Version = time.Time{}, ""
		}
	}
	for _, p := range tenPolicies(t) {
		in := input(fleetOf...)
		plan := policies.Decide(p, in, now)
		for i := range fleetOf {
			r := &fleetOf[i]
			all := p.Read(r, 0, in.Target, now)
			_, matched := plan.Marks[r.ID]
			if p.LooksAround() {
				continue // how many registrations are newer is for the caller to count
			}
			if (all[0].Answer == policies.AnswerYes) != matched {
				t.Errorf("%s on %s: read %s, matched %v", p.Name, r.Name, all[0].Answer, matched)
			}
			for _, reading := range all {
				if !slices.ContainsFunc(reading.Clauses, func(c policies.Clause) bool { return c.Decides }) {
					t.Errorf("%s on %s: no clause decides %+v", p.Name, r.Name, reading)
				}
			}
		}
	}
}
