package remove_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/policies"
)

// What stands against a deletion stands at the last moment too, when a pass has
// decided already; a person's deletion meets the hold, and neither the freeze
// nor the survivors, which are a policy's own.
func TestGuardsStandAtTheLastMomentAndByHand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		guard  string // of the policy
		stand  func(w *world, id int64)
		policy string
		byHand string
	}{
		{"a freeze", `freeze: [{cron: "0 12 * * *", duration: 1h}]`, func(*world, int64) {}, "keep freeze", "done"},
		{"a freeze that is over", `freeze: [{cron: "0 11 * * *", duration: 1h}]`, func(*world, int64) {}, "done", "done"},
		{"too few survivors", "min_survivors: 3", func(w *world, _ int64) { w.working(2) }, "keep min_survivors", "done"},
		{"enough of them", "min_survivors: 2", func(w *world, _ int64) { w.working(2) }, "done", "done"},
		{"a hold", "min_survivors: 0", func(w *world, id int64) { w.hold(id, 0) }, "keep hold", "keep hold"},
		{"a hold that is over", "min_survivors: 0", func(w *world, id int64) { w.hold(id, -time.Second) }, "done", "done"},
	} {
		for _, door := range []string{"policy", "by hand"} {
			t.Run(tt.name+"/"+door, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				all, err := policies.Load("reap.yaml", []byte(strings.NewReplacer("COUNT", "50", "RATE", "1000/m, "+tt.guard).Replace(reap)))
				w.ok(err)
				w.policy = all[0]
				id := w.fleet(1)[0]
				tt.stand(w, id)
				want, request := tt.policy, w.request(id)
				if door == "by hand" {
					want, request = tt.byHand, w.byHand(id)
				}
				w.remove(want, request)
				if n := len(w.deletes(false)); (n == 1) != (want == "done") {
					t.Errorf("%d deletions", n)
				}
			})
		}
	}
}
