package db_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
	"github.com/muster-fleet/muster/fleet"
)

func TestInTxIsAllOrNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken := errors.New("broken")
	err := w.db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.EnsureTarget(w.ctx, acme, t0); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("InTx = %v, want the error of its function", err)
	}
	w.want("0 0", `SELECT (SELECT count(*) FROM muster.target) || ' ' || (SELECT count(*) FROM audit.event)`)

	ctx, cancel := context.WithCancel(w.ctx)
	err = w.db.InTx(ctx, func(tx *db.Tx) error {
		if err := tx.EnsureTarget(ctx, acme, t0); err != nil {
			return err
		}
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("InTx whose context ends = %v, want that it was canceled", err)
	}
	w.want("0", `SELECT count(*) FROM muster.target`)
}

func TestInTxTriesADeadlockAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	targets := []fleet.Target{acme, acme}
	for i, name := range []string{"a", "b"} {
		targets[i].Name, targets[i].Scope.Owner = name, name
		w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, targets[i], t0) })
	}
	// Both hold their first lock before either asks for its second.
	var met sync.WaitGroup
	met.Add(2)
	var mu sync.Mutex
	attempts := 0
	var g errgroup.Group
	for i := range targets {
		g.Go(func() error {
			first := true
			return w.db.InTx(w.ctx, func(tx *db.Tx) error {
				mu.Lock()
				attempts++
				mu.Unlock()
				if _, err := tx.LockTarget(w.ctx, targets[i]); err != nil {
					return err
				}
				if first {
					first = false
					met.Done()
					met.Wait()
				}
				_, err := tx.LockTarget(w.ctx, targets[1-i])
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		t.Errorf("deadlock: %v, want that it is tried again", err)
	}
	// More, where the one that goes again is back before the other has woken up.
	if attempts < 3 {
		t.Errorf("%d attempts, want at least 3: one of the two transactions again", attempts)
	}
}

func TestMissingRowsAreNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, run := w.db.Run(w.ctx, trigger().ID)
	_, state := w.db.TargetState(w.ctx, "nosuch")
	_, runner := w.db.Runner(w.ctx, "nosuch", 1)
	lock := w.db.InTx(w.ctx, func(tx *db.Tx) error {
		_, err := tx.LockTarget(w.ctx, fleet.Target{Name: "nosuch"})
		return err
	})
	for name, err := range map[string]error{"Run": run, "TargetState": state, "Runner": runner, "LockTarget": lock} {
		if !errors.Is(err, fleet.ErrNotFound) || errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("%s = %v, want fleet.ErrNotFound", name, err)
		}
	}
}

func TestPostgresAwayAndBack(t *testing.T) {
	t.Parallel()
	server := dbtest.Server(t)
	w := openWorld(t, server.URL())
	w.target()

	// In the middle of a transaction, of a statement, and before both.
	began, stopped := make(chan struct{}), make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		return w.db.InTx(w.ctx, func(tx *db.Tx) error {
			if _, err := tx.LockTarget(w.ctx, acme); err != nil {
				return err
			}
			close(began)
			<-stopped
			return tx.SetObservationGap(w.ctx, acme)
		})
	})
	<-began
	server.Stop()
	close(stopped)
	if err := g.Wait(); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("a transaction whose server went away: %v, want fleet.ErrUnavailable", err)
	}
	for range 3 { // broken connections of the pool, then none
		if err := w.db.Ping(w.ctx); !errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("Ping = %v, want fleet.ErrUnavailable", err)
		}
	}
	if _, err := db.Migrate(w.ctx, server.URL()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Migrate = %v, want fleet.ErrUnavailable", err)
	}
	if err := w.db.CheckSchema(w.ctx); !errors.Is(err, fleet.ErrUnavailable) || errors.Is(err, fleet.ErrConflict) {
		t.Errorf("CheckSchema = %v, want fleet.ErrUnavailable", err)
	}

	server.Start()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	if err := w.db.Ping(ctx); err != nil {
		t.Errorf("Ping after the server is back: %v", err)
	}
	if s, err := w.db.TargetState(ctx, acme.Name); err != nil || s.MaxObservationGap != time.Hour {
		t.Errorf("TargetState = %+v, %v", s, err)
	}
}

func TestBackendThatIsKilledIsUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.db.InTx(w.ctx, func(tx *db.Tx) error {
		if err := tx.EnsureTarget(w.ctx, acme, t0); err != nil {
			return err
		}
		w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'muster' AND pid <> pg_backend_pid()`)
		return tx.SetObservationGap(w.ctx, acme)
	})
	if !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("a transaction whose backend was killed: %v, want fleet.ErrUnavailable", err)
	}
}

func TestNowIsPostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now, err := w.db.Now(w.ctx)
	if err != nil || now.Location() != time.UTC {
		t.Fatalf("Now = %v, %v", now, err)
	}
	w.want("true", `SELECT $1::timestamptz BETWEEN clock_timestamp() - interval '1 hour' AND clock_timestamp()`, now)
}
