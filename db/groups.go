package db

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Access is whose workflow jobs the runners of a target take, as far as is
// known.
type Access struct {
	Groups []fleet.RunnerGroup
	Pools  map[string][]string // by name of the pool the groups of its runners, when it last had some online
	Public []string            // public repositories, as OWNER/REPO in lower case
}

// HasGroups reports whether a registered runner of a target names its group, on
// older servers none does, or one has: a fleet at rest has no runner, and its
// next host is in a group all the same.
func (tx *Tx) HasGroups(ctx context.Context, target string) (bool, error) {
	var has bool
	err := tx.tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM muster.runner_group WHERE target = $1)
			OR EXISTS (SELECT FROM muster.runner WHERE target = $1 AND removed_at IS NULL AND runner_group <> '')`, target).Scan(&has)
	if err != nil {
		return false, fmt.Errorf("look for runner groups of %s: %w", target, translate(err))
	}
	return has, nil
}

// SaveGroups has the runner groups of a target be these.
func (tx *Tx) SaveGroups(ctx context.Context, target string, groups []fleet.RunnerGroup) error {
	ids := make([]string, len(groups))
	for i, g := range groups {
		ids[i] = g.ID
	}
	_, err := tx.tx.Exec(ctx, `DELETE FROM muster.runner_group WHERE target = $1 AND group_id <> ALL ($2)`, target, ids)
	if err != nil {
		return fmt.Errorf("store the runner groups of %s: %w", target, translate(err))
	}
	return tx.AddGroups(ctx, target, groups)
}

// AddGroups has the runner groups of a target be these and those that are known
// besides.
func (tx *Tx) AddGroups(ctx context.Context, target string, groups []fleet.RunnerGroup) error {
	var all pgx.Batch
	for _, g := range groups {
		all.Queue(`
			INSERT INTO muster.runner_group AS g (target, group_id, name, visibility, public, selected)
			VALUES ($1, $2, $3, $4, $5, coalesce($6::text[], '{}'))
			ON CONFLICT (target, group_id) DO UPDATE
			SET name = excluded.name, visibility = excluded.visibility, public = excluded.public, selected = excluded.selected
			WHERE (g.name, g.visibility, g.public, g.selected) IS DISTINCT FROM
				(excluded.name, excluded.visibility, excluded.public, excluded.selected)`,
			target, g.ID, g.Name, string(g.Visibility), g.Public, g.Selected)
	}
	if err := tx.tx.SendBatch(ctx, &all).Close(); err != nil {
		return fmt.Errorf("store the runner groups of %s: %w", target, translate(err))
	}
	return nil
}

// Access reads whose workflow jobs the runners of a target take.
func (tx *Tx) Access(ctx context.Context, target string) (Access, error) {
	return access(ctx, tx.tx, target)
}

// Access is that of Tx.
func (db *DB) Access(ctx context.Context, target string) (Access, error) {
	return access(ctx, db.pool, target)
}

func access(ctx context.Context, q querier, target string) (Access, error) {
	var a Access
	rows, err := q.Query(ctx, `
		SELECT group_id, name, visibility, public, selected
		FROM muster.runner_group
		WHERE target = $1
		ORDER BY group_id`, target)
	if err == nil {
		a.Groups, err = pgx.CollectRows(rows, pgx.RowToStructByPos[fleet.RunnerGroup])
	}
	if err != nil {
		return a, fmt.Errorf("read the runner groups of %s: %w", target, translate(err))
	}
	if len(a.Groups) == 0 {
		return a, nil // nobody is closed to anybody
	}
	rows, err = q.Query(ctx, `SELECT name, groups FROM muster.pool WHERE target = $1 AND groups <> '{}'`, target)
	if err == nil {
		a.Pools = map[string][]string{}
		var pool string
		var groups []string
		_, err = pgx.ForEachRow(rows, []any{&pool, &groups}, func() error {
			a.Pools[pool], groups = groups, nil
			return nil
		})
	}
	if err != nil {
		return a, fmt.Errorf("read the runner groups of pools of %s: %w", target, translate(err))
	}
	rows, err = q.Query(ctx, `SELECT lower(repository) FROM muster.repository WHERE target = $1 AND public ORDER BY 1`, target)
	if err == nil {
		a.Public, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return a, fmt.Errorf("read the public repositories of %s: %w", target, translate(err))
	}
	return a, nil
}
