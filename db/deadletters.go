package db

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// maxDeadText is how many bytes of each text of a dead letter are kept.
const maxDeadText = 16 << 10

// bury stores a dead letter with its audit event; given is the reason that its
// trigger gave. One with an ID that is there already changes nothing.
func (tx *Tx) bury(ctx context.Context, l fleet.DeadLetter, actor fleet.Actor, given string) error {
	if l.ID == "" {
		l.ID = uuid.NewString()
	}
	trigger, err := parseOptional(l.TriggerID)
	if err != nil {
		return fmt.Errorf("store dead letter: trigger id %q: %w", l.TriggerID, err)
	}
	tag, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.dead_letter (id, subject, trigger_id, body, error, attempts, died_at)
		VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp())
		ON CONFLICT (id) DO NOTHING`,
		l.ID, fleet.CleanText(l.Subject, maxDeadText), trigger, fleet.CleanText(l.Body, maxDeadText),
		fleet.CleanText(l.Error, maxDeadText), l.Attempts)
	if err != nil {
		return fmt.Errorf("store dead letter: %w", translate(err))
	}
	if tag.RowsAffected() == 0 {
		return nil
	}
	details := map[string]any{"subject": l.Subject, "dead_letter_id": l.ID, "attempts": l.Attempts}
	if given != "" {
		details["trigger_reason"] = given
	}
	event := fleet.AuditEvent{
		Code: fleet.AuditTriggerDead, Actor: actor, TriggerID: l.TriggerID, Reason: l.Error,
		Details: details,
	}
	// What it was about is as it was asked, whether or not there is such.
	switch job, name, ok := fleet.SplitSubject(l.Subject); {
	case !ok || name == fleet.All || !fleet.ValidName(name):
	case job == fleet.JobSync, job == fleet.JobEnforce:
		event.Target = name
	case job == fleet.JobScale:
		details["pool"] = name
	}
	return tx.Audit(ctx, event)
}

// DeadLetters lists the messages that failed for good, newest first.
func (db *DB) DeadLetters(ctx context.Context) ([]fleet.DeadLetter, error) {
	return collect(db.EachDeadLetter(ctx))
}

// EachDeadLetter is DeadLetters one by one: there may be many, each with the
// body of a message.
func (db *DB) EachDeadLetter(ctx context.Context) iter.Seq2[fleet.DeadLetter, error] {
	return stream("dead letters", func() (pgx.Rows, error) {
		return db.pool.Query(ctx, `
			SELECT id::text, subject, coalesce(trigger_id::text, ''), body, error, attempts, died_at
			FROM muster.dead_letter
			ORDER BY died_at DESC, id`)
	}, func(row pgx.CollectableRow) (fleet.DeadLetter, error) {
		var l fleet.DeadLetter
		err := row.Scan(&l.ID, &l.Subject, &l.TriggerID, &l.Body, &l.Error, &l.Attempts, &l.DiedAt)
		l.DiedAt = l.DiedAt.UTC()
		return l, err
	})
}

// TakeDeadLetter removes a dead letter and returns it; fleet.ErrNotFound where
// there is none of that id.
func (tx *Tx) TakeDeadLetter(ctx context.Context, id string) (fleet.DeadLetter, error) {
	var l fleet.DeadLetter
	if _, err := uuid.Parse(id); err != nil {
		return l, fmt.Errorf("dead letter %q: %w", id, fleet.ErrNotFound)
	}
	err := tx.tx.QueryRow(ctx, `
		DELETE FROM muster.dead_letter
		WHERE id = $1
		RETURNING id::text, subject, coalesce(trigger_id::text, ''), body, error, attempts, died_at`, id).
		Scan(&l.ID, &l.Subject, &l.TriggerID, &l.Body, &l.Error, &l.Attempts, &l.DiedAt)
	if err != nil {
		return l, fmt.Errorf("dead letter %s: %w", id, translate(err))
	}
	return l, nil
}

// keepDeliveries is a day more than GitHub keeps deliveries to send them again:
// 7 days at most.
const keepDeliveries = 8 * 24 * time.Hour

// keepReplicas is far longer than one that is alive can be silent.
const keepReplicas = time.Hour

// keepUndecided is how long a pool stands that the configuration does not have
// and nobody decides on, and what is wrong with a target whose pools nobody decides
// on: whoever has them configured does so every few minutes, and replicas may differ
// for as long as a change takes to reach them all.
const keepUndecided = 24 * time.Hour

// Housekeep deletes what happened before then: ticks, runs, syncs, decisions,
// settled actions and token requests, history, runners removed, and what was
// remembered of schedules and policies that are not in use any more; workflow
// jobs that nothing new was heard of since then, hosts that were silent, holds
// that ended, and leases. Pools that nobody decides on and that are not among those
// configured, by name, go after a day, and so do findings of targets without any that
// somebody decides on.
// Deliveries go once GitHub cannot repeat them any more, refused ones too, and its pauses once they
// are over; replicas that were killed, after an hour. The audit trail has a
// retention of its own. It returns how many rows went from where.
func (tx *Tx) Housekeep(ctx context.Context, now, before time.Time, configured []string) (fleet.Counts, error) {
	counts := fleet.Counts{}
	for _, q := range []struct{ what, sql string }{
		{"ticks", `DELETE FROM muster.tick t WHERE tick_at < $1
			AND tick_at < (SELECT max(n.tick_at) FROM muster.tick n WHERE n.schedule = t.schedule)`},
		// The stream holds triggers for a day: of what is older and not done no
		// message is left, nor one in the outbox that could still go out.
		{"runs", `DELETE FROM muster.run r WHERE queued_at < $1
			AND (state <> 'running' OR lease_until < $1)
			AND NOT EXISTS (SELECT FROM muster.outbox o WHERE o.id = r.trigger_id)`},
		// One that is due once a year is still in use.
		{"schedules", `DELETE FROM muster.schedule s WHERE anchored_at < $1::timestamptz - interval '1 year'
			AND NOT EXISTS (SELECT FROM muster.tick t
				WHERE t.schedule = s.schedule AND t.tick_at >= $1::timestamptz - interval '1 year')`},
		{"grace_marks", `DELETE FROM muster.grace_mark m WHERE EXISTS (
			SELECT FROM muster.policy p WHERE p.policy = m.policy AND p.target = m.target AND p.last_run_at < $1)`},
		{"syncs", `DELETE FROM muster.sync WHERE started_at < $1`},
		{"actions", `DELETE FROM muster.action WHERE settled_at < $1`},
		{"decisions", `DELETE FROM muster.decision d WHERE at < $1
			AND NOT EXISTS (SELECT FROM muster.action a WHERE a.decision_id = d.decision_id)`},
		{"tokens", `DELETE FROM muster.token WHERE requested_at < $1 AND outcome <> 'requested'`},
		{"history", `DELETE FROM muster.runner_history WHERE at < $1`},
		// Where the decision itself is gone the next one is news again.
		{"last_decisions", `DELETE FROM muster.last_decision l
			WHERE NOT EXISTS (SELECT FROM muster.decision d
				WHERE d.policy = l.policy AND d.target = l.target AND d.runner_id = l.runner_id
					AND (d.at >= $1 OR EXISTS (SELECT FROM muster.action a WHERE a.decision_id = d.decision_id)))`},
		{"runners", `DELETE FROM muster.runner r WHERE removed_at < $1
			AND NOT EXISTS (SELECT FROM muster.action a WHERE a.target = r.target AND a.runner_id = r.runner_id)`},
		{"workflow_jobs", `DELETE FROM muster.workflow_job WHERE changed_at < $1`},
		{"hosts", `DELETE FROM muster.host WHERE last_heartbeat_at < $1`},
		{"holds", `DELETE FROM muster.hold WHERE until < $1`},
		{"deliveries", `DELETE FROM muster.delivery WHERE at < $1`},
		// These targets have workflow jobs that nobody compares.
		{"refusals", `DELETE FROM muster.refused_delivery WHERE at < $1`},
		{"pauses", `DELETE FROM muster.github_pause WHERE until < $1`},
		{"replicas", `DELETE FROM muster.replica WHERE seen_at < $1`},
		{"leases", `DELETE FROM muster.lease WHERE deadline < $1`},
		// Of targets that are not configured any more.
		{"repositories", `DELETE FROM muster.repository r WHERE greatest(heard_at, compared_at) < $1
			OR NOT EXISTS (SELECT FROM muster.reconciliation c WHERE c.target = r.target AND c.due_at >= $1)`},
		{"runner_groups", `DELETE FROM muster.runner_group g
			WHERE NOT EXISTS (SELECT FROM muster.reconciliation c WHERE c.target = g.target AND c.due_at >= $1)`},
		{"comparisons", `DELETE FROM muster.reconciliation WHERE due_at < $1`},
		{"hooks", `DELETE FROM muster.hook WHERE heard_at < $1`},
		{"pools", `DELETE FROM muster.pool WHERE decided_at < $1 AND name <> ALL(coalesce($2::text[], '{}'))`},
		{"findings", `DELETE FROM muster.finding f
			WHERE NOT EXISTS (SELECT FROM muster.pool p WHERE p.target = f.target AND p.decided_at >= $1)`},
	} {
		before, more := before, []any{}
		switch q.what {
		case "deliveries":
			before = now.Add(-keepDeliveries)
		case "workflow_jobs":
			// One that runs keeps its runner for five days; and a delivery that
			// is repeated late must find the job that it was of.
			if least := now.Add(-keepDeliveries); least.Before(before) {
				before = least
			}
		case "refusals":
			before = now.Add(-keepDeliveries) // longer than a job that one told of can last
		case "pauses":
			before = now
		case "pools":
			before, more = now.Add(-keepUndecided), []any{configured}
		case "findings":
			before = now.Add(-keepUndecided)
		case "replicas":
			before = now.Add(-keepReplicas)
		}
		tag, err := tx.tx.Exec(ctx, q.sql, append([]any{before}, more...)...)
		if err != nil {
			return nil, fmt.Errorf("delete old %s: %w", q.what, translate(err))
		}
		counts[q.what] = tag.RowsAffected()
	}
	return counts, nil
}
