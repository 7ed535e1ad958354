package token_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/token"
)

func TestAnAnswerGoesNowhereButToTheHost(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		r := start(t, settings{
			grants: []token.Grant{generous()},
			change: func(i *token.Issuer) { i.AllowSharedInbox = shared },
		})
		nc := r.client(t, "build-01")
		// Whoever listens everywhere hears no answer.
		everything, err := nc.SubscribeSync(">")
		if err != nil {
			t.Fatal(err)
		}
		places := []string{
			"", "_INBOX_host.build-02.x", "_INBOX_host.build-0.x", "_INBOX_host.build-01", "_INBOX_hostx.build-01.x",
			"_INBOX_host.build-01x.y", "$JS.API.STREAM.DELETE.MUSTER_TRIGGER", "muster.v1.trigger.sync.acme", "_INBOXES.x",
		}
		if !shared {
			places = append(places, "_INBOX.x")
		}
		for n, place := range places {
			msg := &nats.Msg{Subject: queue.TokenSubject("build-01"), Reply: place, Data: []byte(registration)}
			if err := nc.PublishMsg(msg); err != nil {
				t.Fatal(err)
			}
			eventually(t, "an event of the trail", func() bool { return len(r.trail(t)) == n+1 })
		}
		for n, code := range r.trail(t) {
			if code != "TK109W" {
				t.Errorf("%q: trail has %s", places[n], code)
			}
		}
		if got := len(r.rows(t, "host")) + len(r.minted()); got != 0 {
			t.Errorf("%d rows and tokens came of it", got)
		}
		r.stop() // flushes what would have gone out
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		pending, _, err := everything.Pending()
		if err != nil || pending != len(places) {
			t.Errorf("%d messages went round (%v), want the %d requests alone", pending, err, len(places))
		}
		if got := r.seen.count("bad_reply"); got != len(places) {
			t.Errorf("observed %d times, want %d", got, len(places))
		}
	}
}

func TestASharedInboxIsAllowedWhereItIsConfigured(t *testing.T) {
	t.Parallel()
	open := anyone()
	open.change = func(i *token.Issuer) { i.AllowSharedInbox = true }
	r := start(t, open)
	nc, err := nats.Connect(r.nats.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if got := ask(t, nc, "build-01", registration); got.Token == "" {
		t.Errorf("answer is %s", got.body)
	}
	if got := r.ask(t, "build-01", registration); got.Token == "" {
		t.Errorf("answer in the host's own inbox is %s", got.body)
	}
}

func TestMoreThanCanBeHandledIsToldToComeBack(t *testing.T) {
	t.Parallel()
	open := anyone()
	open.change = func(i *token.Issuer) { i.AllowSharedInbox = true }
	r := start(t, open)
	release := make(chan struct{})
	var minting sync.WaitGroup
	minting.Add(1)
	var once sync.Once
	r.sim.Before(func(githubsim.Request) {
		once.Do(minting.Done)
		<-release
	})
	nc, err := nats.Connect(r.nats.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	const many = 400 // 64 are handled at once and 256 may wait
	answers, err := nc.SubscribeSync("_INBOX.test.*")
	if err != nil {
		t.Fatal(err)
	}
	for n := range many {
		host := fmt.Sprintf("build-%03d", n)
		if err := nc.PublishRequest(queue.TokenSubject(host), fmt.Sprintf("_INBOX.test.%d", n), []byte(registration)); err != nil {
			t.Fatal(err)
		}
	}
	minting.Wait()
	// Nobody has time for it, but it stands in the trail.
	if err := nc.PublishRequest(queue.TokenSubject("build-666"), "_INBOX_host.build-001.x", []byte(registration)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an event about the false address", func() bool { return slices.Contains(r.trail(t), "TK109W") })
	// Everybody waits for the one token now, so that these answers are the
	// refusals.
	for range many - 64 - 256 {
		msg, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if got := parse(t, msg); got.Code != 503 || got.RetryAfterMS != 1000 || got.RequestID == "" {
			t.Fatalf("answer is %s", got.body)
		}
	}
	close(release)
	for range 64 + 256 {
		msg, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if got := parse(t, msg); got.Token == "" {
			t.Fatalf("answer is %s", got.body)
		}
	}
	if n := r.seen.count("registration turned_away"); n != many-64-256 {
		t.Errorf("observed %d refusals, want %d", n, many-64-256)
	}
}
