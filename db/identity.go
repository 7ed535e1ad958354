package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// IdentityError says that a target of the configuration is not what the record
// has: its name stands for another scope, or its scope has another name.
// Runner ids are small numbers that mean other runners elsewhere, and what
// protects a runner is recorded under the name of its target.
type IdentityError struct {
	Target     string
	Have, Want string // SCOPE of ADDRESS, in the record and in the configuration
	// Known is the name under which the record has the scope; empty: under none.
	Known string
	// Renamed is whether Target is a former name of Known.
	Renamed bool
	// Taken is whether Target was to be renamed to Known, which is in use.
	Taken bool
	// Alike says what showed that the two are one; empty: scope and address did.
	Alike string
}

func (e *IdentityError) Error() string {
	switch {
	case e.Taken:
		return fmt.Sprintf("the name %s is a target's that was completely synced: take another name, or muster target forget %s first", e.Known, e.Known)
	case e.Renamed:
		return fmt.Sprintf("target %s is called %s since it was renamed: change the name in muster.yaml, or take it back with muster target rename %s %s",
			e.Target, e.Known, e.Known, e.Target)
	case e.Alike != "":
		return fmt.Sprintf("target %s and target %s are one scope: %s. Take %s out of muster.yaml; then muster target rename %s %s carries its holds, "+
			"workflow jobs, history and clocks over", e.Target, e.Known, e.Alike, e.Known, e.Known, e.Target)
	case e.Known != "":
		return fmt.Sprintf("target %s is %s, which the record has as target %s: muster target rename %s %s carries its holds, "+
			"workflow jobs, history and clocks over, and muster target forget %s gives them up", e.Target, e.Want, e.Known, e.Known, e.Target, e.Known)
	}
	return fmt.Sprintf("target %s is recorded as %s and configured as %s: scope and api_url are fixed at the first complete sync. "+
		"If GitHub gave the same runners a new address: muster target rename %s %s. If it is another fleet: "+
		"give it a name of its own, or muster target forget %s", e.Target, e.Have, e.Want, e.Target, e.Target, e.Target)
}

// Is makes it a conflict: trying again does not help.
func (e *IdentityError) Is(target error) bool { return target == fleet.ErrConflict }

// NotSame is the IdentityError of a target that is recorded as another scope.
func NotSame(configured, recorded fleet.Target) error {
	return &IdentityError{Target: configured.Name, Have: identityOf(recorded), Want: identityOf(configured)}
}

func identityOf(t fleet.Target) string { return t.Scope.String() + " of " + t.APIURL }

// recordedTarget is who a target is in the record.
type recordedTarget struct {
	name, scope, apiURL string
	fixed               bool // there was a complete sync
}

func (r recordedTarget) String() string { return r.scope + " of " + r.apiURL }

// is reports whether the target of the configuration is the same scope of the
// same server.
func (r recordedTarget) is(t fleet.Target) bool {
	scope, err := fleet.ParseScope(r.scope)
	return err == nil && t.Same(fleet.Target{Scope: scope, APIURL: r.apiURL})
}

// targetIdentity is what a target of the configuration is to the record.
type targetIdentity int

const (
	targetNew   targetIdentity = iota // neither the name nor the scope was ever used
	targetKnown                       // it is what it was
	targetMend                        // it was another one, and was never completely synced
)

// judgeIdentity compares a target of the configuration with the recorded targets
// of its name or scope. It is pure.
func judgeIdentity(t fleet.Target, recorded []recordedTarget) (targetIdentity, error) {
	var own, twin *recordedTarget
	for i := range recorded {
		r := &recorded[i]
		switch {
		case r.name == t.Name:
			own = r
		case r.is(t):
			twin = r
		}
	}

	switch {
	case own != nil && own.is(t) && (own.fixed || twin == nil):
		return targetKnown, nil
	case own != nil && own.fixed:
		return 0, &IdentityError{Target: t.Name, Have: own.String(), Want: identityOf(t)}
	case twin != nil:
		return 0, &IdentityError{Target: t.Name, Want: identityOf(t), Known: twin.name}
	case own != nil:
		return targetMend, nil
	}
	return targetNew, nil
}

// identify reads what the record has of a target's name and scope, and judges
// it.
func identify(ctx context.Context, q querier, t fleet.Target) (targetIdentity, error) {
	rows, err := q.Query(ctx, `
		SELECT name, scope, api_url, complete_syncs > 0
		FROM muster.target
		WHERE name = $1 OR lower(scope) = lower($2)`, t.Name, t.Scope.String())
	var recorded []recordedTarget
	if err == nil {
		recorded, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (recordedTarget, error) {
			var r recordedTarget
			err := row.Scan(&r.name, &r.scope, &r.apiURL, &r.fixed)
			return r, err
		})
	}
	if err != nil {
		return 0, fmt.Errorf("read target %s: %w", t.Name, translate(err))
	}

	is, err := judgeIdentity(t, recorded)
	var identity *IdentityError
	if errors.As(err, &identity) && identity.Known != "" {
		err := q.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM muster.former_target WHERE name = $1 AND target = $2)`, t.Name, identity.Known).Scan(&identity.Renamed)
		if err != nil {
			return 0, fmt.Errorf("read target %s: %w", t.Name, translate(err))
		}
	}
	return is, err
}

// CheckIdentity returns an IdentityError where a target of the configuration is
// not what the record has: its scope or address was another one at its first
// complete sync, or its scope has another name there.
func (db *DB) CheckIdentity(ctx context.Context, t fleet.Target) error {
	_, err := identify(ctx, db.pool, t)
	return err
}

// EnsureTarget registers a target at its first use, with an audit event. It
// takes over another scope or address of a target that was never completely
// synced: a typing error costs nothing. It refuses what CheckIdentity refuses.
func (tx *Tx) EnsureTarget(ctx context.Context, t fleet.Target, now time.Time) error {
	is, err := identify(ctx, tx.tx, t)
	if err != nil || is == targetKnown {
		return err
	}

	// Two processes may be about to register one scope under two names.
	_, err = tx.tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('muster.target'))`)
	if err != nil {
		return fmt.Errorf("register target %s: %w", t.Name, translate(err))
	}
	is, err = identify(ctx, tx.tx, t)
	switch {
	case err != nil || is == targetKnown:
		return err
	case is == targetMend:
		return tx.mendTarget(ctx, t, now)
	}
	return tx.addTarget(ctx, t, now)
}

// addTarget registers a target. A former name of another one is its own from
// now on.
func (tx *Tx) addTarget(ctx context.Context, t fleet.Target, now time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		WITH former AS (
			DELETE FROM muster.former_target WHERE name = $1
		)
		INSERT INTO muster.target (name, scope, api_url, first_used_at, max_observation_gap)
		VALUES ($1, $2, $3, $4, $5)`, t.Name, t.Scope.String(), t.APIURL, now, t.MaxObservationGap)
	if err != nil {
		return fmt.Errorf("register target %s: %w", t.Name, translate(err))
	}
	return tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditTargetNew, Actor: fleet.System, Target: t.Name,
		Details: map[string]any{"scope": t.Scope.String(), "api_url": t.APIURL},
	})
}

// listed are the tables with what a sync, or a comparison of workflow jobs,
// learnt of a scope. What events told is not among them: it protects, and its
// signature vouches for it.
var listed = []string{"page", "runner", "runner_history", "runner_group", "repository", "reconciliation"}

// mendTarget gives a target that was never completely synced another scope or
// address. What incomplete syncs saw is dropped: it was of another scope.
func (tx *Tx) mendTarget(ctx context.Context, t fleet.Target, now time.Time) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.target
		SET scope = $2, api_url = $3, proven_listing = NULL, last_outcome = NULL, suspect = NULL,
			credential_fault = NULL, credential_fault_at = NULL, credential_fault_of = NULL
		WHERE name = $1 AND complete_syncs = 0`, t.Name, t.Scope.String(), t.APIURL)
	if err != nil {
		return fmt.Errorf("change target %s: %w", t.Name, translate(err))
	}
	if tag.RowsAffected() == 0 {
		_, err := identify(ctx, tx.tx, t) // its first complete sync ended just now
		return err
	}

	dropped := int64(0)
	for _, table := range listed {
		tag, err := tx.tx.Exec(ctx, `DELETE FROM `+pgx.Identifier{"muster", table}.Sanitize()+` WHERE target = $1`, t.Name)
		if err != nil {
			return fmt.Errorf("change target %s: drop %s: %w", t.Name, table, translate(err))
		}
		dropped += tag.RowsAffected()
	}
	return tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditTargetMended, Actor: fleet.System, Target: t.Name,
		Details: map[string]any{"scope": t.Scope.String(), "api_url": t.APIURL, "rows_dropped": dropped},
	})
}

// alikeSample is how many runners of a first listing are compared with those
// of other targets.
const alikeSample = 1000

// FindTwin compares the first complete listing of a target with the runners
// recorded of others. It returns an IdentityError where one of them is the same
// scope: an alias of the server's name, or the new name of an organisation. The
// other target must have the same scope or the same address, and at least half
// of the smaller fleet must have the same ids and names: GitHub gives ids per
// server, so that another server has them only by chance.
func (tx *Tx) FindTwin(ctx context.Context, t fleet.Target, listing []fleet.Runner) error {
	sample := listing[:min(len(listing), alikeSample)]
	ids, names := make([]int64, len(sample)), make([]string, len(sample))
	for i, r := range sample {
		ids[i], names[i] = r.ID, r.Name
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT o.name, o.scope, o.api_url, count(*),
			(SELECT count(*) FROM muster.runner l WHERE l.target = o.name AND l.removed_at IS NULL)
		FROM unnest($2::bigint[], $3::text[]) AS listed (id, name)
		CROSS JOIN muster.target o
		JOIN muster.runner r ON r.target = o.name AND r.runner_id = listed.id AND lower(r.name) = lower(listed.name)
		WHERE o.name <> $1 AND r.removed_at IS NULL
		GROUP BY o.name
		ORDER BY count(*) DESC, o.name`, t.Name, ids, names)
	if err != nil {
		return fmt.Errorf("compare the first listing of %s with other targets: %w", t.Name, translate(err))
	}

	var twin *IdentityError
	var other recordedTarget
	var alike, population int
	_, err = pgx.ForEachRow(rows, []any{&other.name, &other.scope, &other.apiURL, &alike, &population}, func() error {
		related := fleet.SameAddress(other.apiURL, t.APIURL) || other.is(fleet.Target{Scope: t.Scope, APIURL: other.apiURL})
		if twin == nil && related && 2*alike >= min(len(sample), population) {
			twin = &IdentityError{
				Target: t.Name, Want: identityOf(t), Known: other.name,
				Alike: fmt.Sprintf("%d of %d runners listed have the ids and names of %s's", alike, len(sample), other.name),
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("compare the first listing of %s with other targets: %w", t.Name, translate(err))
	}
	if twin != nil {
		return twin
	}
	return nil
}
