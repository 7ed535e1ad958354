package db_test

import (
	"testing"

	"github.com/muster-fleet/muster/db"
)

func TestAllowanceLapsesAfterADay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy()
	w.tx(func(tx *db.Tx) error {
		if _, err := tx.Halt(w.ctx, "reap", "acme", "over_max", "too many", t0); err != nil {
			return err
		}
		_, err := tx.Resume(w.ctx, "reap", "acme", "seen", 300)
		return err
	})
	for _, tt := range []struct {
		later string
		want  int
	}{{"0", 300}, {"23 hours", 300}, {"61 minutes", 0}} {
		// Time passes as if it had been given so much earlier.
		w.exec(`UPDATE muster.policy SET allowance_until = allowance_until - $1::interval`, tt.later)
		if s := w.policy(); s.Allowance != tt.want || s.Halted {
			t.Errorf("%s later LockPolicy = %+v, want an allowance of %d", tt.later, s, tt.want)
		}
		if s, err := w.db.PolicyState(w.ctx, "reap", "acme"); s.Allowance != tt.want || err != nil {
			t.Errorf("%s later PolicyState = %+v, %v, want an allowance of %d", tt.later, s, err, tt.want)
		}
	}
}
