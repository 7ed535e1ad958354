package db

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Gauge is a figure that the record holds at the moment.
type Gauge struct {
	Name   string // one of the Gauge constants
	Target string // empty where the figure is of none
	Policy string // likewise
	Pool   string // likewise
	Value  float64
}

// What Gauges reads.
const (
	GaugeRunners       = "runners" // registered, per target
	GaugeRunnersOnline = "runners_online"
	GaugeRunnersBusy   = "runners_busy"
	GaugeSyncAge       = "sync_age_seconds" // since the newest complete sync began, per target; absent: never
	GaugePolicyHalted  = "policy_halted"    // 0 or 1, per policy and target
	GaugeDeadLetters   = "dead_letters"
	GaugeOutboxAge     = "outbox_age_seconds" // of the oldest message; 0 where none waits
	GaugeOpenIntents   = "open_intents"       // deletions without an outcome yet
	GaugeClockSteps    = "clock_steps"        // that Postgres's clock made so far

	// As a pool was last decided on.
	GaugePoolMin           = "pool_min"
	GaugePoolMax           = "pool_max"
	GaugePoolDesired       = "pool_desired"
	GaugePoolOnline        = "pool_online"
	GaugePoolBusy          = "pool_busy"
	GaugePoolBooting       = "pool_booting"
	GaugePoolDraining      = "pool_draining"
	GaugePoolQueued        = "pool_queued"
	GaugePoolInProgress    = "pool_in_progress"
	GaugePoolLeasesExpired = "pool_leases_expired"
	GaugePoolDecisionAge   = "pool_decision_age_seconds"
	GaugeFindings          = "findings"           // per target
	GaugeDemandAge         = "demand_age_seconds" // since all workflow jobs were known, per target; absent: never
)

// Gauges reads them all in one statement.
func (db *DB) Gauges(ctx context.Context) ([]Gauge, error) {
	rows, err := db.pool.Query(ctx, `
		WITH targets AS MATERIALIZED (
			SELECT target, runners, online, busy, last_complete_sync_at
			FROM api.targets
		)
		SELECT 'runners', target, '', '', runners::double precision FROM targets
		UNION ALL
		SELECT 'runners_online', target, '', '', online FROM targets
		UNION ALL
		SELECT 'runners_busy', target, '', '', busy FROM targets
		UNION ALL
		SELECT 'sync_age_seconds', target, '', '', extract(epoch FROM clock_timestamp() - last_complete_sync_at)
		FROM targets
		WHERE last_complete_sync_at IS NOT NULL
		UNION ALL
		SELECT 'policy_halted', target, policy, '', CASE WHEN halted_at IS NULL THEN 0 ELSE 1 END
		FROM muster.policy
		UNION ALL
		SELECT 'dead_letters', '', '', '', count(*) FROM muster.dead_letter
		UNION ALL
		SELECT 'outbox_age_seconds', '', '', '', coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)
		FROM muster.outbox
		WHERE created_at <= clock_timestamp()
		UNION ALL
		SELECT 'open_intents', '', '', '', count(*) FROM muster.action WHERE state = 'intended'
		UNION ALL
		SELECT 'clock_steps', '', '', '', steps FROM muster.clock
		UNION ALL
		SELECT 'pool_' || size.name, p.target, '', p.name, size.n
		FROM muster.pool p
		CROSS JOIN LATERAL (VALUES ('min', p.min), ('max', p.max), ('desired', p.desired), ('online', p.online),
			('busy', p.busy), ('booting', p.booting), ('draining', p.draining), ('queued', p.queued),
			('in_progress', p.in_progress), ('leases_expired', p.leases_expired),
			('decision_age_seconds', extract(epoch FROM clock_timestamp() - p.decided_at))) AS size (name, n)
		WHERE p.decided_at IS NOT NULL
		UNION ALL
		SELECT 'findings', t.target, '', '', (SELECT count(*) FROM muster.finding f WHERE f.target = t.target)
		FROM targets t
		UNION ALL
		SELECT 'demand_age_seconds', target, '', '', extract(epoch FROM clock_timestamp() - as_of)
		FROM muster.reconciliation
		WHERE as_of IS NOT NULL`)
	if err == nil {
		var all []Gauge
		if all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Gauge]); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read gauges: %w", translate(err))
}
