package dbtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/muster-fleet/muster/internal/standalone"
)

// engine runs one server. start may follow stop, and then finds the same data.
type engine interface {
	start(ctx context.Context) (url string, err error)
	stop(ctx context.Context) error
	remove(ctx context.Context) error // with its data
}

// way is one kind of engine; port 0 takes a free one at each start.
type way struct {
	name string
	make func(port int) (engine, error)
}

var (
	local   = way{"PostgreSQL on this machine", func(port int) (engine, error) { return newLocal(port, false) }}
	fetched = way{"PostgreSQL fetched", func(port int) (engine, error) { return newLocal(port, true) }}
	boxed   = way{"container", func(port int) (engine, error) { return newBox(port), nil }}
)

func waysTo(mode string) ([]way, error) {
	switch mode {
	case "", "auto":
		return []way{local, boxed, fetched}, nil
	case "local":
		return []way{local}, nil
	case "container":
		return []way{boxed}, nil
	}
	return nil, fmt.Errorf("%s is %q: want auto, local, container or a postgres:// URL", modeVar, redacted(mode))
}

// first starts the first engine that is to be had on this machine.
func first(ctx context.Context, ways []way, port int) (string, engine, error) {
	var missing error
	for _, w := range ways {
		eng, err := w.make(port)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", w.name, err)
		}
		u, err := eng.start(ctx)
		if err == nil {
			return u, eng, nil
		}
		if rerr := eng.remove(context.WithoutCancel(ctx)); rerr != nil {
			err = fmt.Errorf("%w; %w", err, rerr)
		}
		err = fmt.Errorf("%s: %w", w.name, err)
		if !errors.Is(err, standalone.ErrNoBinaries) && !errors.Is(err, errNoContainer) {
			return "", nil, err
		}
		if missing != nil {
			err = fmt.Errorf("%w; %w", missing, err)
		}
		missing = err
	}
	return "", nil, missing
}

// Ports from which FreePort chooses: below those that a system gives to whoever
// asks for any, which begin at 32768 on Linux and at 49152 elsewhere.
const (
	firstPort = 10_000
	lastPort  = 32_000
)

// FreePort is a TCP port of the loopback address that nobody listens on. What
// listens on it may be stopped and started again: meanwhile no program gets it
// that asks the system for any port, as tests do all the time.
func FreePort() (int, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// installation is a server of programs on this machine.
type installation struct {
	cfg standalone.PostgresConfig
	pg  *standalone.Postgres
}

// dataPrefix begins the names of data directories.
const dataPrefix = "muster-test-postgres-"

func newLocal(port int, fetch bool) (*installation, error) {
	sweepData(os.TempDir(), time.Now())
	dir, err := os.MkdirTemp("", dataPrefix)
	if err != nil {
		return nil, err
	}
	return &installation{cfg: standalone.PostgresConfig{
		DataDir: dir,
		Port:    port,
		Fast:    true,
		NoFetch: !fetch,
		Log:     slog.New(slog.DiscardHandler),
	}}, nil
}

func (i *installation) start(ctx context.Context) (string, error) {
	pg, err := standalone.StartPostgres(ctx, i.cfg)
	if err != nil {
		return "", err
	}
	i.pg = pg
	return pg.URL(), nil
}

func (i *installation) stop(ctx context.Context) error {
	if i.pg == nil {
		return nil
	}
	return i.pg.Stop(ctx)
}

func (i *installation) remove(ctx context.Context) error {
	if err := i.stop(ctx); err != nil {
		return err
	}
	err := os.RemoveAll(i.cfg.DataDir)
	if i.pg != nil {
		err = errors.Join(err, os.RemoveAll(i.pg.Dir()))
	}
	return err
}

// leftoverAge is how old something of an earlier run must be before it is
// taken for left behind: longer than any test takes.
const leftoverAge = time.Hour

// sweepData removes data directories of runs that were killed. What cannot be
// removed belongs to another user, who will do it.
func sweepData(dir string, now time.Time) {
	found, err := filepath.Glob(filepath.Join(dir, dataPrefix+"*"))
	if err != nil {
		return // the directory's name is no pattern
	}
	for _, path := range found {
		fi, err := os.Stat(path)
		if err != nil || now.Sub(fi.ModTime()) < leftoverAge {
			continue
		}
		b, err := os.ReadFile(filepath.Join(path, "data", "postmaster.pid"))
		pid, _, _ := strings.Cut(string(b), "\n")
		if n, perr := strconv.Atoi(pid); err == nil && perr == nil && syscall.Kill(n, 0) == nil {
			continue
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			_ = os.RemoveAll(path) // the next run tries again
		}
	}
}
