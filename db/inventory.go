package db

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// KnownRunner is as much of a stored runner as tells whether what GitHub shows
// of it is news.
type KnownRunner struct {
	Fingerprint int64
	Offline     bool
	Counting    bool // its offline time is being counted
	Missing     bool
	Unreadable  bool // the newest sight of it could not be read in full
	Intended    bool // a deletion is under way, or was when its process ended
	Removed     bool // since the walk began: what the walk shows of it is old
}

// RunnerRow is a stored runner in full.
type RunnerRow struct {
	fleet.Runner
	Fingerprint  int64
	FirstSeenAt  time.Time
	SeenAt       time.Time // newest sight that is not the target's last complete sync
	StatusSince  time.Time
	OfflineSince time.Time
	LastOnlineAt time.Time
	LastBusyAt   time.Time
	OfflineFrom  OfflineFrom
	MissingSince time.Time
	RemovedAt    time.Time
	RemovalCause fleet.RemovalCause
}

// OfflineFrom is the state of the target's clock when a complete sync first
// saw the runner's offline run. The zero value means that none has.
type OfflineFrom struct {
	At         time.Time
	ObservedUS int64
	Sync       int64 // number of that complete sync, from 1
}

// HistoryRow is one transition.
type HistoryRow struct {
	RunnerID      int64
	Name          string
	At            time.Time
	Change        fleet.Change
	Before, After map[string]any // nil: null
	// Cause is why, of one that is gone. It is for those who tell of the
	// transition; the runner's row keeps it.
	Cause fleet.RemovalCause
}

// KnownRunners reads what is known of the live runners of a target, likely that
// many, and of those that were removed since the walk began.
func (tx *Tx) KnownRunners(ctx context.Context, target string, walk time.Time, likely int) (map[int64]KnownRunner, error) {
	// Intents first: one that is settled meanwhile has removed its runner by the
	// time that those are read. To join them to each runner takes as long again
	// as a third of the reading.
	intended, err := tx.intended(ctx, target)
	if err != nil {
		return nil, err
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT runner_id, fingerprint, status = 'offline', offline_from_us IS NOT NULL, missing_since IS NOT NULL,
			unreadable <> '', false
		FROM muster.runner
		WHERE target = $1 AND removed_at IS NULL
		UNION ALL
		SELECT runner_id, fingerprint, false, false, false, false, true
		FROM muster.runner
		WHERE target = $1 AND removed_at >= $2`, target, walk)
	if err != nil {
		return nil, fmt.Errorf("read known runners of %s: %w", target, translate(err))
	}
	known := make(map[int64]KnownRunner, likely)
	var id int64
	var k KnownRunner
	_, err = pgx.ForEachRow(rows, []any{&id, &k.Fingerprint, &k.Offline, &k.Counting, &k.Missing, &k.Unreadable, &k.Removed}, func() error {
		known[id] = k
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read known runners of %s: %w", target, translate(err))
	}
	for _, id := range intended {
		if k, ok := known[id]; ok && !k.Removed {
			k.Intended = true
			known[id] = k
		}
	}
	return known, nil
}

// intended are the runners of a target whose deletion is under way.
func (tx *Tx) intended(ctx context.Context, target string) ([]int64, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT runner_id FROM muster.action WHERE target = $1 AND state = 'intended'`, target)
	var ids []int64
	if err == nil {
		ids, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	if err != nil {
		return nil, fmt.Errorf("read intended deletions of %s: %w", target, translate(err))
	}
	return ids, nil
}

// RunnerNames reads the names of stored runners by id.
func (tx *Tx) RunnerNames(ctx context.Context, target string, ids []int64) (map[int64]string, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT runner_id, name
		FROM muster.runner
		WHERE target = $1 AND runner_id = ANY($2)`, target, ids)
	names := make(map[int64]string, len(ids))
	if err == nil {
		var id int64
		var name string
		_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error {
			names[id] = name
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the names of %d runners of %s: %w", len(ids), target, translate(err))
	}
	return names, nil
}

const rowColumns = `
	runner_id, name, os, status, busy, labels, runner_group, ephemeral, version, unreadable, fingerprint,
	first_seen_at, seen_at, status_since, offline_since, last_online_at, last_busy_at,
	offline_from_at, offline_from_us, offline_from_sync, missing_since, removed_at, removal_cause`

// RunnerRows reads stored runners by id and keeps others from changing them
// until the transaction ends; ids that are not there are left out.
func (tx *Tx) RunnerRows(ctx context.Context, target string, ids []int64) (map[int64]RunnerRow, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT`+rowColumns+`
		FROM muster.runner
		WHERE target = $1 AND runner_id = ANY($2)
		ORDER BY runner_id
		FOR UPDATE`, target, ids)
	if err != nil {
		return nil, fmt.Errorf("read runners of %s: %w", target, translate(err))
	}
	all, err := pgx.CollectRows(rows, scanRunnerRow)
	if err != nil {
		return nil, fmt.Errorf("read runners of %s: %w", target, translate(err))
	}
	byID := make(map[int64]RunnerRow, len(all))
	for _, r := range all {
		byID[r.ID] = r
	}
	return byID, nil
}

func scanRunnerRow(row pgx.CollectableRow) (RunnerRow, error) {
	var r RunnerRow
	var offline, online, busy, from, missing, removed *time.Time
	var us, sync *int64
	var cause *string
	var ephemeral *bool
	err := row.Scan(&r.ID, &r.Name, &r.OS, &r.Status, &r.Busy, &r.Labels, &r.Group, &ephemeral, &r.Version, &r.Unreadable,
		&r.Fingerprint, &r.FirstSeenAt, &r.SeenAt, &r.StatusSince, &offline, &online, &busy,
		&from, &us, &sync, &missing, &removed, &cause)
	if err != nil {
		return r, err
	}
	r.Ephemeral = known(ephemeral)
	r.FirstSeenAt, r.SeenAt, r.StatusSince = r.FirstSeenAt.UTC(), r.SeenAt.UTC(), r.StatusSince.UTC()
	r.OfflineSince, r.LastOnlineAt, r.LastBusyAt = utc(offline), utc(online), utc(busy)
	r.MissingSince, r.RemovedAt, r.RemovalCause = utc(missing), utc(removed), fleet.RemovalCause(text(cause))
	if us != nil {
		r.OfflineFrom = OfflineFrom{At: utc(from), ObservedUS: *us, Sync: *sync}
	}
	return r, nil
}

// AddRunners stores rows of runners that have none yet, in one statement. The
// caller holds the target's lock, so that nobody else adds any.
func (tx *Tx) AddRunners(ctx context.Context, target string, runners []RunnerRow) error {
	return tx.AddEach(ctx, target, len(runners), func(i int) RunnerRow { return runners[i] })
}

// AddEach is AddRunners for n rows that are made when they are sent: Postgres
// takes in the first while the last are still to be made, and a first load
// does not hold them all.
func (tx *Tx) AddEach(ctx context.Context, target string, n int, row func(int) RunnerRow) error {
	if n == 0 {
		return nil
	}
	if err := tx.copyRunners(ctx, pgx.Identifier{"muster", "runner"}, target, n, row); err != nil {
		return fmt.Errorf("add %d runners to %s: %w", n, target, translate(err))
	}
	return nil
}

// SaveRunners stores rows of runners that have one, in three statements, however
// many they are. A runner that was removed since the walk began stays removed.
func (tx *Tx) SaveRunners(ctx context.Context, target string, walk time.Time, runners []RunnerRow) error {
	if len(runners) == 0 {
		return nil
	}
	_, err := tx.tx.Exec(ctx, `
		CREATE TEMPORARY TABLE stage (LIKE muster.runner) ON COMMIT DROP`)
	if err == nil {
		err = tx.copyRunners(ctx, pgx.Identifier{"pg_temp", "stage"}, target, len(runners), func(i int) RunnerRow { return runners[i] })
	}
	if err != nil {
		return fmt.Errorf("stage runners of %s: %w", target, translate(err))
	}
	_, err = tx.tx.Exec(ctx, `
		UPDATE muster.runner r
		SET name = s.name, os = s.os, status = s.status, busy = s.busy, labels = s.labels,
			runner_group = s.runner_group, ephemeral = s.ephemeral, version = s.version, unreadable = s.unreadable,
			fingerprint = s.fingerprint, seen_at = s.seen_at, status_since = s.status_since,
			offline_since = s.offline_since, last_online_at = s.last_online_at, last_busy_at = s.last_busy_at,
			offline_from_at = s.offline_from_at, offline_from_us = s.offline_from_us,
			offline_from_sync = s.offline_from_sync, missing_since = s.missing_since,
			removed_at = s.removed_at, removal_cause = s.removal_cause
		FROM pg_temp.stage s
		WHERE r.target = $1 AND r.runner_id = s.runner_id AND (r.removed_at IS NULL OR r.removed_at < $2)`,
		target, walk)
	if err != nil {
		return fmt.Errorf("store %d runners of %s: %w", len(runners), target, translate(err))
	}
	return nil
}

func (tx *Tx) copyRunners(ctx context.Context, table pgx.Identifier, target string, n int, runner func(int) RunnerRow) error {
	columns := []string{
		"target", "runner_id", "name", "os", "status", "busy", "labels", "runner_group", "ephemeral", "version", "unreadable",
		"fingerprint", "first_seen_at", "seen_at", "status_since", "offline_since", "last_online_at", "last_busy_at",
		"offline_from_at", "offline_from_us", "offline_from_sync", "missing_since", "removed_at", "removal_cause",
	}
	_, err := tx.tx.CopyFrom(ctx, table, columns,
		pgx.CopyFromSlice(n, func(i int) ([]any, error) {
			r := runner(i)
			row := []any{
				target, r.ID, r.Name, r.OS, string(r.Status), r.Busy, r.Labels, r.Group, r.Ephemeral.Answer(), r.Version, r.Unreadable,
				r.Fingerprint, r.FirstSeenAt, r.SeenAt, r.StatusSince, orNull(r.OfflineSince), orNull(r.LastOnlineAt), orNull(r.LastBusyAt),
				nil, nil, nil, orNull(r.MissingSince), orNull(r.RemovedAt), orNull(string(r.RemovalCause)),
			}
			if r.OfflineFrom.Sync != 0 {
				row[18], row[19], row[20] = r.OfflineFrom.At, r.OfflineFrom.ObservedUS, r.OfflineFrom.Sync
			}
			if r.Labels == nil {
				row[6] = []string{}
			}
			return row, nil
		}))
	return err
}

// LinkHosts notes on runners first seen at that moment which host they run on:
// the one of the same name that had been given a registration token for this
// target, still good then. config.sh names a runner after its host unless told
// otherwise; a name that is merely similar proves nothing, and neither does one
// in another case that several runners have. Where no host was given any, the
// runners are not read.
func (tx *Tx) LinkHosts(ctx context.Context, target string, firstSeenAt time.Time) error {
	_, err := tx.tx.Exec(ctx, `
		WITH given AS MATERIALIZED (
			SELECT host
			FROM muster.token
			WHERE target = $1 AND kind = 'registration' AND outcome = 'issued'
				AND issued_at <= $2 AND expires_at >= $2
		), alike AS MATERIALIZED (
			SELECT lower(o.name) AS name
			FROM muster.runner o
			WHERE EXISTS (SELECT FROM given) AND o.target = $1 AND o.removed_at IS NULL AND lower(o.name) IN (SELECT host FROM given)
			GROUP BY lower(o.name)
			HAVING count(*) > 1
		)
		UPDATE muster.runner r
		SET host = g.host
		FROM given g
		WHERE EXISTS (SELECT FROM given)
			AND r.target = $1 AND r.first_seen_at = $2 AND lower(r.name) = g.host
			AND (r.name = g.host OR g.host NOT IN (SELECT name FROM alike))`, target, firstSeenAt)
	if err != nil {
		return fmt.Errorf("link runners of %s to hosts: %w", target, translate(err))
	}
	return nil
}

// AddHistory stores transitions in one statement. An empty syncID means that
// muster did it itself.
func (tx *Tx) AddHistory(ctx context.Context, target, syncID string, history []HistoryRow) error {
	if len(history) == 0 {
		return nil
	}
	var sync *uuid.UUID
	if syncID != "" {
		id, err := uuid.Parse(syncID)
		if err != nil {
			return fmt.Errorf("store history of %s: sync id %q: %w", target, syncID, err)
		}
		sync = &id
	}
	_, err := tx.tx.CopyFrom(ctx, pgx.Identifier{"muster", "runner_history"},
		[]string{"target", "runner_id", "name", "at", "change", "before", "after", "sync_id"},
		pgx.CopyFromSlice(len(history), func(i int) ([]any, error) {
			h := &history[i]
			row := []any{target, h.RunnerID, h.Name, h.At, string(h.Change), nil, nil, sync}
			if h.Before != nil {
				row[5] = h.Before
			}
			if h.After != nil {
				row[6] = h.After
			}
			return row, nil
		}))
	if err != nil {
		return fmt.Errorf("store history of %s: %w", target, translate(err))
	}
	return nil
}

// maxError is how many bytes are kept of a sync's error.
const maxError = 4 << 10

// SaveSync stores the record of a walk. With a clock it also moves the target
// on to what the walk showed; without one the walk came too late to count.
func (tx *Tx) SaveSync(ctx context.Context, s fleet.Sync, clock *TargetClock) error {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.sync (sync_id, target, trigger_id, started_at, finished_at, outcome, pages, api_calls,
			not_modified, runners, added, changed, removed, suspect, error, unreadable, unreadable_items)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`,
		s.ID, s.Target, s.TriggerID, s.StartedAt, s.FinishedAt, string(s.Outcome), s.Pages, s.APICalls,
		s.NotModified, s.Runners, s.Added, s.Changed, s.Removed, orNull(string(s.Suspect)), orNull(fleet.CleanText(s.Error, maxError)), s.Unreadable,
		append([]string{}, s.UnreadableItems...))
	if err != nil {
		return fmt.Errorf("store sync of %s: %w", s.Target, translate(err))
	}
	if clock == nil {
		return nil
	}
	var proven []byte
	if clock.Proven != (fleet.Digest{}) {
		proven = clock.Proven[:]
	}
	_, err = tx.tx.Exec(ctx, `
		UPDATE muster.target
		SET observed_us = $2, complete_syncs = $3, last_complete_sync_at = $4, last_walk_at = $5,
			last_outcome = $6, suspect = CASE WHEN $6 = 'complete' THEN $7 ELSE suspect END,
			api_remaining = CASE WHEN $6 = 'failed' THEN api_remaining WHEN $8 >= 0 THEN $8 END,
			proven_listing = $9, capabilities = $10
		WHERE name = $1`,
		s.Target, clock.ObservedUS, clock.CompleteSyncs, orNull(clock.LastCompleteSyncAt), clock.LastWalkAt,
		string(s.Outcome), orNull(string(s.Suspect)), s.APIRemaining, proven,
		stored(clock.Capabilities))
	if err != nil {
		return fmt.Errorf("move target %s on: %w", s.Target, translate(err))
	}
	return nil
}

// SetObservationGap stores the configured gap where it changed.
func (tx *Tx) SetObservationGap(ctx context.Context, t fleet.Target) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.target SET max_observation_gap = $2
		WHERE name = $1 AND max_observation_gap <> $2`, t.Name, t.MaxObservationGap)
	if err != nil {
		return fmt.Errorf("store the observation gap of %s: %w", t.Name, translate(err))
	}
	return nil
}
