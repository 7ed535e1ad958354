package policies_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// codes are the reasons of reasons.go.
func codes(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ast.Inspect(f, func(node ast.Node) bool {
		if spec, ok := node.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Reason") {
			code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, code)
		}
		return true
	})
	return all
}

func TestEveryReasonHasWords(t *testing.T) {
	t.Parallel()
	for _, code := range codes(t) {
		if w := policies.InWords(code, nil); w.Says == code || w.Says == "" {
			t.Errorf("%s has no words", code)
		}
	}
}

// Words about evidence that need not be there leave it out.
func TestWordsLeaveOutWhatIsNotThere(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{
		policies.ReasonMatchError, policies.ReasonMissing, policies.ReasonUnreadable, policies.ReasonRefused,
		policies.ReasonCredential, policies.ReasonInventorySuspect, policies.ReasonInventoryStale,
	} {
		if w := policies.InWords(reason, nil); strings.Contains(w.Says, "?") {
			t.Errorf("%s without evidence: %q", reason, w.Says)
		}
	}
	w := policies.InWords(policies.ReasonInventoryStale, nil)
	if w.Says != "there has been no complete sync yet" {
		t.Errorf("an inventory without an age: %q", w.Says)
	}
	w = policies.InWords(policies.ReasonHold, fleet.Evidence{"hold_by": "otto", "hold_reason": "disk", "hold_until": "tomorrow"})
	if w.Says != "otto holds it until tomorrow: disk" {
		t.Errorf("a hold with an end: %q", w.Says)
	}
}

// What the words quote is what the evidence has: no decision is put in words
// with a gap.
func TestWordsQuoteTheEvidence(t *testing.T) {
	t.Parallel()
	p := load(t, document(longOffline+"\n  exempt: {keep: '\"keep\" in runner.labels', odd: 'runner.group == \"7\"'}"))
	tests := []struct {
		change func(*policies.Input, *fleet.Observed)
		reason string
		want   policies.Words
	}{
		{func(in *policies.Input, r *fleet.Observed) { in.MatchedSince[r.ID] = now.Add(-time.Hour) }, policies.ReasonGrace,
			policies.Words{Says: "its grace has run since 2026-03-14T08:26:53Z", Needs: "it has to match without a break until 2026-03-15T08:26:53Z"}},
		{func(_ *policies.Input, r *fleet.Observed) { r.Labels = []string{"keep"} }, policies.ReasonExempt,
			policies.Words{Says: "it is exempt: keep", Needs: "no exemption may hold"}},
		{func(in *policies.Input, _ *fleet.Observed) { in.Target.LastCompleteSyncAt = now.Add(-14 * time.Minute) }, policies.ReasonInventoryStale,
			policies.Words{Says: "the last complete sync is 14m old, and 10m is the most", Needs: "a complete sync has to come"}},
		{func(_ *policies.Input, r *fleet.Observed) { r.OfflineListings = 1 }, policies.ReasonWitnessListings,
			policies.Words{Says: "1 complete listing saw it offline, and 2 are wanted", Needs: "more of them have to see it offline"}},
		{func(_ *policies.Input, r *fleet.Observed) {
			r.Work = fleet.Work{OpenJob: 41, OpenSince: now.Add(-time.Hour)}
		}, policies.ReasonOpenJob, policies.Words{
			Says:  "GitHub's events say that workflow job 41 runs on it since 2026-03-14T08:26:53Z",
			Needs: "the event of the job's end has to come, or five days have to pass",
		}},
		{func(_ *policies.Input, r *fleet.Observed) {
			r.Refused = fleet.Refused{Deliveries: 2, Since: now.Add(-time.Hour), Until: now}
		}, policies.ReasonRefused, policies.Words{
			Says:  "deliveries of GitHub's webhook were refused since 2026-03-14T08:26:53Z, so a workflow job may run on it that muster has not heard of",
			Needs: "GitHub has to deliver them again, or a comparison of workflow jobs has to come to its end: see muster doctor",
		}},
		{func(_ *policies.Input, r *fleet.Observed) {
			r.Hold = fleet.Hold{Reason: "ticket 4711", By: "otto", At: now}
		}, policies.ReasonHold, policies.Words{
			Says: "otto holds it until it is lifted: ticket 4711", Needs: "the hold has to end, or be lifted with muster unhold",
		}},
	}
	for _, tt := range tests {
		r := due(7)
		in := input(r)
		tt.change(&in, &in.Runners[0])
		plan := policies.Decide(p, in, now)
		if len(plan.Decisions) != 1 {
			t.Fatalf("%s: %+v", tt.reason, plan)
		}
		for _, reason := range plan.Decisions[0].Reasons {
			got := policies.InWords(reason, plan.Decisions[0].Evidence)
			if strings.Contains(got.Says+got.Needs, "?") {
				t.Errorf("%s in words has a gap: %+v", reason, got)
			}
			if reason == tt.reason && got != tt.want {
				t.Errorf("%s: %+v, want %+v", reason, got, tt.want)
			}
		}
		if !strings.Contains(strings.Join(plan.Decisions[0].Reasons, " "), tt.reason) {
			t.Errorf("reasons %v, want %s", plan.Decisions[0].Reasons, tt.reason)
		}
	}
}
