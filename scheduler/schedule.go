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
	_ "time/tzdata" // a bare container has no zones of its own

	"github.com/google/uuid"
	"github.com/robfig/cron/v3"

	"github.com/muster-fleet/muster/fleet"
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
	clock  wallClock
}

// No descriptors: @every has no grid, so replicas would disagree about it, and
// the others say nothing that five fields do not.
var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

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
	zone, err := loadZone(spec.TimeZone)
	if err != nil {
		fault("%w", err)
	}
	fields, err := parseCron(spec.Cron)
	if err != nil {
		fault("cron %q: %w", spec.Cron, err)
	}
	if zone != nil && fields != nil {
		s.clock = wallClock{fields: fields, zone: zone, everyHour: everyHour(fields)}
		if !s.clock.everyHour && spec.DST == "" && changes(zone) {
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

// loadZone knows the same zones everywhere: "Local" is another one on every
// machine.
func loadZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("time_zone %q is not known: want UTC or an IANA name such as Europe/London", name)
	}
	return zone, nil
}

func parseCron(text string) (*cron.SpecSchedule, error) {
	// The parser would read a zone here, and stumbles over one without fields
	// after it.
	if strings.Contains(text, "TZ=") {
		return nil, errors.New("the zone does not belong here; set time_zone")
	}
	if strings.HasPrefix(strings.TrimSpace(text), "@") {
		return nil, errors.New("want five fields, or six with leading seconds, not @")
	}
	parsed, err := parser.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w; want five fields (minute hour day month weekday), or six with leading seconds", err)
	}
	fields, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("want five fields, or six with leading seconds, not %T", parsed)
	}
	// The parser takes "," for a field, which no moment matches, and then
	// looks for one second by second.
	const star = 1 << 63
	for _, bits := range []uint64{fields.Second, fields.Minute, fields.Hour, fields.Dom, fields.Month, fields.Dow} {
		if bits&^star == 0 {
			return nil, errors.New("one of the fields is empty")
		}
	}
	// Zones are this package's business: the parser's own arithmetic skips
	// ticks in one night of the year and doubles them in another (cron#541).
	fields.Location = time.UTC
	if nextWall(fields, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, errors.New("never fires: no year has such a day")
	}
	return fields, nil
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
func (s Schedule) Next(after time.Time) time.Time { return s.clock.next(after) }

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

// tickSpace is the name space of tick ids. It must never change.
var tickSpace = uuid.MustParse("c1b3a5d0-7469-5b6b-8d75-737465720001")

// triggerID is the same in every replica.
func (s Schedule) triggerID(tick time.Time) string {
	return uuid.NewSHA1(tickSpace, []byte(s.ID()+"\n"+tick.UTC().Format(time.RFC3339Nano))).String()
}
