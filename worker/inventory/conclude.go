package inventory

import (
	"context"
	"slices"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// observation is the moment that rows are moved on to.
type observation struct {
	at       time.Time // the walk's beginning
	complete bool
	clock    db.TargetClock // after this walk
	before   time.Time      // the last complete sync before it
	counted  int64          // what this walk added to the observed time, in microseconds
	baseline bool           // no complete sync before: what is there has not just happened
	suspect  bool
	nameless bool // the listing has items without an id, so that a runner it lacks may be one of them
}

// changes are the rows to write, and what they mean.
type changes struct {
	seen           observation
	fresh          []*sight       // of runners that have none yet
	rows           []db.RunnerRow // of all others
	history        []db.HistoryRow
	audit          []fleet.AuditEvent
	added, removed int
}

// freshRow is the row of a fresh runner.
func (c changes) freshRow(i int) db.RunnerRow { return register(*c.fresh[i], c.seen) }

// written is how many rows there are to write.
func (c changes) written() int { return len(c.fresh) + len(c.rows) }

// conclude turns a difference into rows, reading the old ones in one
// statement.
func conclude(ctx context.Context, tx *db.Tx, w *walk, d difference, o observation) (changes, error) {
	c := changes{seen: o}
	if len(d.changed)+len(d.again)+len(d.missing) == 0 {
		return c, nil
	}
	old, err := stored(ctx, tx, w.target.Name, d)
	if err != nil {
		return c, err
	}
	c.fresh = make([]*sight, 0, max(len(d.changed)-len(old), 0))
	c.rows = make([]db.RunnerRow, 0, len(old))
	for i := range d.changed {
		r := &d.changed[i]
		was, has := old[r.ID]
		switch {
		case o.outdatedBy(was):
		case has && was.RemovedAt.IsZero():
			row := advance(was, *r, o)
			c.rows = append(c.rows, row)
			c.history = append(c.history, transitions(was, row, o.at)...)
		default:
			c.added++
			if has {
				r.Runner = r.Or(was.Runner)
				c.rows = append(c.rows, register(*r, o))
			} else {
				c.fresh = append(c.fresh, r)
			}
			if !o.baseline {
				c.history = append(c.history, db.HistoryRow{
					RunnerID: r.ID, Name: r.Name, At: o.at, Change: fleet.ChangeRegistered, After: shown(r.Runner),
				})
			}
		}
	}
	for _, id := range d.again {
		if was := old[id]; !o.outdatedBy(was) {
			c.rows = append(c.rows, advance(was, sight{Runner: was.Runner, print: was.Fingerprint}, o))
		}
	}
	var gone []db.RunnerRow // as they were
	for _, id := range d.missing {
		was := old[id]
		if o.outdatedBy(was) {
			continue
		}
		row, left := miss(was, w.looked[id], o)
		switch {
		case left:
			gone = append(gone, was)
		case row.MissingSince.Equal(was.MissingSince) && row.OfflineFrom == was.OfflineFrom:
			// marked before, and no wiser now
		default:
			c.rows = append(c.rows, row)
		}
	}
	return c, part(ctx, tx, w, o, gone, &c)
}

// stored reads the rows that a difference is about. One that is not among the
// live may have one from before it was removed; where none was removed there
// are none to look for, as in a first load.
func stored(ctx context.Context, tx *db.Tx, target string, d difference) (map[int64]db.RunnerRow, error) {
	ids := slices.Concat(d.missing, d.again)
	var others []int64
	for i := range d.changed {
		if r := &d.changed[i]; r.known {
			ids = append(ids, r.ID)
		} else {
			others = append(others, r.ID)
		}
	}
	if len(others) > 0 {
		state, err := tx.FleetState(ctx, target)
		if err != nil {
			return nil, err
		}
		if !state.RemovedAt.IsZero() {
			ids = append(ids, others...)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return tx.RunnerRows(ctx, target, ids)
}

// part adds what there is to write of runners that are gone, reading in one
// statement what is known about why.
func part(ctx context.Context, tx *db.Tx, w *walk, o observation, gone []db.RunnerRow, c *changes) error {
	if len(gone) == 0 {
		return nil
	}
	ids := make([]int64, len(gone))
	for i, was := range gone {
		ids[i] = was.ID
	}
	evidence, err := tx.Removals(ctx, w.target.Name, ids, o.at)
	if err != nil {
		return err
	}
	for _, was := range gone {
		row, _ := miss(was, w.looked[was.ID], o)
		row.RemovalCause = fleet.CauseOfRemoval(evidence[was.ID])
		c.rows = append(c.rows, row)
		c.removed++
		c.history = append(c.history, db.HistoryRow{
			RunnerID: was.ID, Name: was.Name, At: o.at, Change: fleet.ChangeRemoved, Before: shown(was.Runner), Cause: row.RemovalCause,
		})
		reason := "GitHub answers 404 by id"
		if !w.looked[was.ID].gone {
			reason = "two complete listings lack it"
		}
		c.audit = append(c.audit, fleet.AuditEvent{
			At: o.at, Code: fleet.AuditRunnerVanished, Actor: fleet.System, Target: w.target.Name,
			RunnerID: was.ID, RunnerName: was.Name, TriggerID: w.sync.TriggerID, Reason: reason,
			Details: map[string]any{"sync_id": w.sync.ID, "removal_cause": string(row.RemovalCause)},
		})
	}
	return nil
}

// register is the row of a runner seen for the first time, or again after it
// had been taken for removed.
func register(r sight, o observation) db.RunnerRow {
	row := db.RunnerRow{
		Runner: r.Runner, Fingerprint: r.print,
		FirstSeenAt: o.at, SeenAt: o.at, StatusSince: o.at,
	}
	if r.Status == fleet.StatusOffline {
		row.OfflineSince = o.at
	}
	if r.Status == fleet.StatusOffline && r.Unreadable == "" {
		row.OfflineFrom = o.from()
	}
	return row
}

// outdatedBy reports whether a runner was removed after the walk began: what
// the walk shows of it is old.
func (o observation) outdatedBy(was db.RunnerRow) bool {
	return !was.RemovedAt.IsZero() && !was.RemovedAt.Before(o.at)
}

// from is where the counting of an offline run begins: with a complete walk
// only, since only the time between two of them is known.
func (o observation) from() db.OfflineFrom {
	if !o.complete {
		return db.OfflineFrom{}
	}
	return db.OfflineFrom{At: o.at, ObservedUS: o.clock.ObservedUS, Sync: o.clock.CompleteSyncs}
}

// advance moves a stored runner on to what GitHub shows now. It is pure.
func advance(was db.RunnerRow, r sight, o observation) db.RunnerRow {
	seen := was.SeenAt // the last sight before this one
	if was.MissingSince.IsZero() && o.before.After(seen) {
		seen = o.before
	}
	row := was
	row.Runner, row.Fingerprint = r.Or(was.Runner), r.print
	row.SeenAt, row.MissingSince = o.at, time.Time{}
	if was.Status == fleet.StatusOnline {
		row.LastOnlineAt = seen
	}
	if was.Busy {
		row.LastBusyAt = seen
	}
	if row.Status != was.Status {
		row.StatusSince = o.at
	}
	switch {
	case row.Status != fleet.StatusOffline:
		row.OfflineSince, row.OfflineFrom = time.Time{}, db.OfflineFrom{}
	case was.Status != fleet.StatusOffline:
		row.OfflineSince, row.OfflineFrom = o.at, o.from()
	case r.Unreadable != "":
		// No witness: offline time is what lies between two sights.
		if o.complete && row.OfflineFrom != (db.OfflineFrom{}) {
			row.OfflineFrom.ObservedUS += o.counted
			row.OfflineFrom.Sync++
		}
	case was.OfflineFrom == db.OfflineFrom{}:
		row.OfflineFrom = o.from()
	case unseen(was) && !o.complete:
		// The time until the next complete sync would count from one that
		// did not see the runner.
		row.OfflineFrom = db.OfflineFrom{}
	case unseen(was):
		row.OfflineFrom.ObservedUS += o.counted // see miss
	}
	return row
}

// unseen reports whether the sync before did not see the runner, or could not
// read what it saw.
func unseen(was db.RunnerRow) bool { return !was.MissingSince.IsZero() || was.Unreadable != "" }

// miss is the row of a runner that a complete listing lacks: gone where GitHub
// says 404 by id, or where it was asked and gave no answer, an earlier complete
// listing lacked the runner too and this one is no suspect and has no nameless
// items; marked otherwise.
// It is pure.
func miss(was db.RunnerRow, l look, o observation) (db.RunnerRow, bool) {
	row := was
	if was.MissingSince.IsZero() {
		row.MissingSince = o.at
		if o.before.After(row.SeenAt) {
			row.SeenAt = o.before
		}
	}
	if !l.gone && (!l.asked || was.MissingSince.IsZero() || o.suspect || o.nameless) {
		if row.OfflineFrom != (db.OfflineFrom{}) {
			// Offline time is what lies between two sights: not the time up
			// to here, nor this listing.
			row.OfflineFrom.ObservedUS += o.counted
			row.OfflineFrom.Sync++
		}
		return row, false
	}
	row.RemovedAt, row.RemovalCause = o.at, fleet.CauseUnknown
	return row, true
}

// transitions lists what changed between two rows. It is pure.
func transitions(was, row db.RunnerRow, at time.Time) []db.HistoryRow {
	var all []db.HistoryRow
	add := func(change fleet.Change, key string, before, after any) {
		all = append(all, db.HistoryRow{
			RunnerID: row.ID, Name: row.Name, At: at, Change: change,
			Before: map[string]any{key: before}, After: map[string]any{key: after},
		})
	}
	if row.Name != was.Name {
		add(fleet.ChangeRenamed, "name", was.Name, row.Name)
	}
	if row.Status != was.Status {
		change := fleet.ChangeOnline
		if row.Status != fleet.StatusOnline {
			change = fleet.ChangeOffline
		}
		add(change, "status", string(was.Status), string(row.Status))
	}
	if row.Busy != was.Busy {
		change := fleet.ChangeIdle
		if row.Busy {
			change = fleet.ChangeBusy
		}
		add(change, "busy", was.Busy, row.Busy)
	}
	if !slices.Equal(row.Labels, was.Labels) {
		add(fleet.ChangeRelabelled, "labels", was.Labels, row.Labels)
	}
	return all
}

// shown are the fields of a runner that its history keeps at its ends.
func shown(r fleet.Runner) map[string]any {
	return map[string]any{"status": string(r.Status), "busy": r.Busy, "labels": r.Labels}
}
