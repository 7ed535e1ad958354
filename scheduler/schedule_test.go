package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/scheduler"
)

// daily is a good spec for tests to change one thing of.
func daily(change func(*scheduler.Spec)) scheduler.Spec {
	spec := scheduler.Spec{Job: fleet.JobSync, Name: "acme", Cron: "0 6 * * *", Deadline: 10 * time.Minute}
	if change != nil {
		change(&spec)
	}
	return spec
}

func parse(t testing.TB, spec scheduler.Spec) scheduler.Schedule {
	t.Helper()
	s, err := scheduler.Parse(spec)
	if err != nil {
		t.Fatalf("Parse(%+v): %v", spec, err)
	}
	return s
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*scheduler.Spec)
		want   string // in the error
	}{
		{"unknown job", func(s *scheduler.Spec) { s.Job = "scrub" }, `unknown job "scrub"; want one of sync, enforce, scale, housekeep`},
		{"bad name", func(s *scheduler.Spec) { s.Name = "Acme" }, `"Acme" cannot be a name`},
		{"housekeeping by name", func(s *scheduler.Spec) { s.Job = fleet.JobHousekeep }, `job housekeep has no names; want "all"`},
		{"no cron", func(s *scheduler.Spec) { s.Cron = "" }, `cron ""`},
		{"four fields", func(s *scheduler.Spec) { s.Cron = "0 6 * *" }, "want five fields"},
		{"seven fields", func(s *scheduler.Spec) { s.Cron = "0 0 6 * * * 2026" }, "want five fields"},
		{"out of range", func(s *scheduler.Spec) { s.Cron = "60 6 * * *" }, `cron "60 6 * * *": `},
		{"an empty field", func(s *scheduler.Spec) { s.Cron = ", 6 * * *" }, "has an empty entry"},
		{"words", func(s *scheduler.Spec) { s.Cron = "every day at 6 o'clock" }, `cron "every day at 6 o'clock": `},
		{"every", func(s *scheduler.Spec) { s.Cron = "@every 1h" }, "want five fields, or six with leading seconds, not @"},
		{"descriptor", func(s *scheduler.Spec) { s.Cron = "@daily" }, "not @"},
		{"zone in cron", func(s *scheduler.Spec) { s.Cron = "TZ=Europe/London 0 6 * * *" }, "set time_zone"},
		{"only a zone in cron", func(s *scheduler.Spec) { s.Cron = "CRON_TZ=UTC" }, "set time_zone"},
		{"never fires", func(s *scheduler.Spec) { s.Cron = "0 0 31 2 *" }, "never fires"},
		{"unknown zone", func(s *scheduler.Spec) { s.TimeZone = "Europe/Atlantis" }, `time_zone "Europe/Atlantis" is not known`},
		{"the machine's zone", func(s *scheduler.Spec) { s.TimeZone = "Local" }, `time_zone "Local" is not known`},
		{"hours in a zone with summer time", func(s *scheduler.Spec) { s.TimeZone = "Europe/London" }, "set dst: run-once"},
		{"every other hour there", func(s *scheduler.Spec) { s.Cron, s.TimeZone = "0 */2 * * *", "Africa/Casablanca" }, "set dst: run-once"},
		{"unknown dst", func(s *scheduler.Spec) { s.DST = "twice" }, `dst "twice": want run-once`},
		{"no deadline", func(s *scheduler.Spec) { s.Deadline = 0 }, "deadline 0s: want more than 0"},
		{"negative deadline", func(s *scheduler.Spec) { s.Deadline = -time.Second }, "deadline -1s"},
		{"negative jitter", func(s *scheduler.Spec) { s.Jitter = -time.Second }, "jitter -1s: want 0 or more"},
		{"unknown misfire", func(s *scheduler.Spec) { s.Misfire = "all" }, `misfire "all": want once or skip`},
		{"unknown overlap", func(s *scheduler.Spec) { s.Overlap = "kill" }, `overlap "kill": want skip or queue`},
	}
	for _, tt := range tests {
		_, err := scheduler.Parse(daily(tt.change))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "schedule ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", tt.name, err, tt.want)
		}
	}
}

func TestParseTellsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := scheduler.Parse(daily(func(s *scheduler.Spec) { s.Cron, s.Deadline, s.TimeZone = "x", 0, "Nowhere" }))
	if err == nil || strings.Count(err.Error(), "schedule sync/acme: ") != 3 || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("got %v, want three lines", err)
	}
}

func TestParseAccepts(t *testing.T) {
	t.Parallel()
	tests := []func(*scheduler.Spec){
		nil,
		func(s *scheduler.Spec) { s.Cron = "*/5 * * * * *" },
		func(s *scheduler.Spec) { s.Cron = "  0  6 *\t* MON-FRI " },
		func(s *scheduler.Spec) { s.Cron = "0 0 29 2 *" },
		func(s *scheduler.Spec) { s.TimeZone, s.DST = "Europe/London", "run-once" },
		func(s *scheduler.Spec) { s.TimeZone, s.Cron = "Europe/London", "*/5 * * * *" },
		func(s *scheduler.Spec) { s.TimeZone, s.Cron = "Europe/London", "0 0-23 * * *" },
		func(s *scheduler.Spec) { s.TimeZone = "Asia/Tokyo" }, // its clocks have not changed since 1951
		func(s *scheduler.Spec) { s.TimeZone = "America/Sao_Paulo" },
		func(s *scheduler.Spec) { s.DST = "run-once" },
		func(s *scheduler.Spec) { s.Job, s.Name = fleet.JobHousekeep, fleet.All },
		func(s *scheduler.Spec) { s.Misfire, s.Overlap, s.Jitter = "skip", "queue", time.Minute },
	}
	for _, change := range tests {
		spec := daily(change)
		if _, err := scheduler.Parse(spec); err != nil {
			t.Errorf("Parse(%+v): %v", spec, err)
		}
	}
}

func TestTheHashCoversAllThatIsSaid(t *testing.T) {
	t.Parallel()
	base := parse(t, daily(nil))
	if got := parse(t, daily(func(s *scheduler.Spec) {
		s.TimeZone, s.Misfire, s.Overlap, s.Cron = "UTC", "once", "skip", "0  6 * * *"
	})); got.SHA256() != base.SHA256() {
		t.Error("spelling out the defaults changes the hash")
	}
	seen := map[string]string{base.SHA256(): "base"}
	for name, change := range map[string]func(*scheduler.Spec){
		"cron":     func(s *scheduler.Spec) { s.Cron = "0 7 * * *" },
		"zone":     func(s *scheduler.Spec) { s.TimeZone = "Asia/Tokyo" },
		"dst":      func(s *scheduler.Spec) { s.DST = "run-once" },
		"misfire":  func(s *scheduler.Spec) { s.Misfire = "skip" },
		"overlap":  func(s *scheduler.Spec) { s.Overlap = "queue" },
		"deadline": func(s *scheduler.Spec) { s.Deadline = time.Minute },
		"jitter":   func(s *scheduler.Spec) { s.Jitter = time.Minute },
	} {
		sum := parse(t, daily(change)).SHA256()
		if other, twice := seen[sum]; twice {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[sum] = name
	}
	if base.ID() != "sync/acme" {
		t.Errorf("ID() = %q", base.ID())
	}
}

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestNext(t *testing.T) {
	t.Parallel()
	const la, once = "America/Los_Angeles", "run-once"
	tests := []struct {
		name, cron, zone, dst, after string
		want                         []string
	}{
		{"utc", "0 6 * * *", "", "", "2026-03-08T05:59:59Z", []string{"2026-03-08T06:00:00Z", "2026-03-09T06:00:00Z"}},
		{"after is not included", "0 6 * * *", "", "", "2026-03-08T06:00:00Z", []string{"2026-03-09T06:00:00Z"}},
		{"seconds", "*/20 * * * * *", "", "", "2026-03-08T06:00:30.5Z", []string{"2026-03-08T06:00:40Z", "2026-03-08T06:01:00Z"}},
		{"across a century without a leap day", "0 0 29 2 *", "", "", "2096-03-01T00:00:00Z", []string{"2104-02-29T00:00:00Z"}},

		{"a missing reading falls on the jump", "30 2 * * *", la, once, "2026-03-07T20:00:00Z",
			[]string{"2026-03-08T10:00:00Z", "2026-03-09T09:30:00Z"}},
		{"several missing readings fall on it once", "*/10 2 * * *", la, once, "2026-03-08T09:59:59Z",
			[]string{"2026-03-08T10:00:00Z", "2026-03-09T09:00:00Z"}},
		{"the first reading after the jump is the jump", "0 2,3 * * *", la, once, "2026-03-08T09:00:00Z",
			[]string{"2026-03-08T10:00:00Z", "2026-03-09T09:00:00Z"}},
		{"a repeated reading counts once", "30 1 * * *", la, once, "2026-10-31T20:00:00Z",
			[]string{"2026-11-01T08:30:00Z", "2026-11-02T09:30:00Z"}},
		{"asked within the second round", "30 1 * * *", la, once, "2026-11-01T09:10:00Z", []string{"2026-11-02T09:30:00Z"}},
		{"what follows the second round", "0 1,2 * * *", la, once, "2026-11-01T08:00:00Z", []string{"2026-11-01T10:00:00Z"}},

		{"every hour goes on through a jump", "30 * * * *", la, "", "2026-03-08T09:00:00Z",
			[]string{"2026-03-08T09:30:00Z", "2026-03-08T10:30:00Z"}},
		{"every hour goes on through a repeated hour", "30 * * * *", la, "", "2026-11-01T08:00:00Z",
			[]string{"2026-11-01T08:30:00Z", "2026-11-01T09:30:00Z", "2026-11-01T10:30:00Z"}},
		{"the moment of the jump may be a tick", "0 * * * *", la, "", "2026-03-08T09:30:00Z",
			[]string{"2026-03-08T10:00:00Z", "2026-03-08T11:00:00Z"}},
		{"every five minutes, too", "*/5 * * * *", la, once, "2026-11-01T08:55:00Z",
			[]string{"2026-11-01T09:00:00Z", "2026-11-01T09:05:00Z"}},
		{"half an hour of summer time", "15 * * * *", "Australia/Lord_Howe", "", "2026-04-04T14:00:00Z",
			[]string{"2026-04-04T14:15:00Z", "2026-04-04T15:45:00Z", "2026-04-04T16:45:00Z"}},
		{"midnight missing", "0 0 * * *", "Africa/Cairo", once, "2026-04-23T12:00:00Z",
			[]string{"2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"}},
		{"a day missing", "0 6 * * *", "Pacific/Apia", once, "2011-12-29T18:00:00Z",
			[]string{"2011-12-30T10:00:00Z", "2011-12-30T16:00:00Z"}},
		{"days are the zone's", "0 0 1 * *", "Asia/Tokyo", "", "2026-01-01T00:00:00Z", []string{"2026-01-31T15:00:00Z"}},
	}
	for _, tt := range tests {
		s := parse(t, daily(func(s *scheduler.Spec) { s.Cron, s.TimeZone, s.DST = tt.cron, tt.zone, tt.dst }))
		after := at(tt.after)
		for i, want := range tt.want {
			after = s.Next(after)
			if !after.Equal(at(want)) || after.Location() != time.UTC {
				t.Errorf("%s: tick %d of %q in %s is %v, want %s", tt.name, i, tt.cron, tt.zone, after, want)
				break
			}
		}
	}
}

var zones = []string{"UTC", "America/Los_Angeles", "Europe/London", "Australia/Lord_Howe", "Africa/Cairo",
	"America/Havana", "America/St_Johns", "Pacific/Chatham", "Africa/Casablanca", "Asia/Kathmandu"}

// anySchedule draws a schedule that fires often enough to be counted out.
func anySchedule(t *rapid.T, hour string) scheduler.Schedule {
	spec := daily(func(s *scheduler.Spec) {
		s.Cron = fmt.Sprintf("%s %s * * %s", rapid.SampledFrom([]string{"*", "0", "30", "*/7", "5,35", "59"}).Draw(t, "minute"),
			hour, rapid.SampledFrom([]string{"*", "0,6", "1-5"}).Draw(t, "weekday"))
		s.TimeZone, s.DST = rapid.SampledFrom(zones).Draw(t, "zone"), "run-once"
	})
	s, err := scheduler.Parse(spec)
	if err != nil {
		t.Fatalf("Parse(%+v): %v", spec, err)
	}
	return s
}

// anyMoment draws one, close to a change of the zone's clocks where it has any.
func anyMoment(t *rapid.T, zone *time.Location) time.Time {
	moment := time.Unix(rapid.Int64Range(at("2015-01-01T00:00:00Z").Unix(), at("2036-01-01T00:00:00Z").Unix()).Draw(t, "moment"), 0).UTC()
	if _, end := moment.In(zone).ZoneBounds(); !end.IsZero() {
		return end.UTC().Add(time.Duration(rapid.IntRange(-4*60, 4*60).Draw(t, "minutes")) * time.Minute)
	}
	return moment
}

func location(t *rapid.T, s scheduler.Schedule) *time.Location {
	zone, err := time.LoadLocation(s.Spec().TimeZone)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestNextIsStrictlyIncreasingAndAgreesWithItself(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anySchedule(t, rapid.SampledFrom([]string{"*", "*/2", "1", "2", "0", "1-3", "23"}).Draw(t, "hour"))
		after := anyMoment(t, location(t, s))
		for range 50 {
			next := s.Next(after)
			if !next.After(after) {
				t.Fatalf("%+v: Next(%v) = %v", s.Spec(), after, next)
			}
			// Replicas ask at different moments and must find the same ticks.
			between := after.Add(time.Duration(rapid.Int64Range(0, int64(next.Sub(after))-1).Draw(t, "between")))
			if got := s.Next(between); !got.Equal(next) {
				t.Fatalf("%+v: Next(%v) = %v, but Next(%v) = %v", s.Spec(), after, next, between, got)
			}
			after = next
		}
	})
}

// An hour of * is checked against the clock on the wall, minute by minute.
func TestEveryHourMeansEveryMatchingMinuteThatPasses(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anySchedule(t, "*")
		zone := location(t, s)
		after := anyMoment(t, zone)
		wall, err := scheduler.Parse(daily(func(spec *scheduler.Spec) { spec.Cron = s.Spec().Cron }))
		if err != nil {
			t.Fatal(err)
		}
		matches := func(moment time.Time) bool {
			l := moment.In(zone)
			reading := time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), l.Second(), 0, time.UTC)
			return wall.Next(reading.Add(-time.Nanosecond)).Equal(reading)
		}
		want := after.Truncate(time.Minute).Add(time.Minute)
		for limit := want.Add(6 * time.Hour); !matches(want); want = want.Add(time.Minute) {
			if want.After(limit) {
				return // the weekday does not match for long
			}
		}
		if got := s.Next(after); !got.Equal(want) {
			t.Fatalf("%+v: Next(%v) = %v, want %v", s.Spec(), after, got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"0 6 * * *", "*/5 * * * * *", "0 0 31 2 *", "@every 1s", "TZ=UTC", ", * * * * *", "CRON_TZ= * * * * *", "1-0 * * * *",
		"*/0 * * * *", "0 0 ? * ?", "0 0 * JAN mon-FRI", "-1 * * * *", "0-59/9223372036854775807 * * * *", "* * * * * * *"} {
		f.Add(text, "Europe/London")
	}
	f.Add("30 2 * * *", "../etc/passwd")
	f.Fuzz(func(t *testing.T, cron, zone string) {
		s, err := scheduler.Parse(daily(func(s *scheduler.Spec) { s.Cron, s.TimeZone, s.DST = cron, zone, "run-once" }))
		if err != nil {
			return
		}
		first := s.Next(at("2026-03-28T12:00:00Z"))
		if second := s.Next(first); first.IsZero() || !second.After(first) {
			t.Errorf("%q in %q: ticks %v, %v", cron, zone, first, second)
		}
	})
}
