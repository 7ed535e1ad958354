package token_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/token"
)

func TestNoTokenGoesWhereAStreamWouldKeepIt(t *testing.T) {
	t.Parallel()
	s := anyone()
	s.options = func(o *server.Options) { o.JetStream, o.StoreDir = true, t.TempDir() }
	var conn *queue.Conn
	s.change = func(i *token.Issuer) { conn = i.Conn.(*queue.Conn) }
	r := start(t, s)
	js, err := jetstream.New(r.client(t, "admin"), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "build-01", registration); got.Token == "" {
		t.Fatalf("answer is %s", got.body)
	}
	minted := len(r.minted())

	// A server that loses its last stream removes their folder a moment later,
	// also from under one that is just being made.
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "HARMLESS", Subjects: []string{"harmless"}}); err != nil {
		t.Fatal(err)
	}
	const curious = "CURIOUS"
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: curious, Subjects: []string{"_INBOX_host.>"}, NoAck: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.EnsureStreams(t.Context()); !errors.Is(err, queue.ErrUnsafe) {
		t.Fatalf("EnsureStreams() = %v", err)
	}
	// The first is a repeat of what was handed out, the second a new wish.
	for _, host := range []string{"build-01", "build-02"} {
		if got := r.ask(t, host, registration); got.Code != 503 || got.RetryAfterMS != 30000 || got.Token != "" {
			t.Errorf("%s: answer is %s", host, got.body)
		}
	}
	if n := len(r.minted()); n != minted {
		t.Errorf("%d tokens were minted, want none", n-minted)
	}

	if err := js.DeleteStream(t.Context(), curious); err != nil {
		t.Fatal(err)
	}
	if err := conn.EnsureStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "build-02", registration); got.Token == "" {
		t.Errorf("answer is %s", got.body)
	}
}
