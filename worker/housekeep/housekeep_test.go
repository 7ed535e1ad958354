package housekeep_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/housekeep"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }

var now = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

func housekeeper(store *db.DB, keep time.Duration) *housekeep.Housekeeper {
	return &housekeep.Housekeeper{
		Log: slog.New(slog.DiscardHandler), DB: store,
		Now:   func(context.Context) (time.Time, error) { return now, nil },
		Keep:  func() time.Duration { return keep },
		Pools: func() []string { return nil },
	}
}

func trigger() fleet.Trigger {
	return fleet.Trigger{ID: uuid.NewString(), Job: fleet.JobHousekeep, Name: fleet.All, Source: fleet.SourceCron}
}

func TestHousekeepingIsInTheTrail(t *testing.T) {
	t.Parallel()
	store := dbtest.New(t)
	ctx := t.Context()
	ticks := db.Ticks{DB: store}
	for _, days := range []int{401, 400, 399} {
		if err := ticks.Miss(ctx, []fleet.Tick{{Schedule: "sync/acme", At: now.AddDate(0, 0, -days)}}); err != nil {
			t.Fatal(err)
		}
	}
	tr := trigger()
	counts, err := housekeeper(store, 400*24*time.Hour).Handle(ctx, tr)
	if err != nil || counts["ticks"] != 1 {
		t.Fatalf("Handle = %v, %v, want one tick gone", counts, err)
	}
	trail, err := store.Trail(ctx, db.TrailFilter{Code: string(fleet.AuditHousekept)})
	if err != nil || len(trail) != 1 {
		t.Fatalf("trail %+v, %v, want one event", trail, err)
	}
	e := trail[0]
	want := fleet.AuditEvent{
		ID: e.ID, At: now, Code: fleet.AuditHousekept, Actor: fleet.Actor{Type: fleet.ActorCron, Name: "housekeep/all"}, TriggerID: tr.ID,
	}
	if diff := cmp.Diff(want, e.AuditEvent); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	table, err := store.ReadAPI(ctx, `SELECT payload->'details'->>'before', payload->'details'->>'ticks', payload->'details'->>'runs' FROM api.audit WHERE code = 'HK600I'`)
	if diff := cmp.Diff([][]string{{"2025-01-25T03:00:00Z", "1", "0"}}, table.Rows); err != nil || diff != "" {
		t.Errorf("details: %v (-want +got):\n%s", err, diff)
	}
	// A redelivery does no harm.
	if counts, err := housekeeper(store, 400*24*time.Hour).Handle(ctx, tr); err != nil || counts["ticks"] != 0 {
		t.Errorf("Handle again = %v, %v", counts, err)
	}
}

func TestHousekeepingWithoutPostgres(t *testing.T) {
	t.Parallel()
	closed, err := db.Open(t.Context(), "postgres://muster@127.0.0.1:1/muster?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	if _, err := housekeeper(closed, time.Hour).Handle(t.Context(), trigger()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Handle = %v, want fleet.ErrUnavailable", err)
	}
}
