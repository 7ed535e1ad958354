package fleet

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// durationPart is a number with its unit.
var durationPart = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h|d|w)`)

var durationUnits = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

// ParseDuration reads a duration as people write it in flags and YAML: Go's
// units and two more, d for 24 hours and w for 7 days, one or more of them in
// any order ("90s", "1d12h", "2w"). "0" needs no unit. Negative durations and
// those beyond time.Duration (292 years) are refused.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("duration %q: want a number with a unit, such as 90s, 15m, 36h, 7d or 2w", s)
	if s == "0" {
		return 0, nil
	}
	if s == "" {
		return 0, bad
	}
	var sum time.Duration
	for rest := s; rest != ""; {
		part := durationPart.FindStringSubmatch(rest)
		if part == nil {
			return 0, bad
		}
		rest = rest[len(part[0]):]
		d, err := times(part[1], durationUnits[part[2]])
		if err != nil || sum > math.MaxInt64-d {
			return 0, fmt.Errorf("duration %q: too long, 292 years is the most", s)
		}
		sum += d
	}
	return sum, nil
}

// times multiplies without rounding where the number is whole.
func times(number string, unit time.Duration) (time.Duration, error) {
	if !strings.Contains(number, ".") {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > math.MaxInt64/int64(unit) {
			return 0, strconv.ErrRange
		}
		return time.Duration(n) * unit, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f*float64(unit) >= math.MaxInt64 {
		return 0, strconv.ErrRange
	}
	return time.Duration(f * float64(unit)), nil
}
