package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/internal/standalone"
)

func TestWaysTo(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mode string
		want []string
	}{
		{"", []string{local.name, boxed.name, fetched.name}},
		{"auto", []string{local.name, boxed.name, fetched.name}},
		{"local", []string{local.name}},
		{"container", []string{boxed.name}},
	}
	for _, tt := range tests {
		ways, err := waysTo(tt.mode)
		if err != nil {
			t.Errorf("waysTo(%q): %v", tt.mode, err)
		}
		var got []string
		for _, w := range ways {
			got = append(got, w.name)
		}
		if !cmp.Equal(got, tt.want) {
			t.Errorf("waysTo(%q) = %v, want %v", tt.mode, got, tt.want)
		}
	}
	if _, err := waysTo("podman"); err == nil {
		t.Error(`waysTo("podman") is accepted`)
	}
}

// absent is a way that ends as told.
type absent struct {
	err     error
	removed bool
}

func (a *absent) start(context.Context) (string, error) { return "postgres://" + "here/", a.err }
func (a *absent) stop(context.Context) error            { return nil }
func (a *absent) remove(context.Context) error {
	a.removed = true
	return nil
}

func TestFirstWayThatIsToBeHad(t *testing.T) {
	t.Parallel()
	none := fmt.Errorf("start: %w", standalone.ErrNoBinaries)
	noBox := fmt.Errorf("run: %w", errNoContainer)
	broken := errors.New("disk full")
	tests := []struct {
		name    string
		results []error
		want    int // index of the engine taken, -1 for none
		says    []string
	}{
		{"the first", []error{nil, nil}, 0, nil},
		{"the next where a kind is missing", []error{none, noBox, nil}, 2, nil},
		{"none where one is there but broken", []error{broken, nil}, -1, []string{"disk full"}},
		{"none where all are missing", []error{none, noBox}, -1, []string{"no PostgreSQL", "no container"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			engines := make([]*absent, len(tt.results))
			ways := make([]way, len(tt.results))
			for i, err := range tt.results {
				engines[i] = &absent{err: err}
				ways[i] = way{strconv.Itoa(i), func(int) (engine, error) { return engines[i], nil }}
			}
			_, got, err := first(t.Context(), ways, 0)
			for i, e := range engines {
				if (got == engine(e)) != (i == tt.want) {
					t.Errorf("engine %d taken: %v, want number %d", i, got == engine(e), tt.want)
				}
				if got == engine(e) && e.removed {
					t.Errorf("engine %d is in use and removed", i)
				}
			}
			if (err == nil) != (tt.want >= 0) {
				t.Fatalf("first: %v", err)
			}
			for _, part := range tt.says {
				if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %q, want one line with %q", err, part)
				}
			}
		})
	}
}

func TestSweepData(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	now := time.Now()
	old := now.Add(-2 * leftoverAge)
	tests := []struct {
		name string
		made time.Time
		pid  int // 0: no server
		want bool
	}{
		{dataPrefix + "old", old, 0, false},
		{dataPrefix + "young", now, 0, true},
		{dataPrefix + "served", old, os.Getpid(), true},
		{dataPrefix + "crashed", old, 1 << 30, false}, // beyond what any kernel gives out
		{"muster-other", old, 0, true},
	}
	for _, tt := range tests {
		dir := filepath.Join(temp, tt.name)
		if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
		if tt.pid != 0 {
			pid := fmt.Sprintf("%d\n/data\n", tt.pid)
			if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(pid), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir, tt.made, tt.made); err != nil {
			t.Fatal(err)
		}
	}
	sweepData(temp, now)
	for _, tt := range tests {
		_, err := os.Stat(filepath.Join(temp, tt.name))
		if got := err == nil; got != tt.want {
			t.Errorf("%s is there: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestRedacted(t *testing.T) {
	t.Parallel()
	tests := []struct{ mode, want string }{
		{"local", "local"},
		{"postgres://u:hush@h/d", "postgres://u:xxxxx@h/d"},
		{"postgres://u:hu%zz@h/d", strings.Repeat("?", len("postgres://u:hu%zz@h/d"))},
	}
	for _, tt := range tests {
		if got := redacted(tt.mode); got != tt.want {
			t.Errorf("redacted(%q) = %q, want %q", tt.mode, got, tt.want)
		}
	}
}
