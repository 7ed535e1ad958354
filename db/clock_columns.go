package db

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// timeKind is what the times of a column may be.
type timeKind int

const (
	// past times are of what has happened: none is later than now.
	past timeKind = iota
	// lease times end a claim of some process: none is much later than now.
	lease
	// due times say when muster looks next: none is much later than now.
	due
	// free times are GitHub's or an operator's, and mean what they say.
	free
	// ruled times have a statement of their own below.
	ruled
)

// longestLease is longer than any lease that a process takes.
const longestLease = time.Minute

// clockColumns are all columns of times in the schema muster. After the clock
// has gone back, times that were recorded while it was ahead would stop what
// waits for them: a walk is recorded only where it began after the one before,
// a lease is taken over only when it has ended. They are corrected by as much as
// the clock went back.
var clockColumns = map[string]timeKind{
	"action.drained_at":            past,
	"action.intended_at":           past,
	"action.lease_until":           lease,
	"action.settled_at":            past,
	"clock.newest":                 ruled,
	"clock.stepped_at":             past,
	"dead_letter.died_at":          past,
	"decision.at":                  past,
	"delivery.at":                  past,
	"finding.since":                past,
	"former_target.at":             past,
	"github_pause.told_at":         ruled,
	"github_pause.until":           ruled,
	"grace_mark.since":             past,
	"hold.at":                      past,
	"hold.until":                   free, // an operator's
	"hook.due_at":                  due,
	"hook.heard_at":                past,
	"hook.swept_to":                free, // by GitHub's clock
	"host.last_heartbeat_at":       past,
	"host_runner.at":               past,
	"lease.claimed_at":             past,
	"lease.deadline":               ruled,
	"lease.online_at":              past,
	"lease.registered_at":          past,
	"lease.requested_at":           ruled,
	"outbox.claimed_until":         lease,
	"outbox.created_at":            past,
	"policy.allowance_until":       ruled,
	"policy.brake_from":            past,
	"policy.halted_at":             past,
	"policy.last_run_at":           past,
	"pool.decided_at":              past,
	"pool.demand_at":               past,
	"pool.oldest_at":               past,
	"probe.written_at":             past,
	"reconciliation.as_of":         past,
	"reconciliation.began_at":      past,
	"reconciliation.due_at":        due,
	"reconciliation.groups_at":     past,
	"reconciliation.listed_at":     past,
	"refused_delivery.at":          past,
	"replica.seen_at":              past,
	"repository.compared_at":       past,
	"repository.heard_at":          past,
	"repository.tried_at":          past,
	"run.finished_at":              past,
	"run.lease_until":              lease,
	"run.queued_at":                past,
	"run.requeued_at":              past,
	"run.started_at":               past,
	"runner.first_seen_at":         past,
	"runner.last_busy_at":          past,
	"runner.last_online_at":        past,
	"runner.missing_since":         past,
	"runner.offline_from_at":       past,
	"runner.offline_since":         past,
	"runner.removed_at":            past,
	"runner.seen_at":               past,
	"runner.status_since":          past,
	"runner_history.at":            past,
	"schedule.anchored_at":         past,
	"sync.finished_at":             past,
	"sync.started_at":              past,
	"target.credential_fault_at":   past,
	"target.first_used_at":         past,
	"target.last_complete_sync_at": past,
	"target.last_walk_at":          past,
	"tick.fired_at":                past,
	"tick.tick_at":                 ruled,
	"token.expires_at":             free, // by GitHub's clock
	"token.issued_at":              past,
	"token.requested_at":           past,
	"workflow_job.changed_at":      past,
	"workflow_job.completed_at":    free, // by GitHub's clock, as the next two
	"workflow_job.queued_at":       free,
	"workflow_job.started_at":      free,
}

// backStatements correct what has a rule of its own. $1 is how far the clock
// went back, $2 is now.
var backStatements = []string{
	`UPDATE muster.github_pause SET until = until - $1::interval, told_at = least(told_at - $1::interval, $2) WHERE told_at > $2`,
	`UPDATE muster.lease SET deadline = deadline - $1::interval, requested_at = least(requested_at - $1::interval, $2) WHERE requested_at > $2`,
	`UPDATE muster.policy SET allowance_until = allowance_until - $1::interval WHERE allowance_until > $2::timestamptz + interval '24 hours'`,
}

// turnBack corrects all times that are later than now after the clock has gone
// back, and returns how many rows had some.
func (tx *Tx) turnBack(ctx context.Context, now time.Time, by time.Duration) (int64, error) {
	var rows int64
	do := func(sql string, args ...any) error {
		tag, err := tx.tx.Exec(ctx, sql, args...)
		if err != nil {
			return fmt.Errorf("correct times later than now: %s: %w", sql, translate(err))
		}
		rows += tag.RowsAffected()
		return nil
	}
	for _, sql := range backStatements {
		if err := do(sql, by, now); err != nil {
			return 0, err
		}
	}
	for _, c := range sortedColumns() {
		var err error
		switch clockColumns[c.name()] {
		case past:
			err = do(fmt.Sprintf(`UPDATE muster.%[1]s SET %[2]s = least(%[2]s - $1::interval, $2) WHERE %[2]s > $2`, c.table, c.column), by, now)
		case lease, due:
			err = do(fmt.Sprintf(`UPDATE muster.%[1]s SET %[2]s = $1 WHERE %[2]s > $1`, c.table, c.column), now.Add(longestLease))
		}
		if err != nil {
			return 0, err
		}
	}
	forgotten, err := tx.forgetPools(ctx)
	return rows + forgotten, err
}

// leapStatements move on what counts time from before the clock leapt ahead.
// $1 is how far it leapt, $2 is now.
var leapStatements = []string{
	// Runners have not matched for any longer.
	`UPDATE muster.grace_mark SET since = since + $1::interval WHERE since <= $2::timestamptz - $1::interval`,
	// Caps count over a rolling window, of a week at most in practice.
	`UPDATE muster.action SET intended_at = intended_at + $1::interval
		WHERE intended_at <= $2::timestamptz - $1::interval AND intended_at > $2::timestamptz - $1::interval - interval '7 days'`,
	// The pause that GitHub asked for is not over.
	`UPDATE muster.github_pause SET until = until + $1::interval, told_at = told_at + $1::interval
		WHERE told_at <= $2::timestamptz - $1::interval AND until > $2::timestamptz - $1::interval`,
	// Hosts that boot have as long as before.
	`UPDATE muster.lease SET deadline = deadline + $1::interval, requested_at = requested_at + $1::interval
		WHERE state IN ('requested', 'claimed', 'registered') AND requested_at <= $2::timestamptz - $1::interval`,
	// Nobody was seen offline during the leap.
	`UPDATE muster.target SET last_complete_sync_at = last_complete_sync_at + $1::interval
		WHERE last_complete_sync_at <= $2::timestamptz - $1::interval`,
	// An event about a job protects its runner for a time.
	`UPDATE muster.workflow_job SET changed_at = changed_at + $1::interval
		WHERE state <> 'completed' AND changed_at <= $2::timestamptz - $1::interval`,
}

// moveOn carries what counts time over a leap of the clock, and returns how many
// rows that were.
func (tx *Tx) moveOn(ctx context.Context, now time.Time, by time.Duration) (int64, error) {
	var rows int64
	for _, sql := range leapStatements {
		tag, err := tx.tx.Exec(ctx, sql, by, now)
		if err != nil {
			return 0, fmt.Errorf("carry times over the leap: %s: %w", sql, translate(err))
		}
		rows += tag.RowsAffected()
	}
	forgotten, err := tx.forgetPools(ctx)
	return rows + forgotten, err
}

// forgetPools has every pool begin its cool-downs anew: a pool without memory
// may grow at once, and does not shrink until its cool-down is over.
func (tx *Tx) forgetPools(ctx context.Context) (int64, error) {
	tag, err := tx.tx.Exec(ctx, `UPDATE muster.pool SET memory = '{}' WHERE memory <> '{}'`)
	if err != nil {
		return 0, fmt.Errorf("forget what pools remember: %w", translate(err))
	}
	return tag.RowsAffected(), nil
}

// column is a column of times.
type column struct{ table, column string }

func (c column) name() string { return c.table + "." + c.column }

// sortedColumns are the columns of clockColumns in an order that is the same
// each time, so that two replicas do not wait for each other.
func sortedColumns() []column {
	names := slices.Sorted(maps.Keys(clockColumns))
	all := make([]column, len(names))
	for i, name := range names {
		all[i].table, all[i].column, _ = strings.Cut(name, ".")
	}
	return all
}
