package db

import (
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"
)

// stream reads the rows of a query one by one: as many as there are, never more
// than one is in memory. what says what is read, for the error.
func stream[T any](what string, query func() (pgx.Rows, error), scan pgx.RowToFunc[T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		rows, err := query()
		if err != nil {
			yield(none, fmt.Errorf("read %s: %w", what, translate(err)))
			return
		}
		defer rows.Close()
		for rows.Next() {
			item, err := scan(rows)
			if err != nil {
				yield(none, fmt.Errorf("read %s: %w", what, err))
				return
			}
			if !yield(item, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(none, fmt.Errorf("read %s: %w", what, translate(err)))
		}
	}
}

// collect is all of a stream, for callers who know that it is short.
func collect[T any](items iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for item, err := range items {
		if err != nil {
			return nil, err
		}
		all = append(all, item)
	}
	return all, nil
}
