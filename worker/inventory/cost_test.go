package inventory_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/github/githubsim"
)

// withholdValidators has GitHub send every page in full, until the function
// returned is called.
func (w *world) withholdValidators() func() {
	w.sim.Intercept(func(r *http.Request) http.Handler {
		r.Header.Del("If-None-Match")
		return nil
	})
	return func() { w.sim.Intercept(nil) }
}

// wantNotModified syncs a fleet that has not changed.
func (w *world) wantNotModified(pages int) {
	w.Helper()
	if s := w.wantSync("complete +0 ~0 -0"); s.NotModified != pages {
		w.Errorf("%d pages not modified, want %d", s.NotModified, pages)
	}
}

// statementsOf are how many statements a sync takes, by what happened.
type statementsOf struct{ firstLoad, notModified, unchanged, changed, removed int64 }

// Statements depend on what kinds of things happened, never on how many.
func TestStatementsDoNotDependOnTheSizeOfTheFleet(t *testing.T) {
	t.Parallel()
	counts := map[int]statementsOf{}
	for _, size := range []int{100, 10_000} {
		var statements dbtest.RoundTrips
		w := newTracedWorld(t, &statements)
		ids := w.create(size, githubsim.RunnerSpec{Online: true})
		measure := func(sync func()) int64 {
			before := statements.Count()
			sync()
			return statements.Count() - before
		}
		const rows = `SELECT md5(string_agg(r.xmin || ' ' || r.ctid || r::text, ',' ORDER BY runner_id)) FROM muster.runner r`
		const pages = `SELECT md5(string_agg(p.xmin || ' ' || p.ctid || p::text, ',' ORDER BY number)) FROM muster.page p`
		var c statementsOf
		c.firstLoad = measure(func() { w.wantSync("complete +" + itoa(size) + " ~0 -0") })
		before := w.value(rows) + w.value(pages)
		c.notModified = measure(func() { w.wantNotModified(size / 100) })
		give := w.withholdValidators()
		c.unchanged = measure(func() { w.wantNotModified(0) })
		give()
		if w.value(rows)+w.value(pages) != before {
			t.Errorf("%d runners: rows were written of a fleet that has not changed", size)
		}
		w.want("true", `SELECT bool_and(last_seen_at = $1) FROM api.runners`, w.clock())

		for _, id := range ids[:size/50] {
			w.ok(w.sim.Kill(acme, id))
		}
		c.changed = measure(func() { w.wantSync("complete +0 ~" + itoa(size/50) + " -0") })
		w.want(itoa(size/50), `SELECT count(*) FROM muster.runner WHERE xmin::text <> $1`,
			w.value(`SELECT xmin FROM muster.runner ORDER BY runner_id DESC LIMIT 1`))
		w.want(itoa(size/50), `SELECT count(*) FROM api.runner_history WHERE change = 'offline'`)

		for _, id := range ids[:size/50] {
			w.ok(w.sim.Remove(acme, id))
		}
		c.removed = measure(func() { w.wantSync("complete +0 ~0 -" + itoa(size/50)) })
		counts[size] = c
	}
	if counts[100] != counts[10_000] {
		t.Errorf("statements: %+v for 100 runners, %+v for 10,000", counts[100], counts[10_000])
	}
	t.Logf("statements: %+v", counts[100])
}

// A sync of 100,000 runners that have not changed leaves nothing in the
// write-ahead log but its own record, which is what limits how often one may
// look. It runs alone, since the log is the server's; what the server writes of
// its own accord in between is kept out by taking the least of several.
func TestUnchangedFleetWritesNextToNoWAL(t *testing.T) {
	const size, limit = 100_000, 100_000 // bytes
	w := newWorld(t)
	w.create(size, githubsim.RunnerSpec{Online: true})
	w.wantSync("complete +" + itoa(size) + " ~0 -0")
	least := func(pages int) int64 {
		var least int64
		for i := range 3 {
			before := w.value(`SELECT pg_current_wal_insert_lsn()`)
			w.wantNotModified(pages)
			bytes, err := strconv.ParseInt(w.value(`SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::bigint`, before), 10, 64)
			w.ok(err)
			if i == 0 || bytes < least {
				least = bytes
			}
		}
		return least
	}
	if bytes := least(size / 100); bytes == 0 || bytes >= limit {
		t.Errorf("%d bytes of WAL where every page is a 304, want some and fewer than %d", bytes, limit)
	} else {
		t.Logf("%d bytes of WAL where every page is a 304", bytes)
	}
	w.withholdValidators()
	if bytes := least(0); bytes == 0 || bytes >= limit {
		t.Errorf("%d bytes of WAL where every page is sent in full, want some and fewer than %d", bytes, limit)
	} else {
		t.Logf("%d bytes of WAL where every page is sent in full", bytes)
	}
}
