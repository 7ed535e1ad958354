package db

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-fleet/muster/fleet"
)

// LockPolicy reads whether a policy may act on a target, making the row where
// there is none, and keeps everybody else from acting under it until the
// transaction ends: caps are counted under this lock.
func (tx *Tx) LockPolicy(ctx context.Context, p fleet.PolicyState) (fleet.PolicyState, error) {
	_, err := tx.tx.Exec(ctx, `
		INSERT INTO muster.policy (policy, target, sha256, enforcement)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (policy, target) DO NOTHING`,
		p.Policy, p.Target, orNull(p.SHA256), string(p.Enforcement))
	if err != nil {
		return fleet.PolicyState{}, fmt.Errorf("register policy %s on %s: %w", p.Policy, p.Target, translate(err))
	}
	s, err := policyState(ctx, tx.tx, p.Policy, p.Target, ` FOR UPDATE`)
	if err != nil {
		return fleet.PolicyState{}, fmt.Errorf("lock policy %s on %s: %w", p.Policy, p.Target, err)
	}
	return s, nil
}

// PolicyState reads whether a policy may act on a target. A policy that never
// ran there is active.
func (db *DB) PolicyState(ctx context.Context, policy, target string) (fleet.PolicyState, error) {
	s, err := policyState(ctx, db.pool, policy, target, ``)
	if isNotFound(err) {
		return fleet.PolicyState{Policy: policy, Target: target}, nil
	}
	if err != nil {
		return fleet.PolicyState{}, fmt.Errorf("read policy %s on %s: %w", policy, target, err)
	}
	return s, nil
}

// PolicyStates reads all that ever ran, by policy and target.
func (db *DB) PolicyStates(ctx context.Context) ([]fleet.PolicyState, error) {
	rows, err := db.pool.Query(ctx, policyQuery+` ORDER BY policy, target`)
	if err == nil {
		var all []fleet.PolicyState
		if all, err = pgx.CollectRows(rows, scanPolicy); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read policies: %w", translate(err))
}

const policyQuery = `
	SELECT policy, target, coalesce(sha256, ''), enforcement, halted_at IS NOT NULL, coalesce(reason, ''),
		CASE WHEN allowance_until > clock_timestamp() THEN allowance ELSE 0 END, brake_from, last_run_at
	FROM muster.policy`

func policyState(ctx context.Context, q querier, policy, target, lock string) (fleet.PolicyState, error) {
	rows, err := q.Query(ctx, policyQuery+` WHERE policy = $1 AND target = $2`+lock, policy, target)
	if err != nil {
		return fleet.PolicyState{}, translate(err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, scanPolicy)
	return s, translate(err)
}

func scanPolicy(row pgx.CollectableRow) (fleet.PolicyState, error) {
	var s fleet.PolicyState
	var from, run *time.Time
	err := row.Scan(&s.Policy, &s.Target, &s.SHA256, &s.Enforcement, &s.Halted, &s.Reason, &s.Allowance, &from, &run)
	s.BrakeFrom, s.LastRunAt = utc(from), utc(run)
	return s, err
}

// NotePolicyRun stores what text of a policy ran on a target, and when.
func (tx *Tx) NotePolicyRun(ctx context.Context, p fleet.PolicyState) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.policy
		SET sha256 = $3, enforcement = $4, last_run_at = $5
		WHERE policy = $1 AND target = $2`,
		p.Policy, p.Target, orNull(p.SHA256), string(p.Enforcement), p.LastRunAt)
	if err != nil {
		return fmt.Errorf("note the run of policy %s on %s: %w", p.Policy, p.Target, translate(err))
	}
	return nil
}

// haltedByBrake is the reason code of decisions that the brake halts.
const haltedByBrake = "brake"

// Halt keeps a policy from acting on a target until Resume: by is the reason
// code of the decisions, reason says why in words. It reports whether that is
// news. What an operator had allowed is gone with it.
func (tx *Tx) Halt(ctx context.Context, policy, target, by, reason string, now time.Time) (bool, error) {
	tag, err := tx.tx.Exec(ctx, `
		UPDATE muster.policy
		SET halted_at = $5, halted_by = $3, reason = $4, allowance = 0
		WHERE policy = $1 AND target = $2 AND halted_at IS NULL`, policy, target, by, reason, now)
	if err != nil {
		return false, fmt.Errorf("halt policy %s on %s: %w", policy, target, translate(err))
	}
	return tag.RowsAffected() == 1, nil
}

// allowanceLasts is how long an operator's word holds beyond the caps. It is
// given to a backlog that was looked at: what falls due days later was not.
const allowanceLasts = 24 * time.Hour

// Resume reopens a halted policy, on one target or with an empty target on
// all it is halted on, and allows so many acts beyond the caps, once and for a
// day. It returns the targets it reopened.
//
// Whoever ends a halt of the brake has looked at what the walks recorded until
// now showed; one that is under way may show more. Whoever ends another halt
// was not told of what the brake minds.
func (tx *Tx) Resume(ctx context.Context, policy, target, reason string, allow int) ([]string, error) {
	rows, err := tx.tx.Query(ctx, `
		UPDATE muster.policy
		SET halted_at = NULL, halted_by = NULL, reason = $3, allowance = $4, allowance_until = clock_timestamp() + $5::interval,
			brake_from = CASE WHEN halted_by = $6
				THEN (SELECT t.last_walk_at FROM muster.target t WHERE t.name = policy.target) ELSE brake_from END
		WHERE policy = $1 AND ($2 = '' OR target = $2) AND halted_at IS NOT NULL
		RETURNING target`, policy, target, reason, allow, allowanceLasts, haltedByBrake)
	if err == nil {
		var targets []string
		if targets, err = pgx.CollectRows(rows, pgx.RowTo[string]); err == nil {
			slices.Sort(targets)
			return targets, nil
		}
	}
	return nil, fmt.Errorf("resume policy %s: %w", policy, translate(err))
}

// SpendAllowance uses up one act that an operator allowed beyond the caps.
func (tx *Tx) SpendAllowance(ctx context.Context, policy, target string) error {
	_, err := tx.tx.Exec(ctx, `
		UPDATE muster.policy SET allowance = allowance - 1
		WHERE policy = $1 AND target = $2 AND allowance > 0`, policy, target)
	if err != nil {
		return fmt.Errorf("spend the allowance of policy %s on %s: %w", policy, target, translate(err))
	}
	return nil
}

func graceMarks(ctx context.Context, q querier, policy, target, sha string) (map[int64]time.Time, error) {
	rows, err := q.Query(ctx, `
		SELECT runner_id, since
		FROM muster.grace_mark
		WHERE policy = $1 AND target = $2 AND sha256 = $3`, policy, target, sha)
	marks := make(map[int64]time.Time)
	if err == nil {
		var id int64
		var since time.Time
		_, err = pgx.ForEachRow(rows, []any{&id, &since}, func() error {
			marks[id] = since.UTC()
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read grace marks of policy %s on %s: %w", policy, target, translate(err))
	}
	return marks, nil
}

// GraceMarks reads since when runners have matched this text of a policy
// without a break.
func (db *DB) GraceMarks(ctx context.Context, policy, target, sha string) (map[int64]time.Time, error) {
	return graceMarks(ctx, db.pool, policy, target, sha)
}

// GraceMarks is DB.GraceMarks within the transaction.
func (tx *Tx) GraceMarks(ctx context.Context, policy, target, sha string) (map[int64]time.Time, error) {
	return graceMarks(ctx, tx.tx, policy, target, sha)
}

// SaveGraceMarks makes the marks exactly these, by runner. Marks that stay as
// they are are not written.
func (tx *Tx) SaveGraceMarks(ctx context.Context, policy, target, sha string, since map[int64]time.Time) error {
	ids := make([]int64, 0, len(since))
	times := make([]time.Time, 0, len(since))
	for id, at := range since {
		ids, times = append(ids, id), append(times, at)
	}
	_, err := tx.tx.Exec(ctx, `
		DELETE FROM muster.grace_mark m
		WHERE policy = $1 AND target = $2
			AND (sha256 <> $3 OR NOT EXISTS (SELECT FROM unnest($4::bigint[]) AS marks (id) WHERE marks.id = m.runner_id))`, policy, target, sha, ids)
	if err == nil {
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO muster.grace_mark AS m (policy, target, runner_id, sha256, since)
			SELECT $1, $2, id, $3, at FROM unnest($4::bigint[], $5::timestamptz[]) AS marks (id, at)
			ON CONFLICT (policy, target, runner_id) DO UPDATE SET since = excluded.since
			WHERE m.since <> excluded.since`, policy, target, sha, ids, times)
	}
	if err != nil {
		return fmt.Errorf("store grace marks of policy %s on %s: %w", policy, target, translate(err))
	}
	return nil
}

// LastDecision is what of a decision tells news from repetition.
type LastDecision struct {
	PolicySHA256 string
	Verdict      fleet.Verdict
	Reasons      []string
}

// Says reports whether a decision repeats this one. The zero LastDecision says
// nothing.
func (l LastDecision) Says(d fleet.Decision) bool {
	return l.PolicySHA256 == d.PolicySHA256 && l.Verdict == d.Verdict && slices.Equal(l.Reasons, d.Reasons)
}

// LastDecisions reads the newest stored decision on a runner, or with 0 on each
// live one.
func (tx *Tx) LastDecisions(ctx context.Context, policy, target string, runner int64) (map[int64]LastDecision, error) {
	rows, err := tx.tx.Query(ctx, `
		SELECT d.runner_id, coalesce(d.policy_sha256, ''), d.verdict, d.reasons
		FROM muster.last_decision d
		JOIN muster.runner r ON r.target = d.target AND r.runner_id = d.runner_id
		WHERE d.policy = $1 AND d.target = $2 AND CASE WHEN $3 = 0 THEN r.removed_at IS NULL ELSE d.runner_id = $3 END`, policy, target, runner)
	last := make(map[int64]LastDecision)
	if err == nil {
		var id int64
		var d LastDecision
		_, err = pgx.ForEachRow(rows, []any{&id, &d.PolicySHA256, &d.Verdict, &d.Reasons}, func() error {
			last[id] = LastDecision{d.PolicySHA256, d.Verdict, slices.Clone(d.Reasons)}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read the last decisions of policy %s on %s: %w", policy, target, translate(err))
	}
	return last, nil
}

// SaveDecisions stores decisions in two statements, however many there are.
// The ids of those that have none are made here; the caller's slice shows them.
func (tx *Tx) SaveDecisions(ctx context.Context, decisions []fleet.Decision) error {
	if len(decisions) == 0 {
		return nil
	}
	rows := make([][]any, 0, len(decisions))
	ids := make([]uuid.UUID, 0, len(decisions))
	for i := range decisions {
		d := &decisions[i]
		if d.ID == "" {
			d.ID = uuid.Must(uuid.NewV7()).String()
		}
		id, err := uuid.Parse(d.ID)
		if err != nil {
			return fmt.Errorf("store decision: id %q: %w", d.ID, err)
		}
		trigger, err := parseOptional(d.TriggerID)
		if err != nil {
			return fmt.Errorf("store decision: trigger id %q: %w", d.TriggerID, err)
		}
		ids = append(ids, id)
		rows = append(rows, []any{
			id, d.At, trigger, d.Policy, orNull(d.PolicySHA256), string(d.Enforcement), d.Target, d.RunnerID, d.Name,
			string(d.Verdict), d.Reasons, d.Evidence,
		})
	}
	_, err := tx.tx.CopyFrom(ctx, pgx.Identifier{"muster", "decision"}, []string{
		"decision_id", "at", "trigger_id", "policy", "policy_sha256", "enforcement", "target", "runner_id", "name",
		"verdict", "reasons", "evidence",
	}, pgx.CopyFromRows(rows))
	if err == nil {
		_, err = tx.tx.Exec(ctx, `
			INSERT INTO muster.last_decision (policy, target, runner_id, policy_sha256, verdict, reasons)
			SELECT DISTINCT ON (policy, target, runner_id) policy, target, runner_id, policy_sha256, verdict, reasons
			FROM muster.decision
			WHERE decision_id = ANY($1)
			ORDER BY policy, target, runner_id, at DESC
			ON CONFLICT (policy, target, runner_id) DO UPDATE SET
				policy_sha256 = excluded.policy_sha256, verdict = excluded.verdict, reasons = excluded.reasons`, ids)
	}
	if err != nil {
		return fmt.Errorf("store %d decisions: %w", len(decisions), translate(err))
	}
	return nil
}

func parseOptional(id string) (*uuid.UUID, error) {
	if id == "" {
		return nil, nil
	}
	u, err := uuid.Parse(id)
	return &u, err
}
