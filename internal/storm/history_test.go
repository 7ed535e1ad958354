package storm_test

// wantHistory checks that the history of each runner makes one story, which ends
// as the record of the runner says, and that subscribers were told all of it. The
// order of a story is that of its times, which says nothing where the clock stepped.
func (w *world) wantHistory() {
	w.Helper()
	if w.steps == nil {
		w.wantOrder()
	}
	w.wantTold()
}

func (w *world) wantOrder() {
	w.Helper()
	type runner struct {
		there  bool
		status string // empty: not told yet
	}
	for _, t := range w.targets {
		runners := map[int64]*runner{}
		for _, h := range read[struct {
			ID             int64
			Change         string
			Before, Status string
		}](w, `
			SELECT runner_id, change, coalesce(before->>'status', ''), coalesce(after->>'status', '')
			FROM muster.runner_history
			WHERE target = $1
			ORDER BY runner_id, at, ctid`, t.Name) {
			r := runners[h.ID]
			if r == nil {
				// The first sync tells of nobody, so that its runners are there at once.
				r = &runner{there: h.Change != "registered"}
				runners[h.ID] = r
			}
			if r.there == (h.Change == "registered") {
				w.Errorf("history of %s/%d: %s, and it was there already, or not there", t.Name, h.ID, h.Change)
			}
			if r.status != "" && h.Before != "" && h.Before != r.status {
				w.Errorf("history of %s/%d: %s from %s, and it was %s", t.Name, h.ID, h.Change, h.Before, r.status)
			}
			r.there = h.Change != "removed"
			if h.Status != "" {
				r.status = h.Status
			}
		}
		for _, r := range read[struct {
			ID      int64
			Status  string
			Removed bool
		}](w, `SELECT runner_id, status, removed_at IS NOT NULL FROM muster.runner WHERE target = $1`, t.Name) {
			told := runners[r.ID]
			if told == nil {
				told = &runner{there: true}
			}
			if told.there == r.Removed || told.there && told.status != "" && told.status != r.Status {
				w.Errorf("history of %s/%d ends with there %v, %s; the record says removed %v, %s",
					t.Name, r.ID, told.there, told.status, r.Removed, r.Status)
			}
		}
	}
}

// wantTold checks that subscribers were told of every change, each once.
func (w *world) wantTold() {
	w.Helper()
	for _, m := range read[struct {
		ID          int64
		Change      string
		Told, Noted int
	}](w, `
		SELECT runner_id, change, sum(told), sum(noted)
		FROM (
			SELECT target, runner_id, change, 0 AS told, 1 AS noted
			FROM muster.runner_history
			WHERE target = ANY($1) AND change <> 'renamed'
			UNION ALL
			SELECT muster.current_target(e->>'target'), (e->>'runner_id')::bigint, e->>'change', 1, 0
			FROM (
				SELECT convert_from(body, 'UTF8')::jsonb->'data' AS e
				FROM muster.outbox
				WHERE subject LIKE 'muster.v1.event.runner.%'
			) events
			WHERE e->>'target' = ANY($1)
		) both_ways
		GROUP BY target, runner_id, change
		HAVING sum(told) <> sum(noted)`, w.targetNames()) {
		w.Errorf("runner %d: %s is noted %d times and told %d times", m.ID, m.Change, m.Noted, m.Told)
	}
}
