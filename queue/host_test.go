package queue_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

var drain = fleet.HostRequest{Host: "build-01", Runner: "build-01", Reason: "outdated", DecisionID: "d1"}

// hosts has a host answer every drain with a body, and gives what it was asked.
func hosts(t testing.TB, nc *nats.Conn, answer string) <-chan string {
	t.Helper()
	asked := make(chan string, 8)
	sub, err := nc.Subscribe(queue.DrainSubject("build-01"), func(m *nats.Msg) {
		asked <- string(m.Data)
		if err := m.Respond([]byte(answer)); err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return asked
}

func TestAHostSaysWhetherItsRunnerIsBusy(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := connect(t, s)
	for _, tt := range []struct {
		answer  string
		busy    bool
		unclear bool
	}{
		{`{"v":1,"busy":true}`, true, false},
		{`{"v":1,"busy":false}`, false, false},
		{`{"v":1}`, false, true},
		{`{"v":1,"busy":null}`, false, true},
		{`{"v":1,"busy":"no"}`, false, true},
		{`{"v":2,"busy":false}`, false, true},
		{`{"busy":false}`, false, true},
		{`{"v":1,"busy":false,"until":"noon"}`, false, true},
		{`{"v":1,"busy":false}{}`, false, true},
		{`{"v":1,"busy":false` + strings.Repeat(" ", queue.MaxBody) + `}`, false, true},
		{``, false, true},
		{`ok`, false, true},
	} {
		nc := client(t, s)
		asked := hosts(t, nc, tt.answer)
		busy, err := c.Drain(t.Context(), drain)
		if busy != tt.busy || errors.Is(err, queue.ErrUnclear) != tt.unclear || err != nil != tt.unclear {
			t.Errorf("Drain, answered %.40q = %v, %v, want %v, unclear %v", tt.answer, busy, err, tt.busy, tt.unclear)
		}
		if got, want := <-asked, `{"v":1,"runner":"build-01","reason":"outdated","decision_id":"d1"}`; got != want {
			t.Errorf("the host was asked %s, want %s", got, want)
		}
		nc.Close()
	}
}

func TestAHostThatDoesNotAnswerIsNoAnswer(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := connect(t, s)
	// The server says so at once; nobody is waited for.
	if busy, err := c.Drain(t.Context(), drain); busy || !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "does not listen") {
		t.Errorf("Drain where nobody listens = %v, %v, want unavailable", busy, err)
	}
	host := client(t, s)
	if _, err := host.SubscribeSync(queue.DrainSubject("build-01")); err != nil {
		t.Fatal(err)
	}
	if err := host.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if busy, err := c.Drain(ctx, drain); busy || !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Drain of a host that says nothing = %v, %v, want unavailable", busy, err)
	}
	other := drain
	other.Host = "build-01.>"
	if busy, err := c.Drain(t.Context(), other); busy || err == nil {
		t.Errorf("Drain of the host %q = %v, %v, want an error", other.Host, busy, err)
	}
}

// With the permissions of docs/tokens.md no host can answer for another.
func TestNoHostAnswersForAnother(t *testing.T) {
	t.Parallel()
	permit := func(publish, subscribe []string) *server.Permissions {
		return &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: publish},
			Subscribe: &server.SubjectPermission{Allow: subscribe},
		}
	}
	ofHost := func(name string) *server.User {
		return &server.User{Username: name, Password: "p", Permissions: permit(
			[]string{"muster.v1.host." + name + ".drain.*"}, []string{"muster.v1.host." + name + ".drain", "muster.v1.host." + name + ".release"})}
	}
	s := startNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "muster", Password: "p"}, ofHost("build-01"), ofHost("build-02")}
	})
	as := func(name string) string { return strings.Replace(s.ClientURL(), "nats://", "nats://"+name+":p@", 1) }
	c, err := queue.Connect(t.Context(), queue.Config{URL: as("muster"), Name: t.Name(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	dial := func(name string) *nats.Conn {
		nc, err := nats.Connect(as(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	forger := dial("build-02")
	mine := dial("build-01")
	// The host tells another where its answer is wanted, and waits until that
	// one has tried.
	if _, err := mine.Subscribe(queue.DrainSubject("build-01"), func(m *nats.Msg) {
		if err := forger.Publish(m.Reply, []byte(`{"v":1,"busy":false}`)); err != nil {
			t.Error(err)
		}
		if err := forger.Flush(); err != nil {
			t.Error(err)
		}
		if err := m.Respond([]byte(`{"v":1,"busy":true}`)); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := mine.Flush(); err != nil {
		t.Fatal(err)
	}
	if busy, err := c.Drain(t.Context(), drain); !busy || err != nil {
		t.Errorf("Drain = %v, %v, want true: what the other host said must not count", busy, err)
	}
}

// A message for a host has no stream to go to, and does not wait for one.
func TestTheRelayTellsHosts(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	host := client(t, s)
	heard, err := host.SubscribeSync(queue.ReleaseSubject("build-01"))
	if err == nil {
		err = host.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	release, err := queue.Release(drain)
	if err != nil {
		t.Fatal(err)
	}
	outbox := newTable()
	outbox.put(append(events(0, 3), release)...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	relay := &queue.Relay{Log: slog.New(slog.DiscardHandler), Conn: c, Outbox: outbox}
	go func() { done <- relay.Run(ctx) }()
	outbox.left(t, 0)
	m, err := heard.NextMsg(patience)
	if err != nil || string(m.Data) != `{"v":1,"runner":"build-01","reason":"outdated","decision_id":"d1"}` {
		t.Errorf("the host was told %+v, %v", m, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
