package demo

import (
	"context"
	"fmt"
	"io"
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
func (s *stage) readBack(ctx context.Context, out io.Writer) error {
	for _, q := range questions {
		t, err := s.record.ReadAPI(ctx, q.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", q.title, err)
		}
		fmt.Fprintf(out, "\n%s\n%s\n\n", q.title, indent(strings.TrimSpace(q.sql)))
		if err := printTable(out, t, q.rows); err != nil {
			return err
		}
	}
	return nil
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

func printTable(out io.Writer, t db.Table, most int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "    %s\n", strings.Join(t.Columns, "\t"))
	for i, row := range t.Rows {
		if i == most {
			break
		}
		fmt.Fprintf(w, "    %s\n", strings.Join(row, "\t"))
	}
	if more := len(t.Rows) - most; more > 0 {
		fmt.Fprintf(w, "    … and %d more\n", more)
	}
	return w.Flush()
}
