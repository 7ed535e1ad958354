package calendar

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// field is one field of a cron text.
type field struct {
	name        string
	least, most int
}

var fiveFields = []field{{"minute", 0, 59}, {"hour", 0, 23}, {"day", 1, 31}, {"month", 1, 12}, {"weekday", 0, 6}}

// plain refuses what programs of cron read in different ways, or in a way that
// its writer can hardly mean, and gives the text as the parser wants it. A text
// with another number of fields is left to the parser.
func plain(text string) (string, error) {
	fields := fiveFields
	words := strings.Fields(text)
	switch len(words) {
	case len(fiveFields):
	case len(fiveFields) + 1:
		fields = append([]field{{"second", 0, 59}}, fields...)
	default:
		return text, nil
	}
	for i, f := range fields {
		var entries []string
		for entry := range strings.SplitSeq(words[i], ",") {
			if f.name == "weekday" {
				entry = sundays(entry)
			}
			err := f.check(entry)
			if err != nil {
				return "", err
			}
			entries = append(entries, entry)
		}
		words[i] = strings.Join(entries, ",")
	}
	day, weekday := words[len(words)-3], words[len(words)-1]
	if day != "*" && weekday != "*" {
		return "", fmt.Errorf("the day %s and the weekday %s: cron would be due on either, not only where both hold: leave one of them *, and write the other in an entry of its own", day, weekday)
	}
	return strings.Join(words, " "), nil
}

// check looks at one entry of a field. Numbers that are none, or out of range,
// are left to the parser.
func (f field) check(entry string) error {
	switch {
	case entry == "":
		return fmt.Errorf("the field %s has an empty entry: there is a comma too many", f.name)
	case strings.Contains(entry, "?"):
		return fmt.Errorf("the field %s: ? is of another kind of cron, which counts weekdays from 1: write *", f.name)
	case strings.Contains(entry, "+"):
		return fmt.Errorf("the field %s: %q: write the number without a sign", f.name, entry)
	}
	base, stepText, has := strings.Cut(entry, "/")
	if !has {
		return nil
	}
	step, err := strconv.Atoi(stepText)
	if err != nil || step < 1 {
		return nil
	}
	first, last, ok := f.ends(base)
	if !ok {
		return nil
	}
	if !strings.ContainsAny(base, "*-") {
		return fmt.Errorf("the field %s: %q: write where it ends, %s-%d/%d, or %s alone", f.name, entry, base, f.most, step, base)
	}
	if step > last-first && step > 1 {
		return fmt.Errorf("the field %s: %q: a step of %d goes beyond %d to %d, so that it would mean %d alone: write %d if that is meant",
			f.name, entry, step, first, last, first, first)
	}
	return nil
}

// ends gives the first and the last value of *, of a range, or of one number.
func (f field) ends(base string) (first, last int, ok bool) {
	if base == "*" {
		return f.least, f.most, true
	}
	low, high, isRange := strings.Cut(base, "-")
	first, ok = f.number(low)
	if !ok || !isRange {
		return first, f.most, ok
	}
	last, ok = f.number(high)
	return first, last, ok
}

var (
	months   = []string{"", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
)

func (f field) number(text string) (int, bool) {
	names := map[string][]string{"month": months, "weekday": weekdays}[f.name]
	if i := slices.Index(names, strings.ToLower(text)); i >= 0 && text != "" {
		return i, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}

// sunday is the number that stands for Sunday besides 0 (POSIX has 0 alone,
// crontab(5) of every Linux both).
const sunday = 7

// sundays writes an entry of the weekday that names 7 without it, and one that
// ends with sun as 7: days of a week that ends on Sunday.
func sundays(entry string) string {
	base, stepText, hasStep := strings.Cut(entry, "/")
	low, high, isRange := strings.Cut(base, "-")
	weekday := field{"weekday", 0, 6}
	if !isRange {
		if n, ok := weekday.number(low); ok && n == sunday && !hasStep {
			return "0"
		}
		return entry
	}
	first, firstOK := weekday.number(low)
	last, lastOK := weekday.number(high)
	if lastOK && last == 0 && first > 0 {
		last = sunday // fri-sun
	}
	step := 1
	if hasStep {
		n, err := strconv.Atoi(stepText)
		if err != nil || n < 1 || n > last-first {
			return entry
		}
		step = n
	}
	if !firstOK || !lastOK || last != sunday || first < 0 || first > sunday {
		return entry
	}
	var days []string
	for day := first; day <= last; day += step {
		days = append(days, strconv.Itoa(day%sunday))
	}
	return strings.Join(days, ",")
}

// bare is a cron text of YAML that begins with * outside quotes.
var bare = regexp.MustCompile(`\bcron["']?\s*:\s*(\*[^"'#,}]*)`)

// Unquoted tells what to do about a line of YAML whose cron text begins with *
// and has no quotes: YAML takes that for the name of an alias, and what a YAML
// parser says of it does not help. The answer is empty for any other line.
func Unquoted(line string) string {
	found := bare.FindStringSubmatch(line)
	if found == nil {
		return ""
	}
	return fmt.Sprintf("a value that begins with * needs quotes in YAML: write cron: %q", strings.TrimSpace(found[1]))
}
