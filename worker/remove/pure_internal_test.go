package remove

import (
	"errors"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// Under one lease lie, one after another, what is tried, the reading of what
// became of it, and the recording; two seconds are left for the decision.
func TestALeaseOutlastsAllThatIsDoneUnderIt(t *testing.T) {
	t.Parallel()
	if left := lease - attempt - reading - outcome; left != 2*time.Second {
		t.Errorf("%s of the lease are left, want 2s", left)
	}
	if answering != 5*time.Second {
		t.Errorf("a host has %s to answer, want the 5s of docs/policies.md", answering)
	}
}

func TestAlarmSince(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		name   string
		last   time.Time // the policy ran last
		looked time.Time // an operator looked last
		want   time.Time
	}{
		{"within the window", ago(time.Minute), time.Time{}, ago(15 * time.Minute)},
		{"before the window", ago(16 * time.Minute), time.Time{}, ago(16 * time.Minute)},
		{"as long ago as observation reaches", ago(time.Hour), time.Time{}, ago(time.Hour)},
		{"longer ago", ago(time.Hour + 1), time.Time{}, ago(15 * time.Minute)},
		{"never", time.Time{}, time.Time{}, ago(15 * time.Minute)},
		{"an operator looked within the window", ago(time.Minute), ago(5 * time.Minute), ago(5 * time.Minute)},
		{"an operator looked after the last run", ago(time.Hour), ago(30 * time.Minute), ago(30 * time.Minute)},
		{"an operator looked before the window", ago(time.Minute), ago(20 * time.Minute), ago(15 * time.Minute)},
	} {
		in := policies.Input{
			State:  fleet.PolicyState{LastRunAt: tt.last, BrakeFrom: tt.looked},
			Target: fleet.TargetState{Target: fleet.Target{MaxObservationGap: time.Hour}},
			Brake:  fleet.Brake{Window: 15 * time.Minute},
		}
		if got := alarmSince(in, now); !got.Equal(tt.want) {
			t.Errorf("%s: %s ago, want %s ago", tt.name, now.Sub(got), now.Sub(tt.want))
		}
	}
}

func TestCauseOfARemoval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		state  fleet.ActionState
		reason string
		policy string
		want   fleet.RemovalCause
	}{
		{fleet.ActionDone, "", "reap", fleet.CausePolicy},
		{fleet.ActionDone, "", policies.OperatorName, fleet.CauseOperator},
		{fleet.ActionDone, "", policies.ScaleDownName, fleet.CauseScaleDown},
		{fleet.ActionGone, "", "reap", fleet.CauseUnknown},
		{fleet.ActionGone, ReasonInterrupted, policies.OperatorName, fleet.CauseUnknown},
		{fleet.ActionGone, ReasonUnanswered, "reap", fleet.CausePolicy},
		{fleet.ActionGone, ReasonUnanswered, policies.ScaleDownName, fleet.CauseScaleDown},
	} {
		if got := causeOf(fleet.Action{State: tt.state, Reason: tt.reason, Policy: tt.policy}); got != tt.want {
			t.Errorf("%s %s by %s: cause %s, want %s", tt.state, tt.reason, tt.policy, got, tt.want)
		}
	}
}

func TestWhyAnIntentIsNotCarriedOutInWords(t *testing.T) {
	t.Parallel()
	spared := &unconfirmedError{reasons: []string{policies.ReasonHold, ReasonBusy}}
	if got, want := spared.Error(), "the runner is spared: hold, busy"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	away := errors.New("the record is away")
	if got := (&unconfirmedError{cause: away}); got.Error() != away.Error() || !errors.Is(got, away) {
		t.Errorf("%q, want %q", got, away)
	}
}
