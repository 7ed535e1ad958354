package enforce

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

func TestPreviewSpeaksOfEveryRunnerOnce(t *testing.T) {
	t.Parallel()
	p := &policies.Policy{Name: "reap", SHA256: "5e", Enforcement: fleet.EnforcementAudit, Action: fleet.ActionDeleteRunner}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	decided := func(id int64, name string, v fleet.Verdict) fleet.Decision {
		return fleet.Decision{RunnerID: id, Name: name, Verdict: v}
	}
	plan := policies.Plan{Decisions: []fleet.Decision{
		decided(1, "b", fleet.VerdictKeep), decided(2, "z", fleet.VerdictAct), decided(3, "y", fleet.VerdictHalt), decided(4, "a", fleet.VerdictAct),
	}}
	given := slices.Clone(plan.Decisions)
	in := policies.Input{State: fleet.PolicyState{Halted: true, Reason: "too many"}}
	for id, name := range []string{1: "b", 2: "z", 3: "y", 4: "a", 5: "d", 6: "c"} {
		if id > 0 {
			in.Runners = append(in.Runners, fleet.Observed{Runner: fleet.Runner{ID: int64(id), Name: name, Status: fleet.StatusOnline, Busy: true}})
		}
	}
	v := preview(p, "acme", in, plan, now)

	var names []string
	all := slices.Collect(v.Decisions())
	for _, d := range all {
		names = append(names, string(d.Verdict)+" "+d.Name)
	}
	if diff := cmp.Diff([]string{"act a", "act z", "halt y", "keep b", "keep c", "keep d"}, names); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
	want := fleet.Decision{
		At: now, Policy: "reap", PolicySHA256: "5e", Enforcement: fleet.EnforcementAudit, Target: "acme", RunnerID: 6, Name: "c",
		Verdict: fleet.VerdictKeep, Action: fleet.ActionDeleteRunner, Reasons: []string{policies.ReasonNotMatched},
		Evidence: fleet.Evidence{"status": "online", "busy": true},
	}
	if diff := cmp.Diff(want, all[4]); diff != "" {
		t.Errorf("the runner that is not matched (-want +got):\n%s", diff)
	}
	if v.NotMatched != 2 || v.State.Reason != "too many" {
		t.Errorf("%d not matched, state %+v", v.NotMatched, v.State)
	}
	if diff := cmp.Diff(given, plan.Decisions); diff != "" {
		t.Errorf("the plan was changed (-before +after):\n%s", diff)
	}
}

func TestPreviewByGroupsAndLimits(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := &policies.Policy{Name: "reap", Action: fleet.ActionDeleteRunner, Guards: policies.Guards{
		Max: policies.Max{Count: 5, Percent: 100, Window: 24 * time.Hour}, Rate: 10, MinSurvivors: 2,
	}}
	var plan policies.Plan
	add := func(n int, v fleet.Verdict, survivors int, reasons ...string) {
		for range n {
			id := int64(len(plan.Decisions) + 1)
			plan.Decisions = append(plan.Decisions, fleet.Decision{
				RunnerID: id, Name: fmt.Sprintf("r%02d", id), Verdict: v, Reasons: reasons, Evidence: fleet.Evidence{"survivors": survivors},
			})
		}
	}
	add(2, fleet.VerdictKeep, 9, policies.ReasonGrace)
	add(7, fleet.VerdictKeep, 9, policies.ReasonExempt, policies.ReasonGrace)
	add(1, fleet.VerdictKeep, 3, policies.ReasonRate)
	add(1, fleet.VerdictAct, 9, policies.ReasonMatched)
	in := policies.Input{Target: fleet.TargetState{Population: 40}, Acted: 2, ActedLastMinute: 1, Alarm: fleet.Alarm{Offline: 8, Of: 40}}
	for id := range int64(20) {
		in.Runners = append(in.Runners, fleet.Observed{Runner: fleet.Runner{ID: id + 1, Name: fmt.Sprintf("r%02d", id+1)}})
	}
	v := preview(p, "acme", in, plan, now)
	want := []Group{
		{fleet.VerdictAct, []string{"matched"}, 1, []string{"r11"}},
		{fleet.VerdictKeep, []string{"exempt", "grace"}, 7, []string{"r03", "r04", "r05", "r06", "r07"}},
		{fleet.VerdictKeep, []string{"grace"}, 2, []string{"r01", "r02"}},
		{fleet.VerdictKeep, []string{"rate"}, 1, []string{"r10"}},
		{fleet.VerdictKeep, []string{"not_matched"}, 9, []string{"r12", "r13", "r14", "r15", "r16"}},
	}
	if diff := cmp.Diff(want, v.Groups()); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	limits := []Limit{
		{"max", "2 of 5 in 24h used, 2 due now", true},
		{"rate", "1 of 10 in the last minute used, 2 due now", false},
		{"min_survivors", "3 online where fewest are beside one that matches, 2 must remain", false},
		{"brake", "8 of 40 runners went dark lately, 9 may", true},
	}
	if diff := cmp.Diff(limits, v.Limits()); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	report := &policies.Policy{Name: "old", Action: fleet.ActionReport}
	if l := preview(report, "acme", in, plan, now).Limits(); l != nil {
		t.Errorf("limits of a report: %v", l)
	}
}
