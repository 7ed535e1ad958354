package token_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/token"
)

func TestNoTokenGoesWhereAStreamWouldKeepIt(t *testing.T) {
	t.Parallel()
	s := anyone()
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

// captured are the tokens in a stream, and when each came in.
func captured(t *testing.T, js jetstream.JetStream, name string) map[string]time.Time {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]time.Time{}
	state := stream.CachedInfo().State
	for seq := state.FirstSeq; seq > 0 && seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Token string }
		if err := json.Unmarshal(m.Data, &body); err != nil {
			t.Fatal(err)
		}
		if body.Token != "" {
			tokens[fleet.NewSecret(body.Token).Fingerprint()] = m.Time
		}
	}
	return tokens
}

// exposed are the fingerprints of the tokens that the trail names for a stream.
func (r *replica) exposed(t *testing.T, stream string) []string {
	t.Helper()
	events, err := r.db.Trail(t.Context(), db.TrailFilter{Code: string(fleet.AuditTokenExposed)})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range events {
		var payload struct {
			Details struct{ Stream, Fingerprint, RequestID string }
		}
		if err := json.Unmarshal(e.Payload, &payload); err != nil {
			t.Fatal(err)
		}
		if payload.Details.Stream == stream {
			all = append(all, payload.Details.Fingerprint)
		}
		if e.Host == "" || e.Target != "acme" || !strings.Contains(e.Reason, "stream "+stream+" captures") {
			t.Errorf("the trail has %+v", e)
		}
	}
	return all
}

// Hosts ask for tokens all the time while somebody makes a stream that reads
// along.
func TestAStreamMadeMeanwhileStopsTheDeskAndWhatItCapturedIsNamed(t *testing.T) {
	t.Parallel()
	s := anyone()
	s.target = func(target *token.Target) { target.ShareRegistration = false }
	var conn *queue.Conn
	s.change = func(i *token.Issuer) { conn = i.Conn.(*queue.Conn) }
	r := start(t, s)
	guarded, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- conn.Guard(guarded) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Guard() = %v", err)
		}
	})
	js, err := jetstream.New(r.client(t, "admin"), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	before := r.ask(t, "build-00", registration)
	if before.Token == "" {
		t.Fatalf("answer is %s", before.body)
	}

	var hosts sync.WaitGroup
	for n := range 8 {
		host := fmt.Sprintf("build-1%d", n)
		nc := r.client(t, host)
		hosts.Go(func() {
			for range 10000 {
				if got := ask(t, nc, host, registration); got.Code == 503 {
					return
				}
			}
			t.Errorf("%s is never refused", host)
		})
	}
	const curious = "CURIOUS"
	made, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: curious, Subjects: []string{"_INBOX_host.>"}, NoAck: true})
	if err != nil {
		t.Fatal(err)
	}
	hosts.Wait()
	tokens := captured(t, js, curious)
	for fingerprint, at := range tokens {
		if way := at.Sub(made.CachedInfo().Created); way >= time.Second {
			t.Errorf("token %s was handed out %s after the stream was made, want less than 1 s", fingerprint, way)
		}
	}
	t.Logf("%d tokens were captured", len(tokens))
	// The one of right before is named too: its row does not tell when its answer
	// went out.
	tokens[fleet.NewSecret(before.Token).Fingerprint()] = time.Time{}
	eventually(t, "the tokens in the trail", func() bool { return len(r.exposed(t, curious)) >= len(tokens) })
	named := r.exposed(t, curious)
	for fingerprint := range tokens {
		if !slices.Contains(named, fingerprint) {
			t.Errorf("the trail does not name token %s", fingerprint)
		}
	}
	slices.Sort(named)
	if distinct := len(slices.Compact(slices.Clone(named))); distinct != len(named) {
		t.Errorf("the trail names %d tokens, %d of them distinct", len(named), distinct)
	}
	if n := r.minted(); len(named) > len(n) {
		t.Errorf("the trail names %d tokens of %d", len(named), len(n))
	}

	if err := js.DeleteStream(t.Context(), curious); err != nil {
		t.Fatal(err)
	}
	eventually(t, "tokens again", func() bool { return r.ask(t, "build-00", registration).Token != "" })
}

// Somebody gives a stream that is there already the subjects of the answers.
func TestAStreamThatIsChangedStopsTheDesk(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	js, err := jetstream.New(r.client(t, "admin"), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	cfg := jetstream.StreamConfig{Name: "HARMLESS", Subjects: []string{"harmless"}, NoAck: true}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "build-01", registration); got.Token == "" {
		t.Fatalf("answer is %s", got.body)
	}
	cfg.Subjects = append(cfg.Subjects, "_INBOX_host.>")
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal", func() bool { return r.ask(t, "build-01", registration).Code == 503 })
	eventually(t, "the token in the trail", func() bool { return len(r.exposed(t, "HARMLESS")) > 0 })
}

// While muster is not connected nobody tells it of streams.
func TestTheFirstTokenAfterAReconnectWaitsForALook(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), 0
	s := anyone()
	s.options = func(o *server.Options) {
		o.StoreDir = dir
		if port != 0 {
			o.Port = port
		}
	}
	r := start(t, s)
	port = r.nats.Addr().(*net.TCPAddr).Port
	if got := r.ask(t, "build-01", registration); got.Token == "" {
		t.Fatalf("answer is %s", got.body)
	}
	r.nats.Shutdown()
	r.nats.WaitForShutdown()

	elsewhere := startNATS(t, func(o *server.Options) { o.StoreDir = dir })
	nc, err := nats.Connect(elsewhere.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	const curious = "CURIOUS"
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: curious, Subjects: []string{"_INBOX_host.>"}, NoAck: true}); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	elsewhere.Shutdown()
	elsewhere.WaitForShutdown()

	r.nats = startNATS(t, s.options)
	eventually(t, "a subscription", r.listens)
	if got := r.ask(t, "build-02", registration); got.Code != 503 || got.Token != "" {
		t.Errorf("the first answer after the reconnect is %s", got.body)
	}
	if js, err = jetstream.New(r.client(t, "admin"), jetstream.WithDefaultTimeout(patience)); err != nil {
		t.Fatal(err)
	}
	if tokens := captured(t, js, curious); len(tokens) > 0 {
		t.Errorf("%d tokens lie in the stream", len(tokens))
	}
}

// Where muster may not hear of changes it looks every second.
func TestWithoutAdvisoriesTheDeskLooksByItself(t *testing.T) {
	t.Parallel()
	s := anyone()
	s.options = func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "muster", Password: "muster", Permissions: &server.Permissions{
				Subscribe: &server.SubjectPermission{Deny: []string{"$JS.EVENT.ADVISORY.>"}},
			}},
			{Username: "other", Password: "other"},
		}
		o.NoAuthUser = "other"
	}
	s.connect = "muster:muster@"
	var conn *queue.Conn
	s.change = func(i *token.Issuer) { conn = i.Conn.(*queue.Conn) }
	r := start(t, s)
	eventually(t, "that muster hears nothing", func() bool { return conn.WithoutAdvisories() != nil })
	if got := r.ask(t, "build-01", registration); got.Token == "" {
		t.Fatalf("answer is %s", got.body)
	}
	js, err := jetstream.New(r.client(t, "admin"), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "CURIOUS", Subjects: []string{"_INBOX_host.>"}, NoAck: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal", func() bool { return r.ask(t, "build-01", registration).Code == 503 })
	eventually(t, "the token in the trail", func() bool { return len(r.exposed(t, "CURIOUS")) > 0 })
}

// A replica dies while a stream reads along. The next one refuses to start on
// such a NATS, and says first what lies in the stream.
func TestWhatADeadReplicaHandedOutIsNamedAtTheNextStart(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	given := r.ask(t, "build-01", registration)
	if given.Token == "" {
		t.Fatalf("answer is %s", given.body)
	}
	r.stop()
	js, err := jetstream.New(r.client(t, "admin"), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	const curious = "CURIOUS"
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: curious, Subjects: []string{"_INBOX_host.>"}, NoAck: true}); err != nil {
		t.Fatal(err)
	}

	conn, err := queue.Connect(t.Context(), queue.Config{URL: r.nats.ClientURL(), Name: t.Name(), Log: r.issuer.Log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if err := conn.EnsureStreams(t.Context()); !errors.Is(err, queue.ErrUnsafe) {
		t.Fatalf("EnsureStreams() = %v, want that it is unsafe", err)
	}
	next := &token.Issuer{Log: r.issuer.Log, DB: r.db, Conn: conn, Now: r.now}
	for range 2 { // the second time adds nothing
		next.ExposedSoFar(t.Context())
		if got := r.exposed(t, curious); len(got) != 1 || got[0] != fleet.NewSecret(given.Token).Fingerprint() {
			t.Errorf("the trail names the tokens %q, want the one of before", got)
		}
	}
}
