package standalone

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func beginNATS(t *testing.T, cfg NATSConfig) *NATS {
	t.Helper()
	cfg.Log = quiet()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	n, err := StartNATS(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

func stream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestNATSKeepsAStreamOverARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := beginNATS(t, NATSConfig{StoreDir: dir})
	nc, err := nats.Connect(first.URL())
	if err != nil {
		t.Fatal(err)
	}
	js := stream(t, nc)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "KEPT", Subjects: []string{"kept"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "kept", []byte("yes")); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	first.Stop()
	first.Stop() // a second time is harmless

	second := beginNATS(t, NATSConfig{StoreDir: dir})
	nc, err = nats.Connect(second.URL(), nats.InProcessServer(second.Server()))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := stream(t, nc).Stream(t.Context(), "KEPT")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := kept.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if string(msg.Data) != "yes" {
		t.Errorf("after a restart: %q, want yes", msg.Data)
	}
}

func TestNATSSyncsEveryMessage(t *testing.T) {
	t.Parallel()
	n := beginNATS(t, NATSConfig{StoreDir: t.TempDir()})
	cfg := n.Server().JetStreamConfig()
	if cfg == nil {
		t.Fatal("no JetStream")
	}
	if !cfg.SyncAlways {
		t.Error("SyncAlways is off: an acknowledged message may be lost")
	}
	if cfg.MaxMemory != natsMaxMemory {
		t.Errorf("MaxMemory = %d, want %d", cfg.MaxMemory, natsMaxMemory)
	}
}

func TestNATSWantsItsLogin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var said bytes.Buffer
	cfg := NATSConfig{Listen: "127.0.0.1:0", StoreDir: dir, Log: slog.New(slog.NewTextHandler(&said, nil))}
	n, err := StartNATS(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	u, err := url.Parse(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	if len(password) < 32 {
		t.Errorf("the password has %d characters, want at least 32", len(password))
	}
	for _, login := range []*url.Userinfo{nil, url.User(u.User.Username()), url.UserPassword(u.User.Username(), "guess"), url.UserPassword("other", password)} {
		stranger := url.URL{Scheme: "nats", User: login, Host: u.Host}
		if nc, err := nats.Connect(stranger.String()); !errors.Is(err, nats.ErrAuthorization) {
			if err == nil {
				nc.Close()
			}
			t.Errorf("connect as %v = %v, want a refusal", login, err)
		}
	}
	nc, err := nats.Connect(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()

	fi, err := os.Stat(filepath.Join(dir, "password"))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("password file has mode %o, want 600", fi.Mode().Perm())
	}
	if said.Len() == 0 || strings.Contains(said.String(), password) {
		t.Errorf("logged %q, want the address without the password", &said)
	}
	n.Stop()
	again := beginNATS(t, NATSConfig{StoreDir: dir})
	if nc, err = nats.Connect(again.URL()); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if !strings.Contains(again.URL(), password) {
		t.Error("the password is another one after a restart")
	}
}

func TestNATSPortTakenIsSaid(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dir := t.TempDir()
	_, err = StartNATS(t.Context(), NATSConfig{Listen: l.Addr().String(), StoreDir: dir, Log: quiet()})
	oneLine(t, err, l.Addr().String(), "embedded.nats_listen", "nats.url")

	// The refused start holds nothing.
	beginNATS(t, NATSConfig{StoreDir: dir})
}

func TestNATSTakesTheGivenPort(t *testing.T) {
	t.Parallel()
	port, err := awaitPort(t.Context(), quiet(), "127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "0.0.0.0"} {
		n := beginNATS(t, NATSConfig{Listen: net.JoinHostPort(host, strconv.Itoa(port)), StoreDir: t.TempDir()})
		u, err := url.Parse(n.URL())
		if err != nil {
			t.Fatal(err)
		}
		if want := "127.0.0.1:" + strconv.Itoa(port); u.Scheme != "nats" || u.Host != want {
			t.Errorf("URL() is %s://%s, want nats://%s", u.Scheme, u.Host, want)
		}
		n.Stop()
	}
}

func TestNATSSecondServerOnItsFilesIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	beginNATS(t, NATSConfig{StoreDir: dir})
	_, err := StartNATS(t.Context(), NATSConfig{Listen: "127.0.0.1:0", StoreDir: dir, Log: quiet()})
	oneLine(t, err, dir, "another muster")
}

func TestNATSBadConfigIsSaid(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, listen, dir, want string
	}{
		{"no port", "127.0.0.1", t.TempDir(), "HOST:PORT"},
		{"port is a word", "127.0.0.1:nats", t.TempDir(), `"nats"`},
		{"port too large", "127.0.0.1:70000", t.TempDir(), `"70000"`},
		{"negative port", "127.0.0.1:-1", t.TempDir(), `"-1"`},
		{"address of another machine", "192.0.2.1:0", t.TempDir(), "192.0.2.1"},
		{"store is a file", "127.0.0.1:0", file, file},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := StartNATS(t.Context(), NATSConfig{Listen: tt.listen, StoreDir: tt.dir, Log: quiet()})
			oneLine(t, err, tt.listen, tt.want)
		})
	}
}

func TestNATSServesClientsUntilStop(t *testing.T) {
	t.Parallel()
	n := beginNATS(t, NATSConfig{StoreDir: t.TempDir()})
	nc, err := nats.Connect(n.URL(), nats.MaxReconnects(0))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	n.Stop()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("a client is still connected after Stop")
	}
}
