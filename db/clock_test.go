package db_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// ahead leaves the record as a clock does that was so far ahead for a moment.
func (w *world) ahead(by time.Duration) {
	w.Helper()
	w.exec(`UPDATE muster.clock SET newest = clock_timestamp() + $1::interval`, by)
}

func (w *world) back() (time.Duration, bool) {
	w.Helper()
	by, recorded, err := db.Clock{DB: w.db}.Back(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	return by, recorded
}

func (w *world) now() time.Time {
	w.Helper()
	now, err := w.db.Now(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	return now
}

func TestATickLaterThanNowIsNoAnchor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	anchor := func() time.Time {
		t.Helper()
		at, err := db.Ticks{DB: w.db}.Anchor(w.ctx, hourly, "one")
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	registered := anchor()
	w.fire(w.now().Add(5*time.Hour), false)
	if at := anchor(); !at.Equal(registered) {
		t.Errorf("a tick that is five hours ahead anchors at %v, want %v, the registration", at, registered)
	}
	fired := w.now()
	w.fire(fired, false)
	if at := anchor(); !at.Equal(fired) {
		t.Errorf("ticks are due after %v, want after the newest that is not later than now, %v", at, fired)
	}

	// The schedule itself was registered while the clock was ahead.
	w.exec(`DELETE FROM muster.tick`)
	w.exec(`UPDATE muster.schedule SET anchored_at = clock_timestamp() + interval '5 hours'`)
	if at := anchor(); at.After(w.now()) || at.Before(fired) {
		t.Errorf("a registration that is five hours ahead anchors at %v, want now", at)
	}
}

func TestATickOfAClockThatWasAheadFiresWhenItComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ahead(5 * time.Hour)
	tick := w.now().Add(time.Hour).Truncate(time.Second)
	w.fire(tick, false)
	if err := (db.Ticks{DB: w.db}).Miss(w.ctx, []fleet.Tick{{Schedule: hourly, At: tick.Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	if by, recorded := w.back(); !recorded || by < 5*time.Hour-time.Minute || by > 5*time.Hour {
		t.Errorf("Back = %v, %v, want about five hours, recorded", by, recorded)
	}
	if _, _, won := w.fire(tick, false); !won {
		t.Error("a tick that was recorded while the clock was ahead does not fire when it comes")
	}
	w.want("2", `SELECT count(*) FROM muster.run`)
	w.want("2", `SELECT count(*) FROM muster.outbox`)
}

func TestAStepIsRecordedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if by, recorded := w.back(); recorded || by != 0 {
		t.Errorf("Back of a clock that did not step = %v, %v", by, recorded)
	}
	w.ahead(500 * time.Millisecond)
	if _, recorded := w.back(); recorded {
		t.Error("half a second is recorded as a step")
	}
	once := func(direction string, step func() (bool, error)) {
		t.Helper()
		var g errgroup.Group
		found := make([]bool, 4)
		for i := range found {
			g.Go(func() error {
				var err error
				found[i], err = step()
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, did := range found {
			if did {
				n++
			}
		}
		if n != 1 {
			t.Errorf("four replicas recorded one step %s %d times", direction, n)
		}
	}
	clock := db.Clock{DB: w.db}
	w.ahead(3 * time.Hour)
	once("back", func() (bool, error) {
		_, recorded, err := clock.Back(w.ctx)
		return recorded, err
	})
	w.want("CK900W muster the clock went back by", `
		SELECT code || ' ' || actor || ' ' || left(reason, 22) FROM api.audit`)
	w.want("0", `SELECT payload->'details'->>'ticks' FROM api.audit`)
	once("ahead", func() (bool, error) { return clock.Forward(w.ctx, time.Hour) })
	step, err := w.db.ClockStep(w.ctx)
	if err != nil || step.Steps != 2 || step.By != time.Hour || step.At.After(w.now()) {
		t.Errorf("ClockStep = %+v, %v", step, err)
	}
	w.want("the clock leapt ahead by 1h0m0s", `SELECT reason FROM api.audit ORDER BY occurred_at DESC LIMIT 1`)
}

func TestReadKnowsTheNewestReading(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := db.Clock{DB: w.db}
	w.exec(`UPDATE muster.clock SET newest = clock_timestamp() - interval '1 day'`)
	r, err := clock.Read(w.ctx)
	if err != nil || r.Now.Sub(r.Newest) < 23*time.Hour || !r.SteppedAt.IsZero() {
		t.Errorf("Read = %+v, %v", r, err)
	}
	again, err := clock.Read(w.ctx)
	if err != nil || !again.Newest.Equal(r.Now) {
		t.Errorf("the next Read = %+v, %v, want the newest reading to be %v", again, err, r.Now)
	}
	w.ahead(time.Hour)
	r, err = clock.Read(w.ctx)
	if ahead := r.Newest.Sub(r.Now); err != nil || ahead < 59*time.Minute || ahead > time.Hour {
		t.Errorf("Read after a step back = %+v, %v", r, err)
	}
}

// Whatever a process wrote while the clock was ahead must not hold up others
// for as long as the clock was ahead.
func TestTimesOfAClockThatWasAheadAreCorrected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.runner(1)
	const ahead = 30 * time.Hour
	w.ahead(ahead)
	at := w.now().Add(ahead - time.Minute) // by the clock that is ahead
	tr := trigger()
	w.started(tr, time.Hour, 1)
	w.exec(`UPDATE muster.run SET lease_until = $1, queued_at = $1, requeued_at = $1`, at)
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1, last_walk_at = $1`, at)
	w.exec(`UPDATE muster.runner SET offline_since = $1, status_since = $1, first_seen_at = '2026-03-01'`, at)
	w.exec(`INSERT INTO muster.grace_mark VALUES ('reap', 'acme', 1, 'x', $1)`, at)
	w.exec(`INSERT INTO muster.github_pause VALUES ('c', $1::timestamptz + interval '10 minutes', $1, 'HTTP 429')`, at)
	w.exec(`INSERT INTO muster.outbox (id, subject, body, claimed_until) VALUES (gen_random_uuid(), 's', '', $1)`, at)
	w.exec(`INSERT INTO muster.replica VALUES (gen_random_uuid(), $1)`, at)
	w.exec(`INSERT INTO muster.pool (name, target, labels, memory) VALUES ('linux', 'acme', '{}', '{"UpAt": "2099-01-01T00:00:00Z"}')`)
	w.exec(`INSERT INTO muster.reconciliation (target, due_at) VALUES ('acme', $1)`, at)
	w.exec(`INSERT INTO muster.hold (target, runner_id, reason, by, at, until) VALUES ('acme', 1, 'why', 'me', '2026-03-01', $1)`, at)

	if _, recorded := w.back(); !recorded {
		t.Fatal("not recorded")
	}
	for _, q := range []string{
		`SELECT lease_until < clock_timestamp() + interval '90 seconds' AND queued_at <= clock_timestamp() AND requeued_at <= clock_timestamp() FROM muster.run`,
		`SELECT last_complete_sync_at <= clock_timestamp() AND last_walk_at <= clock_timestamp() FROM muster.target`,
		`SELECT offline_since <= clock_timestamp() AND status_since <= clock_timestamp() AND first_seen_at = '2026-03-01' FROM muster.runner`,
		`SELECT since BETWEEN clock_timestamp() - interval '2 minutes' AND clock_timestamp() FROM muster.grace_mark`,
		`SELECT until - told_at = interval '10 minutes' AND told_at <= clock_timestamp() FROM muster.github_pause`,
		`SELECT claimed_until < clock_timestamp() + interval '90 seconds' FROM muster.outbox`,
		`SELECT seen_at <= clock_timestamp() FROM muster.replica`,
		`SELECT memory = '{}' FROM muster.pool`,
		`SELECT due_at < clock_timestamp() + interval '90 seconds' FROM muster.reconciliation`,
		`SELECT until > clock_timestamp() + interval '20 hours' FROM muster.hold`, // an operator's word stands
	} {
		w.want("true", q)
	}
}

// A leap must make nothing seem to be over.
func TestALeapCarriesOverWhatCountsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.runner(1)
	const leap = 24 * time.Hour
	before := w.now().Add(-leap) // by the clock before the leap, it is that late
	w.exec(`UPDATE muster.target SET last_complete_sync_at = $1::timestamptz - interval '2 minutes'`, before)
	w.exec(`INSERT INTO muster.grace_mark VALUES ('reap', 'acme', 1, 'x', $1::timestamptz - interval '1 hour'), ('reap', 'acme', 2, 'x', clock_timestamp())`, before)
	w.exec(`INSERT INTO muster.github_pause VALUES ('stands', $1::timestamptz + interval '10 minutes', $1, 'x'), ('over', $1::timestamptz - interval '1 minute', $1::timestamptz - interval '1 hour', 'x')`, before)
	w.exec(`INSERT INTO muster.action (action_id, decision_id, trigger_id, policy, target, runner_id, name, action, state, intended_at, settled_at, lease_until)
		SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'reap', 'acme', 7, 'r7', 'delete_runner', 'done',
			$1::timestamptz - interval '30 minutes', $1, $1`, before)
	recorded, err := db.Clock{DB: w.db}.Forward(w.ctx, leap)
	if err != nil || !recorded {
		t.Fatalf("Forward = %v, %v", recorded, err)
	}
	for _, q := range []string{
		`SELECT last_complete_sync_at > clock_timestamp() - interval '3 minutes' FROM muster.target`,
		`SELECT bool_and(since > clock_timestamp() - interval '62 minutes' AND since <= clock_timestamp()) FROM muster.grace_mark`,
		`SELECT until > clock_timestamp() + interval '9 minutes' FROM muster.github_pause WHERE credential = 'stands'`,
		`SELECT until < clock_timestamp() - interval '23 hours' FROM muster.github_pause WHERE credential = 'over'`,
		`SELECT intended_at > clock_timestamp() - interval '32 minutes' FROM muster.action`,
	} {
		w.want("true", q)
	}
}

// A clock that leapt ahead and comes back leaves a host that boots as long as it
// had: else its pool would wait for it, and for its back-off, as long as the clock
// was ahead.
func TestALeaseOutlastsALeapThatIsTakenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := w.now().Truncate(time.Second)
	w.exec(`INSERT INTO muster.lease (request_id, pool, target, state, attempt, requested_at, deadline)
		VALUES (gen_random_uuid(), 'linux', 'acme', 'requested', 1, $1::timestamptz - interval '2 minutes', $1::timestamptz + interval '8 minutes')`, base)
	const leap = 24 * time.Hour
	shows := base.Add(leap)
	clock := db.Clock{DB: w.db, Now: func(context.Context) (time.Time, error) { return shows, nil }}
	recorded, err := clock.Forward(w.ctx, leap)
	if err != nil || !recorded {
		t.Fatalf("Forward = %v, %v", recorded, err)
	}
	w.want("true", `SELECT deadline - $1::timestamptz = interval '8 minutes' FROM muster.lease`, shows)

	w.exec(`UPDATE muster.clock SET newest = $1`, shows)
	w.exec(`UPDATE muster.lease SET state = 'expired'`)
	shows = base
	by, recorded, err := clock.Back(w.ctx)
	if err != nil || !recorded || by != leap {
		t.Fatalf("Back = %v, %v, %v", by, recorded, err)
	}
	w.want("true", `SELECT deadline - $1::timestamptz = interval '8 minutes' AND requested_at <= $1 FROM muster.lease`, base)
}

// A column of times that nobody has thought about may stop something for as
// long as the clock was ahead.
func TestEveryColumnOfTimesHasARule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rows, err := w.sql.Query(w.ctx, `
		SELECT c.table_name || '.' || c.column_name
		FROM information_schema.columns c
		JOIN information_schema.tables t USING (table_schema, table_name)
		WHERE c.table_schema = 'muster' AND t.table_type = 'BASE TABLE' AND c.data_type = 'timestamp with time zone'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	there := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		there[name] = true
		if !db.HasClockRule(name) {
			t.Errorf("db/clock_columns.go says nothing of muster.%s", name)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range db.ClockRules() {
		if !there[name] {
			t.Errorf("db/clock_columns.go names muster.%s, which is not there", name)
		}
	}
}

// A clock of one's own is read in place of Postgres's.
func TestClockOfOnesOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := db.Clock{DB: w.db, Now: func(context.Context) (time.Time, error) { return t0, nil }}
	w.exec(`UPDATE muster.clock SET newest = $1`, t0.Add(time.Hour))
	if r, err := clock.Read(w.ctx); err != nil || !r.Now.Equal(t0) || !r.Newest.Equal(t0.Add(time.Hour)) {
		t.Errorf("Read = %+v, %v", r, err)
	}
	if by, recorded, err := clock.Back(w.ctx); err != nil || by != time.Hour || !recorded {
		t.Errorf("Back = %v, %v, %v", by, recorded, err)
	}
	w.want("2026-03-01 12:00:00", `SELECT newest AT TIME ZONE 'UTC' FROM muster.clock`)
}
