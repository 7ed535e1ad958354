package fleet_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		in   string
		want time.Duration // negative: refused
	}{
		{"0", 0},
		{"0s", 0},
		{"90s", 90 * time.Second},
		{"7d", 7 * day},
		{"2w", 14 * day},
		{"1d12h", 36 * time.Hour},
		{"1w1d1h1m1s1ms1us1ns", 8*day + time.Hour + time.Minute + time.Second + time.Millisecond + time.Microsecond + 1},
		{"1.5d", 36 * time.Hour},
		{"9223372036854775807ns", 1<<63 - 1},
		{"", -1},
		{"7", -1},
		{"d", -1},
		{"7x", -1},
		{"-1h", -1},
		{"1h ", -1},
		{" 1h", -1},
		{"1 h", -1},
		{"1e3s", -1},
		{".5h", -1},
		{"300000w", -1},
		{"15000w15000w", -1},
		{"99999999999999999999s", -1},
		{"99999999999999999999.5s", -1},
	}
	for _, tt := range tests {
		got, err := fleet.ParseDuration(tt.in)
		if tt.want < 0 {
			if err == nil {
				t.Errorf("ParseDuration(%q) = %v, want an error", tt.in, got)
			}
		} else if err != nil || got != tt.want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
}
