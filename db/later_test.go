package db_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func (w *world) later(name string, in time.Duration) {
	w.Helper()
	t := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: name, Source: fleet.SourceSync}
	err := w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.QueueLater(w.ctx, db.Later{Trigger: t, In: in}) })
	if err != nil {
		w.Fatal(err)
	}
}

func TestTriggerForLaterWaitsForItsMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.later("gpu", time.Hour)
	w.later("gpu", time.Hour)   // the same second
	w.later("gpu", 2*time.Hour) // the run of the first leaves it
	w.later("cpu", time.Hour)
	w.want("2", `SELECT count(*) FROM muster.outbox`)
	w.later("gpu", time.Minute)
	w.want("3", `SELECT count(*) FROM muster.outbox`)

	outbox := db.Outbox{DB: w.db}
	claimed, err := outbox.Claim(w.ctx, "trigger", 10, time.Minute)
	if err != nil || len(claimed) != 0 {
		t.Errorf("claimed %v, %v before the moment, want none", claimed, err)
	}
	health, err := w.db.Health(w.ctx)
	if err != nil || health.Waiting != 0 {
		t.Errorf("%d messages wait for NATS, %v, want none before the moment", health.Waiting, err)
	}

	// A trigger that is to run at once does not lean on one for later.
	now := fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobScale, Name: "gpu", Source: fleet.SourceSync}
	err = w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.QueueOnce(w.ctx, now) })
	if err != nil {
		t.Fatal(err)
	}
	claimed, err = outbox.Claim(w.ctx, "trigger", 10, time.Minute)
	if err != nil || len(claimed) != 1 || claimed[0].ID != now.ID {
		t.Errorf("claimed %v, %v, want the trigger for now", claimed, err)
	}

	w.exec(`UPDATE muster.outbox SET claimed_until = clock_timestamp() - interval '1 second' WHERE id <> $1`, now.ID)
	claimed, err = outbox.Claim(w.ctx, "trigger", 10, time.Minute)
	if err != nil || len(claimed) != 3 {
		t.Errorf("claimed %v, %v once the moment has come, want 3", claimed, err)
	}
}
