package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
)

// format is how a reading command writes its result: table or json.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "table|json" }

func (f *format) Set(s string) error {
	if s != string(formatTable) && s != string(formatJSON) {
		return fmt.Errorf("want table or json")
	}
	*f = format(s)
	return nil
}

// outputFlag adds -o to a command.
func outputFlag(cmd *cobra.Command) *format {
	f := formatTable
	cmd.Flags().VarP(&f, "output", "o", "table, or json: one document with times in RFC 3339")
	return &f
}

// show writes what was found: as one JSON array, or as a table with a row for
// each item. Nothing found is no fault: none says so on stderr.
func show[T any](a *app, f format, items []T, none string, head []string, row func(T) []string) error {
	if f == formatJSON {
		if items == nil {
			items = []T{} // [] and not null
		}
		return writeJSON(a.stdout, items)
	}
	if len(items) == 0 {
		a.say("%s", none)
		return nil
	}
	rows := make([][]string, len(items))
	for i, item := range items {
		rows[i] = row(item)
	}
	return writeTable(a.stdout, head, rows)
}

func writeJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, escaped(text.String()))
	return err
}

// escaped writes hidden characters of a JSON document as \u escapes: the same
// document, which cannot steer a terminal.
func escaped(document string) string {
	var text strings.Builder
	for _, r := range document {
		if r == '\n' || !fleet.Hidden(r) {
			text.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&text, "\\u%04x", unit)
		}
	}
	return text.String()
}

// jsonList writes one JSON array, an item a line, as the items come.
type jsonList struct {
	w     *bufio.Writer
	begun bool
}

func newJSONList(w io.Writer) *jsonList { return &jsonList{w: bufio.NewWriter(w)} }

func (l *jsonList) add(v any) error {
	var item bytes.Buffer
	enc := json.NewEncoder(&item)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	before := "[\n"
	if l.begun {
		before = ",\n"
	}
	l.begun = true
	_, err := l.w.WriteString(before + escaped(strings.TrimSuffix(item.String(), "\n")))
	return err
}

// end closes the array. Without it nobody can take a part for the whole.
func (l *jsonList) end() error {
	after := "\n]\n"
	if !l.begun {
		after = "[]\n"
	}
	if _, err := l.w.WriteString(after); err != nil {
		return err
	}
	return l.w.Flush()
}

// writeTable aligns columns with two spaces between them. An empty cell shows
// as -, so that every row has the same number of words as far as cells have no
// spaces.
func writeTable(w io.Writer, head []string, rows [][]string) error {
	var text strings.Builder
	tw := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, cells := range append([][]string{head}, rows...) {
		shown := make([]string, len(cells))
		for i, cell := range cells {
			shown[i] = printable(cell)
		}
		_, _ = fmt.Fprintln(tw, strings.Join(shown, "\t")) // a strings.Builder takes everything
	}
	_ = tw.Flush()
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// printable makes a text from outside one line that cannot steer a terminal; -
// where nothing is left of it.
func printable(s string) string { return orElse(fleet.Shown(s), "-") }

// moment is a time in a table; empty where it is zero.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// span is a duration in a table, in its two largest units.
func span(d time.Duration) string {
	if d < time.Second {
		return ""
	}
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		n := d / u.size
		if n == 0 {
			continue
		}
		text := fmt.Sprintf("%d%s", n, u.name)
		if i+1 < len(units) {
			if rest := (d % u.size) / units[i+1].size; rest > 0 {
				text += fmt.Sprintf("%d%s", rest, units[i+1].name)
			}
		}
		return text
	}
	return ""
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// orNull writes a zero value as null in JSON.
func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
