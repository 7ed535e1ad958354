package db

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// KeptListing reads what is kept of the walks over a target; nothing where it
// was never completely synced: its first complete listing is read in full, since
// it tells whether the target is one that is known under another name.
func (db *DB) KeptListing(ctx context.Context, target string) (fleet.KeptListing, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT p.number, p.etag, p.credential, p.sha256, p.total, p.last, p.shown, p.runner_ids, t.proven_listing
		FROM muster.page p
		JOIN muster.target t ON t.name = p.target
		WHERE p.target = $1 AND t.complete_syncs > 0`, target)
	if err != nil {
		return fleet.KeptListing{}, fmt.Errorf("read the pages of %s: %w", target, translate(err))
	}
	var kept fleet.KeptListing
	var p fleet.Page
	var sum, proven []byte
	_, err = pgx.ForEachRow(rows, []any{&p.Number, &p.ETag, &p.Credential, &sum, &p.Total, &p.Last, &p.Shown, &p.IDs, &proven}, func() error {
		copy(p.SHA256[:], sum)
		copy(kept.Proven[:], proven)
		kept.Pages = append(kept.Pages, p)
		p.IDs = nil // the next row's are not to overwrite them
		return nil
	})
	if err != nil {
		return fleet.KeptListing{}, fmt.Errorf("read the pages of %s: %w", target, translate(err))
	}
	return kept, nil
}

// SavePages keeps pages in the place of those of the same numbers, in two
// statements, however many they are. Those beyond last are forgotten; 0: none
// are.
func (tx *Tx) SavePages(ctx context.Context, target string, pages []fleet.Page, last int) error {
	numbers := make([]int32, len(pages))
	for i, p := range pages {
		numbers[i] = int32(p.Number)
	}
	_, err := tx.tx.Exec(ctx, `
		DELETE FROM muster.page
		WHERE target = $1 AND (number = ANY($2) OR $3 > 0 AND number > $3)`, target, numbers, last)
	if err != nil {
		return fmt.Errorf("forget pages of %s: %w", target, translate(err))
	}
	if len(pages) == 0 {
		return nil
	}
	_, err = tx.tx.CopyFrom(ctx, pgx.Identifier{"muster", "page"},
		[]string{"target", "number", "etag", "credential", "sha256", "total", "last", "shown", "runner_ids"},
		pgx.CopyFromSlice(len(pages), func(i int) ([]any, error) {
			p := &pages[i]
			return []any{target, p.Number, p.ETag, p.Credential, p.SHA256[:], p.Total, p.Last, p.Shown, p.IDs}, nil
		}))
	if err != nil {
		return fmt.Errorf("keep pages of %s: %w", target, translate(err))
	}
	return nil
}

// DistrustPages takes the validators off all pages of a target, so that the
// next walk is given every page in full.
func (tx *Tx) DistrustPages(ctx context.Context, target string) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.page SET etag = '' WHERE target = $1 AND etag <> ''`, target)
	if err != nil {
		return fmt.Errorf("distrust the pages of %s: %w", target, translate(err))
	}
	return nil
}
