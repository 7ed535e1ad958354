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

// claimCost claims 256 messages of events and returns the plan, with the blocks
// that it touched.
func (w *world) claimCost() explained {
	w.Helper()
	var text []byte
	w.exec(`BEGIN`)
	w.exec(db.ClaimPlan)
	err := w.sql.QueryRow(w.ctx, `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+db.ClaimQuery, 256, time.Minute, "event").Scan(&text)
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
	few := w.claimCost()
	fill(200_000)
	many := w.claimCost()
	w.exec(`ANALYZE muster.outbox`)
	analyzed := w.claimCost()
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
