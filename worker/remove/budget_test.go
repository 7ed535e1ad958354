package remove_test

import (
	"strings"
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// Where GitHub's limits leave no room for the look and the deletion, nothing is
// intended: the trail has no act that could not be carried out.
func TestNothingIsIntendedBelowTheFloorOfTheBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(3)
	w.sim.SetLimits(githubsim.Limits{Primary: 1000})
	w.sim.Spend(credential, 979)
	w.ok(w.remover.Targets()["acme"].GitHub.CanList(w.ctx, acme)) // it learns of them
	before := len(w.sim.Log())
	for range 2 { // a repetition is no news
		res := w.remove("keep budget", w.request(ids[0]))
		if !strings.Contains(res.Postponed, "20 of the hour's 1000 requests are left, and the last 20 are kept") || res.Halted != "" {
			t.Errorf("Postponed = %q, Halted = %q", res.Postponed, res.Halted)
		}
	}
	w.trail("")
	w.want("1", `SELECT count(*) FROM api.decisions WHERE reasons = '{budget}' AND evidence->>'budget' LIKE '%requests are left%'`)
	w.remove("keep budget", w.byHand(ids[1]))
	w.trail("RN105W")
	if asked := len(w.sim.Log()) - before; asked != 0 {
		t.Errorf("GitHub was asked %d times", asked)
	}
	w.want("0", `SELECT count(*) FROM api.actions`)

	// One that is kept for another reason keeps that, and another credential,
	// or another hour, deletes it.
	w.exec(`UPDATE muster.runner SET busy = true WHERE runner_id = $1`, ids[2])
	w.remove("keep busy", w.byHand(ids[2]))
	w.sim.SetLimits(githubsim.Limits{})
	w.remover = w.replica(w.db)
	w.remove("done", w.request(ids[0]))
	w.agree()
}
