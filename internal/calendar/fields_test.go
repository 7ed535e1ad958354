package calendar_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/internal/calendar"
)

// A cron text that other programs read in another way, or that is due at other
// times than its writer can mean, is refused (issue 10).
func TestSurprisesAreRefused(t *testing.T) {
	t.Parallel()
	for cron, want := range map[string]string{
		"*/90 * * * *":      `the field minute: "*/90": a step of 90 goes beyond 0 to 59, so that it would mean 0 alone`,
		"*/60 * * * *":      `"*/60"`,
		"0 */48 * * *":      `the field hour: "*/48": a step of 48 goes beyond 0 to 23, so that it would mean 0 alone`,
		"0 */24 * * *":      `the field hour`,
		"0 0 */40 * *":      `the field day: "*/40": a step of 40 goes beyond 1 to 31, so that it would mean 1 alone: write 1`,
		"0 0 */31 * *":      `the field day`,
		"0 0 1 */12 *":      `the field month`,
		"0 0 * * */7":       `the field weekday`,
		"*/60 * * * * *":    `the field second`,
		"10-20/15 * * * *":  `a step of 15 goes beyond 10 to 20, so that it would mean 10 alone`,
		"0 0 * * mon-fri/5": `a step of 5 goes beyond 1 to 5`,
		"0 0 * * 1-7/9":     `a step of 9 goes beyond 1 to 7`,
		"0,*/90 * * * *":    `"*/90"`,
		"5/15 * * * *":      `"5/15": write where it ends, 5-59/15, or 5 alone`,
		"0 6 1 * 1":         `the day 1 and the weekday 1: cron would be due on either`,
		"0 6 */2 * 1":       `cron would be due on either`,
		"0 6 13 * 5-7":      `cron would be due on either`,
		"0 0 12 ? * *":      `? is of another kind of cron`,
		"0 6 * * ? *":       `? is of another kind of cron`,
		"1,,2 * * * *":      `the field minute has an empty entry`,
		"1, * * * *":        `the field minute has an empty entry`,
		", * * * *":         `the field minute has an empty entry`,
		"+5 * * * *":        `write the number without a sign`,
		"0 0 * * 8":         "want five fields",
		"0 0 * * 5-8":       "want five fields",
		"0 0 * * 5-2":       "want five fields",
		"*/0 * * * *":       "want five fields",
		"*/x * * * *":       "want five fields",
		"x-y/2 * * * *":     "want five fields",
		"60 * * * *":        "want five fields",
		"0 24 * * *":        "want five fields",
		"0 22-4 * * *":      "want five fields",
		"0 0 0 * *":         "want five fields",
		"* * * *":           "want five fields",
		"* * * * * * *":     "want five fields",
	} {
		_, err := calendar.ParseFields(cron)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseFields(%q) = %v, want an error with %q", cron, err, want)
		}
	}
}

func TestUsualStepsAreTaken(t *testing.T) {
	t.Parallel()
	for _, cron := range []string{
		"*/1 * * * *", "*/59 * * * *", "*/7 * * * *", "0 */23 * * *", "0 0 */30 * *", "0 0 1 */11 *", "0 0 * * */6", "10-20/10 * * * *",
		"*/2 * * * * *", "0 0 1 jan *", "0 0 * * MON-FRI", "0 0 1,15 * *", "0 0 * jan-dec/11 *",
	} {
		_, err := calendar.ParseFields(cron)
		if err != nil {
			t.Errorf("ParseFields(%q): %v", cron, err)
		}
	}
}

// 7 is Sunday, alone and at the end of a range.
func TestSevenIsSunday(t *testing.T) {
	t.Parallel()
	for cron, want := range map[string]string{
		"0 0 * * 7":         "Sun",
		"0 0 * * 0":         "Sun",
		"0 0 * * 7-7":       "Sun",
		"0 0 * * 5-7":       "Fri Sat Sun",
		"0 0 * * fri-sun":   "Fri Sat Sun",
		"0 0 * * 6,7":       "Sat Sun",
		"0 0 * * 1-7/2":     "Mon Wed Fri Sun",
		"0 0 * * 1-7/6":     "Mon Sun",
		"0 0 * * 0-7":       "Mon Tue Wed Thu Fri Sat Sun",
		"0 0 * * 2-7/2":     "Tue Thu Sat",
		"0 0 * * sun-tue":   "Mon Tue Sun",
		"0 0 * * 0-6":       "Mon Tue Wed Thu Fri Sat Sun",
		"0 0 0 * * 7":       "Sun",
		"0 0 * * Sat-7":     "Sat Sun",
		"0 0 * * */2":       "Tue Thu Sat Sun",
		"0 0 * * mon,7,wed": "Mon Wed Sun",
	} {
		fields, err := calendar.ParseFields(cron)
		if err != nil {
			t.Errorf("ParseFields(%q): %v", cron, err)
			continue
		}
		clock := calendar.NewClock(fields, time.UTC)
		monday := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
		var days []string
		for at := clock.Next(monday.Add(-1)); at.Before(monday.AddDate(0, 0, 7)); at = clock.Next(at) {
			days = append(days, at.Weekday().String()[:3])
		}
		if got := strings.Join(days, " "); got != want {
			t.Errorf("%q is due on %s, want %s", cron, got, want)
		}
	}
}

func TestUnquoted(t *testing.T) {
	t.Parallel()
	const hint = `a value that begins with * needs quotes in YAML: write cron: "*/2 * * * *"`
	for line, want := range map[string]string{
		`    cron: */2 * * * *`:                              hint,
		`  - {job: sync, cron: */2 * * * *, time_zone: UTC}`: hint,
		`  - {job: sync, cron: */2 * * * *}`:                 hint,
		`  cron:   */2 * * * *   # often`:                    hint,
		`  "cron": */2 * * * *`:                              hint,
		`  cron: "*/2 * * * *"`:                              "",
		`  cron: '*/2 * * * *'`:                              "",
		`  cron: 0 6 * * *`:                                  "",
		`  micron: */2`:                                      "",
		``:                                                   "",
	} {
		if got := calendar.Unquoted(line); got != want {
			t.Errorf("Unquoted(%q) = %q, want %q", line, got, want)
		}
	}
}
