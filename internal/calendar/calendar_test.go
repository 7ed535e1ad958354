package calendar_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/internal/calendar"
)

func TestClockReadsTheWall(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, cron, zone, after, want string
	}{
		{"the next one", "0 6 * * *", "UTC", "2026-03-01T05:59:59Z", "2026-03-01T06:00:00Z"},
		{"strictly after", "0 6 * * *", "UTC", "2026-03-01T06:00:00Z", "2026-03-02T06:00:00Z"},
		{"with seconds", "30 0 6 * * *", "UTC", "2026-03-01T06:00:00Z", "2026-03-01T06:00:30Z"},
		{"a zone in winter", "0 6 * * *", "Europe/London", "2026-01-01T00:00:00Z", "2026-01-01T06:00:00Z"},
		{"a zone in summer", "0 6 * * *", "Europe/London", "2026-07-01T00:00:00Z", "2026-07-01T05:00:00Z"},
		{"an hour that the clock jumps over", "30 1 * * *", "Europe/London", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"an hour that comes twice", "30 1 * * *", "Europe/London", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"and only once", "30 1 * * *", "Europe/London", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"every hour that passes", "30 * * * *", "Europe/London", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
		{"a day of four years", "0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
	}
	for _, tt := range tests {
		fields, err := calendar.ParseFields(tt.cron)
		if err != nil {
			t.Fatal(err)
		}
		zone, err := calendar.Zone(tt.zone)
		if err != nil {
			t.Fatal(err)
		}
		after, err := time.Parse(time.RFC3339, tt.after)
		if err != nil {
			t.Fatal(err)
		}
		if got := calendar.NewClock(fields, zone).Next(after).Format(time.RFC3339); got != tt.want {
			t.Errorf("%s: Next(%s) of %q in %s = %s, want %s", tt.name, tt.after, tt.cron, tt.zone, got, tt.want)
		}
	}
}

func TestFieldsAndZonesThatAreNone(t *testing.T) {
	t.Parallel()
	for cron, want := range map[string]string{
		"@daily": "not @", "TZ=UTC 0 6 * * *": "time_zone", "0 0 31 2 *": "never fires", ", * * * *": "", "0 25 * * *": "five fields", "": "five fields",
	} {
		if _, err := calendar.ParseFields(cron); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseFields(%q) = %v, want an error with %q", cron, err, want)
		}
	}
	for _, zone := range []string{"Local", "Mars/Olympus"} {
		if _, err := calendar.Zone(zone); err == nil {
			t.Errorf("Zone(%q) is taken", zone)
		}
	}
}
