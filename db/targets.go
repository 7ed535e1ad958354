package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// TargetClock is the row of a target as a sync needs it: what its observations
// add up to so far.
type TargetClock struct {
	ObservedUS         int64 // cumulative observed time, in microseconds
	CompleteSyncs      int64
	LastCompleteSyncAt time.Time
	LastWalkAt         time.Time
	CredentialFault    string
	Capabilities       fleet.Capabilities // of its server
	// Proven identifies the listing of the newest complete sync where it showed
	// exactly the runners that are registered, and none of them has been removed
	// since; zero otherwise.
	Proven fleet.Digest
}

// LockTarget reads a target's clock and keeps others from writing its
// inventory until the transaction ends. An IdentityError says that the name
// stands for another scope by now, as after a mended typing error.
func (tx *Tx) LockTarget(ctx context.Context, t fleet.Target) (TargetClock, error) {
	var c TargetClock
	have := recordedTarget{name: t.Name}
	var complete, walk *time.Time
	var fault *string
	var proven []byte
	var can capabilities
	err := tx.tx.QueryRow(ctx, `
		SELECT t.scope, t.api_url, t.observed_us, t.complete_syncs, t.last_complete_sync_at, t.last_walk_at, t.credential_fault, t.capabilities,
			CASE WHEN ( -- the newest one, from the end of its index: whether there is one would be sought in the whole table
				SELECT max(r.removed_at)
				FROM muster.runner r
				WHERE r.target = t.name
			) > t.last_complete_sync_at THEN NULL ELSE t.proven_listing END
		FROM muster.target t
		WHERE t.name = $1
		FOR UPDATE OF t`, t.Name).Scan(&have.scope, &have.apiURL, &c.ObservedUS, &c.CompleteSyncs, &complete, &walk, &fault, &can, &proven)
	if err != nil {
		return TargetClock{}, fmt.Errorf("lock target %s: %w", t.Name, translate(err))
	}
	if !have.is(t) {
		return TargetClock{}, &IdentityError{Target: t.Name, Have: have.String(), Want: identityOf(t)}
	}

	c.LastCompleteSyncAt, c.LastWalkAt, c.CredentialFault = utc(complete), utc(walk), text(fault)
	c.Capabilities = can.read()
	copy(c.Proven[:], proven)
	return c, nil
}

// Refusal is what a credential was refused for.
type Refusal string

const (
	RefusedList Refusal = "list"
	RefusedAct  Refusal = "act" // to delete or to mint, where it may list
)

// refusalStands is how long the refusal of an act stands though listings
// succeed: they say nothing about acts, so an act is tried again now and then.
const refusalStands = 15 * time.Minute

// RefuseCredential notes that GitHub refuses a target's credential, with an
// audit event where that is news.
func (tx *Tx) RefuseCredential(ctx context.Context, target string, what Refusal, reason string, now time.Time) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.target
		SET credential_fault = $2, credential_fault_at = $3, credential_fault_of = $4
		WHERE name = $1 AND credential_fault IS NULL`, target, reason, now, string(what))
	if err != nil {
		return fmt.Errorf("note the credential of target %s: %w", target, translate(err))
	}
	if tag.RowsAffected() == 0 {
		return tx.renewRefusal(ctx, target, what, reason, now)
	}
	return tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditCredentialRefused, Actor: fleet.System, Target: target, Reason: reason,
	})
}

// renewRefusal keeps the words of a refusal that stands those of GitHub's newest
// answer. It is the same refusal, so the trail is not told again.
func (tx *Tx) renewRefusal(ctx context.Context, target string, what Refusal, reason string, now time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.target
		SET credential_fault = $2, credential_fault_at = CASE WHEN credential_fault_of = 'act' THEN $3 ELSE credential_fault_at END
		WHERE name = $1 AND credential_fault_of = $4 AND credential_fault <> $2`, target, reason, now, string(what))
	if err != nil {
		return fmt.Errorf("note the newest refusal of target %s: %w", target, translate(err))
	}
	return nil
}

// AcceptCredential notes that a target could be listed, with an audit event
// where that ends a refusal. The refusal of an act stands for a quarter of an
// hour.
func (tx *Tx) AcceptCredential(ctx context.Context, target string, now time.Time) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.target
		SET credential_fault = NULL, credential_fault_at = NULL, credential_fault_of = NULL
		WHERE name = $1 AND credential_fault IS NOT NULL
			AND (credential_fault_of = 'list' OR credential_fault_at <= $2)`, target, now.Add(-refusalStands))
	if err != nil {
		return fmt.Errorf("note the credential of target %s: %w", target, translate(err))
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditCredentialAccepted, Actor: fleet.System, Target: target,
	})
}

// Answered is what GitHub did for a credential.
type Answered string

const (
	AnsweredRead   Answered = "read"   // showed something other than runners
	AnsweredMint   Answered = "mint"   // minted a token
	AnsweredDelete Answered = "delete" // deleted a runner
)

// CredentialAnswered notes that GitHub did what a credential was used for, asked
// at that moment or later, with an audit event where that ends a refusal from
// before. What was shown ends a refusal of the credential itself, a token that of
// a listing too, and a deletion any.
func (tx *Tx) CredentialAnswered(ctx context.Context, target string, did Answered, asked, now time.Time) error {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.target
		SET credential_fault = NULL, credential_fault_at = NULL, credential_fault_of = NULL
		WHERE name = $1 AND credential_fault_at < $2
			AND ($3 = 'delete' OR credential_fault_of = 'list' AND ($3 = 'mint' OR position($4 in credential_fault) > 0))`,
		target, asked, string(did), fleet.ErrUnauthorized.Error())
	if err != nil {
		return fmt.Errorf("note the credential of target %s: %w", target, translate(err))
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	return tx.Audit(ctx, fleet.AuditEvent{
		At: now, Code: fleet.AuditCredentialAccepted, Actor: fleet.System, Target: target,
	})
}

const targetColumns = `
	t.name, t.scope, t.api_url, t.max_observation_gap, t.last_complete_sync_at,
	coalesce(t.last_outcome, ''), coalesce(t.suspect, ''), coalesce(t.credential_fault, ''),
	(SELECT count(*) FROM muster.runner r WHERE r.target = t.name AND r.removed_at IS NULL)`

func scanTarget(row pgx.CollectableRow) (fleet.TargetState, error) {
	var s fleet.TargetState
	var scope string
	var complete *time.Time
	err := row.Scan(&s.Name, &scope, &s.APIURL, &s.MaxObservationGap, &complete,
		&s.LastOutcome, &s.Suspect, &s.CredentialFault, &s.Population)
	if err != nil {
		return s, err
	}
	s.LastCompleteSyncAt = utc(complete)
	s.Scope, err = fleet.ParseScope(scope)
	return s, err
}

func targetState(ctx context.Context, q querier, target string) (fleet.TargetState, error) {
	rows, err := q.Query(ctx, `SELECT`+targetColumns+` FROM muster.target t WHERE t.name = $1`, target)
	if err == nil {
		var s fleet.TargetState
		if s, err = pgx.CollectExactlyOneRow(rows, scanTarget); err == nil {
			return s, nil
		}
	}
	return fleet.TargetState{}, fmt.Errorf("read target %s: %w", target, translate(err))
}

// TargetState reads what the syncs of a target told; fleet.ErrNotFound where
// it was never synced.
func (db *DB) TargetState(ctx context.Context, target string) (fleet.TargetState, error) {
	return targetState(ctx, db.pool, target)
}

// TargetState is DB.TargetState within the transaction.
func (tx *Tx) TargetState(ctx context.Context, target string) (fleet.TargetState, error) {
	return targetState(ctx, tx.tx, target)
}

// TargetStates reads all targets that were ever used, by name.
func (db *DB) TargetStates(ctx context.Context) ([]fleet.TargetState, error) {
	rows, err := db.pool.Query(ctx, `SELECT`+targetColumns+` FROM muster.target t ORDER BY t.name`)
	if err == nil {
		var all []fleet.TargetState
		if all, err = pgx.CollectRows(rows, scanTarget); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read targets: %w", translate(err))
}
