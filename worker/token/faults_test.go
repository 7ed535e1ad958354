package token_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/token"
)

func TestWithoutPostgresNothingIsMinted(t *testing.T) {
	t.Parallel()
	postgres := dbtest.Server(t)
	r := newWorld(t, postgres.URL()).replica(t, anyone())
	body := request(fleet.TokenRegistration, newID())
	first := r.ask(t, "build-01", body)
	if first.Token == "" {
		t.Fatalf("answer is %s", first.body)
	}

	postgres.Stop()
	tests := []struct {
		name, host, body string
		want             int
	}{
		{"a good request", "build-02", registration, 503},
		{"a repeat whose answer is in memory", "build-01", body, 503},
		{"a request without a grant", "other", registration, 503},
		{"an unsupported kind", "build-02", `{"target":"acme","kind":"jit"}`, 503},
		{"a malformed request", "build-02", `{"target":"acme"}`, 400},
	}
	for _, tt := range tests {
		got := r.ask(t, tt.host, tt.body)
		if got.Code != tt.want || got.Token != "" {
			t.Errorf("%s: answer is %s, want %d", tt.name, got.body, tt.want)
		}
		if tt.want == 503 && got.Error != "audit_unavailable" {
			t.Errorf("%s: answer is %s", tt.name, got.body)
		}
	}
	if err := r.issuer.Settle(t.Context()); err == nil {
		t.Error("Settle has no error without Postgres")
	}
	if n := len(r.minted()); n != 1 {
		t.Errorf("GitHub minted %d times, want the once before", n)
	}

	postgres.Start()
	if got := r.ask(t, "build-02", registration); got.Token == "" {
		t.Errorf("once Postgres is back the answer is %s", got.body)
	}
}

func TestATokenWhoseOutcomeCannotBeRecordedIsNotHandedOut(t *testing.T) {
	t.Parallel()
	postgres := dbtest.Server(t)
	r := newWorld(t, postgres.URL()).replica(t, anyone())
	var once sync.Once
	r.sim.Before(func(githubsim.Request) { once.Do(postgres.Stop) })
	if got := r.ask(t, "build-01", registration); got.Code != 503 || got.Token != "" {
		t.Errorf("answer is %s", got.body)
	}
	if n := len(r.minted()); n != 1 {
		t.Fatalf("GitHub minted %d times, want once", n)
	}
	postgres.Start()
	if diff := cmp.Diff([]string{"requested"}, r.rows(t, "outcome")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}

	if err := r.issuer.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"requested"}, r.rows(t, "outcome")); diff != "" {
		t.Errorf("an intent that is young is settled: %s", diff)
	}
	r.pass(61 * time.Second)
	// All replicas do it at once.
	var settling sync.WaitGroup
	for range 4 {
		settling.Go(func() {
			if err := r.issuer.Settle(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	settling.Wait()
	if diff := cmp.Diff([]string{"unknown"}, r.rows(t, "outcome")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
	if diff := cmp.Diff([]string{"TK100I", "TK102E"}, r.trail(t)); diff != "" {
		t.Errorf("trail: %s", diff)
	}
	events, err := r.db.Trail(t.Context(), db.TrailFilter{Code: string(fleet.AuditTokenUnknown)})
	if err != nil {
		t.Fatal(err)
	}
	if e := events[0]; e.Actor != fleet.System || e.Host != "build-01" || !strings.Contains(e.Reason, "was not handed out") {
		t.Errorf("the event of the settling is %+v", e)
	}
}

func TestATokenThatComesAfterItsIntentWasSettledIsNotHandedOut(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	r.sim.Before(func(githubsim.Request) {
		r.pass(61 * time.Second)
		if err := r.issuer.Settle(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if got := r.ask(t, "build-01", registration); got.Code != 503 || got.Token != "" {
		t.Errorf("answer is %s", got.body)
	}
	if diff := cmp.Diff([]string{"unknown"}, r.rows(t, "outcome")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
	if diff := cmp.Diff([]string{"TK100I", "TK102E"}, r.trail(t)); diff != "" {
		t.Errorf("trail: %s", diff)
	}
}

func TestAStopLetsWhatRunsComeToItsEnd(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	minting, release := make(chan struct{}), make(chan struct{})
	r.sim.Before(func(githubsim.Request) {
		close(minting)
		<-release
	})
	nc := r.client(t, "build-01")
	var got reply
	var asking sync.WaitGroup
	asking.Go(func() { got = ask(t, nc, "build-01", registration) })
	<-minting
	var stopping sync.WaitGroup
	stopping.Go(r.stop)
	eventually(t, "the end of the subscription", func() bool { return !r.listens() })
	close(release)
	asking.Wait()
	stopping.Wait()
	if got.Token == "" {
		t.Errorf("answer is %s", got.body)
	}
	if diff := cmp.Diff([]string{"issued"}, r.rows(t, "outcome")); diff != "" {
		t.Errorf("api.tokens: %s", diff)
	}
}

func TestAStopTakesNothingNew(t *testing.T) {
	t.Parallel()
	open := anyone()
	open.change = func(i *token.Issuer) { i.AllowSharedInbox = true }
	r := start(t, open)
	release := make(chan struct{})
	r.sim.Before(func(githubsim.Request) { <-release })
	nc, err := nats.Connect(r.nats.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	answers, err := nc.SubscribeSync("_INBOX.test")
	if err != nil {
		t.Fatal(err)
	}
	const handled, waiting = 64, 6
	for n := range handled + waiting {
		host := fmt.Sprintf("build-%02d", n)
		if err := nc.PublishRequest(queue.TokenSubject(host), "_INBOX.test", []byte(registration)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all workers at work", func() bool { return len(r.rows(t, "host")) == handled })
	var stopping sync.WaitGroup
	stopping.Go(r.stop)
	eventually(t, "the end of the subscription", func() bool { return !r.listens() })
	close(release)
	got := map[int]int{}
	for range handled + waiting {
		msg, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		got[parse(t, msg).Code]++
	}
	stopping.Wait()
	if diff := cmp.Diff(map[int]int{0: handled, 503: waiting}, got); diff != "" {
		t.Errorf("answers by code: %s", diff)
	}
}

func TestATokenIsInNoRowNoEventNoLogLine(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	id := newID()
	var secrets []string
	for _, body := range []string{registration, request(fleet.TokenRemoval, id), request(fleet.TokenRemoval, id)} {
		got := r.ask(t, "build-01", body)
		if got.Token == "" {
			t.Fatalf("answer is %s", got.body)
		}
		secrets = append(secrets, got.Token)
	}
	r.ask(t, "build-01", request(fleet.TokenRegistration, id)) // a conflict
	r.ask(t, "build-01", `{"target":"acme"}`)
	r.ask(t, "other", registration)
	r.stop()

	everything := dump(t, r.raw(t)) + r.log.String()
	if !strings.Contains(everything, fleet.NewSecret(secrets[0]).Fingerprint()) || !strings.Contains(everything, "token.issued") {
		t.Fatal("what was read lacks what must be there")
	}
	for _, secret := range secrets {
		for _, form := range []string{
			secret, hex.EncodeToString([]byte(secret)), url.QueryEscape(secret),
			base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)),
		} {
			if strings.Contains(everything, form) {
				t.Errorf("the token %s is written down", form)
			}
		}
	}
}

// dump is every row of every table, with bytes as the text that they are.
func dump(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('muster', 'audit')`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(tables, "muster.outbox") || !slices.Contains(tables, "audit.event") {
		t.Fatalf("tables are %q", tables)
	}
	var all strings.Builder
	for _, table := range append(tables, "(SELECT convert_from(body, 'UTF8') FROM muster.outbox)") {
		rows, err := conn.Query(t.Context(), `SELECT row_to_json(t)::text FROM `+table+` t`)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(strings.Join(lines, "\n"))
	}
	return all.String()
}

func TestOutcomesArePublishedAndObserved(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	r.ask(t, "build-01", registration)
	r.ask(t, "other", registration)
	rows, err := r.raw(t).Query(t.Context(), `
		SELECT concat_ws(' ', subject, id = (e->>'id')::uuid, e->>'source', e->>'subject', e->'data'->>'host', e->'data'->>'target',
			e->'data'->>'kind', e->'data'->>'outcome', e->'data'->>'code', e->'data'->>'attempt', e->'data'->>'count', left(e->'data'->>'fingerprint', 7))
		FROM muster.outbox, LATERAL (SELECT convert_from(body, 'UTF8')::jsonb AS e) x
		ORDER BY subject`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"muster.v1.event.token.denied t muster/acme other other acme registration denied 403 1 1",
		"muster.v1.event.token.issued t muster/acme build-01 build-01 acme registration issued 1 1 sha256:",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outbox: %s", diff)
	}
	for _, observed := range []string{"registration issued", "registration denied"} {
		if n := r.seen.count(observed); n != 1 {
			t.Errorf("observed %d times %q, want once", n, observed)
		}
	}
}
