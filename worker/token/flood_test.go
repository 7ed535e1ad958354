package token_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/queue"
	"github.com/muster-fleet/muster/worker/token"
)

// flood sends n requests of a host at once and returns what brings the answers.
func (r *replica) flood(t *testing.T, host, body string, n int) func() *nats.Msg {
	t.Helper()
	nc := r.client(t, host)
	inbox := "_INBOX_host." + host + ".flood"
	answers, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := nc.PublishRequest(queue.TokenSubject(host), inbox, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil { // the server has passed them on
		t.Fatal(err)
	}
	return func() *nats.Msg {
		t.Helper()
		m, err := answers.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
}

// counted adds up what rows and events say of a host's refusals.
func (r *replica) counted(t *testing.T, host string, code fleet.AuditCode) (rows, refusals, events, told int) {
	t.Helper()
	for _, count := range r.rows(t, "CASE WHEN host = '"+host+"' THEN count ELSE 0 END") {
		if n, err := strconv.Atoi(count); err != nil || n > 0 {
			rows++
			refusals += n
		}
	}
	table, err := r.db.ReadAPI(t.Context(), `SELECT coalesce(payload->'details'->>'count', '1') FROM api.audit WHERE host = $1 AND code = $2`, host, string(code))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table.Rows {
		n, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatal(err)
		}
		events++
		told += n
	}
	return rows, refusals, events, told
}

// A stranger's requests hang, since its lock is taken: they occupy its share of
// the workers, and another host gets every token it asks for.
func TestAStrangerStarvesNobody(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	lock := r.raw(t)
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_lock(hashtextextended('muster.token.host:stranger', 0))`); err != nil {
		t.Fatal(err)
	}
	r.flood(t, "stranger", registration, 1000)
	for n := range 20 {
		if got := r.ask(t, "build-01", registration); got.Token == "" {
			t.Errorf("token %d: answer is %s", n, got.body)
		}
	}
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_unlock_all()`); err != nil {
		t.Fatal(err)
	}
}

func TestAFloodIsAFewRowsThatCountAllOfIt(t *testing.T) {
	t.Parallel()
	const many = 3000
	r := start(t, anyone())
	next := r.flood(t, "stranger", registration, many)
	for n := range 20 {
		if got := r.ask(t, "build-01", registration); got.Token == "" {
			t.Errorf("token %d: answer is %s", n, got.body)
		}
	}
	codes := map[int]int{}
	for range many {
		codes[parse(t, next()).Code]++
	}
	if codes[403]+codes[503] != many || codes[403] == 0 {
		t.Errorf("answers by code: %v", codes)
	}
	if rows, _, events, _ := r.counted(t, "stranger", fleet.AuditTokenDenied); rows > 50 || events > 50 {
		t.Errorf("%d rows and %d events, want 10 a minute", rows, events)
	}
	r.stop()
	rows, refusals, events, told := r.counted(t, "stranger", fleet.AuditTokenDenied)
	if refusals != codes[403] || told != codes[403] || rows > 50 || events != rows {
		t.Errorf("%d rows count %d refusals, %d events %d, want all %d", rows, refusals, events, told, codes[403])
	}
	if lines := strings.Count(r.log.String(), `"token refused"`); lines > 100 {
		t.Errorf("%d lines of log", lines)
	}
}

// What cannot be read, and what wants its answer elsewhere, is counted alike.
func TestAFloodOfBadRequestsIsAFewEvents(t *testing.T) {
	t.Parallel()
	const many = 300
	r := start(t, anyone())
	next := r.flood(t, "build-07", `{"target":`, many)
	read := 0
	for range many {
		if parse(t, next()).Code == 400 {
			read++
		}
	}
	nc := r.client(t, "build-08")
	for range many {
		if err := nc.PublishRequest(queue.TokenSubject("build-08"), "_INBOX_host.build-01.x", []byte(registration)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all bad replies", func() bool { return r.seen.count("bad_reply") == many })
	r.stop()
	if _, _, events, told := r.counted(t, "build-07", fleet.AuditTokenBadRequest); told != read || events > 50 {
		t.Errorf("%d events tell of %d bad requests, want a few of %d", events, told, read)
	}
	if _, _, events, told := r.counted(t, "build-08", fleet.AuditTokenBadReply); told != many || events > 50 {
		t.Errorf("%d events tell of %d bad replies, want a few of %d", events, told, many)
	}
}

// Two replicas keep ten rows of a host's refusals between them.
func TestReplicasShareTheTenRowsOfAMinute(t *testing.T) {
	t.Parallel()
	first := start(t, anyone())
	second := first.replica(t, anyone())
	for n := range 12 {
		of := []*replica{first, second}[n%2]
		if got := of.ask(t, "stranger", registration); got.Code != 403 {
			t.Errorf("answer is %s", got.body)
		}
	}
	first.stop()
	second.stop()
	if got := strings.Join(first.rows(t, "attempt, count"), "/"); got != strings.Repeat("/1 1", 12)[1:] {
		t.Errorf("attempts and counts are %s, want ten rows and one of each replica", got)
	}
	events, err := first.db.Trail(t.Context(), db.TrailFilter{Code: string(fleet.AuditTokenDenied)})
	if err != nil || len(events) != 12 {
		t.Errorf("%d events, %v", len(events), err)
	}
}

// overloaded is a connection for which everything is too much.
type overloaded struct{ *queue.Conn }

func (c overloaded) Serve(ctx context.Context, s queue.Service, _ func(context.Context, queue.Request)) error {
	return c.Conn.Serve(ctx, s, func(_ context.Context, r queue.Request) { s.Overflow(r) })
}

// lines counts the lines of log about a host that say this.
func (r *replica) lines(t *testing.T, host, message string, counts int) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(r.log.String()) {
		var entry struct {
			Msg, Host string
			Counts    int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Host == host && entry.Msg == message && entry.Counts == counts {
			n++
		}
	}
	return n
}

// Of each kind of refusal the first ten of a minute have a line and an event, the
// next two have one between them.
func TestTenRefusalsOfAMinuteAreToldEach(t *testing.T) {
	t.Parallel()
	one := anyone()
	one.grants[0].PerHour = 1
	const jit = `{"target":"acme","kind":"jit"}`
	again := request(fleet.TokenRegistration, newID())
	busy := one
	busy.change = func(i *token.Issuer) { i.Conn = overloaded{i.Conn.(*queue.Conn)} }
	tests := []struct {
		host, first, body string
		settings
		code  int // 0: there is no answer
		event fleet.AuditCode
		line  string
	}{
		{"stranger", "", registration, one, 403, fleet.AuditTokenDenied, "token refused"},
		{"build-quota", registration, registration, one, 429, fleet.AuditTokenDenied, "token refused"},
		{"build-conflict", again, again + " ", one, 409, fleet.AuditTokenDenied, "token refused"},
		{"build-jit", "", jit, one, 501, fleet.AuditTokenDenied, "token refused"},
		{"build-bad", "", "{", one, 400, fleet.AuditTokenBadRequest, "token refused"},
		{"build-reply", "", registration, one, 0, fleet.AuditTokenBadReply, "token request not answered"},
		{"build-late", "", registration, busy, 503, "", "token refused"},
		{"build-late-reply", "", registration, busy, 0, fleet.AuditTokenBadReply, ""},
	}
	w := newWorld(t, dbtest.URL(t))
	replicas := map[bool]*replica{false: w.replica(t, one), true: w.replica(t, busy)}
	const many = 12
	for _, tt := range tests {
		r := replicas[tt.change != nil]
		if tt.first != "" && r.ask(t, tt.host, tt.first).Token == "" {
			t.Fatalf("%s gets no token", tt.host)
		}
		nc := r.client(t, tt.host)
		before := r.seen.count("bad_reply")
		for range many {
			if tt.code == 0 {
				if err := nc.PublishRequest(queue.TokenSubject(tt.host), "elsewhere", []byte(tt.body)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if got := ask(t, nc, tt.host, tt.body); got.Code != tt.code {
				t.Errorf("%s: answer is %s", tt.host, got.body)
			}
		}
		if tt.code == 0 {
			eventually(t, "all bad replies", func() bool { return r.seen.count("bad_reply") == before+many })
		}
	}
	for _, r := range replicas {
		r.stop()
	}
	for _, tt := range tests {
		r := replicas[tt.change != nil]
		if n := r.lines(t, tt.host, tt.line, 0); tt.line != "" && n != 10 {
			t.Errorf("%s: %d lines of log are %q, want 10", tt.host, n, tt.line)
		}
		if n := r.lines(t, tt.host, "token requests refused", 2); n != 1 {
			t.Errorf("%s: %d lines of log tell of two more, want one", tt.host, n)
		}
		if tt.event == "" {
			continue
		}
		if _, _, events, told := r.counted(t, tt.host, tt.event); events != 11 || told != many {
			t.Errorf("%s: %d events tell of %d, want 11 of %d", tt.host, events, told, many)
		}
	}
}

// Once it is known that Postgres answers, what no grant covers is refused without
// asking it: the host's lock is taken here, which would hold up everything else.
func TestTheEleventhDenialAsksNobody(t *testing.T) {
	t.Parallel()
	r := start(t, anyone())
	nc := r.client(t, "stranger")
	for range 10 {
		ask(t, nc, "stranger", registration)
	}
	lock := r.raw(t)
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_lock(hashtextextended('muster.token.host:stranger', 0))`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a refusal", func() bool {
		r.ask(t, "build-01", registration) // Postgres answers
		return ask(t, nc, "stranger", registration).Code == 403
	})
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_unlock_all()`); err != nil {
		t.Fatal(err)
	}
}

// GitHub hangs. One host has four requests at work, and the next ones wait.
func TestOneHostHasFourRequestsAtWork(t *testing.T) {
	t.Parallel()
	const many = 8
	r := start(t, anyone())
	release := make(chan struct{})
	r.sim.Before(func(asked githubsim.Request) {
		if strings.HasSuffix(asked.Path, "/remove-token") {
			<-release
		}
	})
	next := r.flood(t, "build-01", `{"target":"acme","kind":"removal"}`, many)
	working := func() int {
		return strings.Count(strings.Join(r.rows(t, "host"), "\n"), "build-01")
	}
	eventually(t, "four requests at work", func() bool { return working() >= 4 })
	// Requests that came later have been answered: there was time for a fifth.
	for range 5 {
		if got := r.ask(t, "build-02", registration); got.Token == "" {
			t.Errorf("answer is %s", got.body)
		}
	}
	if n := working(); n != 4 {
		t.Errorf("%d requests of one host are at work, want 4", n)
	}
	close(release)
	for range many {
		if got := parse(t, next()); got.Token == "" {
			t.Errorf("answer is %s", got.body)
		}
	}
}
