package enforce_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// Whoever asks for enforcement meets what stands against it, and once that is
// gone any of them has the runners deleted.
func TestGuardsStandAtEveryDoor(t *testing.T) {
	t.Parallel()
	plain := sample("reap")
	for _, guard := range []struct {
		reason string
		policy string
		stand  func(w *world, dead, alive []int64)
		fall   func(w *world, dead []int64)
	}{
		{
			"min_survivors", sample("reap", "rate: RATE", "rate: 1000/m, min_survivors: 3"),
			func(w *world, _, alive []int64) {
				w.kill(alive[2:])
				w.sync(time.Minute)
			},
			func(w *world, _ []int64) {
				w.create(1, githubsim.RunnerSpec{Online: true})
				w.sync(time.Minute)
			},
		},
		{
			"freeze", sample("reap", "rate: RATE", `rate: 1000/m, freeze: [{cron: "0 14 * * *", duration: 40m}]`),
			func(*world, []int64, []int64) {},
			func(w *world, _ []int64) { w.sync(10 * time.Minute) },
		},
		{
			"hold", plain,
			func(w *world, dead, _ []int64) {
				w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
					for _, id := range dead {
						if err := tx.Hold(w.ctx, "acme", id, fleet.Hold{Reason: "looked at", By: "alice", At: w.clock()}); err != nil {
							return err
						}
					}
					return nil
				}))
			},
			func(w *world, dead []int64) {
				w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
					for _, id := range dead {
						if _, err := tx.Unhold(w.ctx, "acme", id, w.clock()); err != nil {
							return err
						}
					}
					return nil
				}))
			},
		},
		{
			"halted", plain, // by the brake
			func(w *world, _, _ []int64) {
				more := w.create(20, githubsim.RunnerSpec{Online: true})
				w.sync(time.Minute)
				w.kill(more)
				w.sync(time.Minute)
				w.wantCounts("act 0 halt 2 reason_brake 2")
			},
			func(w *world, _ []int64) { w.resume(0) },
		},
	} {
		for _, door := range []fleet.Source{fleet.SourceCron, fleet.SourceNATS, fleet.SourceCLI, fleet.SourceSync} {
			t.Run(guard.reason+"/"+string(door), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, guard.policy)
				dead := w.create(2, githubsim.RunnerSpec{})
				alive := w.create(3, githubsim.RunnerSpec{Online: true})
				w.offline()
				knock := func() fleet.Counts {
					asked := trigger()
					asked.Source = door
					counts, err := w.enforcer.Handle(w.ctx, asked)
					w.ok(err)
					return counts
				}
				guard.stand(w, dead, alive)
				if got := knock(); got["reason_"+guard.reason] != 2 || got["act"] != 0 || len(w.deletes()) != 0 {
					t.Errorf("while it stands: %v, %d deletions", got, len(w.deletes()))
				}
				guard.fall(w, dead)
				if got := knock(); got["done"] != 2 || fmt.Sprint(w.deletes()) != fmt.Sprint(dead) {
					t.Errorf("when it is gone: %v, deletions of %v, want %v", got, w.deletes(), dead)
				}
			})
		}
	}
}
