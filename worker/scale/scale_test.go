package scale_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/scale"
)

func TestAPoolAsksForTheHostsThatJobsWant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	w.sync(everybody)
	w.queue(3, "self-hosted", "linux")
	w.scale()
	w.wantPool(3, 0, 0, 3, 0)
	w.want("requested 1 3", leases)
	w.want("3 workflow jobs wait and 0 run; with 0 hosts to wait for work, 3 are wanted; 3 are desired: 3 more are asked for", `SELECT reason FROM api.pools`)
	w.want("SC800I scale.up done acme linux 3", `SELECT concat_ws(' ', code, action, outcome, target, payload->'details'->>'pool', payload->'details'->>'change') FROM api.audit WHERE code LIKE 'SC%'`)

	// One message for each, under the id of its lease, and one that tells of it.
	rows, err := w.sql.Query(w.ctx, `
		SELECT o.subject, o.body, coalesce(l.request_id::text, '')
		FROM muster.outbox o
		LEFT JOIN muster.lease l ON l.request_id = o.id
		ORDER BY o.subject DESC`)
	w.ok(err)
	var subject, id string
	var body []byte
	var subjects []string
	_, err = pgx.ForEachRow(rows, []any{&subject, &body, &id}, func() error {
		subjects = append(subjects, subject)
		var got map[string]any
		w.ok(json.Unmarshal(body, &got))
		if subject == "muster.v1.event.scale.up" {
			data := got["data"].(map[string]any)
			if got["subject"] != "linux" || data["change"] != 3.0 || data["desired"] != 3.0 || data["confidence"] != "unknown" {
				t.Errorf("event %s", body)
			}
			return nil
		}
		want := map[string]any{
			"v": 1.0, "request_id": id, "pool": "linux", "target": "acme", "labels": []any{"linux", "self-hosted"},
			"deadline": "2026-03-01T12:10:00Z",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
		return nil
	})
	w.ok(err)
	if got, want := strings.Join(subjects, " "), strings.Repeat("muster.v1.provision.linux ", 3)+"muster.v1.event.scale.up"; got != want {
		t.Errorf("outbox: %s, want %s", got, want)
	}

	// Those asked for count until they are there, and then as what they are.
	w.pass(time.Minute)
	w.scale()
	w.wantPool(3, 0, 3, 3, 0)
	w.claim()
	w.sync(everybody)
	w.scale()
	w.wantPool(3, 3, 0, 3, 0)
	w.want("online 1 3", leases)
	w.want("4", `SELECT count(*) FROM muster.outbox`)
}

func TestNothingIsAskedForWithoutAnInventory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Min = 5 }))
	counts, err := w.scaler.Handle(w.ctx, trigger("linux"))
	if want := (fleet.Counts{fleet.CountNoInventory: 1}); err != nil || !cmp.Equal(counts, want) {
		t.Errorf("Handle = %v, %v, want %v", counts, err, want)
	}
	w.want("none", leases)
	w.want("0", `SELECT count(*) FROM muster.outbox`)
	if _, err := scale.Plan(w.ctx, w.db, w.pools[0], w.pools, fleet.HostNames{}, w.clock()); err == nil || !strings.Contains(err.Error(), "inventory of acme") {
		t.Errorf("Plan: %v, want that there is no inventory", err)
	}
}

func TestAnUnknownPoolIsNoReasonToTryAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	_, err := w.scaler.Handle(w.ctx, trigger("windows"))
	if err == nil || err.Error() != "scale windows: no pool of that name is configured" {
		t.Errorf("Handle of an unknown pool: %v", err)
	}
}

// However many decide at once, the maximum counts what all of them have asked
// for.
func TestReplicasTogetherStayBelowTheMaximum(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Cooldown.Up, p.Step.Up = 0, fleet.Portion{Count: 3} }))
	w.sync(everybody)
	w.tx(func(tx *db.Tx) error {
		return tx.AddRunners(w.ctx, "acme", []db.RunnerRow{w.online("old-1"), w.online("old-2")})
	})
	w.queue(50, "linux")
	var g errgroup.Group
	for range 3 {
		replica := w.replica()
		for range 4 {
			g.Go(func() error {
				for range 5 {
					if _, err := replica.Handle(w.ctx, trigger("linux")); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	w.ok(g.Wait())
	w.want("requested 1 18", leases)
	w.wantPool(20, 2, 18, 50, 0)
	w.want("18", `SELECT count(*) FROM muster.outbox o JOIN muster.lease l ON l.request_id = o.id`)
	w.want("18", `SELECT sum((payload->'details'->>'change')::integer) FROM api.audit WHERE code = 'SC800I'`)
}

// A cool-down holds whoever decides next: the memory is in the record.
func TestAnotherReplicaRemembersTheCooldown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Step.Up = fleet.Portion{Count: 1} }))
	w.sync(everybody)
	w.queue(5, "linux")
	w.scale()
	for range 3 {
		w.scaler = w.replica()
		w.pass(9 * time.Second)
		w.scale()
		w.want("1", `SELECT count(*) FROM api.leases`)
		w.want("true", `SELECT reason LIKE '%the pool grew a moment ago, and may again at 2026-03-01T12:00:30Z%' FROM api.pools`)
	}
	w.scaler = w.replica()
	w.pass(3 * time.Second)
	w.scale()
	w.want("2", `SELECT count(*) FROM api.leases`)
}

// Hosts that never boot are asked for again, ever more rarely, and the pool
// says so; when they boot again it is as if nothing had been.
func TestAPoolWhoseHostsDoNotBootRecoversWhenTheyDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Max, p.BootDeadline = 8, 5*time.Minute }))
	w.sync(everybody)
	w.queue(30, "linux")
	run := func(d time.Duration, boots func(string) bool) {
		for end := w.clock().Add(d); w.clock().Before(end); {
			w.scale()
			w.claim()
			w.pass(30 * time.Second)
			w.sync(boots)
			w.want("true", `SELECT (SELECT count(*) FROM muster.runner)
				+ (SELECT count(*) FROM muster.lease WHERE state IN ('requested', 'claimed', 'registered')) <= 8`)
		}
		w.scale()
	}
	run(30*time.Second, nobody)
	w.want("claimed 1 8", leases)
	// Rounds of five minutes, and between them 30 s, 1 m, 2 m.
	run(24*time.Minute, nobody)
	w.want("expired 1 8, expired 2 8, expired 3 8, expired 4 8", leases)
	w.wantPool(8, 0, 0, 30, 32)
	w.want("true", `SELECT reason LIKE '%32 hosts asked for in a row did not come online; the next are asked for at 2026-03-01T12:%' FROM api.pools`)
	w.want("4 32", `SELECT concat_ws(' ', count(*), sum((payload->'details'->>'leases')::integer)) FROM api.audit WHERE code = 'SC802W'`)

	// Half of them boot: the row is over, and the others are asked for again.
	came := map[string]int{}
	half := func(host string) bool {
		if _, known := came[host]; !known {
			came[host] = len(came)
		}
		return came[host]%2 == 0
	}
	run(10*time.Minute, half)
	w.want("true", `SELECT online > 0 AND leases_expired < 8 FROM api.pools`)
	run(30*time.Minute, everybody)
	w.wantPool(8, 8, 0, 30, 0)
	w.want("8", `SELECT count(*) FROM api.leases WHERE state = 'online'`)
	w.want("0", `SELECT count(*) FROM api.leases WHERE state IN ('requested', 'claimed', 'registered')`)
}

// A host for one workflow job may come and go between two syncs. It came, so that
// it is neither waited for nor a reason to ask for fewer.
func TestHostsThatNoSyncSawAreKnownByTheirJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Max = 2 }))
	w.sync(everybody)
	w.queue(4, "linux")
	w.scale()
	w.claim()
	w.pass(time.Minute)
	host := w.column(`SELECT min(host) FROM muster.lease`)[0]
	w.exec(`UPDATE muster.workflow_job SET state = 'completed', runner_id = 77, runner_name = $1, started_at = $2, changed_at = $2
		WHERE workflow_job_id = (SELECT min(workflow_job_id) FROM muster.workflow_job)`, host, w.clock())
	w.scale()
	w.want("claimed 1 2", leases) // it may still be there
	w.pass(time.Minute)
	w.sync(nobody)
	w.scaleAsPlanned()
	w.want("claimed 1 1, online 1 1, requested 1 1", leases)
	w.wantPool(2, 0, 1, 3, 0)
	w.want(host+" 77", `SELECT concat_ws(' ', host, runner_id) FROM api.leases WHERE state = 'online'`)
}

// While GitHub cannot be seen, what was asked for counts as there.
func TestNoHostIsAskedForTwiceWhileGitHubIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Max = 4 }))
	w.sync(everybody)
	w.queue(9, "linux")
	for range 5 {
		w.scale()
		w.claim()
		w.pass(time.Hour)
	}
	w.want("claimed 1 4", leases)
	w.sync(everybody)
	w.scale()
	w.want("online 1 4", leases)
}

// Only what was compared with GitHub a moment ago, whole, lets a pool shrink.
func TestAPoolShrinksOnlyWhereDemandIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Cooldown.Down = 0 }))
	w.sync(everybody)
	w.tx(func(tx *db.Tx) error {
		return tx.AddRunners(w.ctx, "acme", []db.RunnerRow{w.online("a"), w.online("b"), w.online("c")})
	})
	const decided = `SELECT concat_ws(' ', desired, direction, confidence) FROM muster.pool`
	w.scale()
	w.want("0 hold unknown", decided)
	compared := func(r db.Reconciliation) {
		w.tx(func(tx *db.Tx) error {
			if _, _, err := tx.ClaimReconciliation(w.ctx, "acme", w.clock(), w.clock()); err != nil {
				return err
			}
			return tx.SaveReconciliation(w.ctx, "acme", r, w.clock())
		})
		w.pass(time.Minute)
		w.scale()
	}
	compared(db.Reconciliation{AsOf: w.clock(), Fault: "HTTP 502"})
	w.want("0 hold unknown", decided)
	compared(db.Reconciliation{AsOf: w.clock().Add(-time.Hour)})
	w.want("0 hold stale", decided)
	w.exec(`INSERT INTO muster.refused_delivery (target, delivery_id, at, reason) VALUES ('acme', 'd1', $1, 'too many at once')`, w.clock())
	compared(db.Reconciliation{AsOf: w.clock()})
	w.want("0 hold unknown", decided)
	w.exec(`DELETE FROM muster.refused_delivery`)
	compared(db.Reconciliation{AsOf: w.clock()})
	w.want("0 hold known", decided)
	w.want("true", `SELECT reason LIKE '%0 of those without work may be given up: the others are new, held, or on a host that muster does not know%' FROM api.pools`)
	w.want("0", `SELECT count(*) FROM api.audit WHERE code = 'SC801I'`) // nothing is told that does not happen
	w.givable()
	compared(db.Reconciliation{AsOf: w.clock()})
	w.want("0 down known", decided)
	w.want("true", `SELECT demand_at = decided_at - interval '1 min' FROM api.pools`)
}

// What a pool asked for step by step, before any of it was due, is one round: a
// pool that grows slowly does not wait longer than one that asks for all at once.
func TestStepsOfOneRoundAreOneAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Max, p.Step.Up = 8, fleet.Portion{Count: 1} }))
	w.sync(everybody)
	w.queue(30, "linux")
	run := func(d time.Duration, boots func(string) bool) {
		for end := w.clock().Add(d); w.clock().Before(end); {
			w.scale()
			w.claim()
			w.pass(30 * time.Second)
			w.sync(boots)
		}
	}
	run(5*time.Minute, nobody)
	w.want("claimed 1 8", leases)
	run(10*time.Minute, nobody) // the last was asked for after 3.5 minutes, and ran out 10 minutes later
	w.want("expired 1 8, claimed 2 2", leases)

	// One of the second round comes, and the others of it do not: that is no
	// third one in vain.
	came := ""
	first := func(host string) bool {
		if came == "" {
			came = host
		}
		return host == came
	}
	run(15*time.Minute, first)
	w.want("2", `SELECT max(attempt) FROM api.leases`)
}
