package db_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
)

func TestReplicasCountWhoIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := db.Replicas{DB: w.db}
	first, second := uuid.NewString(), uuid.NewString()
	present := func(replica string, want int) {
		t.Helper()
		if n, err := all.Present(w.ctx, replica, []string{"acme", "octo"}); err != nil || n != want {
			t.Errorf("Present = %d, %v, want %d", n, err, want)
		}
	}
	present(first, 1)
	present(second, 2)
	present(first, 2)
	if err := all.Leave(w.ctx, second); err != nil {
		t.Error(err)
	}
	present(first, 1)
	present(second, 2)
	// One that was killed counts for as long as it may just be slow.
	w.exec(`UPDATE muster.replica SET seen_at = clock_timestamp() - interval '21 seconds' WHERE replica = $1`, second)
	present(first, 1)
	present(second, 2)
}
