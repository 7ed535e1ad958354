package fleet_test

import (
	"testing"

	"github.com/muster-fleet/muster/fleet"
)

func TestBrakeTrips(t *testing.T) {
	t.Parallel()
	ten := fleet.Brake{Percent: 10, Min: 3}
	for _, tt := range []struct {
		name  string
		brake fleet.Brake
		alarm fleet.Alarm
		want  bool
	}{
		{"nothing happened", fleet.DefaultBrake, fleet.Alarm{Of: 1000}, false},
		{"nothing there", fleet.DefaultBrake, fleet.Alarm{}, false},
		{"400 of 1,000", fleet.DefaultBrake, fleet.Alarm{Offline: 400, Of: 1000}, true},
		{"just the share", fleet.DefaultBrake, fleet.Alarm{Offline: 200, Of: 1000}, false},
		{"one more", fleet.DefaultBrake, fleet.Alarm{Offline: 201, Of: 1000}, true},
		{"kinds add up", fleet.DefaultBrake, fleet.Alarm{Offline: 100, Missing: 100, Removed: 1, Of: 1000}, true},
		{"all nine of a small fleet", fleet.DefaultBrake, fleet.Alarm{Offline: 9, Of: 9}, false},
		{"all ten of one", fleet.DefaultBrake, fleet.Alarm{Offline: 10, Of: 10}, true},
		{"a forgotten brake is the default", fleet.Brake{}, fleet.Alarm{Offline: 201, Of: 1000}, true},
		{"a forgotten brake has its floor", fleet.Brake{}, fleet.Alarm{Offline: 9, Of: 10}, false},
		{"its own share", ten, fleet.Alarm{Missing: 3, Of: 29}, true},
		{"its own floor", ten, fleet.Alarm{Missing: 2, Of: 3}, false},
		{"all is never more than 100%", fleet.Brake{Percent: 100, Min: 1}, fleet.Alarm{Offline: 50, Of: 50}, false},
		{"no floor", fleet.Brake{Percent: 1}, fleet.Alarm{Removed: 1, Of: 2}, true},
	} {
		if got := tt.brake.Trips(tt.alarm); got != tt.want {
			t.Errorf("%s: %+v trips at %+v: %v, want %v", tt.name, tt.brake, tt.alarm, got, tt.want)
		}
	}
}
