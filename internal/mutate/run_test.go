package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTry runs the tests of a small package against its mutants: the test asks
// for one bound and not for the other, and nobody calls lost.
func TestTry(t *testing.T) {
	files := map[string]string{
		"p/a.go": `package p

func within(n, low, high int) bool { return n >= low && n <= high }

func lost(n int) bool { return n > 0 }

func spin(n int) int {
	for n > 0 {
		n--
	}
	return n
}
`,
		"p/a_test.go": `package p

import "testing"

func TestWithin(t *testing.T) {
	if !within(1, 1, 9) || within(0, 1, 9) || within(10, 1, 9) {
		t.Error("wrong")
	}
}

func TestSpin(t *testing.T) {
	if spin(3) != 0 {
		t.Error("wrong")
	}
}
`}
	s := loadText(t, files)
	found := find(s)
	dir := t.TempDir()
	program, err := found.build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	tests := &tests{program: program, source: s, dir: dir, jobs: 2, slack: 2 * time.Second}
	err = tests.survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range found.mutants {
		f, err := tests.try(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case !f.reached:
			got[strings.TrimPrefix(m.key(), "p/a.go ")] = "not reached"
		case f.noticed:
			got[strings.TrimPrefix(m.key(), "p/a.go ")] = "noticed"
		default:
			got[strings.TrimPrefix(m.key(), "p/a.go ")] = "not noticed"
		}
	}
	want := map[string]string{
		"within: n >= low && n <= high => n >= low || n <= high": "noticed",
		"within: n >= low => n > low":                            "noticed",
		"within: n >= low => n < low":                            "noticed",
		"within: n <= high => n < high":                          "not noticed",
		"within: n <= high => n > high":                          "noticed",
		"lost: n > 0 => n >= 0":                                  "not reached",
		"spin: n > 0 => n <= 0":                                  "noticed",
		"spin: n-- => removed":                                   "noticed", // it never ends
	}
	for key, fate := range want {
		if got[key] != fate {
			t.Errorf("%s: %s, want %s", key, got[key], fate)
		}
	}
	if diff := cmp.Diff(files["p/a.go"], read(t, "p/a.go")); diff != "" {
		t.Error("the tree was touched:", diff)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAPackageThatFailsByItself(t *testing.T) {
	s := loadText(t, map[string]string{
		"p/a.go":      "package p\n\nfunc one() int { return 1 }\n",
		"p/a_test.go": "package p\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {\n\tif one() != 2 {\n\t\tt.Fatal(\"not two\")\n\t}\n}\n",
	})
	dir := t.TempDir()
	program, err := find(s).build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	err = (&tests{program: program, source: s, dir: dir, jobs: 1}).survey(t.Context())
	if err == nil || !strings.Contains(err.Error(), "TestOne of p fails without any mutant") || !strings.Contains(err.Error(), "not two") {
		t.Errorf("got %v, want the test that fails and what it says", err)
	}
}

func TestWrongArguments(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                 "name the folders",
		"-jobs 0 policies": "want at least 1",
		"-only ( policies": "-only",
		"no/such/folder":   "no/such/folder",
	} {
		var out strings.Builder
		err := run(context.Background(), strings.Fields(args), &out)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", args, err, want)
		}
	}
}
