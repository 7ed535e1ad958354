package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// loadText loads a package of one file, in a module of its own. It changes the
// working directory, so tests that use it do not run in parallel.
func loadText(t *testing.T, files map[string]string) *source {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.com/m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err != nil {
			t.Fatal(err)
		}
		err = os.WriteFile(path, []byte(text), 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "-mod=mod")
	s, err := load(context.Background(), "p")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFind(t *testing.T) {
	s := loadText(t, map[string]string{"p/a.go": `package p

import "time"

const limit = 10

const (
	first = iota
	second
)

type sized [4]int

type thing struct{ n int }

func (x *thing) step(err error, names map[string]int) (int, bool) {
	if err != nil {
		return 0, false
	}
	if x.n < limit && !ready(x.n) {
		x.n++
	}
	for _, n := range names {
		if n == 3 {
			continue
		}
		x.n = n + x.n*2 // twice
	}
	switch {
	case x.n >= limit:
		return x.n, true
	}
	_ = make(map[string]int, 100)
	return x.n, ready(x.n)
}

func ready(n int) bool { return time.Duration(n) > 5*time.Minute }

func greet(name string) string { return "hello " + name }
`})
	found := find(s)
	if _, err := found.settle(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found.mutants {
		got = append(got, strings.TrimPrefix(m.key(), "p/a.go "))
	}
	want := []string{
		"const limit: const limit = 10 => const limit = 11",
		"const limit: const limit = 10 => const limit = 9",
		"thing.step: err != nil => err == nil",
		"thing.step: return 0, false => return 0, true",
		"thing.step: x.n < limit && !ready(x.n) => x.n < limit || !ready(x.n)",
		"thing.step: x.n < limit => x.n <= limit",
		"thing.step: x.n < limit => x.n >= limit",
		"thing.step: ready(x.n) => !ready(x.n)",
		"thing.step: x.n++ => removed",
		"thing.step: x.n = n + x.n*2 => removed",
		"thing.step: n == 3 => false",
		"thing.step: n == 3 => n != 3",
		"thing.step: if n == 3 { => if n == 4 {",
		"thing.step: if n == 3 { => if n == 2 {",
		"thing.step: continue => removed",
		"thing.step: n + x.n*2 => n - x.n*2",
		"thing.step: x.n * 2 => x.n / 2",
		"thing.step: x.n = n + x.n*2 => x.n = n + x.n*3",
		"thing.step: x.n = n + x.n*2 => x.n = n + x.n*1",
		"thing.step: x.n >= limit => false",
		"thing.step: x.n >= limit => x.n > limit",
		"thing.step: x.n >= limit => x.n < limit",
		"thing.step: return x.n, true => return x.n, false",
		"thing.step: ready(x.n) => !ready(x.n) (2)",
		"ready: time.Duration(n) > 5*time.Minute => time.Duration(n) >= 5*time.Minute",
		"ready: time.Duration(n) > 5*time.Minute => time.Duration(n) <= 5*time.Minute",
		"ready: func ready(n int) bool { return time.Duration(n) > 5*time.Minute } => func ready(n int) bool { return time.Duration(n) > 6*time.Minute }",
		"ready: func ready(n int) bool { return time.Duration(n) > 5*time.Minute } => func ready(n int) bool { return time.Duration(n) > 4*time.Minute }",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A constant that has to stay one is left out, and nothing else with it.
func TestFindLeavesOutWhatWouldNotBuild(t *testing.T) {
	s := loadText(t, map[string]string{"p/a.go": `package p

const size = 4

type sized [size]int

func more(n int) int { return n + size }
`})
	found := find(s)
	if _, err := found.settle(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range found.mutants {
		got = append(got, m.key())
	}
	if diff := cmp.Diff([]string{"p/a.go more: n + size => n - size"}, got); diff != "" {
		t.Error(diff)
	}
}
