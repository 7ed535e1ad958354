package enforce_test

import (
	"testing"

	"github.com/muster-fleet/muster/github/githubsim"
)

// A pass that comes to the floor of the hour's requests ends there: no deletion
// is begun that cannot be done, and the rest waits for the next pass.
func TestPassEndsWhereTheBudgetDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"), sample("other"))
	w.create(30, githubsim.RunnerSpec{})
	w.offline()
	w.sim.SetLimits(githubsim.Limits{Primary: 1000})
	w.sim.Spend(credential, 959)
	// It learns of them: 40 are left, of which the last 20 are for tokens.
	w.ok(w.enforcer.Remover.Targets()["acme"].GitHub.CanList(w.ctx, acme))
	// Two requests each, and a third has to be left.
	w.wantCounts("done 9 failed 0 reason_budget 2") // once for each policy
	w.want("21", `SELECT count(*) FROM api.runners WHERE removed_at IS NULL`)
	w.want("reap keep, other keep", `SELECT string_agg(policy || ' ' || verdict, ', ' ORDER BY at, policy DESC) FROM api.decisions WHERE reasons = '{budget}'`)
	w.agree()

	w.sim.SetLimits(githubsim.Limits{})
	w.enforcer = w.replica() // with a client that knows of no limit
	w.wantCounts("done 21 failed 0 reason_budget 0")
	w.agree()
}
