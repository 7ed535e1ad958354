package remove_test

import (
	"context"
	"testing"
	"time"

	"github.com/muster-fleet/muster/internal/clock"
)

// While the clock cannot be believed nothing is intended, and GitHub is not
// asked.
func TestNobodyIsRemovedByAClockThatHasStepped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.fleet(1)
	var doubt error
	w.remover.Steady = func(context.Context) error { return doubt }
	doubt = &clock.InDoubt{Left: time.Minute}
	before := len(w.sim.Log())
	res := w.remove("keep clock", w.request(ids[0]))
	if res.Postponed != doubt.Error() {
		t.Errorf("Postponed = %q", res.Postponed)
	}
	w.trail("")
	if asked := len(w.sim.Log()) - before; asked != 0 {
		t.Errorf("GitHub was asked %d times", asked)
	}
	doubt = nil
	w.remove("done", w.request(ids[0]))
	w.agree()
}
