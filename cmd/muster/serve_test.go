package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Servers in the system's directory must not come up because a file was not
// found (issue 10).
func TestServeWithoutAConfigurationFileSaysWhereItLooked(t *testing.T) {
	home, empty := t.TempDir(), t.TempDir()
	t.Chdir(empty)
	r := muster(t, map[string]string{"HOME": home}, "serve")
	want := "muster: serve: no configuration file: neither --config nor MUSTER_CONFIG names one, and there is neither " +
		filepath.Join(empty, "muster.yaml") + " nor /etc/muster/muster.yaml: write one there, or run muster serve --embedded to start without\n"
	if r.code != exitUsage || r.stderr != want || r.stdout != "" {
		t.Errorf("serve = %+v, want exit 2 and\n%s", r, want)
	}
	for _, dir := range []string{home, empty} {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Errorf("serve left %v in %s, want nothing", left, dir)
		}
	}

	r = muster(t, map[string]string{"HOME": home, "MUSTER_DATABASE_URL": "postgres://m@db/m", "MUSTER_NATS_URL": "nats://n:4222"}, "serve")
	if r.code != exitUsage || r.stderr != want {
		t.Errorf("serve with addresses in the environment alone = %+v, want the same refusal", r)
	}
}

func TestServeEmbeddedNeedsNoConfigurationFile(t *testing.T) {
	t.Chdir(t.TempDir())
	a := &app{env: variables(map[string]string{"HOME": "/h"})}
	path, err := a.configToServe(true)
	if err != nil || path != "" {
		t.Fatalf("configToServe = %q, %v, want no file and no error", path, err)
	}
	c, err := loadConfig(path, a.env)
	if err != nil {
		t.Fatal(err)
	}
	if !c.databaseURL.IsZero() || !c.nats.url.IsZero() {
		t.Error("serve --embedded has an address of a server that it did not start")
	}
	if len(c.warnings) != 1 || !strings.Contains(c.warnings[0], "no target is configured") {
		t.Errorf("warnings = %q, want one that no target is configured", c.warnings)
	}
}

// A file that was moved away must not empty the configuration at SIGHUP.
func TestServeReloadsTheFileOfTheStart(t *testing.T) {
	dir := inDir(t, map[string]string{"muster.yaml": ""})
	t.Chdir(dir)
	a := &app{env: variables(nil)}
	path, err := a.configToServe(false)
	if want := filepath.Join(dir, "muster.yaml"); err != nil || path != want {
		t.Errorf("configToServe = %q, %v, want %q, which holds wherever the process goes", path, err, want)
	}
}
