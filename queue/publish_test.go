package queue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
)

func TestTheCommandLineKnowsTheIDOfItsTrigger(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	id, err := c.PublishTrigger(t.Context(), fleet.JobSync, "acme", `because "I" say so`)
	if err != nil {
		t.Fatalf("PublishTrigger: %v", err)
	}
	got := consume(t, c, syncConsumer)
	m := receive(t, got)
	if m.TriggerID != id || m.Source != fleet.SourceCLI || string(m.Body) != `{"reason":"because \"I\" say so"}` {
		t.Errorf("got %+v, want trigger %s", m, id)
	}
	second, err := c.PublishTrigger(t.Context(), fleet.JobSync, "all", "")
	if err != nil || second == id {
		t.Errorf("a second trigger: id %s, %v", second, err)
	}
	if m := receive(t, got); m.TriggerID != second || len(m.Body) != 0 {
		t.Errorf("got %+v, want trigger %s", m, second)
	}
}

func TestPublishTriggerRefuses(t *testing.T) {
	t.Parallel()
	c := connect(t, startNATS(t, nil))
	if _, err := c.PublishTrigger(t.Context(), fleet.JobSync, "a.>", ""); err == nil || !strings.Contains(err.Error(), `"a.>" is neither`) {
		t.Errorf("a wildcard: %v", err)
	}
	if _, err := c.PublishTrigger(t.Context(), fleet.JobSync, "acme", strings.Repeat("x", queue.MaxBody)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a long reason: %v", err)
	}
	_, err := c.PublishTrigger(t.Context(), fleet.JobSync, "acme", "")
	if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "has muster serve run on this nats?") {
		t.Errorf("without a stream: %v", err)
	}
}

func TestTheOutboxsIDIsTheTriggersAndKeptOnce(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	trigger := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobSync, Name: "acme", Source: fleet.SourceCron}
	for range 2 {
		if err := c.Publish(t.Context(), trigger.Outgoing()); err != nil {
			t.Fatalf("Publish: %v", err)
		}
	}
	got := consume(t, c, syncConsumer)
	if m := receive(t, got); m.Claimed != trigger.ID || m.TriggerID == trigger.ID || string(m.Body) != "{}" {
		t.Errorf("got %+v, want trigger %s", m, trigger.ID)
	}
	settled(t, admin(t, s), syncConsumer.Durable)
	if len(got) != 0 {
		t.Errorf("it came twice")
	}
}

func TestRepeatsOfAMessageIDShareATriggerAndForgedHeadersDoNot(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	c := ready(t, s)
	nc := client(t, s)
	const acme, octo = "muster.v1.trigger.sync.acme", "muster.v1.trigger.sync.octo"
	id := uuid.NewString()
	publishWithID(t, nc, acme, "nightly", nil)
	publishWithID(t, nc, octo, "nightly", nil) // dropped by the server: ids are the stream's, whatever the subject
	publishWithID(t, nc, octo, "weekly", nil)
	publishWithID(t, nc, acme, "forged-1", nats.Header{fleet.HeaderTrigger: {id}})
	publishWithID(t, nc, acme, "no uuid", nats.Header{fleet.HeaderTrigger: {"no uuid"}})
	publishWithID(t, nc, acme, strings.ToUpper(id), nats.Header{fleet.HeaderTrigger: {strings.ToUpper(id)}})
	if err := nc.PublishMsg(&nats.Msg{Subject: acme, Header: nats.Header{fleet.HeaderTrigger: {id}}}); err != nil {
		t.Fatal(err)
	}
	got := consume(t, c, queue.Consumer{Durable: "one-by-one", Subjects: []string{"muster.v1.trigger.>"}})
	seen := map[string]int{}
	for i := range 6 {
		m := receive(t, got)
		if m.Claimed != "" || m.TriggerID == id {
			t.Errorf("message %d passes for the outbox's: %+v", i, m)
		}
		if _, err := uuid.Parse(m.TriggerID); err != nil {
			t.Errorf("message %d: trigger %q", i, m.TriggerID)
		}
		if other, twice := seen[m.TriggerID]; twice {
			t.Errorf("messages %d and %d have one trigger", other, i)
		}
		seen[m.TriggerID] = i
	}
}

func TestRequestTellsWhyThereIsNoAnswer(t *testing.T) {
	t.Parallel()
	host := &server.User{Username: "host", Password: "host", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"muster.v1.token.build-01.issue"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_host.build-01.>"}},
	}}
	s := startNATS(t, func(o *server.Options) {
		o.Users = []*server.User{host, {Username: "muster", Password: "muster"}}
	})
	dial := func(user, inbox string) *queue.Conn {
		t.Helper()
		c, err := queue.Connect(t.Context(), queue.Config{
			URL: "nats://" + user + ":" + user + "@" + s.inside.Addr().String(), InboxPrefix: inbox, Log: quiet,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	ours := dial("host", "_INBOX_host.build-01")
	if _, _, err := ours.Request(t.Context(), queue.TokenSubject("build-01"), nil); !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), "is muster serve running?") {
		t.Errorf("with nobody there: %v", err)
	}
	background(t, serve(dial("muster", ""), queue.TokenSubject("*"), func(r queue.Request) {
		if err := r.Respond([]byte(r.Reply), map[string]string{"Nats-Service-Error-Code": "403"}); err != nil {
			t.Errorf("Respond: %v", err)
		}
	}))
	body, headers := ask(t, ours, queue.TokenSubject("build-01"))
	if !strings.HasPrefix(body, "_INBOX_host.build-01.") || headers["Nats-Service-Error-Code"] != "403" {
		t.Errorf("answer %q, %v", body, headers)
	}
	// The server drops the request and says why apart from it.
	brief, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err := ours.Request(brief, queue.TokenSubject("build-02"), nil)
	if !errors.Is(err, fleet.ErrForbidden) || !strings.Contains(err.Error(), `Publish to "muster.v1.token.build-02.issue"`) {
		t.Errorf("for another host: %v", err)
	}
	stranger := dial("host", "_INBOX")
	brief, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, _, err := stranger.Request(brief, queue.TokenSubject("build-01"), nil); !errors.Is(err, fleet.ErrForbidden) || !strings.Contains(err.Error(), "Subscription to") {
		t.Errorf("with an inbox of others: %v", err)
	}
}
