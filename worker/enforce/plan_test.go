package enforce

import (
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
	for _, d := range v.Decisions {
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
	if diff := cmp.Diff(want, v.Decisions[4]); diff != "" {
		t.Errorf("the runner that is not matched (-want +got):\n%s", diff)
	}
	if v.NotMatched != 2 || v.State.Reason != "too many" {
		t.Errorf("%d not matched, state %+v", v.NotMatched, v.State)
	}
	if diff := cmp.Diff(given, plan.Decisions); diff != "" {
		t.Errorf("the plan was changed (-before +after):\n%s", diff)
	}
}
