package fleet_test

import (
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

func TestCauseOfRemoval(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	gone := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return gone.Add(-d) }
	// A runner that was online two minutes before it was found gone.
	seen := fleet.Removal{At: gone, LastSeenAt: ago(2 * time.Minute), LastThereAt: ago(2 * time.Minute)}
	of := func(change func(*fleet.Removal)) fleet.Removal {
		r := seen
		change(&r)
		return r
	}
	away := func(d time.Duration, ephemeral bool, server string) fleet.Removal {
		return of(func(r *fleet.Removal) {
			r.Offline, r.LastThereAt, r.Ephemeral, r.ServerVersion = true, ago(d), ephemeral, server
		})
	}
	tests := []struct {
		name    string
		removal fleet.Removal
		want    fleet.RemovalCause
	}{
		{"nothing is known", fleet.Removal{At: gone}, fleet.CauseUnknown},
		{"it was there a moment ago", seen, fleet.CauseUnknown},

		{"ephemeral, its job completed", of(func(r *fleet.Removal) {
			r.Ephemeral, r.Work.LastDoneAt = true, ago(time.Minute)
		}), fleet.CauseEphemeral},
		{"ephemeral, its job runs as far as anybody told", of(func(r *fleet.Removal) {
			r.Ephemeral, r.Work.OpenJob, r.Work.OpenSince = true, 7, ago(5*time.Hour)
		}), fleet.CauseEphemeral},
		{"ephemeral, the end of its job was lost", of(func(r *fleet.Removal) {
			r.Ephemeral, r.Work.OpenJob, r.Work.OpenSince = true, 7, ago(6*day)
		}), fleet.CauseUnknown},
		{"ephemeral, busy when last seen, no event at all", of(func(r *fleet.Removal) {
			r.Ephemeral, r.LastBusyAt = true, ago(2*time.Minute)
		}), fleet.CauseEphemeral},
		{"ephemeral, it never worked", of(func(r *fleet.Removal) { r.Ephemeral = true }), fleet.CauseUnknown},
		{"ephemeral, there for hours after its job", of(func(r *fleet.Removal) {
			r.Ephemeral, r.Work.LastDoneAt = true, ago(3*time.Hour)
		}), fleet.CauseUnknown},
		{"persistent, its job completed", of(func(r *fleet.Removal) { r.Work.LastDoneAt = ago(time.Minute) }), fleet.CauseUnknown},
		{"ephemeral with a host that holds a removal token", of(func(r *fleet.Removal) {
			r.Ephemeral, r.Work.LastDoneAt, r.TokenAt, r.TokenUntil = true, ago(time.Minute), ago(time.Minute), gone.Add(time.Hour)
		}), fleet.CauseEphemeral},

		{"its host held a removal token", of(func(r *fleet.Removal) { r.TokenAt, r.TokenUntil = ago(time.Minute), gone.Add(time.Hour) }), fleet.CauseHost},
		{"that had expired when it was last seen", of(func(r *fleet.Removal) { r.TokenAt, r.TokenUntil = ago(2*time.Hour), ago(time.Hour) }), fleet.CauseUnknown},
		{"that was given out later", of(func(r *fleet.Removal) { r.TokenAt, r.TokenUntil = gone.Add(time.Minute), gone.Add(time.Hour) }), fleet.CauseUnknown},
		{"its host had just stopped it", of(func(r *fleet.Removal) { r.StoppedAt = ago(10 * time.Minute) }), fleet.CauseHost},
		{"its host had stopped it long ago", of(func(r *fleet.Removal) { r.StoppedAt = ago(2 * time.Hour) }), fleet.CauseUnknown},
		{"its host says so only now", of(func(r *fleet.Removal) { r.StoppedAt = gone.Add(time.Minute) }), fleet.CauseUnknown},

		{"away for 14 days", away(14*day, false, ""), fleet.CauseGitHub},
		{"away for a little less", away(14*day-time.Second, false, ""), fleet.CauseUnknown},
		{"ephemeral, away for a day", away(day, true, ""), fleet.CauseGitHub},
		{"away for 14 days on GHES 3.7", away(14*day, false, "3.7.2"), fleet.CauseGitHub},
		{"away for 14 days on GHES 3.6", away(14*day, false, "3.6.10"), fleet.CauseUnknown},
		{"away for 30 days on GHES 3.6", away(30*day, false, "3.6.10"), fleet.CauseGitHub},
		{"ephemeral, away for a day on GHES 3.6", away(day, true, "3.6.10"), fleet.CauseUnknown},
		{"on GHES 3.14", away(day, true, "3.14.0"), fleet.CauseGitHub},
		{"ephemeral, its host died at work", of(func(r *fleet.Removal) {
			r.Ephemeral, r.Offline, r.LastBusyAt, r.LastThereAt = true, true, ago(25*time.Hour), ago(25*time.Hour)
		}), fleet.CauseGitHub},
		{"not seen online for long, and not offline", of(func(r *fleet.Removal) { r.LastThereAt = ago(20 * day) }), fleet.CauseUnknown},
	}
	for _, tt := range tests {
		if got := fleet.CauseOfRemoval(tt.removal); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
