package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadHarmless(t *testing.T) {
	t.Parallel()
	got, err := readHarmless("# for people\n\na/b.go f: x => y\n\tbecause\n\tof this\nc.go g: x => removed\n\tno need\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a/b.go f: x => y": "because of this", "c.go g: x => removed": "no need"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := folderOf("a/b/c.go f: x / y => x * y"); got != "a/b" {
		t.Errorf("folder %q, want a/b", got)
	}
}

func TestReadHarmlessFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a.go f: x => y\n":                           "has no reason",
		"a.go f: x => y\nb.go g: x => y\n\tyes":      "has no reason",
		"\tbecause":                                  "without a mutant",
		"a.go f: x => y\n\tno\na.go f: x => y\n\tno": "is there twice",
	} {
		_, err := readHarmless(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	one := func(before string, noticed bool) fate {
		return fate{&mutant{file: "p/a.go", function: "f", before: before, after: "removed"}, noticed, true}
	}
	fates := []fate{one("a()", true), one("b()", false), one("c()", false), one("d()", true)}
	reasons := map[string]string{
		"p/a.go f: b() => removed": "harmless",
		"p/a.go f: d() => removed": "is noticed by now",
		"p/a.go f: e() => removed": "is gone",
		"q/a.go f: e() => removed": "is another package's",
	}
	got := judge("p", fates, reasons, true)
	if got.all != 4 || got.noticed != 2 || got.harmless != 1 || len(got.survivors) != 1 || got.survivors[0].before != "c()" {
		t.Errorf("got %+v", got)
	}
	stale := []string{"p/a.go f: d() => removed", "p/a.go f: e() => removed"}
	if diff := cmp.Diff(stale, got.stale); diff != "" {
		t.Error(diff)
	}
	var out strings.Builder
	out.WriteString(got.String())
	err := table(&out, []report{got})
	if err == nil {
		t.Error("a survivor that is not listed is no error")
	}
	for _, want := range []string{"not noticed: p/a.go:0:0 f: c() => removed\n", "noticed or gone: p/a.go f: e() => removed\n", "50.0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not said:\n%s", want, out.String())
		}
	}
	// Where only some mutants were tried, the others are not gone.
	if diff := cmp.Diff(stale[:1], judge("p", fates, reasons, false).stale); diff != "" {
		t.Error(diff)
	}
	if err := table(&out, []report{{folder: "p", all: 2, noticed: 1, harmless: 1}}); err != nil {
		t.Error(err)
	}
}
