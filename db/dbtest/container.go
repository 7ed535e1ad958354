package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
)

// errNoContainer says that no container could be had: no engine, or no image.
var errNoContainer = errors.New("no container could be started")

// inside is the port that Postgres has within its container.
const inside = "5432/tcp"

// box is a server in a container. The image keeps to the habits of the
// official one: POSTGRES_PASSWORD, and arguments that begin with postgres.
type box struct {
	port     int // on the engine's host; 0: the engine chooses, anew at each start
	password string
	addr     string // where it has answered, and has to again after a restart
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
	tclog.SetDefault(tclog.NewNoopLogger()) // it describes the engine at length before every test
	c, err := testcontainers.Run(ctx, image,
		testcontainers.WithExposedPorts(inside),
		testcontainers.WithConfigModifier(func(config *container.Config) {
			config.StopSignal = "SIGINT" // cuts clients off; SIGTERM would wait for them
		}),
		testcontainers.WithHostConfigModifier(func(host *container.HostConfig) {
			if b.port != 0 {
				host.PortBindings = network.PortMap{network.MustParsePort(inside): {{HostPort: strconv.Itoa(b.port)}}}
			}
		}),
		testcontainers.WithEnv(map[string]string{"POSTGRES_PASSWORD": b.password}),
		testcontainers.WithCmd("postgres", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=400"),
	)
	b.c = c
	if err != nil {
		return "", fmt.Errorf("%w of %s: %s", errNoContainer, image, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return b.await(ctx)
}

// await asks until the server answers. Neither an open port nor a line in the
// log tells: the official image starts twice, and the engine's proxy listens
// before the server does.
func (b *box) await(ctx context.Context) (string, error) {
	addrs := []string{b.addr}
	if b.addr == "" {
		var err error
		if addrs, err = b.addresses(ctx); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		addr, last := b.first(ctx, addrs)
		if last == nil {
			// It may have come up in the middle of the round: what stands
			// further up holds longer. A container's own address can be
			// another container's after a restart.
			if better, err := b.first(ctx, addrs); err == nil {
				addr = better
			}
			b.addr = addr
			return b.url(addr), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("container does not answer at any of %s: %w", strings.Join(addrs, ", "), last)
		case <-tick.C:
		}
	}
}

// first is the first address at which the server answers, or why it does not
// at the last of them.
func (b *box) first(ctx context.Context, addrs []string) (string, error) {
	var last error
	for _, addr := range addrs {
		if last = answers(ctx, b.url(addr)); last == nil {
			return addr, nil
		}
	}
	return "", last
}

func (b *box) url(addr string) string {
	return (&url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", b.password),
		Host:     addr,
		Path:     "/postgres",
		RawQuery: "sslmode=disable",
	}).String()
}

// addresses are where the server may be found, those that hold longest first. Tests that themselves run in a
// container reach its engine at another address than tests beside it, and an
// engine within that container at yet another, which testcontainers does not
// tell apart.
func (b *box) addresses(ctx context.Context) ([]string, error) {
	port, err := b.c.MappedPort(ctx, inside)
	if err != nil {
		return nil, err
	}
	host, err := b.c.Host(ctx)
	if err != nil {
		return nil, err
	}
	addrs := []string{
		net.JoinHostPort("127.0.0.1", port.Port()),
		net.JoinHostPort(host, port.Port()),
	}
	if ip, err := b.c.ContainerIP(ctx); err == nil && ip != "" {
		addrs = append(addrs, net.JoinHostPort(ip, "5432"))
	}
	return addrs, nil
}

func answers(ctx context.Context, u string) error {
	// An address that is not the right one may swallow what is sent to it.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, u)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
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
