package queue_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/nats-io/nats.go"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"

	"github.com/muster-fleet/muster/db/dbtest"
)

// natsImage, where it is set, is the image whose server the tests run against,
// in a container for each, instead of the one that is linked in. Tests that
// need a server with other options keep the latter.
var natsImage = os.Getenv("MUSTER_TEST_NATS_IMAGE")

// natsBox is a server in a container of this machine's engine, at one address
// for as long as the test runs.
type natsBox struct {
	addr netip.AddrPort
	c    *testcontainers.DockerContainer // nil: the next start begins with an empty store
}

func newNATSBox(t testing.TB) *natsBox {
	t.Helper()
	port, err := dbtest.FreePort()
	if err != nil {
		t.Fatalf("nats container: %v", err)
	}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
	return &natsBox{addr: addr}
}

func (b *natsBox) url() string { return "nats://" + b.addr.String() }

func (b *natsBox) start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if b.c == nil {
		const inside = "4222/tcp"
		tclog.SetDefault(tclog.NewNoopLogger()) // it describes the engine at length before every test
		c, err := testcontainers.Run(ctx, natsImage,
			testcontainers.WithExposedPorts(inside),
			testcontainers.WithHostConfigModifier(func(host *container.HostConfig) {
				host.PortBindings = network.PortMap{
					network.MustParsePort(inside): {{HostIP: b.addr.Addr(), HostPort: strconv.Itoa(int(b.addr.Port()))}},
				}
			}),
			testcontainers.WithCmd("-js", "-sd", "/data"),
		)
		b.c = c
		if err != nil {
			t.Fatalf("nats container of %s: %v", natsImage, err)
		}
	} else if err := b.c.Start(ctx); err != nil {
		t.Fatalf("nats container: start: %v", err)
	}
	if err := b.await(ctx); err != nil {
		t.Fatalf("nats container: %v", err)
	}
}

// await asks until the server answers: the engine's proxy listens before it.
func (b *natsBox) await(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		nc, err := nats.Connect(b.url(), nats.Timeout(time.Second))
		if err == nil {
			nc.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer at %s: %w", b.url(), err)
		case <-tick.C:
		}
	}
}

// stop keeps the store.
func (b *natsBox) stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	wait := patience / 2
	if err := b.c.Stop(ctx, &wait); err != nil {
		t.Errorf("nats container: stop: %v", err)
	}
}

func (b *natsBox) remove(t testing.TB) {
	t.Helper()
	if b.c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.c.Terminate(ctx, testcontainers.StopTimeout(0)); err != nil {
		t.Errorf("nats container: remove: %v", err)
	}
	b.c = nil
}
