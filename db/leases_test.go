package db_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// leases asks for hosts, due in ten minutes.
func (w *world) leases(n int, at time.Time) []fleet.Lease {
	w.Helper()
	all := make([]fleet.Lease, n)
	for i := range all {
		all[i] = fleet.Lease{
			RequestID: uuid.NewString(), Pool: "linux", Target: "acme", State: fleet.LeaseRequested, Attempt: 1,
			RequestedAt: at, Deadline: at.Add(10 * time.Minute),
		}
	}
	w.tx(func(tx *db.Tx) error { return tx.AddLeases(w.ctx, all) })
	return all
}

func (w *world) claim(l fleet.Lease, host string) {
	w.Helper()
	w.tx(func(tx *db.Tx) error { return tx.ClaimLease(w.ctx, l.RequestID, host, l.RequestedAt.Add(time.Minute)) })
}

// states are those of all leases, in the order of their hosts.
const states = `SELECT string_agg(concat_ws(' ', coalesce(host, '-'), state, runner_id), ', ' ORDER BY host, request_id) FROM api.leases`

func TestALeaseIsClaimedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.leases(1, t0)[0]
	w.claim(l, "build-01")
	err := w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.ClaimLease(w.ctx, l.RequestID, "build-02", t0) })
	if !errors.Is(err, fleet.ErrConflict) {
		t.Errorf("ClaimLease a second time: %v, want a conflict", err)
	}
	want := l
	want.Host, want.State = "build-01", fleet.LeaseClaimed
	w.tx(func(tx *db.Tx) error {
		got, err := tx.LockLease(w.ctx, l.RequestID)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("LockLease: %v (-want +got):\n%s", err, diff)
		}
		if _, err := tx.LockLease(w.ctx, uuid.NewString()); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("LockLease of none: %v, want not found", err)
		}
		return nil
	})
}

func TestLeasesFollowTheRunnersOfTheirHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	leases := w.leases(5, t0)
	for i, host := range []string{"linked", "named", "beating", "before"} {
		w.claim(leases[i], host)
	}
	advance := func(at time.Time) {
		w.tx(func(tx *db.Tx) error { return tx.AdvanceLeases(w.ctx, "acme", at) })
	}
	advance(t0)
	w.want("beating claimed, before claimed, linked claimed, named claimed, - requested", states)
	for id := range int64(5) {
		w.runner(id + 1)
	}
	w.exec(`UPDATE muster.runner SET name = 'UPPER', host = 'linked' WHERE runner_id = 1`)
	w.exec(`UPDATE muster.runner SET name = 'named' WHERE runner_id = 2`)
	w.exec(`UPDATE muster.runner SET name = 'other' WHERE runner_id = 3`)
	// It was there before anybody asked for a host.
	w.exec(`UPDATE muster.runner SET name = 'before', first_seen_at = $1, status_since = $1 WHERE runner_id = 4`, t0.Add(-time.Second))
	w.exec(`INSERT INTO muster.host (host, last_heartbeat_at) VALUES ('beating', $1)`, t0)
	w.exec(`INSERT INTO muster.host_runner (host, target, name, state, at) VALUES ('beating', 'acme', 'other', 'idle', $1)`, t0)
	advance(t0.Add(time.Minute))
	w.want("beating registered 3, before claimed, linked registered 1, named registered 2, - requested", states)
	w.exec(`UPDATE muster.runner SET status = 'online' WHERE runner_id < 4`)
	advance(t0.Add(2 * time.Minute))
	w.want("beating online 3, before claimed, linked online 1, named online 2, - requested", states)
	w.want("2026-03-01 12:01:00 2026-03-01 12:02:00", `SELECT DISTINCT concat_ws(' ', registered_at AT TIME ZONE 'UTC', online_at AT TIME ZONE 'UTC') FROM muster.lease WHERE state = 'online'`)
	// One that registers under the name of an older runner shows by its status.
	w.exec(`UPDATE muster.runner SET status = 'online', status_since = $1 WHERE runner_id = 4`, t0.Add(3*time.Minute))
	advance(t0.Add(3 * time.Minute))
	w.want("beating online 3, before online 4, linked online 1, named online 2, - requested", states)
}

// A host that lists the runners of others in its heartbeat speaks for none of
// them: its request waits, theirs go on, and no runner becomes its pool's.
func TestAHeartbeatSpeaksForNoRunnerThatMayBeAnothers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	leases := w.leases(4, t0)
	w.claim(leases[0], "named")
	w.claim(leases[1], "honest")
	w.claim(leases[2], "greedy")
	for id := range int64(6) {
		w.runner(id + 1)
	}
	w.exec(`UPDATE muster.runner SET status = 'online'`)
	w.exec(`UPDATE muster.runner SET name = 'named' WHERE runner_id = 1`)
	w.exec(`UPDATE muster.runner SET name = 'tokened', host = 'tokened' WHERE runner_id = 2`)
	w.exec(`UPDATE muster.runner SET name = 'Beating' WHERE runner_id = 3`)
	w.exec(`UPDATE muster.runner SET name = 'given' WHERE runner_id = 4`)
	w.exec(`UPDATE muster.runner SET name = 'shared' WHERE runner_id = 5`)
	w.exec(`UPDATE muster.runner SET name = 'own' WHERE runner_id = 6`)
	w.exec(`INSERT INTO muster.token (host, request_id, attempt, target, kind, outcome, body_sha256, requested_at, issued_at, expires_at)
		VALUES ('given', gen_random_uuid(), 1, 'acme', 'registration', 'issued', '', $1, $1, $1)`, t0.Add(-48*time.Hour))
	w.exec(`INSERT INTO muster.host (host, last_heartbeat_at) VALUES ('greedy', $1), ('beating', $1), ('honest', $1), ('other', $1)`, t0)
	w.exec(`INSERT INTO muster.host_runner (host, target, name, state, at)
		SELECT 'greedy', 'acme', name, 'idle', $1 FROM unnest('{named,tokened,Beating,given,shared}'::text[]) AS listed (name)`, t0)
	w.exec(`INSERT INTO muster.host_runner (host, target, name, state, at) VALUES ('other', 'acme', 'shared', 'idle', $1), ('honest', 'acme', 'own', 'idle', $1)`, t0)
	w.tx(func(tx *db.Tx) error { return tx.AdvanceLeases(w.ctx, "acme", t0.Add(time.Minute)) })
	w.want("greedy claimed, honest online 6, named online 1, - requested", states)
	w.want("named, own", `SELECT string_agg(name, ', ' ORDER BY name) FROM muster.runner WHERE pool IS NOT NULL`)
}

// The runner of a host's name is not its own where a token shows that it is
// another's.
func TestANameIsNotAHostsWhereATokenSaysOtherwise(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.claim(w.leases(1, t0)[0], "build-01")
	w.runner(1)
	w.exec(`UPDATE muster.runner SET name = 'build-01', host = 'build-02', status = 'online'`)
	w.tx(func(tx *db.Tx) error { return tx.AdvanceLeases(w.ctx, "acme", t0.Add(time.Minute)) })
	w.want("build-01 claimed", states)
}

// A host that comes when its request is over counts for the pool all the same,
// whatever labels it brings, and the request says what became of it.
func TestALateHostIsThePools(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	leases := w.leases(3, t0)
	for i, host := range []string{"late", "never", "too-late"} {
		w.claim(leases[i], host)
	}
	due := leases[0].Deadline
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, due)
	w.tx(func(tx *db.Tx) error {
		_, err := tx.ExpireLeases(w.ctx, "acme", []string{"linux"}, nil, due)
		return err
	})
	advance := func(at time.Time) {
		w.tx(func(tx *db.Tx) error { return tx.AdvanceLeases(w.ctx, "acme", at) })
	}
	const pools = `SELECT string_agg(concat_ws(' ', name, coalesce(pool, '-')), ', ' ORDER BY name) FROM muster.runner`
	w.runner(1)
	w.exec(`UPDATE muster.runner SET name = 'late', status = 'online', labels = '{other}', first_seen_at = $1 WHERE runner_id = 1`, due.Add(time.Minute))
	advance(due.Add(time.Minute))
	w.want("late expired 1, never expired, too-late expired", states)
	w.want("late linux", pools)
	w.want("<null>", `SELECT max(online_at) FROM muster.lease`)
	w.runner(2)
	w.exec(`UPDATE muster.runner SET name = 'too-late', status = 'online', first_seen_at = $1 WHERE runner_id = 2`, due.Add(24*time.Hour))
	advance(due.Add(24 * time.Hour))
	w.want("late expired 1, never expired, too-late expired", states)
	w.want("late linux, too-late -", pools)
}

// What a host registers for one request is not of those that it had claimed
// before, even where these are of another pool.
func TestARunnerIsOfTheNewestRequestOfItsHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	over, before, newest := w.leases(1, t0)[0], w.leases(1, t0.Add(time.Minute))[0], w.leases(1, t0.Add(2*time.Minute))[0]
	for _, l := range []fleet.Lease{over, before, newest} {
		w.claim(l, "build-01")
	}
	w.exec(`UPDATE muster.lease SET state = 'expired' WHERE request_id = $1`, over.RequestID)
	w.exec(`UPDATE muster.lease SET pool = 'other' WHERE request_id <> $1`, newest.RequestID)
	w.runner(1)
	w.exec(`UPDATE muster.runner SET name = 'build-01', status = 'online', first_seen_at = $1 WHERE runner_id = 1`, t0.Add(3*time.Minute))
	for i := range 2 {
		w.tx(func(tx *db.Tx) error { return tx.AdvanceLeases(w.ctx, "acme", t0.Add(time.Duration(3+i)*time.Minute)) })
		w.want("expired, claimed, online 1", `SELECT string_agg(concat_ws(' ', state, runner_id), ', ' ORDER BY requested_at) FROM api.leases`)
		w.want("linux", `SELECT pool FROM muster.runner`)
	}
}

func TestLeasesExpireWhereASyncShowsThatNobodyCame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	all := w.leases(3, t0)
	due := all[0].Deadline
	expire := func(at time.Time) int {
		var n int
		w.tx(func(tx *db.Tx) error {
			expired, err := tx.ExpireLeases(w.ctx, "acme", []string{"linux", "windows"}, nil, at)
			n = expired["linux"]
			if len(expired) > 1 || (n == 0) != (len(expired) == 0) {
				t.Errorf("ExpireLeases = %v", expired)
			}
			return err
		})
		return n
	}
	if n := expire(due.Add(time.Hour)); n != 0 {
		t.Errorf("%d leases expire of a target that was never synced", n)
	}
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, due.Add(-time.Microsecond))
	if n := expire(due.Add(time.Hour)); n != 0 {
		t.Errorf("%d leases expire that were not looked for since their deadline", n)
	}
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, due)
	if n := expire(due.Add(-time.Microsecond)); n != 0 {
		t.Errorf("%d leases expire before their deadline", n)
	}
	w.exec(`UPDATE muster.lease SET state = 'online', online_at = $2, host = 'h', claimed_at = $2 WHERE request_id = $1`, all[0].RequestID, t0)
	if n := expire(due); n != 2 {
		t.Errorf("%d leases expire at their deadline, want 2", n)
	}
	counts := func(at time.Time) db.LeaseCounts {
		all, err := w.db.LeaseCounts(w.ctx, "acme", []string{"linux", "windows"}, at)
		if err != nil {
			t.Fatal(err)
		}
		if none := all["windows"]; len(all) != 2 || none != (db.LeaseCounts{}) {
			t.Errorf("LeaseCounts = %v, want those of two pools, of which one never asked", all)
		}
		return all["linux"]
	}
	later := w.leases(2, due)
	w.exec(`UPDATE muster.lease SET attempt = 2 WHERE requested_at = $1`, due)
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, t0.Add(time.Hour))
	w.exec(`UPDATE muster.lease SET deadline = $2 WHERE request_id = $1`, later[0].RequestID, t0.Add(2*time.Hour))
	expire(t0.Add(time.Hour))
	want := db.LeaseCounts{Live: 1, Expired: 3, Rounds: 2, LastDeadline: later[1].Deadline}
	if diff := cmp.Diff(want, counts(t0.Add(time.Hour))); diff != "" {
		t.Errorf("LeaseCounts (-want +got):\n%s", diff)
	}
	// One that comes online is the end of the row, and so is a day.
	if c := counts(t0.Add(48 * time.Hour)); c.Expired != 0 || !c.LastDeadline.IsZero() {
		t.Errorf("LeaseCounts a day later = %+v, want none expired", c)
	}
	w.exec(`UPDATE muster.lease SET online_at = $2 WHERE request_id = $1`, all[0].RequestID, t0.Add(time.Hour))
	if c := counts(t0.Add(time.Hour)); c != (db.LeaseCounts{Live: 1}) {
		t.Errorf("LeaseCounts after one came online = %+v, want none expired", c)
	}
}

// statements keeps what is sent to the server.
type statements struct{ sent []pgx.TraceQueryStartData }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.sent = append(s.sent, data)
	return ctx
}

func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// plan is a node of what EXPLAIN says.
type plan struct {
	Table   string  `json:"Relation Name"`
	Rows    float64 `json:"Actual Rows"`
	Removed float64 `json:"Rows Removed by Filter"`
	Loops   float64 `json:"Actual Loops"`
	Plans   []plan
}

// read is how many rows of a table were looked at.
func (p plan) read(table string) float64 {
	n := 0.0
	if p.Table == table {
		n = (p.Rows + p.Removed) * p.Loops
	}
	for _, below := range p.Plans {
		n += below.read(table)
	}
	return n
}

// A year's workflow jobs are kept, and a pool is decided on every minute.
func TestHostsThatCameAndWentAreLookedForAmongTheNewestJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1`, t0.Add(5*time.Minute))
	w.exec(`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, conclusion, changed_at)
		SELECT 'acme', i, 0, 0, '', '{}', 'completed', 0, 'was-' || i, '', $1::timestamptz - i * interval '10 min' FROM generate_series(1, 20000) AS i`, t0)
	for _, l := range w.leases(500, t0) {
		w.claim(l, "h-"+l.RequestID[:8])
	}
	w.exec(`ANALYZE muster.workflow_job, muster.lease`)
	var all statements
	traced, err := db.OpenTraced(w.ctx, w.url, &all)
	if err != nil {
		t.Fatal(err)
	}
	defer traced.Close()
	err = traced.InTx(w.ctx, func(tx *db.Tx) error {
		_, err := tx.ExpireLeases(w.ctx, "acme", []string{"linux"}, nil, t0.Add(5*time.Minute))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all.sent {
		if !strings.Contains(s.SQL, "muster.workflow_job") {
			continue
		}
		var text []byte
		if err := w.sql.QueryRow(w.ctx, "EXPLAIN (ANALYZE, FORMAT JSON) "+s.SQL, s.Args...).Scan(&text); err != nil {
			t.Fatal(err)
		}
		var told []struct{ Plan plan }
		if err := json.Unmarshal(text, &told); err != nil {
			t.Fatal(err)
		}
		if n := told[0].Plan.read("workflow_job"); n > 1000 {
			t.Errorf("%.0f workflow jobs are read, of 20,000 that are older than any request:\n%s", n, text)
		}
		return
	}
	t.Error("nobody looks for hosts that came and went")
}
