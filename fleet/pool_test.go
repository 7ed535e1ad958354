package fleet_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

func TestDemandIsKnownWhileItIsFreshAndWhole(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		asOf  time.Time
		whole bool
		want  fleet.Confidence
	}{
		{time.Time{}, true, fleet.ConfidenceUnknown},
		{now, false, fleet.ConfidenceUnknown},
		{now, true, fleet.ConfidenceKnown},
		{now.Add(-10 * time.Minute), true, fleet.ConfidenceKnown},
		{now.Add(-10*time.Minute - 1), true, fleet.ConfidenceStale},
		{now.Add(-time.Hour), false, fleet.ConfidenceUnknown},
	} {
		if got := fleet.DemandConfidence(tt.asOf, tt.whole, now); got != tt.want {
			t.Errorf("as of %s, whole %v: %s, want %s", tt.asOf, tt.whole, got, tt.want)
		}
	}
}
