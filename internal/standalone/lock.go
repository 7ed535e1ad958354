package standalone

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockName is in the directory that it guards.
const lockName = "muster.lock"

// errInUse says that another process has the lock.
var errInUse = errors.New("in use by another muster")

// lockDir takes dir for this process. The kernel lets go of it when the
// process ends, however it ends, so a lock is never stale. Closing the file
// gives it up. The file stays: removing it would let two processes lock two
// files of the same name.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }() // nothing was written
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		return nil, fmt.Errorf("%s is %w%s: stop that one, or give this one a data_dir of its own", dir, errInUse, holder(path))
	}
	if err := f.Truncate(0); err != nil {
		_ = f.Close() // the error of the truncation says more
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		_ = f.Close() // the error of the write says more
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// holder names the process that wrote the lock, for an error message.
func holder(path string) string {
	b, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(b))
	if err != nil || pid == "" {
		return ""
	}
	return " (process " + pid + ")"
}
