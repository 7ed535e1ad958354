package db_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

var reap = fleet.PolicyState{Policy: "reap", Target: "acme", SHA256: "one", Enforcement: fleet.EnforcementEnforce}

func (w *world) policy() fleet.PolicyState {
	w.Helper()
	var s fleet.PolicyState
	w.tx(func(tx *db.Tx) error {
		var err error
		s, err = tx.LockPolicy(w.ctx, reap)
		return err
	})
	return s
}

func TestHaltAndResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if s, err := w.db.PolicyState(w.ctx, "reap", "acme"); err != nil || s != (fleet.PolicyState{Policy: "reap", Target: "acme"}) {
		t.Errorf("PolicyState of one that never ran = %+v, %v", s, err)
	}
	if s := w.policy(); s != reap {
		t.Errorf("LockPolicy = %+v, want %+v", s, reap)
	}
	halt := func() bool {
		t.Helper()
		var news bool
		w.tx(func(tx *db.Tx) error {
			var err error
			news, err = tx.Halt(w.ctx, "reap", "acme", "over_max", "too many", t0)
			return err
		})
		return news
	}
	resume := func(target string, allow int) string {
		t.Helper()
		var targets []string
		w.tx(func(tx *db.Tx) error {
			var err error
			targets, err = tx.Resume(w.ctx, "reap", target, "seen", allow)
			return err
		})
		return strings.Join(targets, " ")
	}
	if got := resume("", 3); got != "" {
		t.Errorf("Resume of what is not halted reopened %q", got)
	}
	if !halt() || halt() {
		t.Error("a halt is news once")
	}
	if s := w.policy(); !s.Halted || s.Reason != "too many" {
		t.Errorf("halted policy reads %+v", s)
	}
	w.want("halted too many", `SELECT state || ' ' || reason FROM api.policies`)
	if got := resume("widgets", 3); got != "" {
		t.Errorf("Resume elsewhere reopened %q", got)
	}
	if got := resume("", 2); got != "acme" {
		t.Errorf("Resume everywhere reopened %q, want acme", got)
	}
	for want := 2; want >= 0; want-- {
		if s := w.policy(); s.Halted || s.Allowance != want || s.Reason != "seen" {
			t.Errorf("resumed policy reads %+v, want an allowance of %d", s, want)
		}
		w.tx(func(tx *db.Tx) error { return tx.SpendAllowance(w.ctx, "reap", "acme") })
	}
	halt()
	resume("acme", 5)
	halt()
	if s := w.policy(); s.Allowance != 0 {
		t.Errorf("a halt leaves an allowance of %d", s.Allowance)
	}
	w.want("active", `SELECT CASE WHEN state = 'halted' THEN 'active' END FROM api.policies`)
}

func TestPolicyLockIsExclusive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inside, most := 0, 0
	var mu sync.Mutex
	var g errgroup.Group
	for range 6 {
		g.Go(func() error {
			return w.db.InTx(w.ctx, func(tx *db.Tx) error {
				if _, err := tx.LockPolicy(w.ctx, reap); err != nil {
					return err
				}
				mu.Lock()
				inside++
				most = max(most, inside)
				mu.Unlock()
				_, err := tx.GraceMarks(w.ctx, "reap", "acme", "one") // a round trip for others to come in
				mu.Lock()
				inside--
				mu.Unlock()
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if most != 1 {
		t.Errorf("%d held the lock at once", most)
	}
}

func TestGraceMarksAreExactlyThoseSaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	save := func(sha string, since map[int64]time.Time) {
		t.Helper()
		w.tx(func(tx *db.Tx) error { return tx.SaveGraceMarks(w.ctx, "reap", "acme", sha, since) })
	}
	check := func(sha string, want map[int64]time.Time) {
		t.Helper()
		got, err := w.db.GraceMarks(w.ctx, "reap", "acme", sha)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("GraceMarks(%s): %v (-want +got):\n%s", sha, err, diff)
		}
	}
	later := t0.Add(time.Hour)
	one := map[int64]time.Time{1: t0, 2: t0, 3: later}
	save("one", one)
	check("one", one)
	check("two", map[int64]time.Time{})
	versions := w.value(`SELECT string_agg(xmin::text, ' ' ORDER BY runner_id) FROM muster.grace_mark`)
	save("one", one)
	w.want(versions, `SELECT string_agg(xmin::text, ' ' ORDER BY runner_id) FROM muster.grace_mark`)
	save("one", map[int64]time.Time{1: t0, 2: later})
	check("one", map[int64]time.Time{1: t0, 2: later})
	save("two", map[int64]time.Time{1: later})
	check("one", map[int64]time.Time{})
	check("two", map[int64]time.Time{1: later})
	save("two", nil)
	w.want("0", `SELECT count(*) FROM muster.grace_mark`)
}

func decision(runner int64, v fleet.Verdict, reasons ...string) fleet.Decision {
	return fleet.Decision{
		At: t0, TriggerID: uuid.NewString(), Policy: "reap", PolicySHA256: "one", Enforcement: fleet.EnforcementEnforce, Target: "acme",
		RunnerID: runner, Name: fmt.Sprintf("r%d", runner), Verdict: v, Action: fleet.ActionDeleteRunner, Reasons: reasons,
		Evidence: fleet.Evidence{"offline_for": "168h"},
	}
}

func TestLastDecisions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	for id := range int64(3) {
		w.runner(id + 1)
	}
	save := func(ds ...fleet.Decision) []fleet.Decision {
		t.Helper()
		w.tx(func(tx *db.Tx) error { return tx.SaveDecisions(w.ctx, ds) })
		return ds
	}
	for _, d := range save(decision(1, fleet.VerdictKeep, "grace"), decision(2, fleet.VerdictAct, "matched"), decision(3, fleet.VerdictKeep, "busy")) {
		if uuid.Validate(d.ID) != nil {
			t.Errorf("decision %+v has no id", d)
		}
	}
	newest := decision(1, fleet.VerdictKeep, "busy", "grace")
	save(newest)
	w.exec(`UPDATE muster.runner SET removed_at = now(), removal_cause = 'unknown' WHERE runner_id = 3`)
	w.tx(func(tx *db.Tx) error {
		all, err := tx.LastDecisions(w.ctx, "reap", "acme", 0)
		if err != nil {
			return err
		}
		want := map[int64]db.LastDecision{
			1: {PolicySHA256: "one", Verdict: fleet.VerdictKeep, Reasons: []string{"busy", "grace"}},
			2: {PolicySHA256: "one", Verdict: fleet.VerdictAct, Reasons: []string{"matched"}},
		}
		if diff := cmp.Diff(want, all); diff != "" {
			t.Errorf("LastDecisions (-want +got):\n%s", diff)
		}
		one, err := tx.LastDecisions(w.ctx, "reap", "acme", 2)
		if len(one) != 1 || !one[2].Says(decision(2, fleet.VerdictAct, "matched")) {
			t.Errorf("LastDecisions of one = %+v", one)
		}
		return err
	})
	w.want("4", `SELECT count(*) FROM api.decisions`)

	last := db.LastDecision{PolicySHA256: "one", Verdict: fleet.VerdictKeep, Reasons: []string{"busy", "grace"}}
	other := newest
	other.PolicySHA256 = "two"
	for name, d := range map[string]fleet.Decision{
		"text": other, "verdict": decision(1, fleet.VerdictAct, "busy", "grace"), "reasons": decision(1, fleet.VerdictKeep, "grace", "busy"),
	} {
		if last.Says(d) {
			t.Errorf("another %s is no news", name)
		}
	}
	if !last.Says(newest) || (db.LastDecision{}).Says(newest) {
		t.Error("Says does not know a repetition from a first decision")
	}
}

func action(runner int64) fleet.Action {
	return fleet.Action{
		ID: uuid.NewString(), DecisionID: uuid.NewString(), TriggerID: uuid.NewString(), Policy: "reap", Target: "acme",
		RunnerID: runner, Name: fmt.Sprintf("r%d", runner), Kind: fleet.ActionDeleteRunner, State: fleet.ActionIntended, IntendedAt: t0,
	}
}

func TestActedCountsWhatUsedUpTheCaps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, tt := range []struct {
		state   fleet.ActionState
		ago     time.Duration
		allowed bool
	}{
		{fleet.ActionIntended, 0, false},
		{fleet.ActionDone, 10 * time.Second, false},
		{fleet.ActionGone, 30 * time.Minute, false},
		{fleet.ActionSpared, 10 * time.Second, false}, // used no cap
		{fleet.ActionFailed, 10 * time.Second, false},
		{fleet.ActionDone, 10 * time.Second, true}, // an operator allowed it beyond
		{fleet.ActionDone, time.Hour, false},       // just out of the window
		{fleet.ActionDone, 2 * time.Hour, false},
	} {
		a := action(int64(i + 1))
		a.IntendedAt = t0.Add(-tt.ago)
		w.tx(func(tx *db.Tx) error {
			if err := tx.Intend(w.ctx, a, time.Minute, tt.allowed); err != nil || tt.state == fleet.ActionIntended {
				return err
			}
			a.State, a.SettledAt = tt.state, t0
			return tx.Settle(w.ctx, a)
		})
	}
	n, err := w.db.Acted(w.ctx, "reap", "acme", t0.Add(-time.Hour), t0.Add(-time.Minute))
	if err != nil || n.Counted != 3 || n.Open != 1 || n.LastMinute != 5 {
		t.Errorf("Acted = %+v, %v, want 3 counted, 1 of them open, and 5 in the last minute", n, err)
	}
	// A window shorter than a minute does not hide the minute.
	if n, err = w.db.Acted(w.ctx, "reap", "acme", t0.Add(-time.Second), t0.Add(-time.Minute)); err != nil || n.Counted != 1 || n.LastMinute != 5 {
		t.Errorf("Acted = %+v, %v, want 1 counted in the window and 5 in the last minute", n, err)
	}
	if n, err = w.db.Acted(w.ctx, "other", "acme", t0.Add(-time.Hour), t0.Add(-time.Minute)); err != nil || n != (db.Acts{}) {
		t.Errorf("Acted of another policy = %+v, %v", n, err)
	}
}

func TestOneIntentAtATimePerRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	intend := func(a fleet.Action) error {
		return w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.Intend(w.ctx, a, time.Minute, false) })
	}
	settle := func(a fleet.Action) error {
		a.State, a.SettledAt = fleet.ActionSpared, t0
		return w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.Settle(w.ctx, a) })
	}
	first, second := action(1), action(1)
	second.Policy = "other"
	if err := intend(first); err != nil {
		t.Fatal(err)
	}
	conflict(t, "Intend beside an open one", intend(second))
	free := func(id int64) error {
		return w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.NoIntent(w.ctx, "acme", id) })
	}
	conflict(t, "NoIntent beside an open one", free(1))
	if err := free(2); err != nil {
		t.Errorf("NoIntent on another runner: %v", err)
	}
	if err := settle(first); err != nil {
		t.Fatal(err)
	}
	conflict(t, "Settle again", settle(first))
	if err := free(1); err != nil {
		t.Errorf("NoIntent after it was settled: %v", err)
	}
	if err := intend(second); err != nil {
		t.Errorf("Intend after it was settled: %v", err)
	}
}

func TestClaimersShareOpenIntents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const total = 30
	for i := range int64(total) {
		lease := time.Duration(0)
		if i == 0 {
			lease = time.Hour // its maker is at it
		}
		w.tx(func(tx *db.Tx) error { return tx.Intend(w.ctx, action(i+1), lease, false) })
	}
	seen := map[int64]int{}
	var mu sync.Mutex
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for {
				var claimed []fleet.Action
				err := w.db.InTx(w.ctx, func(tx *db.Tx) error {
					var err error
					claimed, err = tx.ClaimIntents(w.ctx, 4, time.Hour)
					return err
				})
				if err != nil || len(claimed) == 0 {
					return err
				}
				mu.Lock()
				for _, a := range claimed {
					seen[a.RunnerID]++
				}
				mu.Unlock()
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("intent on %d was claimed %d times", id, n)
		}
	}
	if len(seen) != total-1 || seen[1] != 0 {
		t.Errorf("%d claimed, want all but the one under its maker's lease", len(seen))
	}
}

func TestBadIdsAreErrorsBeforeAnythingIsStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bad := decision(1, fleet.VerdictKeep, "grace")
	bad.ID = "seven"
	badTrigger := decision(1, fleet.VerdictKeep, "grace")
	badTrigger.TriggerID = "seven"
	for _, d := range []fleet.Decision{bad, badTrigger} {
		err := w.db.InTx(w.ctx, func(tx *db.Tx) error { return tx.SaveDecisions(w.ctx, []fleet.Decision{d}) })
		if err == nil || !strings.Contains(err.Error(), `"seven"`) || errors.Is(err, fleet.ErrUnavailable) {
			t.Errorf("SaveDecisions = %v", err)
		}
	}
	w.want("0", `SELECT count(*) FROM api.decisions`)
}
