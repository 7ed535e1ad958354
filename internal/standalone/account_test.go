package standalone

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// stranger is an account that nothing on this machine belongs to.
var stranger = &account{name: "stranger", uid: 3_000_000_001, gid: 3_000_000_001}

func TestPostgresRunsWithoutRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begin(t, PostgresConfig{DataDir: dir, Fast: true})
	want := os.Getuid()
	if a, err := postgresAccount(); err != nil {
		t.Fatal(err)
	} else if a != nil {
		want = int(a.uid)
	}
	if want == 0 {
		t.Fatal("Postgres would run as root")
	}
	for _, path := range []string{"data", "data/postmaster.pid"} {
		fi, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := int(fi.Sys().(*syscall.Stat_t).Uid); got != want {
			t.Errorf("%s belongs to user %d, want %d", path, got, want)
		}
		if fi.IsDir() && fi.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %o, want 700", path, fi.Mode().Perm())
		}
	}
	// What muster keeps for itself is out of the server's hands.
	for _, path := range []string{"password", lockName} {
		fi, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := int(fi.Sys().(*syscall.Stat_t).Uid); got != os.Getuid() {
			t.Errorf("%s belongs to user %d, want %d", path, got, os.Getuid())
		}
	}
}

// tree makes directories of the given modes, one in the other, and returns
// the resolved path of the last.
func tree(t *testing.T, modes ...os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	// TempDir makes its parent for this user alone.
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range modes {
		dir = filepath.Join(dir, "d")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := resolve(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAccountPasses(t *testing.T) {
	t.Parallel()
	self := &account{uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}
	group := &account{uid: stranger.uid, gid: uint32(os.Getgid())}
	tests := []struct {
		name string
		mode os.FileMode
		who  *account
		want bool
	}{
		{"owner may", 0o700, self, true},
		{"owner may not, although others may", 0o611, self, false},
		{"group may", 0o710, group, true},
		{"group may not, although others may", 0o701, group, false},
		{"others may", 0o701, stranger, true},
		{"others may list but not pass", 0o704, stranger, false},
		{"others may not", 0o770, stranger, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := tree(t, tt.mode)
			got, err := tt.who.passes(dir)
			if err != nil || got != tt.want {
				t.Errorf("passes(%o) = %v, %v, want %v", tt.mode, got, err, tt.want)
			}
		})
	}
}

// TestAccountReach needs no root: the account shares only a group with whoever
// runs the test, who owns all that is opened.
func TestAccountReach(t *testing.T) {
	a := &account{name: "stranger", uid: stranger.uid, gid: uint32(os.Getgid())}
	home := filepath.Join(tree(t, 0o755), "home")

	t.Run("an open way stays as it is", func(t *testing.T) {
		want := filepath.Join(tree(t, 0o755), "new", "data")
		got, err := a.reach(want, home)
		if err != nil || got != want {
			t.Errorf("reach = %q, %v, want %q", got, err, want)
		}
	})
	t.Run("below the directory for temporary files the way is opened", func(t *testing.T) {
		closed := tree(t, 0o700, 0o750, 0o700)
		t.Setenv("TMPDIR", filepath.Join(closed, "..", "..", ".."))
		want := filepath.Join(closed, "data")
		got, err := a.reach(want, home)
		if err != nil || got != want {
			t.Errorf("reach = %q, %v, want %q", got, err, want)
		}
		for dir, want := range map[string]os.FileMode{closed: 0o710, filepath.Dir(closed): 0o750} {
			fi, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := fi.Mode().Perm(); got != want {
				t.Errorf("%s has mode %o, want %o", dir, got, want)
			}
		}
	})
	t.Run("elsewhere the files go to the home for them", func(t *testing.T) {
		one, two := tree(t, 0o700), tree(t, 0o700)
		t.Setenv("TMPDIR", "/nowhere")
		first, err := a.reach(filepath.Join(one, "data"), home)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(first) != home {
			t.Errorf("reach = %q, want it in %q", first, home)
		}
		again, err := a.reach(filepath.Join(one, "data"), home)
		if err != nil || again != first {
			t.Errorf("reach = %q, %v, want %q as before", again, err, first)
		}
		other, err := a.reach(filepath.Join(two, "data"), home)
		if err != nil || other == first {
			t.Errorf("reach = %q, %v, want another place than %q", other, err, first)
		}
		fi, err := os.Stat(one)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o700 {
			t.Errorf("mode %o of a directory that is not ours to open, want 700", fi.Mode().Perm())
		}
	})
	t.Run("nothing in reach is said", func(t *testing.T) {
		one, two := tree(t, 0o700), tree(t, 0o700)
		t.Setenv("TMPDIR", "/nowhere")
		_, err := a.reach(filepath.Join(one, "data"), filepath.Join(two, "home"))
		oneLine(t, err, "stranger", one, two, "data_dir")
	})
	t.Run("an ordinary user goes where he wants", func(t *testing.T) {
		var none *account
		want := filepath.Join(tree(t, 0o700), "data")
		if got, err := none.reach(want, home); err != nil || got != want {
			t.Errorf("reach = %q, %v, want %q", got, err, want)
		}
	})
}

// As root only: an ordinary user cannot make a place that he cannot reach.
func TestPostgresOfRootOutOfReach(t *testing.T) {
	if os.Getuid() != 0 {
		a, err := postgresAccount()
		if a != nil || err != nil {
			t.Errorf("postgresAccount() = %v, %v, want the user himself", a, err)
		}
		return
	}
	closed, home := tree(t, 0o700), filepath.Join(tree(t, 0o755), "home")
	t.Setenv("TMPDIR", "/nowhere")
	pg, err := startPostgres(t.Context(), PostgresConfig{
		DataDir: filepath.Join(closed, "data"), Fast: true, Log: quiet(),
	}, installed(t.Context()), home)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if got := query(t, pg.URL(), `SELECT 'up'`); got != "up" {
		t.Errorf("out of reach: %q", got)
	}
	if filepath.Dir(pg.Dir()) != home {
		t.Errorf("Dir() = %q, want it in %q", pg.Dir(), home)
	}
	if _, err := os.Stat(filepath.Join(pg.Dir(), "data", "PG_VERSION")); err != nil {
		t.Errorf("no cluster where Dir says: %v", err)
	}
}
