package db_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
)

// explained is what EXPLAIN tells of a part of a statement.
type explained struct {
	Node    string      `json:"Node Type"`
	Hit     int         `json:"Shared Hit Blocks"`
	Read    int         `json:"Shared Read Blocks"`
	Plans   []explained `json:"Plans"`
	Removed int         `json:"Rows Removed by Filter"`
}

func (p explained) has(node string) bool {
	for _, part := range p.Plans {
		if part.has(node) {
			return true
		}
	}
	return p.Node == node
}

// claimCost claims 256 messages of events from a place on and returns the plan,
// with the blocks that it touched.
func (w *world) claimCost(from *time.Time) explained {
	w.Helper()
	var text []byte
	w.exec(`BEGIN`)
	w.exec(db.ClaimPlan)
	err := w.sql.QueryRow(w.ctx, `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+db.ClaimQuery, 256, time.Minute, "event", from).Scan(&text)
	if err != nil {
		w.Fatal(err)
	}
	w.exec(`COMMIT`)
	var all []struct{ Plan explained }
	if err := json.Unmarshal(text, &all); err != nil {
		w.Fatal(err)
	}
	return all[0].Plan
}

// Claiming costs the same however many messages wait: nothing is sorted, and as
// many blocks are touched.
func TestClaimingCostsTheSameHoweverManyWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fill := func(n int) {
		t.Helper()
		w.exec(`INSERT INTO muster.outbox (id, subject, body)
			SELECT gen_random_uuid(), 'muster.v1.event.runner.online', '{}' FROM generate_series(1, $1)`, n)
	}
	fill(300)
	few := w.claimCost(nil)
	fill(200_000)
	many := w.claimCost(nil)
	w.exec(`ANALYZE muster.outbox`)
	analyzed := w.claimCost(nil)
	for name, p := range map[string]explained{"few": few, "many": many, "analyzed": analyzed} {
		if p.has("Sort") || p.has("Seq Scan") || p.has("Bitmap Heap Scan") {
			t.Errorf("%s: the claim sorts or reads the whole table: %+v", name, p)
		}
	}
	// Each of 256 rows takes a handful of blocks for its row and its indexes,
	// whose trees are one or two levels higher.
	small, large := few.Hit+few.Read, max(many.Hit+many.Read, analyzed.Hit+analyzed.Read)
	if large > 2*small+1000 {
		t.Errorf("claiming 256 messages touches %d blocks where 300 wait and %d where 200,000 do", small, large)
	}
	t.Logf("blocks: %d of 300 rows, %d of 200,000, %d after ANALYZE", small, many.Hit+many.Read, analyzed.Hit+analyzed.Read)
}

// Nor does it grow with what was claimed and deleted before, which Postgres keeps
// while the snapshot of a dump, say, is older.
func TestClaimingCostsTheSameAfterManyAreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dump := connect(t, w.url)
	mustExec(t, dump, `BEGIN ISOLATION LEVEL REPEATABLE READ`)
	mustExec(t, dump, `SELECT count(*) FROM muster.outbox`)
	w.exec(`INSERT INTO muster.outbox (id, subject, body)
		SELECT gen_random_uuid(), 'muster.v1.event.runner.online', '{}' FROM generate_series(1, 12000)`)
	first := w.claimCost(w.db.OutboxFront("event"))
	outbox := db.Outbox{DB: w.db}
	gone := map[string]bool{}
	for range 20 {
		messages, err := outbox.Claim(w.ctx, "event", 500, time.Hour)
		if err != nil || len(messages) != 500 {
			t.Fatalf("%d messages, %v", len(messages), err)
		}
		ids := make([]string, len(messages))
		for i, m := range messages {
			ids[i] = m.ID
			gone[m.ID] = true
		}
		if err := outbox.Delete(w.ctx, ids); err != nil {
			t.Fatal(err)
		}
	}
	if len(gone) != 10_000 {
		t.Errorf("%d distinct messages in 20 claims of 500", len(gone))
	}
	place := w.claimCost(w.db.OutboxFront("event"))
	whole := w.claimCost(nil)
	before, after, fromFront := first.Hit+first.Read, place.Hit+place.Read, whole.Hit+whole.Read
	t.Logf("blocks: %d at first, %d after 10,000 are gone, %d from the very front", before, after, fromFront)
	if after-before > (fromFront-before)/3 {
		t.Errorf("claiming 256 messages touches %d blocks at first and %d after 10,000 messages are gone", before, after)
	}
}

// A message that was committed late, or whose lease has ended, is not forgotten
// behind the place where claims begin.
func TestMessagesBehindTheFrontAreClaimed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	outbox := db.Outbox{DB: w.db}
	claim := func(n, want int) {
		t.Helper()
		messages, err := outbox.Claim(w.ctx, "event", n, time.Hour)
		if err != nil || len(messages) != want {
			t.Errorf("%d messages claimed, %v, want %d", len(messages), err, want)
		}
	}
	add := func(n int, age time.Duration) {
		t.Helper()
		w.exec(`INSERT INTO muster.outbox (id, subject, body, created_at)
			SELECT gen_random_uuid(), 'muster.v1.event.runner.online', '{}', clock_timestamp() - $2::interval FROM generate_series(1, $1)`, n, age)
	}
	add(6, 0)
	claim(4, 4)
	if w.db.OutboxFront("event") == nil {
		t.Error("the next claim begins at the very front")
	}
	add(3, time.Hour)
	claim(10, 5)
	claim(10, 0)
	w.exec(`UPDATE muster.outbox SET claimed_until = clock_timestamp() - interval '1 s'`)
	add(2, 0)
	claim(2, 2)
	claim(20, 9)
	if from := w.db.OutboxFront("event"); from != nil {
		t.Errorf("with nothing left the next claim begins at %v", from)
	}
}
