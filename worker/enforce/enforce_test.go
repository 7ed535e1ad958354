package enforce_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/enforce"
)

func TestPassDeletesWhoIsDueAndNobodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"))
	due := w.create(5, githubsim.RunnerSpec{})
	kept := w.create(2, githubsim.RunnerSpec{Labels: []string{"Keep"}})
	w.create(3, githubsim.RunnerSpec{Online: true})
	busy := w.create(1, githubsim.RunnerSpec{Busy: true})
	w.offline()
	late := w.create(1, githubsim.RunnerSpec{})
	w.sync(time.Minute)
	w.ok(w.sim.Connect(acme, due[0])) // after the listing

	w.wantCounts("evaluated 12 matched 8 act 5 keep 3 halt 0 done 4 spared 1 reason_exempt 2 reason_busy 1")
	if got := slices.Sorted(slices.Values(w.deletes())); !slices.Equal(got, due[1:]) {
		t.Errorf("DELETEs of %v, want %v", got, due[1:])
	}
	w.agree()
	w.want("exempt 2, busy 1", `
		SELECT string_agg(reasons[1] || ' ' || n, ', ' ORDER BY n DESC) FROM (SELECT reasons, count(*) AS n FROM api.decisions WHERE verdict = 'keep' GROUP BY reasons) x`)
	w.want("enforce active true", `SELECT concat_ws(' ', enforcement, state, (last_run_at = $1 AND sha256 = $2)::text) FROM api.policies`,
		w.clock(), w.policies[0].SHA256)
	w.want("0", `SELECT count(*) FROM api.decisions WHERE runner_id = ANY($1) AND verdict = 'act'`, slices.Concat(kept, busy, late))
}

func TestUnchangedDecisionsAreStoredOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "GRACE", "24h"))
	ids := w.create(3, githubsim.RunnerSpec{})
	w.create(1, githubsim.RunnerSpec{Labels: []string{"keep"}})
	w.offline()
	stored := func(want string) {
		t.Helper()
		w.want(want, `SELECT string_agg(array_to_string(reasons, ',') || ' ' || n, '; ' ORDER BY reasons) FROM (SELECT reasons, count(*) AS n FROM api.decisions GROUP BY reasons) x`)
	}
	w.run()
	stored("exempt,grace 1; grace 3")
	for range 3 {
		w.sync(10 * time.Minute)
		w.run()
	}
	stored("exempt,grace 1; grace 3")

	// Back online: said once.
	w.ok(w.sim.Connect(acme, ids[0]))
	for range 3 {
		w.sync(10 * time.Minute)
		w.wantCounts("matched 3")
	}
	stored("exempt,grace 1; grace 3; not_matched 1")

	// Another text of the policy is another decision, for whom it matches.
	w.load(sample("reap", "GRACE", "25h"))
	w.run()
	stored("exempt,grace 2; grace 5; not_matched 2")
	w.run()
	stored("exempt,grace 2; grace 5; not_matched 2")
	w.want("keep", `SELECT DISTINCT verdict FROM api.decisions`)
}

func TestGraceCountsFromTheFirstMatchWithoutABreak(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "GRACE", "2h"))
	id := w.create(1, githubsim.RunnerSpec{})[0]
	w.create(9, githubsim.RunnerSpec{Online: true})
	w.offline()
	hour := func(want string) {
		t.Helper()
		for range 2 {
			w.sync(30 * time.Minute)
		}
		w.wantCounts(want)
	}
	since := func(at time.Time) {
		t.Helper()
		w.want("true", `SELECT since = $2 FROM muster.grace_mark WHERE runner_id = $1`, id, at)
	}
	w.wantCounts("reason_grace 1 act 0")
	began := w.clock()
	since(began)
	hour("reason_grace 1 act 0")
	since(began)

	// A moment online.
	w.ok(w.sim.Connect(acme, id))
	w.sync(time.Minute)
	w.wantCounts("matched 0")
	w.want("0", `SELECT count(*) FROM muster.grace_mark`)
	w.ok(w.sim.Kill(acme, id))
	w.sync(time.Minute)
	w.wantCounts("matched 0")
	w.offline()
	w.wantCounts("reason_grace 1 act 0")
	hour("reason_grace 1 act 0")

	// Another text.
	w.load(sample("reap", "GRACE", "1h"))
	w.wantCounts("reason_grace 1 act 0")
	since(w.clock())
	w.load(sample("reap", "GRACE", "2h"))
	w.wantCounts("reason_grace 1 act 0")
	since(w.clock())
	hour("reason_grace 1 act 0")
	hour("act 1 done 1")
	w.agree()
}

// A runner that was online for a moment between two passes seems to match
// without a break. Its grace begins when it went offline again (issue 10).
func TestGraceBeginsNoEarlierThanTheRunnerWentOffline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "HOURS", "10m", "GRACE", "16m"))
	id := w.create(1, githubsim.RunnerSpec{})[0]
	w.create(9, githubsim.RunnerSpec{Online: true})
	w.sync(time.Minute)
	w.sync(11 * time.Minute)
	w.wantCounts("reason_grace 1 act 0")
	w.ok(w.sim.Connect(acme, id))
	w.sync(time.Minute)
	w.ok(w.sim.Kill(acme, id))
	w.sync(time.Minute)
	dark := w.clock()
	w.sync(15 * time.Minute)
	w.wantCounts("reason_grace 1 act 0")
	w.want("true", `SELECT since = $1 FROM muster.grace_mark`, dark)
	w.sync(time.Minute)
	w.wantCounts("act 1 done 1")
	w.agree()
}

// A policy that was turned off does not know how runners fared meanwhile.
func TestGraceBeginsAnewAfterThePolicyWasOutOfForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "GRACE", "2h"))
	w.create(1, githubsim.RunnerSpec{})
	w.create(9, githubsim.RunnerSpec{Online: true})
	w.offline()
	w.wantCounts("reason_grace 1")
	on := w.policies
	w.policies = nil
	w.offline()
	w.offline()
	w.policies = on
	w.wantCounts("reason_grace 1 act 0")
	w.want("true", `SELECT since = $1 FROM muster.grace_mark`, w.clock())
	w.offline() // the pass comes after more than max_observation_gap again
	w.wantCounts("reason_grace 1 act 0")
	for range 4 {
		w.sync(30 * time.Minute)
		w.run()
	}
	w.want("1", `SELECT count(*) FROM api.actions WHERE state = 'done'`)
}

func TestMoreThanMaxHaltsAndResumeAllows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "COUNT", "4"))
	ids := w.create(10, githubsim.RunnerSpec{})
	w.offline()
	w.wantCounts("halt 10 act 0 done 0")
	w.wantCounts("halt 10 act 0 reason_halted 10")
	w.want("1 1 20 halted", `
		SELECT concat_ws(' ', (SELECT count(*) FROM api.audit WHERE code = 'PL220W'),
			(SELECT count(*) FROM muster.outbox WHERE subject = 'muster.v1.event.policy.halted'),
			(SELECT count(*) FROM api.decisions WHERE verdict = 'halt'), (SELECT state FROM api.policies))`)
	w.want("10 runners are due, 4 allowed in 1h (count 4, 100% of 10 = 10, 0 acted so far)", `SELECT reason FROM api.policies`)

	resume := func(allow int) {
		w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
			_, err := tx.Resume(w.ctx, "reap", "", "looked at", allow)
			return err
		}))
	}
	resume(5) // one too few
	w.wantCounts("halt 10 act 0 done 0")
	resume(6)
	w.wantCounts("halt 0 act 10 done 10")
	if got := slices.Sorted(slices.Values(w.deletes())); !slices.Equal(got, ids) {
		t.Errorf("DELETEs of %v, want %v", got, ids)
	}
	w.agree()
	w.want("4 6", `SELECT concat_ws(' ', count(*) FILTER (WHERE NOT allowed), count(*) FILTER (WHERE allowed)) FROM muster.action`)

	w.create(1, githubsim.RunnerSpec{})
	w.offline() // the window is over by then
	w.wantCounts("act 1 done 1")
}

func TestAuditAndReportActOnNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t,
		sample("watch", "ENFORCEMENT", "audit", "COUNT", "2"),
		sample("tell", "ACTION", "report", "grace: GRACE, ", "", "max: {count: COUNT, percent: 100}, ", "", "rate: RATE", "rate: 5/m"),
		sample("off", "ENFORCEMENT", "disabled"),
	)
	w.create(5, githubsim.RunnerSpec{})
	w.offline()
	for range 2 {
		w.run()
	}
	w.want("tell enforce act 5, watch audit halt 5", `
		SELECT string_agg(concat_ws(' ', policy, enforcement, verdict, n), ', ' ORDER BY policy)
		FROM (SELECT policy, enforcement, verdict, count(*) AS n FROM api.decisions GROUP BY 1, 2, 3) x`)
	w.want("tell active, watch active", `SELECT string_agg(policy || ' ' || state, ', ' ORDER BY policy) FROM api.policies`)
	w.want("0 0", `SELECT concat_ws(' ', (SELECT count(*) FROM api.actions), (SELECT count(*) FROM api.audit WHERE code LIKE 'PL%'))`)
	if n := len(w.sim.Log()); n != 5 { // their making
		t.Errorf("GitHub was asked: %d events", n)
	}
}

func TestTargetWithoutAnInventoryIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"))
	counts, err := w.enforcer.Handle(w.ctx, trigger())
	if err != nil || len(counts) != 1 || counts[fleet.CountNoInventory] != 1 {
		t.Errorf("Handle = %v, %v, want that one policy found no inventory", counts, err)
	}
	w.want("0", `SELECT count(*) FROM api.policies`)
	elsewhere := trigger()
	elsewhere.Name = "widgets"
	if counts, err := w.enforcer.Handle(w.ctx, elsewhere); err != nil || len(counts) != 0 {
		t.Errorf("Handle of a target that no policy covers = %v, %v", counts, err)
	}
}

func TestPauseThatGitHubAsksForEndsThePass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("first"), sample("second"))
	w.create(5, githubsim.RunnerSpec{})
	w.offline()
	w.sim.Intercept(func(*http.Request) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "1234")
			http.Error(rw, `{}`, http.StatusTooManyRequests)
		})
	})
	counts, err := w.enforcer.Handle(w.ctx, trigger())
	if want := worker.RetryAfter(1234*time.Second, errors.Unwrap(err)); err != want || !errors.Is(err, fleet.ErrRateLimited) {
		t.Errorf("Handle = %#v, want that it comes again after 1234 s", err)
	}
	if counts["failed"] != 1 || counts["act"] != 5 {
		t.Errorf("counts %v, want one failed of five", counts)
	}
	w.want("first failed rate_limited", `SELECT string_agg(concat_ws(' ', d.policy, a.state, a.reason), ', ') FROM api.actions a JOIN api.decisions d USING (decision_id)`)
}

func TestFaultOfOnePolicyDoesNotKeepTheOthersFromRunning(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("first"), sample("second", "ENFORCEMENT", "audit"))
	w.create(2, githubsim.RunnerSpec{})
	w.offline()
	w.sim.Down(true)
	_, err := w.enforcer.Handle(w.ctx, trigger())
	if !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Handle while GitHub is away = %v, want fleet.ErrUnavailable", err)
	}
	w.want("first failed 1, second 2", `SELECT concat_ws(', ',
		(SELECT 'first ' || state || ' ' || count(*) FROM api.actions GROUP BY state),
		(SELECT 'second ' || count(*) FROM api.decisions WHERE policy = 'second'))`)
	w.sim.Down(false)
	w.wantCounts("done 2")
	w.agree()
}

func TestStopEndsThePassBetweenTwoRunners(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"))
	w.create(5, githubsim.RunnerSpec{})
	w.offline()
	ctx, cancel := context.WithCancel(w.ctx)
	n := 0
	w.enforcer.Remover.Observe = func(fleet.Action) {
		if n++; n == 2 {
			cancel()
		}
	}
	counts, err := w.enforcer.Handle(ctx, trigger())
	if !errors.Is(err, context.Canceled) || counts["done"] != 2 {
		t.Errorf("Handle = %v, %v, want that it stopped after 2", counts, err)
	}
	w.agree()
}

func TestPolicyThatIsTurnedOffEndsThePass(t *testing.T) {
	t.Parallel()
	for name, next := range map[string][]string{"gone": nil, "disabled": {sample("reap", "ENFORCEMENT", "disabled")}, "changed": {sample("reap", "COUNT", "49")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sample("reap"))
			w.create(5, githubsim.RunnerSpec{})
			w.offline()
			w.enforcer.Remover.Observe = func(fleet.Action) { w.load(next...) }
			w.wantCounts("act 5 done 1")
			w.agree()
		})
	}
}

// A policy that is turned off while GitHub is asked for a runner deletes nobody:
// the DELETE was not sent yet.
func TestPolicyThatIsTurnedOffDuringTheLookDeletesNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"))
	w.create(5, githubsim.RunnerSpec{})
	w.offline()
	w.sim.Before(func(r githubsim.Request) {
		if r.Method == http.MethodGet && r.RunnerID != 0 {
			w.load(sample("reap", "ENFORCEMENT", "disabled"))
		}
	})
	w.wantCounts("act 5 done 0 spared 1")
	w.want("spared not_in_force", `SELECT state || ' ' || reason FROM api.actions`)
	w.agree()
}

func TestReplicasEnforceTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"), sample("other"))
	ids := w.create(30, githubsim.RunnerSpec{})
	w.offline()
	var g errgroup.Group
	for range 3 {
		replica := w.replica()
		g.Go(func() error {
			_, err := replica.Handle(w.ctx, trigger())
			return err
		})
	}
	w.ok(g.Wait())
	if got := slices.Sorted(slices.Values(w.deletes())); !slices.Equal(got, ids) {
		t.Errorf("DELETEs of %v, want each of %v once", got, ids)
	}
	w.agree()
	w.want("none", `SELECT coalesce(string_agg(reason, '; '), 'none') FROM api.audit WHERE code = 'PL220W'`)
}

// A deletion under way counts once: as due, not as acted on as well.
func TestPassBesideAnotherDoesNotHalt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "COUNT", "5"))
	ids := w.create(5, githubsim.RunnerSpec{})
	w.offline()
	beside := w.replica()
	began := false
	defer w.sim.Before(func(r githubsim.Request) {
		if r.Method != http.MethodDelete || began {
			return
		}
		began = true
		if counts, err := beside.Handle(w.ctx, trigger()); err != nil || counts["halt"] != 0 || counts["done"] != 4 {
			t.Errorf("pass beside another: %v, %v", counts, err)
		}
	})()
	w.wantCounts("act 5 halt 0 done 1")
	if got := slices.Sorted(slices.Values(w.deletes())); !slices.Equal(got, ids) {
		t.Errorf("DELETEs of %v, want each of %v once", got, ids)
	}
	w.agree()
}

func TestPlanIsWhatEnforcementDoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "RATE", "3/m"))
	w.create(5, githubsim.RunnerSpec{})
	w.create(1, githubsim.RunnerSpec{Labels: []string{"keep"}})
	w.create(2, githubsim.RunnerSpec{Online: true})
	if _, err := enforce.Plan(w.ctx, enforce.NewReader(w.db), w.policies[0], w.target(), w.clock()); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Plan without an inventory = %v, want fleet.ErrNotFound", err)
	}
	w.offline()
	// It writes nothing: it may not.
	u, err := url.Parse(w.url)
	w.ok(err)
	options := u.Query()
	options.Set("default_transaction_read_only", "on")
	u.RawQuery = options.Encode()
	reader, err := db.Open(w.ctx, u.String())
	w.ok(err)
	defer reader.Close()
	preview, err := enforce.Plan(w.ctx, enforce.NewReader(reader), w.policies[0], w.target(), w.clock())
	w.ok(err)

	planned := map[string]fleet.Verdict{}
	for d := range preview.Decisions() {
		planned[d.Name+" "+d.Reasons[0]] = d.Verdict
	}
	want := map[string]fleet.Verdict{
		"r1 matched": "act", "r2 matched": "act", "r3 matched": "act", "r4 rate": "keep", "r5 rate": "keep", "r6 exempt": "keep",
		"r7 not_matched": "keep", "r8 not_matched": "keep",
	}
	if diff := cmp.Diff(want, planned); diff != "" || preview.NotMatched != 2 {
		t.Errorf("plan with %d not matched (-want +got):\n%s", preview.NotMatched, diff)
	}
	counts := w.run()
	for key, n := range preview.Plan.Counts {
		if counts[key] != n {
			t.Errorf("%s: %d planned, %d enforced", key, n, counts[key])
		}
	}
	w.want("r1 r2 r3", `SELECT string_agg(name, ' ' ORDER BY name) FROM api.actions WHERE state = 'done'`)
}
