package db

import (
	"context"
	"fmt"
	"time"
)

// replicaLife is how long a replica counts that is not heard of: some failed
// attempts to say that it is there.
const replicaLife = 20 * time.Second

// Replicas are the muster serve processes on the record.
type Replicas struct{ DB *DB }

// Present notes that a replica, known by a UUID, is there and works with these
// targets, and tells how many replicas are there, this one included.
func (r Replicas) Present(ctx context.Context, replica string, targets []string) (int, error) {
	var n int
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		_, err := tx.tx.Exec(ctx, `
			INSERT INTO muster.replica (replica, seen_at, targets)
			VALUES ($1, clock_timestamp(), coalesce($2::text[], '{}'))
			ON CONFLICT (replica) DO UPDATE SET seen_at = excluded.seen_at, targets = excluded.targets`, replica, targets)
		if err != nil {
			return err
		}
		return tx.tx.QueryRow(ctx, `
			SELECT count(*)
			FROM muster.replica
			WHERE seen_at > clock_timestamp() - $1::interval`, replicaLife).Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("note that replica %s is there: %w", replica, err)
	}
	return n, nil
}

// Leave notes that a replica stops.
func (r Replicas) Leave(ctx context.Context, replica string) error {
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		_, err := tx.tx.Exec(ctx, `DELETE FROM muster.replica WHERE replica = $1`, replica)
		return err
	})
	if err != nil {
		return fmt.Errorf("note that replica %s stops: %w", replica, err)
	}
	return nil
}
