package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// reloading is a live configuration over a file that rewrite replaces.
func reloading(t *testing.T, log *slog.Logger, accept func(context.Context, *config) error) (*live, func(string)) {
	t.Helper()
	path := filepath.Join(inDir(t, map[string]string{"muster.yaml": "retain_days: 1\n"}), "muster.yaml")
	load := func() (*config, error) { return loadConfig(path, variables(map[string]string{"HOME": "/home/jo"})) }
	first, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return newLive(log, first, load, accept), func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func accepted(context.Context, *config) error { return nil }

func TestReloadTakesAllOrNothing(t *testing.T) {
	t.Parallel()
	refuse := errors.New("target acme was first used as org/other")
	tests := []struct {
		name   string
		text   string
		accept error
		want   string // part of the error; empty: taken over
	}{
		{"a good change", "retain_days: 2\n", nil, ""},
		{"one bad key among good ones", "retain_days: 2\nnonsense: 1\n", nil, "nonsense: unknown key"},
		{"what takes a restart", "retain_days: 2\nlisten: 127.0.0.1:1\n", nil, "listen has changed, which takes a restart"},
		{"refused by what runs", "retain_days: 2\n", refuse, refuse.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, rewrite := reloading(t, slog.New(slog.DiscardHandler), func(context.Context, *config) error { return tt.accept })
			rewrite(tt.text)
			err := l.reload(t.Context())
			days := l.get().retain / (24 * time.Hour)
			if tt.want == "" {
				if err != nil || days != 2 || len(l.changed) != 1 {
					t.Errorf("reload = %v, retain_days %d, %d changes, want 2 and 1", err, days, len(l.changed))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || days != 1 || len(l.changed) != 0 {
				t.Errorf("reload = %v, retain_days %d, %d changes, want an error with %q, 1 and 0", err, days, len(l.changed), tt.want)
			}
		})
	}
}

// lineWriter hands over what is written, one write at a time.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestHangupReloadsAndLogsTheReasonWhereNot(t *testing.T) {
	t.Parallel()
	logged := make(lineWriter)
	l, rewrite := reloading(t, slog.New(slog.NewTextHandler(logged, nil)), accepted)
	var heard []bool
	l.told = func(_ context.Context, err error) { heard = append(heard, err == nil) }
	ctx, stop := context.WithCancel(t.Context())
	hangup, ended := make(chan os.Signal), make(chan error, 1)
	go func() { ended <- l.run(ctx, hangup) }()

	rewrite("nonsense: 1\n")
	hangup <- syscall.SIGHUP
	if line := <-logged; !strings.Contains(line, "configuration not taken over") || !strings.Contains(line, "nonsense: unknown key") {
		t.Errorf("logged %q, want the reason", line)
	}
	rewrite("retain_days: 3\n")
	hangup <- syscall.SIGHUP
	if line := <-logged; !strings.Contains(line, "no target is configured") {
		t.Errorf("logged %q, want the warning of the new configuration", line)
	}
	if line := <-logged; !strings.Contains(line, "configuration taken over") {
		t.Errorf("logged %q, want that it was taken over", line)
	}
	<-l.changed
	if got := l.get().retain; got != 3*24*time.Hour {
		t.Errorf("retain = %s, want 3 days", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("run = %v, want nil", err)
	}
	if !slices.Equal(heard, []bool{false, true}) {
		t.Errorf("told of %v, want a refusal and a takeover", heard)
	}
}

func TestManyFaultsAreToldInBrief(t *testing.T) {
	t.Parallel()
	var all []error
	for i := range 7 {
		all = append(all, fmt.Errorf("a.yaml:%d:1: wrong", i+1))
	}
	if got, want := brief(errors.Join(all[:2]...)), "a.yaml:1:1: wrong; a.yaml:2:1: wrong"; got != want {
		t.Errorf("brief = %q, want %q", got, want)
	}
	if got, want := brief(errors.Join(all...)), "; a.yaml:5:1: wrong; and 2 more in the log"; !strings.HasSuffix(got, want) {
		t.Errorf("brief = %q, want it to end with %q", got, want)
	}
}

func TestATokenFileIsReadAgainWhenItChanges(t *testing.T) {
	t.Parallel()
	path := filepath.Join(inDir(t, map[string]string{"token": "one\n"}), "token")
	s := &secretFile{what: "token of target acme", path: path}
	check := func(want string) {
		t.Helper()
		if got, err := s.get(t.Context()); err != nil || got.Reveal() != want {
			t.Errorf("get = %q, %v, want %q", got.Reveal(), err, want)
		}
	}
	write := func(text string, mtime time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, mtime, mtime); err != nil {
			t.Fatal(err)
		}
	}
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	write("one", day)
	check("one")
	write("two", day.Add(time.Second)) // of the same size
	check("two")
	write("longer", day.Add(time.Second)) // of the same time
	check("longer")

	write(" \n", day.Add(time.Minute))
	if _, err := s.get(t.Context()); err == nil || !strings.Contains(err.Error(), "token of target acme") {
		t.Errorf("get of an empty file = %v, want an error that names the token", err)
	}
	write("back", day.Add(time.Hour))
	check("back")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.get(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("get of a missing file = %v, want os.ErrNotExist", err)
	}
}

func TestConnectionSurvivesTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, want := range []connection{
		{fleet.NewSecret("postgres://muster:p%40ss@127.0.0.1:54329/muster?sslmode=disable"), fleet.NewSecret("nats://127.0.0.1:4222")},
		{fleet.NewSecret("postgres://u:a'b$c@h/m?x=1&y=2"), fleet.Secret{}},
	} {
		if err := writeConnection(dir, want); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, connectFile))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
		}
		got, err := readConnection(dir)
		if err != nil || got != want {
			t.Errorf("readConnection = %q, %q, %v", got.databaseURL.Reveal(), got.natsURL.Reveal(), err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("the directory holds %q, want one file", left)
	}
	if _, err := readConnection(t.TempDir()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("readConnection without a file = %v, want fleet.ErrUnavailable", err)
	}
}
