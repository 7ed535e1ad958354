package demo

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/github/githubsim"
)

// check is one promise. It returns what it found, for a person, and whether
// the promise was kept.
type check struct {
	promise string
	holds   func(ctx context.Context, s *stage) (string, bool, error)
}

// judge sets the record against the simulator's own log.
func (s *stage) judge(ctx context.Context) error {
	broken := 0
	for _, c := range checks {
		found, ok, err := c.holds(ctx, s)
		if err != nil {
			found, ok = err.Error(), false
		}
		mark := "ok  "
		if !ok {
			mark = "FAIL"
			broken++
		}
		s.tell.print("  %s  %s: %s\n", mark, c.promise, found)
	}
	if broken > 0 {
		s.tell.print("\n%d of %d checks failed.\n", broken, len(checks))
		return ErrChecks
	}
	s.tell.print("\nAll %d checks hold.\n", len(checks))
	return nil
}

var checks = []check{
	{"whoever was long offline is gone, where the policy may act", func(_ context.Context, s *stage) (string, bool, error) {
		left, due := 0, 0
		for _, target := range []string{"octo", "acme"} {
			due += len(s.cast.Dead[target])
			left += present(s.sim, target, s.cast.Dead[target])
		}
		return fmt.Sprintf("%d of %d", due-left, due), left == 0, nil
	}},
	{"GitHub saw no deletion of anybody else, but for hosts of the pool", func(_ context.Context, s *stage) (string, bool, error) {
		others := 0
		for _, e := range s.deletes() {
			if e.Scope != forge.String() && !slices.Contains(s.cast.Dead["octo"], e.RunnerID) && !slices.Contains(s.cast.Dead["acme"], e.RunnerID) {
				others++
			}
		}
		return fmt.Sprintf("%d", others), others == 0, nil
	}},
	{"no runner was deleted while it worked, or was online and not drained", func(_ context.Context, s *stage) (string, bool, error) {
		killed := 0
		for _, e := range s.deletes() {
			if e.Busy || e.Online && !s.pool.mayGo(e.RunnerID) {
				killed++
			}
		}
		return fmt.Sprintf("%d of %d deletions", killed, len(s.deletes())), killed == 0, nil
	}},
	{"runners with the label keep, flapping, working and zombie ones are all there", func(_ context.Context, s *stage) (string, bool, error) {
		want, have := 0, 0
		for _, part := range []map[string][]int64{s.cast.Kept, s.cast.Flapping, s.cast.Working, s.cast.Zombies} {
			for target, ids := range part {
				want += len(ids)
				have += present(s.sim, target, ids)
			}
		}
		return fmt.Sprintf("%d of %d", have, want), have == want, nil
	}},
	{"the one that came back at the last look was spared", func(ctx context.Context, s *stage) (string, bool, error) {
		found, err := s.spared(ctx, s.cast.Comeback)
		return found, strings.Contains(found, "spared online 200") && present(s.sim, "acme", []int64{s.cast.Comeback}) == 1, err
	}},
	{"the one that got a job between look and DELETE was spared", func(ctx context.Context, s *stage) (string, bool, error) {
		found, err := s.spared(ctx, s.cast.Caught)
		return found, strings.Contains(found, "spared busy 422") && present(s.sim, "acme", []int64{s.cast.Caught}) == 1, err
	}},
	{"each deletion that GitHub saw has one action, one decision to act and both its audit events", func(ctx context.Context, s *stage) (string, bool, error) {
		whole := 0
		for _, e := range s.deletes() {
			found, err := s.value(ctx, `
				SELECT count(*) FROM api.actions a JOIN api.decisions d USING (decision_id)
				WHERE a.runner_id = $1 AND a.state = 'done' AND d.verdict = 'act'
					AND (SELECT count(*) FROM api.audit e WHERE e.payload->'details'->>'action_id' = a.action_id::text
						AND e.action = 'runner.delete' AND e.outcome IN ('intended', 'done')) = 2`, e.RunnerID)
			if err != nil {
				return "", false, err
			}
			if found == "1" {
				whole++
			}
		}
		done, err := s.value(ctx, `SELECT count(*) FROM api.actions WHERE state = 'done'`)
		return fmt.Sprintf("%d of %d, and %s recorded as done", whole, len(s.deletes()), done),
			whole == len(s.deletes()) && done == strconv.Itoa(whole), err
	}},
	{"no intent is left open", func(ctx context.Context, s *stage) (string, bool, error) {
		found, err := s.value(ctx, `
			SELECT (SELECT count(*) FROM api.actions WHERE state = 'intended')
				+ (SELECT count(*) FROM api.tokens WHERE outcome = 'requested')`)
		return found, found == "0", err
	}},
	{"the policy that ran into its limit acted on nobody and says so once", func(ctx context.Context, s *stage) (string, bool, error) {
		there := present(s.sim, Halting, s.cast.Dead[Halting])
		events, err := s.value(ctx, `SELECT count(*) FROM api.audit WHERE code = 'PL220W' AND target = $1`, Halting)
		return fmt.Sprintf("%d of %d still there, %s audit event", there, len(s.cast.Dead[Halting]), events),
			there == len(s.cast.Dead[Halting]) && events == "1", err
	}},
	{"every token that GitHub minted was intended first, and is known by its fingerprint", func(ctx context.Context, s *stage) (string, bool, error) {
		mints, known := 0, 0
		for _, e := range s.sim.Log() {
			if !e.Acted || e.Token == "" || e.Method != "POST" {
				continue
			}
			mints++
			found, err := s.value(ctx, `SELECT count(*) FROM api.tokens WHERE outcome = 'issued' AND fingerprint = $1 AND requested_at <= $2`, e.Token, e.At)
			if err != nil {
				return "", false, err
			}
			if found != "0" {
				known++
			}
		}
		return fmt.Sprintf("%d of %d", known, mints), mints > 0 && known == mints, nil
	}},
	{"hosts shared registration tokens, and a repeated request brought the same answer", func(_ context.Context, s *stage) (string, bool, error) {
		mints := 0
		for _, e := range s.sim.Log() {
			if e.Acted && e.Token != "" && e.Method == "POST" {
				mints++
			}
		}
		return fmt.Sprintf("%d answers, %d minted", s.hosts.issued, mints), mints < s.hosts.issued && s.hosts.repeated, nil
	}},
	{"the host without a grant got nothing, and that is on record", func(ctx context.Context, s *stage) (string, bool, error) {
		found, err := s.value(ctx, `SELECT coalesce(min(outcome || ' ' || code), 'no row') FROM api.tokens WHERE host = $1`, Stranger)
		return found, s.hosts.refused == 403 && found == "denied 403", err
	}},
	{"every host that is there speaks for its runner", func(ctx context.Context, s *stage) (string, bool, error) {
		there := len(s.hosts.reports()) + len(s.pool.reports())
		found, err := s.value(ctx, `
			SELECT count(*) FROM api.hosts h JOIN api.runners r ON r.name = h.host AND r.removed_at IS NULL
			WHERE h.state = 'running' AND h.runners @> jsonb_build_array(jsonb_build_object('target', r.target, 'name', r.name, 'state', 'idle'))`)
		return fmt.Sprintf("%s of %d", found, there), found == strconv.Itoa(there) && there > len(s.hosts.up), err
	}},
	{"no token stands anywhere in the record", func(ctx context.Context, s *stage) (string, bool, error) {
		hits := 0
		for _, secret := range append(slices.Clone(s.hosts.secrets), credential) {
			found, err := s.value(ctx, `
				SELECT (SELECT count(*) FROM api.audit a WHERE strpos(a::text, $1) > 0)
					+ (SELECT count(*) FROM api.tokens t WHERE strpos(t::text, $1) > 0)
					+ (SELECT count(*) FROM api.runs r WHERE strpos(r::text, $1) > 0)
					+ (SELECT count(*) FROM api.syncs y WHERE strpos(y::text, $1) > 0)`, secret)
			if err != nil {
				return "", false, err
			}
			if found != "0" {
				hits++
			}
		}
		return fmt.Sprintf("%d of %d found", hits, len(s.hosts.secrets)+1), hits == 0, nil
	}},
	{"the trigger from outside ran", func(ctx context.Context, s *stage) (string, bool, error) {
		found, err := s.value(ctx, `SELECT coalesce(min(job || '/' || name || ' ' || state), 'no run') FROM api.runs WHERE source = 'nats'`)
		return found, found == "sync/acme done", err
	}},
	{"every tick that fired became one run", func(ctx context.Context, s *stage) (string, bool, error) {
		found, err := s.value(ctx, `
			SELECT count(*) || ' ticks, ' || count(DISTINCT r.trigger_id) || ' runs'
			FROM api.ticks t LEFT JOIN api.runs r USING (trigger_id)
			WHERE t.state = 'fired' AND t.tick_at <= $1::timestamptz`, s.quiet)
		parts := strings.Fields(found)
		return found, err == nil && len(parts) == 4 && parts[0] == parts[2] && parts[0] != "0", err
	}},
	{"the inventory is what GitHub has", func(ctx context.Context, s *stage) (string, bool, error) {
		truth, same := 0, 0
		for target, scope := range everywhere() {
			t, err := s.record.ReadAPI(ctx, `SELECT runner_id, status, busy FROM api.runners WHERE target = $1 AND removed_at IS NULL`, target)
			if err != nil {
				return "", false, err
			}
			have := map[string]bool{}
			for _, row := range t.Rows {
				have[strings.Join(row, " ")] = true
			}
			snapshot := s.sim.Snapshot(scope)
			truth += max(len(snapshot), len(t.Rows))
			for _, r := range snapshot {
				if have[fmt.Sprintf("%d %s %t", r.ID, r.Shown, r.Busy)] {
					same++
				}
			}
		}
		return fmt.Sprintf("%d of %d runners", same, truth), same == truth, nil
	}},
	{"the pool grew to its maximum, and never beyond", func(_ context.Context, s *stage) (string, bool, error) {
		most, _ := s.grown()
		return fmt.Sprintf("%d hosts, %d allowed", most, poolMax), most == poolMax, nil
	}},
	{"every host that the pool asked for came online, and no other", func(ctx context.Context, s *stage) (string, bool, error) {
		_, ever := s.grown()
		found, err := s.value(ctx, `
			SELECT count(*) FILTER (WHERE state = 'online') || ' of ' || count(*) FROM api.leases WHERE pool = $1`, Pool)
		return found, found == fmt.Sprintf("%d of %d", ever, ever), err
	}},
	{"each workflow job of the pool ran on a host that was asked for", func(ctx context.Context, s *stage) (string, bool, error) {
		ran := 0
		for _, j := range s.sim.Jobs() {
			if j.Scope != forge || j.Conclusion != "success" {
				continue
			}
			found, err := s.value(ctx, `
				SELECT count(*) FROM api.workflow_jobs w JOIN api.leases l USING (runner_id)
				WHERE w.target = $1 AND l.pool = $1 AND w.state = 'completed' AND w.workflow_job_id = $2 AND w.runner_id = $3`,
				Pool, j.ID, j.RunnerID)
			if err != nil {
				return "", false, err
			}
			if found == "1" {
				ran++
			}
		}
		return fmt.Sprintf("%d of %d", ran, poolJobs), ran == poolJobs, nil
	}},
	{"when its work was over the pool gave up hosts that it had drained, released them, and kept its minimum", func(_ context.Context, s *stage) (string, bool, error) {
		deleted := 0
		for _, e := range s.deletes() {
			if e.Scope == forge.String() && s.pool.mayGo(e.RunnerID) {
				deleted++
			}
		}
		drained, released := s.pool.left()
		stay := len(s.sim.Snapshot(forge))
		return fmt.Sprintf("%d drained, %d deleted, %d released, %d stay", drained, deleted, released, stay),
			deleted > 0 && deleted == drained && deleted == released && deleted+stay == poolMax && stay >= poolMin, nil
	}},
}

// grown is how many runners the pool had at most, by GitHub's log, and how many
// ever.
func (s *stage) grown() (most, ever int) {
	now := 0
	for _, e := range s.sim.Log() {
		switch {
		case e.Scope != forge.String():
		case e.Change == githubsim.ChangeRegistered:
			now++
			ever++
		case e.Change == githubsim.ChangeRemoved:
			now--
		}
		most = max(most, now)
	}
	return most, ever
}

// spared is how the actions on a runner came out. Each pass tries anew until a
// sync has seen what the last look saw, so there may be several.
func (s *stage) spared(ctx context.Context, runner int64) (string, error) {
	return s.value(ctx, `
		SELECT coalesce(string_agg(DISTINCT concat_ws(' ', state, reason, http_status), ', '), 'no action')
		FROM api.actions WHERE runner_id = $1`, runner)
}

// deletes are the DELETEs that took effect, as GitHub saw them.
func (s *stage) deletes() []githubsim.Event {
	return slices.DeleteFunc(s.sim.Log(), func(e githubsim.Event) bool { return e.Method != "DELETE" || !e.Acted })
}

// present counts those of the runners that are still registered.
func present(sim *githubsim.Sim, target string, ids []int64) int {
	n := 0
	for _, r := range sim.Snapshot(targets[target]) {
		if slices.Contains(ids, r.ID) {
			n++
		}
	}
	return n
}

// value is the one value that a query gives.
func (s *stage) value(ctx context.Context, sql string, args ...any) (string, error) {
	t, err := s.record.ReadAPI(ctx, sql, args...)
	if err != nil {
		return "", err
	}
	if len(t.Rows) != 1 || len(t.Rows[0]) != 1 {
		return "", fmt.Errorf("a query for one value gave %d rows", len(t.Rows))
	}
	return t.Rows[0][0], nil
}
