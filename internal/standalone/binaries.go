package standalone

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldestMajor is the first PostgreSQL that has all that the schema uses.
const oldestMajor = 15

// ErrNoBinaries says that this machine has no PostgreSQL that could be used.
var ErrNoBinaries = errors.New("no PostgreSQL 15 or later on this machine")

// binaries is one installation of PostgreSQL.
type binaries struct {
	dir   string // of initdb and postgres
	major int
}

// searched names, for users, what installed looks through.
const searched = "PATH, pg_config, /usr/lib/postgresql, /usr/pgsql-*, Homebrew and Postgres.app"

// installed lists the directories where this machine may have PostgreSQL, best
// first: what the user's PATH says, then what its pg_config says, then where
// packages put it, highest version first.
func installed(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	var packaged []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                                   // Debian
		"/usr/pgsql-*/bin",                                            // PGDG's RPMs
		"/usr/libexec/postgresql*",                                    // Alpine
		"/opt/homebrew/opt/postgresql@*/bin",                          // Homebrew on Apple's own processors
		"/usr/local/opt/postgresql@*/bin",                             // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",             // Homebrew on Linux
		"/Applications/Postgres.app/Contents/Versions/[0-9]*/bin",     // Postgres.app
		"/opt/homebrew/bin", "/usr/local/bin", "/usr/local/pgsql/bin", // where PATH is not set up
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns are constants
		}
		packaged = append(packaged, found...)
	}
	slices.SortStableFunc(packaged, func(a, b string) int { return cmp.Compare(versionIn(b), versionIn(a)) })
	return append(dirs, packaged...)
}

var digits = regexp.MustCompile(`[0-9]+`)

// versionIn is the last number in a path, 0 without one.
func versionIn(path string) int {
	all := digits.FindAllString(path, -1)
	if len(all) == 0 {
		return 0
	}
	n, err := strconv.Atoi(all[len(all)-1])
	if err != nil {
		return 0
	}
	return n
}

// choose returns the first of dirs that the account can use and that runs the
// wanted major version; want 0 takes any that is new enough.
func choose(ctx context.Context, a *account, dirs []string, want int) (binaries, error) {
	var unfit []string
	seen := map[string]bool{}
	for _, dir := range dirs {
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err != nil {
			continue
		}
		b, err := probe(ctx, a, dir)
		switch {
		case err != nil:
			unfit = append(unfit, fmt.Sprintf("%s: %v", dir, err))
		case b.major < oldestMajor:
			unfit = append(unfit, fmt.Sprintf("%s: version %d is too old", dir, b.major))
		case want != 0 && b.major != want:
			unfit = append(unfit, fmt.Sprintf("%s: version %d, and the data is of version %d", dir, b.major, want))
		default:
			return b, nil
		}
	}
	if len(unfit) > 0 {
		return binaries{}, fmt.Errorf("%w (%s)", ErrNoBinaries, strings.Join(unfit, "; "))
	}
	return binaries{}, fmt.Errorf("%w (looked in %s)", ErrNoBinaries, searched)
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) ([0-9]+)`)

func probe(ctx context.Context, a *account, dir string) (binaries, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return binaries{}, errors.New("postgres without initdb")
	}
	out, err := runTool(tool(ctx, a, "/", filepath.Join(dir, "postgres"), "--version"))
	if err != nil {
		return binaries{}, err
	}
	m := versionLine.FindStringSubmatch(out)
	if m == nil {
		return binaries{}, fmt.Errorf("not a version of PostgreSQL: %q", strings.TrimSpace(out))
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return binaries{}, err
	}
	return binaries{dir: dir, major: major}, nil
}
