package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"

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
	local     = way{"PostgreSQL on this machine", func(port int) (engine, error) { return newLocal(port, false) }}
	fetched   = way{"PostgreSQL fetched", func(port int) (engine, error) { return newLocal(port, true) }}
	container = way{"container", func(port int) (engine, error) { return newBox(port), nil }}
)

func waysTo(mode string) ([]way, error) {
	switch mode {
	case "", "auto":
		return []way{local, container, fetched}, nil
	case "local":
		return []way{local}, nil
	case "container":
		return []way{container}, nil
	}
	return nil, fmt.Errorf("%s is %q: want auto, local, container or a postgres:// URL", modeVar, redacted(mode))
}

// first starts the first engine that is to be had on this machine.
func first(ctx context.Context, ways []way, port int) (string, engine, error) {
	var missing []error
	for _, w := range ways {
		eng, err := w.make(port)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", w.name, err)
		}
		u, err := eng.start(ctx)
		if err == nil {
			return u, eng, nil
		}
		err = errors.Join(fmt.Errorf("%s: %w", w.name, err), eng.remove(ctx))
		if !errors.Is(err, standalone.ErrNoBinaries) && !errors.Is(err, errNoContainer) {
			return "", nil, err
		}
		missing = append(missing, err)
	}
	return "", nil, errors.Join(missing...)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }() // nothing was sent
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("address %s has no port", l.Addr())
	}
	return addr.Port, nil
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
	return os.RemoveAll(i.cfg.DataDir)
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

// errNoContainer says that no container could be had: no engine, or no image.
var errNoContainer = errors.New("no container could be started")

// box is a server in a container. The image keeps to the habits of the
// official one: POSTGRES_PASSWORD, and arguments that begin with postgres.
type box struct {
	port     int
	password string
	c        *testcontainers.DockerContainer
}

func newBox(port int) *box { return &box{port: port, password: rand.Text()} }

func (b *box) start(ctx context.Context) (string, error) {
	if b.c != nil {
		if err := b.c.Start(ctx); err != nil {
			return "", err
		}
		return b.await(ctx)
	}
	image := os.Getenv(imageVar)
	if image == "" {
		image = "postgres:15"
	}
	expose := "5432/tcp"
	if b.port != 0 {
		// A port that the engine chooses changes with each start.
		expose = strconv.Itoa(b.port) + ":" + expose
	}
	c, err := testcontainers.Run(ctx, image,
		testcontainers.WithExposedPorts(expose),
		testcontainers.WithEnv(map[string]string{"POSTGRES_PASSWORD": b.password}),
		testcontainers.WithCmd("postgres", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=400"),
		testcontainers.WithLogger(tclog.NewNoopLogger()),
	)
	b.c = c
	if err != nil {
		return "", fmt.Errorf("%w of %s: %w", errNoContainer, image, err)
	}
	return b.await(ctx)
}

// await asks until the server answers. Neither an open port nor a line in the
// log tells: the official image starts twice, and the engine's proxy listens
// before the server does.
func (b *box) await(ctx context.Context) (string, error) {
	addr, err := b.c.PortEndpoint(ctx, "5432/tcp", "")
	if err != nil {
		return "", err
	}
	u := (&url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", b.password),
		Host:     addr,
		Path:     "/postgres",
		RawQuery: "sslmode=disable",
	}).String()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, u)
		if err == nil {
			return u, conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("container does not answer: %w", err)
		case <-tick.C:
		}
	}
}

func (b *box) stop(ctx context.Context) error {
	if b.c == nil {
		return nil
	}
	wait := stopLimit / 2
	return b.c.Stop(ctx, &wait)
}

func (b *box) remove(ctx context.Context) error {
	if b.c == nil {
		return nil
	}
	return b.c.Terminate(ctx, testcontainers.StopTimeout(0))
}
