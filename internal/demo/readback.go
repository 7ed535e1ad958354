package demo

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/muster-fleet/muster/db"
)

// question is something an auditor would ask, and the SQL that answers it.
type question struct {
	title string
	sql   string
	rows  int // shown at most
}

var questions = []question{
	{"Who was deleted, and why?", `
SELECT a.settled_at, a.target, a.name, d.policy, d.reasons,
       d.evidence->>'offline_for' AS offline_for, d.evidence->>'listings' AS listings
FROM api.actions a JOIN api.decisions d USING (decision_id)
WHERE a.state IN ('done', 'gone') ORDER BY a.settled_at, a.name`, 8},
	{"Who was spared, and why?", `
SELECT target, 'last look' AS by, reason, http_status, count(*) AS runners, min(name) AS such_as
FROM api.actions WHERE state = 'spared' GROUP BY 1, 2, 3, 4
UNION ALL
SELECT target, policy, reasons::text, NULL, count(*), min(name)
FROM (SELECT DISTINCT ON (policy, target, runner_id) * FROM api.decisions
      ORDER BY policy, target, runner_id, at DESC) newest
WHERE verdict <> 'act' AND enforcement = 'enforce' GROUP BY 1, 2, 3
ORDER BY 1, 2, 3`, 16},
	{"Which host was given which tokens?", `
SELECT host, target, kind, outcome, code, count(*) AS requests, max(fingerprint) AS fingerprint
FROM api.tokens GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 3`, 14},
	{"Why did the pool grow and shrink?", `
SELECT occurred_at, code, payload->'details'->>'change' AS hosts, payload->'details'->>'desired' AS desired, reason
FROM api.audit WHERE code IN ('SC800I', 'SC801I') ORDER BY occurred_at`, 8},
	{"Which hosts did it ask for, and what became of them?", `
SELECT l.requested_at, l.host, l.state AS lease, r.status, r.removed_at, r.removal_cause,
       (SELECT count(*) FROM api.workflow_jobs w WHERE w.target = r.target AND w.runner_id = r.runner_id) AS jobs
FROM api.leases l LEFT JOIN api.runners r ON r.target = 'forge' AND r.runner_id = l.runner_id
ORDER BY l.requested_at, l.host`, 8},
	{"How did the syncs go?", `
SELECT target, outcome, count(*) AS syncs, sum(api_calls) AS api_calls, max(runners) AS runners,
       sum(added) AS added, sum(changed) AS changed, sum(removed) AS removed
FROM api.syncs GROUP BY 1, 2 ORDER BY 1, 2`, 12},
	{"Did every tick fire once?", `
SELECT t.schedule, t.state, count(*) AS ticks, count(DISTINCT t.trigger_id) AS triggers, count(r.trigger_id) AS runs,
       min(t.tick_at) AS first, max(t.tick_at) AS last
FROM api.ticks t LEFT JOIN api.runs r USING (trigger_id) GROUP BY 1, 2 ORDER BY 1, 2`, 12},
}

// readBack prints the answers.
func (s *stage) readBack(ctx context.Context) error {
	for _, q := range questions {
		t, err := s.record.ReadAPI(ctx, q.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", q.title, err)
		}
		s.tell.print("\n%s\n%s\n\n", q.title, indent(strings.TrimSpace(q.sql)))
		s.tell.print("%s", layOut(t, q.rows))
	}
	return nil
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

// layOut aligns the first rows of a table in columns.
func layOut(t db.Table, most int) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	line := func(cells ...string) {
		_, _ = fmt.Fprintf(w, "    %s\n", strings.Join(cells, "\t")) // a strings.Builder takes everything
	}
	line(t.Columns...)
	for i, row := range t.Rows {
		if i == most {
			break
		}
		line(row...)
	}
	if more := len(t.Rows) - most; more > 0 {
		line(fmt.Sprintf("… and %d more", more))
	}
	_ = w.Flush()
	return text.String()
}
