package db_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// completed gives the target its first complete sync.
func (w *world) completed(target string) {
	w.Helper()
	w.exec(`UPDATE muster.target SET complete_syncs = 1, last_complete_sync_at = $2 WHERE name = $1`, target, t0)
}

func TestIdentityIsFixedAtTheFirstCompleteSync(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*fleet.Target)
		same   bool
	}{
		{"as it was", func(*fleet.Target) {}, true},
		{"in capitals", func(x *fleet.Target) { x.Scope.Owner = "ACME"; x.APIURL = "https://GHES.example.com/api/v3" }, true},
		{"with the default port", func(x *fleet.Target) { x.APIURL = "https://ghes.example.com:443/api/v3" }, true},
		{"another gap", func(x *fleet.Target) { x.MaxObservationGap = time.Minute }, true},
		{"another owner", func(x *fleet.Target) { x.Scope.Owner = "acme2" }, false},
		{"another kind", func(x *fleet.Target) { x.Scope.Kind = fleet.ScopeEnterprise }, false},
		{"another server", func(x *fleet.Target) { x.APIURL = fleet.DefaultAPIURL }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			target := acme
			tt.change(&target)
			if err := w.db.CheckIdentity(w.ctx, acme); err != nil {
				t.Errorf("CheckIdentity of a target never used: %v", err)
			}
			w.target()

			// Before the first complete sync a typing error is mended by editing.
			w.runner(1)
			w.exec(`INSERT INTO muster.workflow_job (target, workflow_job_id, run_id, run_attempt, repository, labels, state, runner_id, runner_name, conclusion, changed_at)
				VALUES ('acme', 1, 1, 1, 'acme/widgets', '{}', 'in_progress', 1, 'r1', '', now())`)
			if err := w.db.CheckIdentity(w.ctx, target); err != nil {
				t.Errorf("CheckIdentity before the first complete sync: %v", err)
			}
			w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, target, t0) })
			mended := map[bool]string{true: "1 TG302I", false: "0 TG302I TG303I"}[tt.same]
			w.want(mended, `SELECT concat_ws(' ', (SELECT count(*) FROM muster.runner), string_agg(code, ' ' ORDER BY code)) FROM api.audit`)
			w.want("1", `SELECT count(*) FROM muster.workflow_job`) // it protects
			w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, acme, t0) })

			// Afterwards it is refused, with the remedy.
			w.completed("acme")
			ensure := w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, target, t0) })
			_, lock := error(nil), w.db.InTx(w.ctx, func(tx *db.Tx) error { _, err := tx.LockTarget(w.ctx, target); return err })
			for what, err := range map[string]error{"EnsureTarget": ensure, "CheckIdentity": w.db.CheckIdentity(w.ctx, target), "LockTarget": lock} {
				var identity *db.IdentityError
				refused := errors.As(err, &identity) && errors.Is(err, fleet.ErrConflict) &&
					strings.Contains(err.Error(), "muster target rename acme acme") && strings.Contains(err.Error(), "muster target forget acme")
				if tt.same && err != nil || !tt.same && !refused {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// A scope has one name in the record: under another, its holds and workflow
// jobs would protect nobody.
func TestScopeUnderAnotherNameIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	w.completed("acme")
	other := acme
	other.Name, other.Scope.Owner, other.APIURL = "acme-ghes", "Acme", "https://GHES.example.com:443/api/v3"
	ensure := w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, other, t0) })
	for what, err := range map[string]error{"EnsureTarget": ensure, "CheckIdentity": w.db.CheckIdentity(w.ctx, other)} {
		if !errors.Is(err, fleet.ErrConflict) || !strings.Contains(fmt.Sprint(err), "muster target rename acme acme-ghes") {
			t.Errorf("%s: %v, want a refusal that names muster target rename", what, err)
		}
	}

	// Two processes may come at once with two names: one wins.
	fresh := fleet.Target{Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "octo"}, APIURL: fleet.DefaultAPIURL}
	var g errgroup.Group
	won := make([]bool, 8)
	for i := range won {
		g.Go(func() error {
			mine := fresh
			mine.Name = fmt.Sprintf("octo-%d", i%4)
			err := w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, mine, t0) })
			won[i] = err == nil
			if err != nil && !errors.Is(err, fleet.ErrConflict) {
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	w.want("1", `SELECT count(*) FROM muster.target WHERE scope = 'org/octo'`)
}

// What the server says of itself tells one fleet from another, and not the
// address.
func TestFirstListingTellsTwins(t *testing.T) {
	t.Parallel()
	alias := "http://localhost:9000"
	for _, tt := range []struct {
		name   string
		target fleet.Target
		listed map[int64]string
		twin   bool
	}{
		{"an alias of the address", fleet.Target{Scope: acme.Scope, APIURL: alias}, map[int64]string{1: "r1", 2: "R2"}, true},
		{"an alias, with some that are new", fleet.Target{Scope: acme.Scope, APIURL: alias}, map[int64]string{1: "r1", 2: "r2", 8: "r8", 9: "r9", 10: "r10"}, true},
		{"the organisation's new name", fleet.Target{Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme-inc"}, APIURL: acme.APIURL}, map[int64]string{1: "r1", 2: "r2"}, true},
		{"another server with ids of its own", fleet.Target{Scope: acme.Scope, APIURL: alias}, map[int64]string{1: "other-1", 2: "other-2"}, false},
		{"another server with names of the same kind", fleet.Target{Scope: acme.Scope, APIURL: alias}, map[int64]string{11: "r1", 12: "r2"}, false},
		{"one runner alike by chance", fleet.Target{Scope: acme.Scope, APIURL: alias}, map[int64]string{1: "r1", 2: "x", 3: "y"}, false},
		{"another scope of another server", fleet.Target{Scope: fleet.Scope{Kind: fleet.ScopeOrg, Owner: "octo"}, APIURL: alias}, map[int64]string{1: "r1", 2: "r2"}, false},
		{"nobody", fleet.Target{Scope: acme.Scope, APIURL: alias}, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.target()
			for id := range int64(4) {
				w.runner(id + 1)
			}
			w.exec(`UPDATE muster.runner SET removed_at = $1, removal_cause = 'unknown' WHERE runner_id = 4`, t0)
			tt.target.Name = "twin"
			var listing []fleet.Runner
			for id, name := range tt.listed {
				listing = append(listing, fleet.Runner{ID: id, Name: name})
			}
			w.tx(func(tx *db.Tx) error { return tx.EnsureTarget(w.ctx, tt.target, t0) })
			err := w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.FindTwin(w.ctx, tt.target, listing) })
			refused := errors.Is(err, fleet.ErrConflict) && strings.Contains(err.Error(), "muster target rename acme twin")
			if tt.twin && !refused || !tt.twin && err != nil {
				t.Errorf("FindTwin = %v", err)
			}
		})
	}
}
