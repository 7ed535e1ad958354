package scheduler

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/calendar"
)

// Spec is a schedule as it stands in the configuration.
type Spec struct {
	Job      fleet.Job
	Name     string // a target, or fleet.All
	Cron     string // five fields, or six with leading seconds
	TimeZone string // an IANA name; empty: UTC
	DST      string // run-once, or empty
	Misfire  string // once or skip; empty: once
	Overlap  string // skip or queue; empty: skip
	Deadline time.Duration
	Jitter   time.Duration
}

// The words of the configuration.
const (
	dstRunOnce   = "run-once"
	misfireOnce  = "once"
	misfireSkip  = "skip"
	overlapSkip  = "skip"
	overlapQueue = "queue"
)

// Schedule is a Spec that has been checked. It is a value and safe for
// concurrent use; the zero Schedule is not valid.
type Schedule struct {
	spec   Spec
	sha256 string
	clock  calendar.Clock
}

// Parse checks the schedule. The error holds one line per fault.
func Parse(spec Spec) (Schedule, error) {
	spec.TimeZone = orElse(spec.TimeZone, "UTC")
	spec.Misfire = orElse(spec.Misfire, misfireOnce)
	spec.Overlap = orElse(spec.Overlap, overlapSkip)

	s := Schedule{spec: spec}
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("schedule %s: "+format, append([]any{s.ID()}, args...)...))
	}
	if !slices.Contains(fleet.Jobs, spec.Job) {
		fault("unknown job %q; want one of %s", spec.Job, jobNames())
	}
	switch {
	case !fleet.ValidName(spec.Name):
		fault("%q cannot be a name", spec.Name)
	case !spec.Job.Named() && spec.Name != fleet.All:
		fault("job %s has no names; want %q", spec.Job, fleet.All)
	}
	oneOf := func(key, value string, words ...string) {
		if !slices.Contains(words, value) {
			fault("%s %q: want %s", key, value, strings.Join(words, " or "))
		}
	}
	oneOf("misfire", spec.Misfire, misfireOnce, misfireSkip)
	oneOf("overlap", spec.Overlap, overlapSkip, overlapQueue)
	if spec.DST != "" {
		oneOf("dst", spec.DST, dstRunOnce)
	}
	if spec.Deadline <= 0 {
		fault("deadline %s: want more than 0, such as 10m", spec.Deadline)
	}
	if spec.Jitter < 0 {
		fault("jitter %s: want 0 or more", spec.Jitter)
	}
	zone, err := calendar.Zone(spec.TimeZone)
	if err != nil {
		fault("%w", err)
	}
	fields, cronErr := calendar.ParseFields(spec.Cron)
	if cronErr != nil {
		fault("cron %q: %w", spec.Cron, cronErr)
	}
	if err == nil && cronErr == nil {
		s.clock = calendar.NewClock(fields, zone)
		if !fields.EveryHour() && spec.DST == "" && calendar.Changes(zone) {
			fault("cron %q names hours, and the clocks of %s change: some day an hour is missing or comes twice; set dst: %s (missing: the first moment after; twice: the first only), or an hour of *, or time_zone: UTC",
				spec.Cron, spec.TimeZone, dstRunOnce)
		}
	}
	if len(faults) > 0 {
		return Schedule{}, errors.Join(faults...)
	}
	s.sha256 = digest(spec)
	return s, nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func jobNames() string {
	var names []string
	for _, job := range fleet.Jobs {
		names = append(names, string(job))
	}
	return strings.Join(names, ", ")
}

// ID is the name of the schedule, JOB/NAME.
func (s Schedule) ID() string { return string(s.spec.Job) + "/" + s.spec.Name }

// SHA256 is the hash of everything that the schedule says, in hex.
func (s Schedule) SHA256() string { return s.sha256 }

// Spec is what was parsed, with its defaults filled in.
func (s Schedule) Spec() Spec { return s.spec }

// Next is the first tick after the given time, in UTC, without jitter. An hour
// of * means every hour that passes; other hours are read off the zone's wall
// clock, each once a day at most: one that the clock jumps over falls on the
// moment of the jump, of one that comes twice the first counts.
func (s Schedule) Next(after time.Time) time.Time { return s.clock.Next(after) }

func digest(spec Spec) string {
	sum := sha256.New()
	for _, field := range []string{
		string(spec.Job), spec.Name, strings.Join(strings.Fields(spec.Cron), " "), spec.TimeZone, spec.DST,
		spec.Misfire, spec.Overlap, spec.Deadline.String(), spec.Jitter.String(),
	} {
		// No field can hold a line break.
		sum.Write([]byte(field + "\n"))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// fireAt is when the tick is to be fired: up to Jitter after it, by a measure
// that all replicas share.
func (s Schedule) fireAt(tick time.Time) time.Time {
	if s.spec.Jitter == 0 {
		return tick
	}
	sum := sha256.Sum256([]byte(s.ID() + "\n" + tick.UTC().Format(time.RFC3339Nano)))
	return tick.Add(time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(s.spec.Jitter)))
}
