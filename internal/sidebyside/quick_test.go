package main

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/muster-fleet/muster/db/dbtest"
)

// This program starts itself in other roles, also where it is a test.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		main()
		return
	}
	os.Exit(dbtest.Main(m))
}

// All contenders do their work, and their figures come with the right names.
// What they did is checked by the program itself: it fails where muster or a
// pipeline wrote anything but what it should. Nothing here is about how long
// they took.
func TestQuickRun(t *testing.T) {
	o, err := parse([]string{"-quick"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := compare(t.Context(), o, dbtest.URL(t), &out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{
		"Medians of 1 interleaved", "PostgreSQL 1", "fsync=", "The rate governor is off",
		"1,000 runners, no latency\n", "1,000 runners, 50ms before each answer\n", "Nothing to judge",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the account lacks %q", want)
		}
	}
	for name, times := range map[string]int{
		caseFirst: 2, caseUnchanged: 2, caseChanged: 2, caseSame: 2,
		nameMuster: 8, nameOneByOne: 1, nameDiscard: 2, nameDecode: 4, nameCopy: 2, nameRevalidate: 2,
	} {
		got := 0
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			rest, found := strings.CutPrefix(line, name)
			if found && (rest == "" || strings.HasPrefix(rest, "  ")) {
				got++
			}
		}
		if got != times {
			t.Errorf("%q stands in the table %d times, want %d", name, got, times)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestPipelinesAreLeftOutWhereAToolIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s := newShell("certificate.pem", t.TempDir())
	if !slices.Equal(s.missing, tools) {
		t.Errorf("missing: %v, want %v", s.missing, tools)
	}
	if got := s.describe(context.Background()); !strings.HasPrefix(got, "gh, jq, psql not found, so ") {
		t.Errorf("described as %q", got)
	}
	b := &bench{shell: s}
	p := plan{runners: 10_000}
	for _, c := range cases(p) {
		for _, e := range b.entries(p, c, &database{}, &database{}) {
			if e.write != "" || e.name == nameCommand {
				t.Errorf("%s: %s takes part", c.name, e.name)
			}
		}
	}
	b.shell.missing = nil
	for _, c := range cases(p) {
		pipes := 0
		for _, e := range b.entries(p, c, &database{}, &database{}) {
			if e.write != "" {
				pipes++
			}
		}
		want := 2
		if c.name == caseSame {
			want = 0
		}
		if pipes != want {
			t.Errorf("%s: %d pipelines, want %d", c.name, pipes, want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want string // sizes, or the error
	}{
		{"", "[1000 10000 100000] 5"},
		{"-quick", "[1000] 1"},
		{"-runners 200,300 -reps 7", "[200 300] 7"},
		{"-runners 150", "-runners 150: want multiples of 100 with commas between them"},
		{"-runners 0", "-runners 0: want multiples of 100 with commas between them"},
		{"-runners many", "-runners many: want multiples of 100 with commas between them"},
		{"-reps 0", "-reps 0: want at least 1"},
	} {
		o, err := parse(strings.Fields(tt.args), t.Output())
		got := describe(o)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q: %s, want %s", tt.args, got, tt.want)
		}
	}
}
