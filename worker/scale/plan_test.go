package scale_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/scale"
)

// A plan says what a decision would say, which ends requests that are due first.
func TestAPlanCountsRequestsThatAreDueAsExpired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(func(p *fleet.Pool) { p.Max = 4 }))
	w.sync(everybody)
	w.queue(4, "linux")
	w.scaleAsPlanned()
	w.pass(10 * time.Minute)
	w.scaleAsPlanned()
	w.wantPool(4, 0, 4, 4, 0) // no sync has shown yet that they did not come
	w.sync(nobody)
	w.scaleAsPlanned()
	w.wantPool(4, 0, 0, 4, 4)
	w.pass(time.Minute)
	w.scaleAsPlanned()
	w.want("expired 1 4, requested 2 4", leases)
}

// scaleAsPlanned decides on the pool linux, and compares that with what a plan
// says right before, which changes nothing.
func (w *world) scaleAsPlanned() {
	w.Helper()
	before := w.value(leases)
	p, err := scale.Plan(w.ctx, w.db, w.pools[0], w.pools, fleet.HostNames{}, w.clock())
	w.ok(err)
	w.want(before, leases)
	w.scale()
	got, err := w.db.PoolState(w.ctx, "linux")
	w.ok(err)
	if diff := cmp.Diff(scale.RowOf(got), scale.RowOf(p.State)); diff != "" {
		w.Errorf("(-decision +plan before it):\n%s", diff)
	}
}

func TestPlanDecidesTheSameAndWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, linux(nil))
	w.sync(everybody)
	w.queue(3, "linux")
	w.queue(1, "gpu")
	preview, err := scale.Plan(w.ctx, w.db, w.pools[0], w.pools, fleet.HostNames{}, w.clock())
	w.ok(err)
	w.want("0 0 0", `SELECT concat_ws(' ', (SELECT count(*) FROM muster.pool), (SELECT count(*) FROM muster.lease), (SELECT count(*) FROM muster.finding))`)
	if len(preview.Findings) != 1 || !preview.Last.Decision.At.IsZero() {
		t.Errorf("Plan = %+v, want a finding, and no decision before", preview)
	}
	w.scale()
	stored, err := w.db.PoolState(w.ctx, "linux")
	w.ok(err)
	// Numbers of evidence come back as JSON has them.
	for key, value := range stored.Decision.Evidence {
		if f, ok := value.(float64); ok {
			stored.Decision.Evidence[key] = int(f)
		}
	}
	if diff := cmp.Diff(preview.State, stored, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("Plan, and what was stored (-plan +stored):\n%s", diff)
	}
}
