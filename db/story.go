package db

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// StoryKind is what a row of a runner's story was read from.
type StoryKind string

const (
	StoryHistory     StoryKind = "history"
	StoryDecision    StoryKind = "decision"
	StoryAction      StoryKind = "action"
	StoryWorkflowJob StoryKind = "workflow_job"
	StoryToken       StoryKind = "token"
	StoryAudit       StoryKind = "audit"
)

// StoryRow is one thing that happened to a runner.
type StoryRow struct {
	At   time.Time
	Kind StoryKind
	// What is the change, the verdict, the state of the action, began or the
	// conclusion of a workflow job, the kind of the token, or the audited
	// action; Who is the policy, the repository, the host or the actor.
	What, Who string
	Detail    string // reasons, or what became of it
	ID        string // of the workflow job, or of the decision or action
	TriggerID string // of the run that it was part of; see api.runs
}

// storyQuery joins what is known of one runner, the newest of each kind. Of the
// trail only what stands nowhere else: deletions have their actions, syncs
// their history. Tokens are those of its host while it was registered, and the
// hour before in which it must have asked for one.
const storyQuery = `
	(
		SELECT h.at, 'history', h.change, '', CASE h.change
				WHEN 'renamed' THEN concat(h.before->>'name', ' is now ', h.after->>'name')
				WHEN 'relabelled' THEN concat(h.before->>'labels', ' are now ', h.after->>'labels')
				ELSE '' END, '', coalesce(s.trigger_id::text, '')
		FROM muster.runner_history h
		LEFT JOIN muster.sync s ON s.sync_id = h.sync_id
		WHERE h.target = $1 AND h.runner_id = $2
		ORDER BY h.at DESC
		LIMIT $3
	) UNION ALL (
		SELECT at, 'decision', verdict, policy, array_to_string(reasons, ', '), decision_id::text, coalesce(trigger_id::text, '')
		FROM muster.decision
		WHERE target = $1 AND runner_id = $2
		ORDER BY at DESC
		LIMIT $3
	) UNION ALL (
		SELECT t.at, 'action', t.state, a.policy, t.reason, a.action_id::text, a.trigger_id::text
		FROM muster.action a
		CROSS JOIN LATERAL (VALUES (a.intended_at, 'intended', ''), (a.settled_at, a.state, a.reason)) t (at, state, reason)
		WHERE a.target = $1 AND a.runner_id = $2 AND t.at IS NOT NULL
		ORDER BY t.at DESC
		LIMIT $3
	) UNION ALL (
		SELECT DISTINCT t.at, 'workflow_job', t.what, w.repository, '', j.workflow_job_id::text, ''
		FROM muster.job_runner j
		JOIN muster.workflow_job w USING (target, workflow_job_id)
		CROSS JOIN LATERAL (VALUES (j.started_at, 'began'), (j.completed_at, coalesce(nullif(w.conclusion, ''), 'unknown'))) t (at, what)
		WHERE j.target = $1 AND j.runner_id = $2 AND j.runner_id <> 0 AND t.at IS NOT NULL AND EXISTS (` + runnerOfJob + `)
		ORDER BY t.at DESC
		LIMIT $3
	) UNION ALL (
		SELECT t.issued_at, 'token', t.kind, t.host, '', '', ''
		FROM muster.token t
		JOIN muster.runner r ON r.target = $1 AND r.runner_id = $2
		WHERE t.host = coalesce(r.host, lower(r.name)) AND t.target = $1 AND t.outcome = 'issued'
			AND t.issued_at BETWEEN r.first_seen_at - interval '1 hour' AND coalesce(r.removed_at, t.issued_at)
		ORDER BY t.issued_at DESC
		LIMIT $3
	) UNION ALL (
		SELECT occurred_at, 'audit', action, actor, coalesce(reason, ''), '', coalesce(trigger_id, '')
		FROM api.audit
		WHERE target = $1 AND runner_id = $2 AND action NOT IN ('runner.vanish', 'token.issue')
			AND (action <> 'runner.delete' OR outcome = 'denied')
		ORDER BY occurred_at DESC
		LIMIT $3
	)
	ORDER BY 1 DESC
	LIMIT $3`

// Story reads what happened to a runner, oldest first: the newest so many. It
// also reports whether there was more before.
func (db *DB) Story(ctx context.Context, target string, id int64, most int) ([]StoryRow, bool, error) {
	rows, err := db.pool.Query(ctx, storyQuery, target, id, most+1)
	var story []StoryRow
	if err == nil {
		story, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (StoryRow, error) {
			var s StoryRow
			err := row.Scan(&s.At, &s.Kind, &s.What, &s.Who, &s.Detail, &s.ID, &s.TriggerID)
			s.At = s.At.UTC()
			return s, err
		})
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the story of runner %s/%d: %w", target, id, translate(err))
	}
	more := len(story) > most
	story = story[:min(len(story), most)]
	slices.Reverse(story)
	return story, more, nil
}

// Deletion is a deletion of a runner by muster with the decision behind it.
type Deletion struct {
	Decision fleet.Decision
	Action   fleet.Action
}

// Deletion reads the newest deletion that was tried on a runner;
// fleet.ErrNotFound where none was.
func (db *DB) Deletion(ctx context.Context, target string, id int64) (Deletion, error) {
	var d Deletion
	var settled *time.Time
	err := db.pool.QueryRow(ctx, `
		SELECT a.action_id::text, a.trigger_id::text, a.policy, a.state, a.reason, a.intended_at, a.settled_at,
			coalesce(d.reasons, '{}'), coalesce(d.evidence, '{}'), coalesce(d.enforcement, '')
		FROM muster.action a
		LEFT JOIN muster.decision d ON d.decision_id = a.decision_id
		WHERE a.target = $1 AND a.runner_id = $2
		ORDER BY a.intended_at DESC
		LIMIT 1`, target, id).Scan(&d.Action.ID, &d.Action.TriggerID, &d.Action.Policy, &d.Action.State, &d.Action.Reason,
		&d.Action.IntendedAt, &settled, &d.Decision.Reasons, &d.Decision.Evidence, &d.Decision.Enforcement)
	if err != nil {
		return d, fmt.Errorf("read the deletion of runner %s/%d: %w", target, id, translate(err))
	}
	d.Action.IntendedAt, d.Action.SettledAt = d.Action.IntendedAt.UTC(), utc(settled)
	return d, nil
}

// Namesake is a runner that somebody may mean.
type Namesake struct {
	Target    string
	ID        int64
	Name      string
	RemovedAt time.Time // zero: live
}

// Namesakes reads the runners of an id or, where that is 0, of a name in any case,
// on one target or with an empty one on all: live ones first, then those removed
// last.
func (db *DB) Namesakes(ctx context.Context, target, name string, id int64) ([]Namesake, error) {
	const most = 1000
	return db.namesakes(ctx, `
		SELECT target, runner_id, name, removed_at
		FROM muster.runner
		WHERE ($1 = '' OR target = $1) AND CASE WHEN $3 = 0 THEN lower(name) = lower($2) ELSE runner_id = $3 END
		ORDER BY removed_at DESC NULLS FIRST, target, runner_id
		LIMIT $4`, target, name, id, most)
}

// Names reads runners whose names somebody may have misspelt: live ones, and
// those removed last.
func (db *DB) Names(ctx context.Context, target string, most int) ([]Namesake, error) {
	return db.namesakes(ctx, `
		SELECT target, runner_id, name, removed_at
		FROM muster.runner
		WHERE $1 = '' OR target = $1
		ORDER BY removed_at DESC NULLS FIRST
		LIMIT $2`, target, most)
}

func (db *DB) namesakes(ctx context.Context, sql string, args ...any) ([]Namesake, error) {
	rows, err := db.pool.Query(ctx, sql, args...)
	if err == nil {
		var all []Namesake
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (Namesake, error) {
			var n Namesake
			var removed *time.Time
			err := row.Scan(&n.Target, &n.ID, &n.Name, &removed)
			n.RemovedAt = utc(removed)
			return n, err
		})
		if err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("look for runners by name: %w", translate(err))
}
