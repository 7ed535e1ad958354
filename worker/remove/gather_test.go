package remove_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

// lookingAround is the policy of these tests with guards and variables that
// rest on other runners.
func lookingAround(t *testing.T) *policies.Policy {
	t.Helper()
	text := strings.NewReplacer("COUNT", "50", "RATE", "1000/m, min_survivors: 2", "match: ", "match: runner.newer_registrations >= 0 && ").Replace(reap)
	all, err := policies.Load("reap.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// A runner alone is decided on by the same numbers as among all.
func TestNeighboursAreTheSameAloneAndAmongAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := lookingAround(t)
	ids := w.fleet(9)
	long, short := t0.Add(-200*time.Hour), t0.Add(-100*time.Hour)
	set := func(n int, sql string, args ...any) {
		t.Helper()
		w.exec(`UPDATE muster.runner SET `+sql+` WHERE runner_id = $1`, append([]any{ids[n]}, args...)...)
	}
	const online = `status = 'online', offline_since = NULL, offline_from_us = NULL, offline_from_sync = NULL, offline_from_at = NULL`
	set(0, `host = 'h', last_online_at = $2`, long)
	set(1, `host = 'h', first_seen_at = $2`, short)
	set(2, `host = 'h', last_online_at = $2`, short)
	set(3, `host = 'h', `+online)
	set(4, online)
	set(5, online+`, labels = '{gpu,linux}'`)
	set(6, online+`, missing_since = $2`, t0)
	set(7, `host = 'other', first_seen_at = $2`, short)
	set(8, `host = 'h', first_seen_at = $2, labels = '{}'`, t0)
	w.synced()

	all, err := remove.Gather(w.ctx, w.db, p, w.target().Target, 0, fleet.PolicyState{}, w.clock())
	w.ok(err)
	seen := func(d fleet.Decision) []any {
		return []any{d.RunnerID, d.Verdict, d.Reasons, d.Evidence["survivors"], d.Evidence["newer_registrations"]}
	}
	var among, alone [][]any
	for _, d := range policies.Decide(p, all, w.clock()).Decisions {
		among = append(among, seen(d))
		one, err := remove.Gather(w.ctx, w.db, p, w.target().Target, d.RunnerID, fleet.PolicyState{}, w.clock())
		w.ok(err)
		for _, d := range policies.Decide(p, one, w.clock()).Decisions {
			alone = append(alone, seen(d))
		}
	}
	act, keep := fleet.VerdictAct, fleet.VerdictKeep
	want := [][]any{
		{ids[0], act, []string{"matched"}, 2, 2},
		{ids[1], act, []string{"matched"}, 2, 1},
		{ids[2], act, []string{"matched"}, 2, 1},
		{ids[7], act, []string{"matched"}, 2, 0},
		{ids[8], keep, []string{"min_survivors"}, 0, 0},
	}
	if diff := cmp.Diff(want, among); diff != "" {
		t.Errorf("among all, want (-) got (+):\n%s", diff)
	}
	if diff := cmp.Diff(among, alone); diff != "" {
		t.Errorf("among all (-), alone (+):\n%s", diff)
	}
}

func TestSurvivorsAreCountedAgainAtTheLastMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = lookingAround(t)
	ids := w.fleet(3)
	w.exec(`UPDATE muster.runner SET host = 'h' WHERE runner_id = $1`, ids[0])
	w.exec(`UPDATE muster.runner SET status = 'online', offline_since = NULL, offline_from_us = NULL, offline_from_sync = NULL, offline_from_at = NULL
		WHERE runner_id = $1`, ids[1])
	w.remove("keep min_survivors", w.request(ids[0]))
	w.exec(`UPDATE muster.runner SET status = 'online', offline_since = NULL, offline_from_us = NULL, offline_from_sync = NULL, offline_from_at = NULL
		WHERE runner_id = $1`, ids[2])
	w.remove("done", w.request(ids[0]))
	w.agree()
}
