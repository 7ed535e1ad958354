package db

import (
	"context"
	"fmt"
)

// ProbeWrite proves that a row can be written and committed: it writes the one
// row of muster.probe anew. A server that only reads refuses it.
func (db *DB) ProbeWrite(ctx context.Context) error {
	err := db.InTx(ctx, func(tx *Tx) error {
		_, err := tx.tx.Exec(ctx, `
			INSERT INTO muster.probe (id, written_at)
			VALUES (true, clock_timestamp())
			ON CONFLICT (id) DO UPDATE SET written_at = excluded.written_at`)
		return err
	})
	if err != nil {
		return fmt.Errorf("write a row to Postgres: %w", err)
	}
	return nil
}
