package standalone

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// programs makes a directory with a postgres that claims a version.
func programs(t *testing.T, version string) string {
	t.Helper()
	dir := tree(t)
	for _, name := range []string{"postgres", "initdb"} {
		script := "#!/bin/sh\necho '" + name + " (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestChooseBinaries(t *testing.T) {
	t.Parallel()
	a, err := postgresAccount()
	if err != nil {
		t.Fatal(err)
	}
	v14, v15, v17 := programs(t, "14.9"), programs(t, "15.18 (Debian 15.18-0+deb12u1)"), programs(t, "17devel")
	alone := programs(t, "16.1")
	if err := os.Remove(filepath.Join(alone, "initdb")); err != nil {
		t.Fatal(err)
	}
	broken := programs(t, "")
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name string
		dirs []string
		want int
		got  binaries
	}{
		{"the first that fits", []string{v15, v17}, 0, binaries{v15, 15}},
		{"a version in the making", []string{v17, v15}, 0, binaries{v17, 17}},
		{"what the data needs", []string{v15, v17}, 17, binaries{v17, 17}},
		{"not one that is too old", []string{v14, v15}, 0, binaries{v15, 15}},
		{"not one that cannot make a cluster", []string{alone, v15}, 0, binaries{v15, 15}},
		{"not one that says nothing", []string{broken, v15}, 0, binaries{v15, 15}},
		{"not one that is not there", []string{missing, v15}, 0, binaries{v15, 15}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := choose(t.Context(), a, tt.dirs, tt.want)
			if err != nil || got != tt.got {
				t.Errorf("choose(%v, %d) = %v, %v, want %v", tt.dirs, tt.want, got, err, tt.got)
			}
		})
	}
}

func TestVersionIn(t *testing.T) {
	t.Parallel()
	tests := []struct {
		path string
		want int
	}{
		{"/usr/lib/postgresql/9/bin", 9},
		{"/usr/lib/postgresql/16/bin", 16},
		{"/opt/homebrew/opt/postgresql@17/bin", 17},
		{"/usr/local/bin", 0},
		{"/x/99999999999999999999", 0},
	}
	for _, tt := range tests {
		if got := versionIn(tt.path); got != tt.want {
			t.Errorf("versionIn(%q) = %d, want %d", tt.path, got, tt.want)
		}
	}
}

func TestPostgresWithoutProgramsIsSaid(t *testing.T) {
	t.Parallel()
	old := programs(t, "14.9")
	tests := []struct {
		name string
		dirs []string
		want string
	}{
		{"none", nil, searched},
		{"only an old one", []string{old}, "version 14 is too old"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := startPostgres(t.Context(), PostgresConfig{DataDir: t.TempDir(), NoFetch: true, Log: quiet()}, tt.dirs, rootHome)
			oneLine(t, err, tt.want, "install PostgreSQL", "database_url", "MUSTER_DATABASE_URL")
			if !errors.Is(err, ErrNoBinaries) {
				t.Errorf("%v is not ErrNoBinaries", err)
			}
		})
	}
}

func TestPostgresWithoutAPlaceToFetchToIsSaid(t *testing.T) {
	t.Parallel()
	file := filepath.Join(tree(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := PostgresConfig{DataDir: t.TempDir(), Log: quiet(), CacheDir: filepath.Join(file, "cache")}
	_, err := startPostgres(t.Context(), cfg, nil, rootHome)
	oneLine(t, err, "no PostgreSQL 15 or later", file, "install PostgreSQL", "MUSTER_DATABASE_URL")
}

func TestFetchIsGivenUpWithItsContext(t *testing.T) {
	t.Parallel()
	var once sync.Once
	asked, end := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { close(asked) })
		<-end
	}))
	t.Cleanup(srv.Close)
	cache := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	cfg := PostgresConfig{DataDir: t.TempDir(), Log: quiet(), RepositoryURL: srv.URL, CacheDir: cache}
	_, err := startPostgres(ctx, cfg, nil, rootHome)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("startPostgres = %v, want context.Canceled", err)
	}
	close(end)
	// The download that was left to itself cleans up.
	ok, err := poll(t.Context(), 30*time.Second, func() bool {
		left, err := filepath.Glob(filepath.Join(cache, "fetch-*"))
		return err == nil && len(left) == 0
	})
	if err != nil || !ok {
		t.Errorf("the download left its files behind (%v)", err)
	}
}
