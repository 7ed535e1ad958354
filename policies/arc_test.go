package policies_test

import (
	"math"
	"testing"
	"time"
)

// ARC (actions-runner-controller, in its legacy mode, which sizes fleets by
// itself) has two formulas for the number of runners, both pulled every minute
// by default. They stand here as they are in its source, to be measured beside
// ours: controllers/actions.summerwind.net/autoscaling.go and
// horizontalrunnerautoscaler_controller.go.

// arcQueued is TotalNumberOfQueuedAndInProgressWorkflowRuns: as many as there
// are jobs.
func arcQueued(queued, inProgress int) int { return queued + inProgress }

// arcBusy is PercentageRunnersBusy with its default thresholds and factors: of
// the replicas that were desired before, so many are busy.
func arcBusy(before, busy int) int {
	switch fraction := float64(busy) / float64(before); {
	case fraction >= 0.8:
		return int(math.Ceil(float64(before) * 1.3))
	case fraction < 0.3:
		return int(float64(before) * 0.7)
	}
	return before
}

// arcSize is what both formulas have in common: bounds, and no shrinking for
// ten minutes after the last growth.
type arcSize struct {
	lowest, highest int
	desired         int
	grewAt          time.Time
}

const (
	arcSync  = time.Minute
	arcDelay = 10 * time.Minute
)

func (a *arcSize) take(suggested int, now time.Time) int {
	desired := min(max(suggested, a.lowest), a.highest)
	if desired <= a.desired && !a.grewAt.IsZero() && a.grewAt.Add(arcDelay).After(now) {
		desired = a.desired
	}
	if desired > a.desired {
		a.grewAt = now
	}
	a.desired = desired
	return desired
}

// The baselines do what ARC's users report and its source says.
func TestBaselinesAreARC(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name               string
		before, busy, want int
	}{
		{"80% is busy", 10, 8, 13},
		{"all are", 3, 3, 4},
		{"below 80%", 10, 7, 10},
		{"30% is not below 30%", 10, 3, 10},
		{"below 30%", 10, 2, 7},
		{"one, idle", 1, 0, 0},
		{"saturated, however many wait: it knows of no queue", 1, 1, 2},
		{"none: 0/0 is neither above nor below, so none for ever", 0, 0, 0},
	} {
		if got := arcBusy(tt.before, tt.busy); got != tt.want {
			t.Errorf("%s: arcBusy(%d, %d) = %d, want %d", tt.name, tt.before, tt.busy, got, tt.want)
		}
	}
	// It grows by factors, whatever waits: 1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 34, 45.
	n, minutes := 1, 0
	for ; n < 45; minutes++ {
		n = arcBusy(n, n)
	}
	if n != 45 || minutes != 11 {
		t.Errorf("arcBusy grows from 1 to %d in %d minutes, want 45 in 11", n, minutes)
	}
	if got := arcQueued(3, 4); got != 7 {
		t.Errorf("arcQueued(3, 4) = %d", got)
	}

	a := arcSize{lowest: 1, highest: 20}
	for _, step := range []struct {
		minute, suggested, want int
	}{
		{0, 5, 5},
		{1, 0, 5},   // not within ten minutes
		{9, 50, 20}, // max
		{10, 0, 20}, // the ten minutes begin anew
		{18, 0, 20},
		{19, 0, 1}, // all at once, to min
	} {
		if got := a.take(step.suggested, monday.Add(time.Duration(step.minute)*time.Minute)); got != step.want {
			t.Errorf("minute %d: %d suggested give %d, want %d", step.minute, step.suggested, got, step.want)
		}
	}
}
