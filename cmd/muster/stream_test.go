package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// fillTrail writes events of a KiB each, three of them at each moment, as the
// owner of the trail.
func fillTrail(t *testing.T, address string, events int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }() // all is committed
	_, err = conn.Exec(t.Context(), `
		INSERT INTO audit.event (event_id, occurred_at, payload, leaf_hash)
		SELECT id, at, payload, sha256('\x00'::bytea || convert_to(payload, 'UTF8'))
		FROM (
			SELECT lpad(to_hex(n), 32, '0')::uuid AS id, now() - interval '1 day' + n / 3 * interval '1 millisecond' AS at, n
			FROM generate_series(1, $1::integer) n
		) e
		CROSS JOIN LATERAL (SELECT json_build_object('v', 1, 'event_id', id::text,
			'time', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'code', 'TG100I', 'action', 'target.new', 'outcome', 'noted',
			'actor', json_build_object('type', 'system', 'name', 'muster'), 'target', 'acme', 'reason', repeat('r', 1000))::text AS payload) p`, events)
	if err != nil {
		t.Fatal(err)
	}
}

// weigher counts lines and notes the live heap every so many of them.
type weigher struct {
	lines, every int
	live         []uint64
}

func (w *weigher) Write(b []byte) (int, error) {
	before := w.lines / w.every
	w.lines += bytes.Count(b, []byte("\n"))
	if w.lines/w.every > before {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.live = append(w.live, m.HeapAlloc)
	}
	return len(b), nil
}

// Five million events took 23 GB (issue 10). What is alive while a result is
// written must not grow with its rows. The test runs beside no other one.
func TestMemoryDoesNotGrowWithTheTrail(t *testing.T) {
	_, env := withRecord(t)
	const events = 20000
	fillTrail(t, env["MUSTER_DATABASE_URL"], events)
	for _, output := range []string{"json", "table"} {
		out := &weigher{every: events / 10}
		var stderr bytes.Buffer
		code := run(t.Context(), []string{"audit", "--since", "400d", "-o", output}, variables(env), strings.NewReader(""), out, &stderr)
		if code != exitDone || out.lines < events || len(out.live) < 9 {
			t.Fatalf("audit -o %s = %d with %d lines, weighed %d times: %s", output, code, out.lines, len(out.live), &stderr)
		}
		// All events together have 20 MiB of payload, and as much again beside it.
		const most = 4 << 20
		first, last := out.live[1], out.live[8]
		if last > first+most {
			t.Errorf("audit -o %s: %d KiB were alive after a fifth of the rows and %d KiB after nine tenths, want at most %d KiB more",
				output, first>>10, last>>10, most>>10)
		}
	}
}

// Pages begin where the one before ended, also among events of one moment.
func TestAuditReadsEveryEventOnceAcrossPages(t *testing.T) {
	t.Parallel()
	_, env := withRecord(t)
	const events = 1234
	fillTrail(t, env["MUSTER_DATABASE_URL"], events)
	r := muster(t, env, "audit", "--since", "400d", "-o", "json")
	rows := decode[[]auditRow](t, r)
	if len(rows) != events {
		t.Fatalf("%d events, want %d", len(rows), events)
	}
	for i, row := range rows {
		want := fmt.Sprintf("%032x", i+1)
		if got := strings.ReplaceAll(row.EventID, "-", ""); got != want {
			t.Fatalf("event %d is %s, want %s", i, got, want)
		}
		if !json.Valid(row.Payload) {
			t.Fatalf("payload %s", row.Payload)
		}
	}
}

func TestALongTableIsAlignedBlockByBlock(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	table := newLongTable(&out, []string{"A", "B"})
	for i := range tableBlock + 1 {
		if err := table.add([]string{strings.Repeat("x", 1+i/tableBlock*3), ""}); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.end(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for i, want := range map[int]string{0: "A  B", 1: "x  -", tableBlock: "x     -", tableBlock + 1: "xxxx  -"} {
		if lines[i] != want {
			t.Errorf("line %d = %q, want %q", i, lines[i], want)
		}
	}
}
