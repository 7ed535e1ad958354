package db

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// Join records triggers that came together, and says of each what became of it.
// Of those of one job and name that nobody has begun, the oldest stays queued and
// may be begun, and the others are joined to it. It begins none, and waits for
// nobody who has a hand on one.
func (r Runs) Join(ctx context.Context, triggers []fleet.Trigger) ([]fleet.Disposition, error) {
	var all []fleet.Disposition
	err := r.DB.InTx(ctx, func(tx *Tx) error {
		var err error
		all, err = tx.join(ctx, triggers)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("join %d triggers: %w", len(triggers), err)
	}
	return all, nil
}

func (tx *Tx) join(ctx context.Context, triggers []fleet.Trigger) ([]fleet.Disposition, error) {
	known, err := tx.lockRuns(ctx, triggers)
	if err != nil {
		return nil, err
	}
	plan := newJoinPlan(triggers, known)

	added, err := tx.addQueued(ctx, plan.toQueue)
	if err != nil {
		return nil, err
	}
	plan.dropWithout(added)
	joined, err := tx.addJoined(ctx, plan.toAdd)
	if err != nil {
		return nil, err
	}
	err = tx.joinQueued(ctx, plan.toJoin)
	if err != nil {
		return nil, err
	}
	return plan.dispositions(joined), nil
}

// knownRun is the row of a trigger that has one.
type knownRun struct {
	state    fleet.RunState
	queuedAt time.Time
}

// lockRuns reads the rows of those triggers that have one, and keeps others from
// them until the transaction ends. Rows that somebody has a hand on are left out.
func (tx *Tx) lockRuns(ctx context.Context, triggers []fleet.Trigger) (map[string]knownRun, error) {
	ids := make([]string, len(triggers))
	for i, t := range triggers {
		ids[i] = t.ID
	}
	rows, err := tx.tx.Query(ctx, `
		SELECT trigger_id::text, state, queued_at
		FROM muster.run
		WHERE trigger_id = ANY($1::uuid[])
		FOR UPDATE SKIP LOCKED`, ids)
	if err != nil {
		return nil, err
	}
	known := make(map[string]knownRun)
	var id string
	var run knownRun
	_, err = pgx.ForEachRow(rows, []any{&id, &run.state, &run.queuedAt}, func() error {
		known[id] = run
		return nil
	})
	return known, err
}

// joining is a trigger and the one that it is joined to.
type joining struct {
	fleet.Trigger
	to string
}

// joinPlan says what becomes of triggers that came together.
type joinPlan struct {
	triggers []fleet.Trigger
	known    map[string]knownRun
	first    map[string]string // by subject: the trigger that the others are joined to

	toQueue []fleet.Trigger // have no row, and are the first of their subject
	toAdd   []joining       // have no row, and are not
	toJoin  []joining       // are queued, and not the first
}

func newJoinPlan(triggers []fleet.Trigger, known map[string]knownRun) *joinPlan {
	p := &joinPlan{triggers: triggers, known: known, first: make(map[string]string)}
	// A trigger that is queued already is older than one that has no row yet.
	for _, t := range triggers {
		if known[t.ID].state != fleet.RunQueued {
			continue
		}
		first, found := p.first[t.Subject()]
		if !found || known[t.ID].before(t.ID, known[first], first) {
			p.first[t.Subject()] = t.ID
		}
	}

	planned := make(map[string]bool) // one message may have come twice
	for _, t := range triggers {
		run, recorded := known[t.ID]
		if planned[t.ID] || recorded && run.state != fleet.RunQueued {
			continue
		}
		planned[t.ID] = true
		first, found := p.first[t.Subject()]
		switch {
		case !found:
			p.first[t.Subject()] = t.ID
			p.toQueue = append(p.toQueue, t)
		case first == t.ID:
		case recorded:
			p.toJoin = append(p.toJoin, joining{t, first})
		default:
			p.toAdd = append(p.toAdd, joining{t, first})
		}
	}
	return p
}

// before is the order in which runs of a subject are begun.
func (r knownRun) before(id string, other knownRun, otherID string) bool {
	if r.queuedAt.Equal(other.queuedAt) {
		return id < otherID
	}
	return r.queuedAt.Before(other.queuedAt)
}

// dropWithout leaves out what was to be joined to a trigger that somebody else has
// recorded meanwhile: it may have begun before they came.
func (p *joinPlan) dropWithout(added map[string]bool) {
	lost := make(map[string]bool)
	for _, t := range p.toQueue {
		if !added[t.ID] {
			lost[t.ID] = true
		}
	}
	var kept []joining
	for _, j := range p.toAdd {
		if !lost[j.to] {
			kept = append(kept, j)
		}
	}
	p.toAdd = kept
}

// dispositions says of each trigger what became of it. A trigger that is neither
// joined nor finished goes to Begin, which says more.
func (p *joinPlan) dispositions(joined map[string]bool) []fleet.Disposition {
	for _, j := range p.toJoin {
		joined[j.ID] = true
	}
	all := make([]fleet.Disposition, len(p.triggers))
	for i, t := range p.triggers {
		switch {
		case joined[t.ID]:
			all[i] = fleet.DispositionJoined
		case p.known[t.ID].state.Ended():
			all[i] = fleet.DispositionFinished
		default:
			all[i] = fleet.DispositionReady
		}
	}
	return all
}

// addQueued records triggers that nobody has recorded, and returns the ids of
// those that nobody has.
func (tx *Tx) addQueued(ctx context.Context, triggers []fleet.Trigger) (map[string]bool, error) {
	all := make([]joining, len(triggers))
	for i, t := range triggers {
		all[i] = joining{Trigger: t}
	}
	return tx.addRuns(ctx, fleet.RunQueued, all)
}

// addJoined records triggers as joined. They never were queued, so that a flood of
// them leaves nothing behind in the index of open runs.
func (tx *Tx) addJoined(ctx context.Context, triggers []joining) (map[string]bool, error) {
	return tx.addRuns(ctx, fleet.RunJoined, triggers)
}

func (tx *Tx) addRuns(ctx context.Context, state fleet.RunState, triggers []joining) (map[string]bool, error) {
	if len(triggers) == 0 {
		return map[string]bool{}, nil
	}
	var id, job, name, source, reason, to []string
	for _, t := range triggers {
		id, job, name = append(id, t.ID), append(job, string(t.Job)), append(name, t.Name)
		source, reason, to = append(source, string(t.Source)), append(reason, t.Reason), append(to, t.to)
	}
	rows, err := tx.tx.Query(ctx, `
		INSERT INTO muster.run (trigger_id, job, name, source, reason, state, queued_at, joined_to, finished_at)
		SELECT trigger_id, job, name, source, reason, $7, clock_timestamp(), nullif(joined_to, '')::uuid,
			CASE WHEN $7 = 'joined' THEN clock_timestamp() END
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
			AS t (trigger_id, job, name, source, reason, joined_to)
		ON CONFLICT (trigger_id) DO NOTHING
		RETURNING trigger_id::text`, id, job, name, source, reason, to, string(state))
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	added := make(map[string]bool, len(ids))
	for _, id := range ids {
		added[id] = true
	}
	return added, nil
}

// joinQueued joins runs that are queued, which the caller has locked.
func (tx *Tx) joinQueued(ctx context.Context, triggers []joining) error {
	if len(triggers) == 0 {
		return nil
	}
	var id, to []string
	for _, t := range triggers {
		id, to = append(id, t.ID), append(to, t.to)
	}
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.run r
		SET state = 'joined', joined_to = t.joined_to, finished_at = clock_timestamp()
		FROM unnest($1::uuid[], $2::uuid[]) AS t (trigger_id, joined_to)
		WHERE r.trigger_id = t.trigger_id`, id, to)
	return err
}
