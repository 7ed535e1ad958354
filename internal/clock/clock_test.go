package clock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/clock"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// record is a shared clock and what is known of it, and the process's own
// clock, which no step disturbs.
type record struct {
	fleet.ClockReading
	elapsed time.Duration
	told    []string
	away    error
}

func (r *record) Read(context.Context) (fleet.ClockReading, error) {
	seen := r.ClockReading
	if r.Now.After(r.Newest) {
		r.Newest = r.Now
	}
	return seen, r.away
}

func (r *record) Back(context.Context) (time.Duration, bool, error) {
	by := r.Newest.Sub(r.Now)
	r.told = append(r.told, fmt.Sprint("back ", by))
	r.Newest, r.SteppedAt = r.Now, r.Now
	return by, true, r.away
}

func (r *record) Forward(_ context.Context, by time.Duration) (bool, error) {
	r.told = append(r.told, fmt.Sprint("forward ", by))
	r.SteppedAt = r.Now
	return true, r.away
}

func (r *record) pass(d time.Duration) {
	r.Now = r.Now.Add(d)
	r.elapsed += d
}

func (r *record) step(d time.Duration) { r.Now = r.Now.Add(d) }

func start() (*record, *clock.Watch) {
	r := &record{ClockReading: fleet.ClockReading{Now: noon, Newest: noon}}
	return r, watch(r)
}

// watch is a process that watches the clock.
func watch(r *record) *clock.Watch {
	return &clock.Watch{Log: slog.New(slog.DiscardHandler), Record: r, Elapsed: func() time.Duration { return r.elapsed }}
}

// look looks once, and lets the time pass until the next look.
func look(t *testing.T, r *record, w *clock.Watch) {
	t.Helper()
	wait, err := w.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.pass(wait)
}

func sure(t *testing.T, w *clock.Watch, want bool) {
	t.Helper()
	_, err := w.Sure(t.Context())
	var doubt *clock.InDoubt
	switch {
	case err == nil && !want:
		t.Error("the clock is believed")
	case err != nil && (want || !errors.As(err, &doubt) || !errors.Is(err, fleet.ErrUnavailable)):
		t.Errorf("Sure: %v", err)
	}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		step time.Duration
		want []string
	}{
		{"none", 0, nil},
		{"slewed", 900 * time.Millisecond, nil},
		{"slewed back", -900 * time.Millisecond, nil},
		{"a busy machine", 29 * time.Second, nil},
		{"a leap", 31 * time.Second, []string{"forward 31s"}},
		{"a day ahead", 24 * time.Hour, []string{"forward 24h0m0s"}},
		{"back", -time.Hour, []string{"back 59m53s"}},
	} {
		r, w := start()
		look(t, r, w)
		r.step(tt.step)
		for range 4 {
			look(t, r, w)
		}
		if diff := cmp.Diff(tt.want, r.told); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		sure(t, w, len(tt.want) == 0)
	}
}

func TestAClockThatIsWrongForOneReadingDidNotStep(t *testing.T) {
	t.Parallel()
	r, w := start()
	look(t, r, w)
	r.step(-time.Hour)
	wait, err := w.Look(t.Context())
	if err != nil || len(r.told) > 0 {
		t.Fatalf("one reading is taken for a step: %q, %v", r.told, err)
	}
	sure(t, w, false) // from the first reading on
	r.pass(wait)
	r.step(time.Hour)
	for range 3 {
		look(t, r, w)
	}
	if len(r.told) > 0 {
		t.Errorf("a clock that is back where it was stepped: %q", r.told)
	}
}

func TestDeletionsWaitUntilTheClockHasBeenSteady(t *testing.T) {
	t.Parallel()
	r, w := start()
	look(t, r, w)
	sure(t, w, true)
	r.step(24 * time.Hour)
	sure(t, w, false) // without a look before
	for range 5 {
		look(t, r, w)
	}
	r.pass(clock.Hold - time.Minute)
	sure(t, w, false)

	r.step(-24 * time.Hour)
	for range 5 {
		look(t, r, w)
	}
	r.pass(clock.Hold - time.Minute)
	sure(t, w, false)
	r.pass(time.Minute)
	sure(t, w, true)
	if len(r.told) != 2 {
		t.Errorf("steps: %q, want one ahead and one back", r.told)
	}
}

func TestAProcessThatStartsKnowsOfTheStep(t *testing.T) {
	t.Parallel()
	r, w := start()
	look(t, r, w)
	r.step(24 * time.Hour)
	look(t, r, w)
	look(t, r, w)
	r.pass(10 * time.Minute)
	next := watch(r)
	sure(t, next, false)
	r.pass(4 * time.Minute)
	sure(t, next, false)
	r.pass(time.Minute)
	sure(t, next, true)

	// The clock goes back while nobody is there.
	r.step(-24 * time.Hour)
	last := watch(r)
	look(t, r, last)
	look(t, r, last)
	if len(r.told) != 2 || r.Newest.After(r.Now) {
		t.Errorf("steps: %q, want the one back too", r.told)
	}
}

func TestAStepThatAnotherReplicaRecordedIsNotRecordedAgain(t *testing.T) {
	t.Parallel()
	r, w := start()
	other := watch(r)
	look(t, r, w)
	look(t, r, other)
	r.step(-time.Hour)
	look(t, r, w)
	look(t, r, w)
	if len(r.told) != 1 {
		t.Fatalf("steps: %q", r.told)
	}
	sure(t, other, false)
}

func TestRunNeedsARecordAndOutlivesIt(t *testing.T) {
	t.Parallel()
	if err := (&clock.Watch{}).Run(t.Context()); err == nil {
		t.Error("Run without a record works")
	}
	r, w := start()
	r.away = fleet.ErrUnavailable
	if _, err := w.Look(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Look while the record is away: %v", err)
	}
	if _, err := w.Sure(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Sure while the record is away: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}
