package github

import (
	"net/http"

	"github.com/muster-fleet/muster/fleet"
)

// removalCalls is what a removal may take: the last look, the deletion, and a
// look at what became of it.
const removalCalls = 3

// AffordsRemoval is nil where GitHub's limits on the credential, as far as they
// are known, leave room to look at a runner and delete it now, and else the
// error that the calls would fail with. It sends nothing and sets nothing aside:
// who asks first is not served first.
func (c *Client) AffordsRemoval(scope fleet.Scope, id int64) error {
	g := c.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	for _, o := range []operation{
		runnerOperation(OpRunner, http.MethodGet, http.StatusOK, scope, id),
		runnerOperation(OpRemoveRunner, http.MethodDelete, http.StatusNoContent, scope, id),
	} {
		w := &waiter{call: g.call(o)}
		w.hold = g.hold(w.call, now)
		p := w.call.priority
		if !g.unpaced && g.budget.known && g.budget.left()-g.budget.floor(p) < removalCalls && g.budget.ends.After(w.hold.until) {
			w.hold = hold{why: ReasonBudget, until: g.budget.ends, long: true}
		}
		if w.hold.long {
			return g.unserved(w, now)
		}
	}
	return nil
}
