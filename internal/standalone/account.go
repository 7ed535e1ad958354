package standalone

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// rootHome is where Postgres's files go when root asks for a place that the
// account which Postgres runs as cannot reach, such as root's own home.
const rootHome = "/var/lib/muster"

// account is whom Postgres runs as. nil stands for the user of this process.
type account struct {
	name     string
	uid, gid uint32
}

// postgresAccount is nil for an ordinary user. Postgres refuses to run as
// root, so for root it is an account without rights.
func postgresAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		// nobody is -2 on some systems.
		uid, uerr := strconv.ParseInt(u.Uid, 10, 64)
		gid, gerr := strconv.ParseInt(u.Gid, 10, 64)
		if uerr == nil && gerr == nil && uid != 0 {
			return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("Postgres does not run as root, and there is neither a user postgres nor a user nobody to run it as: run muster as an ordinary user, or set database_url or MUSTER_DATABASE_URL")
}

// credential is nil for the user of this process.
func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// give makes the account the owner of path.
func (a *account) give(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// reach returns where the account can have dir: dir itself, after opening what
// stands in the way where that is ours to open (below the directory for
// temporary files, and home), else a directory below home named after dir.
func (a *account) reach(dir, home string) (string, error) {
	dir, err := resolve(dir)
	if err != nil || a == nil {
		return dir, err
	}
	if a.clear(dir, home) == nil {
		return dir, nil
	}
	home, err = resolve(home)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(dir))
	elsewhere := filepath.Join(home, "postgres-"+hex.EncodeToString(sum[:4]))
	if err := a.clear(elsewhere, home); err != nil {
		return "", fmt.Errorf("user %s, whom Postgres runs as because it refuses root, reaches neither %s nor %s: set data_dir to a place open to that user, or run muster as an ordinary user: %w",
			a.name, dir, elsewhere, err)
	}
	return elsewhere, nil
}

// clear makes the parents of dir and lets the account pass through them.
func (a *account) clear(dir, home string) error {
	parent := filepath.Dir(dir)
	if err := mkdirOpen(parent); err != nil {
		return err
	}
	temp, err := resolve(os.TempDir())
	if err != nil {
		return err
	}
	var blocked []string
	for p := parent; ; p = filepath.Dir(p) {
		ok, err := a.passes(p)
		if err != nil {
			return err
		}
		if !ok {
			if p != home && !below(p, home) && !below(p, temp) {
				return fmt.Errorf("%s is closed to user %s", p, a.name)
			}
			blocked = append(blocked, p)
		}
		if p == filepath.Dir(p) {
			break
		}
	}
	for _, p := range blocked {
		if err := a.open(p); err != nil {
			return err
		}
	}
	return nil
}

func (a *account) passes(dir string) (bool, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return false, fmt.Errorf("owner of %s is not known on this system", dir)
	}
	switch {
	case st.Uid == a.uid:
		return fi.Mode()&0o100 != 0, nil
	case st.Gid == a.gid:
		return fi.Mode()&0o010 != 0, nil
	}
	return fi.Mode()&0o001 != 0, nil
}

// open lets the account pass through dir without listing it. Where no group
// has rights yet, the account's gets them; else everybody.
func (a *account) open(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if fi.Mode()&0o070 != 0 {
		return os.Chmod(dir, fi.Mode().Perm()|0o001)
	}
	if err := os.Chown(dir, -1, int(a.gid)); err != nil {
		return err
	}
	return os.Chmod(dir, fi.Mode().Perm()|0o010)
}

// resolve is the absolute path of dir without symbolic links; its tail need
// not exist.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	target, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		parent, err := resolve(filepath.Dir(dir))
		return filepath.Join(parent, filepath.Base(dir)), err
	}
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", dir, err)
	}
	return target, nil
}

// below reports whether path lies inside dir; both are resolved.
func below(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// mkdirOpen makes dir and its missing parents passable for everybody,
// whatever the umask of root.
func mkdirOpen(dir string) error {
	err := os.Mkdir(dir, 0o755)
	switch {
	case err == nil:
		return os.Chmod(dir, 0o755)
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := mkdirOpen(filepath.Dir(dir)); err != nil {
			return err
		}
		return mkdirOpen(dir)
	}
	return err
}
