package token_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/queue"
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
	if got := strings.Join(first.rows(t, "count"), ""); got != strings.Repeat("1", 12) {
		t.Errorf("rows count %s, want ten and one of each replica", got)
	}
	events, err := first.db.Trail(t.Context(), db.TrailFilter{Code: string(fleet.AuditTokenDenied)})
	if err != nil || len(events) != 12 {
		t.Errorf("%d events, %v", len(events), err)
	}
}
