package db

import (
	"context"
	"fmt"

	"github.com/muster-fleet/muster/fleet"
)

// GuardError says that a target must not be forgotten.
type GuardError struct {
	Target string
	Why    string
}

func (e *GuardError) Error() string {
	return fmt.Sprintf("target %s must not be forgotten: %s", e.Target, e.Why)
}

// Forget is the wish to drop what is known of a target.
type Forget struct {
	Target string
	// Protection is whether holds in force and workflow jobs in progress may be
	// dropped with the rest.
	Protection bool
	Actor      fleet.Actor
	Reason     string // empty: none was given
}

// ForgetTarget deletes what is recorded of a target, so that its name is free,
// in one transaction with the audit event. Tokens stay: hosts may still use
// them. The trail stays as it is. It returns what was dropped. Errors:
// fleet.ErrNotFound where the target is not recorded, a GuardError where it must
// not be forgotten, a BusyError where work on it is under way.
func (db *DB) ForgetTarget(ctx context.Context, f Forget) (TargetUse, error) {
	var dropped TargetUse
	err := db.InTx(ctx, func(tx *Tx) error {
		var err error
		dropped, err = tx.forget(ctx, f)
		return err
	})
	if err != nil {
		return TargetUse{}, fmt.Errorf("forget target %s: %w", f.Target, err)
	}
	return dropped, nil
}

func (tx *Tx) forget(ctx context.Context, f Forget) (TargetUse, error) {
	tables, err := tx.lockTargets(ctx, f.Target)
	if err != nil {
		return TargetUse{}, err
	}
	dropped, err := targetUse(ctx, tx.tx, f.Target)
	switch {
	case err != nil:
		return TargetUse{}, err
	case dropped.Replicas > 0:
		return TargetUse{}, &GuardError{f.Target, fmt.Sprintf("%d muster serve work with it: take it out of muster.yaml and reload", dropped.Replicas)}
	case dropped.Holds+dropped.Jobs > 0 && !f.Protection:
		return TargetUse{}, &GuardError{f.Target, fmt.Sprintf("%d holds and %d workflow jobs in progress protect its runners. "+
			"muster target rename carries them over to another name; with --drop-protection they are forgotten too", dropped.Holds, dropped.Jobs)}
	}

	if err := tx.closeRuns(ctx, f.Target, "the target was forgotten"); err != nil {
		return TargetUse{}, err
	}
	for _, t := range tables {
		if t.Name == "token" {
			continue
		}
		if _, err := tx.tx.Exec(ctx, `DELETE FROM `+t.sql()+` WHERE target = $1`, f.Target); err != nil {
			return TargetUse{}, fmt.Errorf("drop rows of %s: %w", t.Name, translate(err))
		}
	}
	if _, err := tx.tx.Exec(ctx, `DELETE FROM muster.target WHERE name = $1`, f.Target); err != nil {
		return TargetUse{}, fmt.Errorf("drop its row: %w", translate(err))
	}
	return dropped, tx.Audit(ctx, fleet.AuditEvent{
		Code: fleet.AuditTargetForgotten, Actor: f.Actor, Target: f.Target, Reason: f.Reason,
		Details: map[string]any{
			"scope": dropped.Scope.String(), "api_url": dropped.APIURL,
			"runners": dropped.Runners, "holds": dropped.Holds, "workflow_jobs": dropped.Jobs, "decisions": dropped.Decisions,
		},
	})
}
