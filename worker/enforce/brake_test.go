package enforce_test

import (
	"slices"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker/enforce"
)

func (w *world) resume(allow int) {
	w.Helper()
	w.ok(w.db.InTx(w.ctx, func(tx *db.Tx) error {
		targets, err := tx.Resume(w.ctx, "reap", "acme", "looked at", allow)
		if len(targets) != 1 {
			w.Errorf("Resume reopened %v", targets)
		}
		return err
	}))
}

func (w *world) kill(ids []int64) {
	w.Helper()
	for _, id := range ids {
		w.ok(w.sim.Kill(acme, id))
	}
}

// wantHalts compares how many audit events, messages and policies tell of a
// halt.
func (w *world) wantHalts(want string) {
	w.Helper()
	w.want(want, `
		SELECT concat_ws(' ', (SELECT count(*) FROM api.audit WHERE code = 'PL220W'),
			(SELECT count(*) FROM muster.outbox WHERE subject = 'muster.v1.event.policy.halted'),
			(SELECT count(*) FROM api.policies WHERE state = 'halted'))`)
	gauges, err := w.db.Gauges(w.ctx)
	w.ok(err)
	var halted float64
	for _, g := range gauges {
		if g.Name == "policy_halted" {
			halted += g.Value
		}
	}
	w.want(want[len(want)-1:], `SELECT $1::float8`, halted)
}

// 400 of 1,000 runners go offline within a minute: nobody is deleted, neither
// they nor those that were due anyway; a person looks and resumes; whoever is
// truly dead is deleted in its time, and whoever came back is not.
func TestFleetThatGoesDarkHaltsUntilSomebodyLooked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "COUNT", "200", "HOURS", "150m"))
	ghosts := w.create(30, githubsim.RunnerSpec{})
	working := w.create(970, githubsim.RunnerSpec{Online: true})
	for range 6 {
		w.sync(30 * time.Minute)
		w.wantCounts("act 0 halt 0")
	}
	w.kill(working[:400])
	w.sync(time.Minute)
	w.wantCounts("act 0 halt 30 reason_brake 30")
	w.wantHalts("1 1 1")
	w.want("brake: 400 of 1000 runners went dark since 2026-03-01T15:01:00Z (400 offline); at most 20%, which is 200, may within 15m",
		`SELECT reason FROM api.policies`)
	w.want("brake", `SELECT payload->'details'->>'halted_by' FROM api.audit WHERE code = 'PL220W'`)
	w.want("true", `SELECT bool_and(reason = (SELECT reason FROM api.policies)) FROM api.audit WHERE code = 'PL220W'`)
	w.want("400 1000", `SELECT DISTINCT concat_ws(' ', evidence->>'newly_offline', evidence->>'newly_of') FROM api.decisions WHERE 'brake' = ANY (reasons)`)

	// It stays, whoever asks: another replica, after the window, with all back.
	for _, id := range working[:250] {
		w.ok(w.sim.Connect(acme, id))
	}
	w.sync(30 * time.Minute)
	w.enforcer = w.replica()
	w.wantCounts("act 0 halt 30 reason_halted 30")
	w.wantHalts("1 1 1")
	if n := len(w.deletes()); n != 0 {
		t.Errorf("%d deletions", n)
	}

	w.resume(0)
	w.wantCounts("act 30 done 30")
	for range 4 {
		w.sync(30 * time.Minute)
		w.wantCounts("act 0 halt 0")
	}
	w.sync(30 * time.Minute)
	w.wantCounts("act 150 done 150")
	want := append(ghosts, working[250:400]...)
	if got := slices.Sorted(slices.Values(w.deletes())); !slices.Equal(got, want) {
		t.Errorf("%d deletions, want %d, those that stayed dead: %v", len(got), len(want), got)
	}
	w.wantHalts("1 1 0")
	w.agree()
}

// An operator who resumes while it is still dark is believed, for what was on
// record then, and for nothing that comes after.
func TestResumeInTheDark(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"), sample("other"), sample("watch", "ENFORCEMENT", "audit"))
	ids := w.create(100, githubsim.RunnerSpec{Online: true})
	w.offline()
	w.kill(ids[:30])
	w.sync(time.Minute)
	w.run()
	w.run()
	w.wantHalts("2 2 2") // one for each policy that deletes, and none for one that only watches
	w.resume(0)
	w.sync(time.Minute)
	w.run()
	w.wantHalts("2 2 1")
	w.kill(ids[30:50]) // not more than a fifth
	w.sync(time.Minute)
	w.run()
	w.wantHalts("2 2 1")
	w.kill(ids[50:51]) // more, together
	w.sync(time.Minute)
	w.run()
	w.wantHalts("3 3 2")
	w.want("brake: 21 of 100 runners went dark since 2026-03-01T14:33:00Z (21 offline); at most 20%, which is 20, may within 15m",
		`SELECT reason FROM api.policies WHERE policy = 'reap'`)
}

// Whoever resumes after another halt was not told that the fleet is dark.
func TestResumeOfAnotherHaltIsNoLook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "COUNT", "5"))
	w.create(10, githubsim.RunnerSpec{})
	ids := w.create(90, githubsim.RunnerSpec{Online: true})
	w.offline()
	w.wantCounts("halt 10 reason_over_max 10")
	w.kill(ids[:40])
	w.sync(time.Minute)
	w.wantCounts("halt 10 reason_halted 10")
	w.resume(10)
	w.wantCounts("halt 10 reason_brake 10")
	w.resume(10)
	w.wantCounts("act 10 done 10")
	w.wantHalts("2 2 0")
}

// While no listing is complete no pass comes; what goes dark then counts in the
// first one after it, however long that took.
func TestDarknessBetweenTwoPassesCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"))
	ids := w.create(100, githubsim.RunnerSpec{Online: true})
	w.offline()
	w.wantCounts("act 0 halt 0")
	w.kill(ids[:30])
	w.sync(time.Minute)
	for range 3 {
		w.sync(15 * time.Minute)
	}
	w.run()
	w.wantHalts("1 1 1")
}

// The first day: 300 ghosts are a halt of the cap and not of the brake, one
// word lets them go, and then the cap holds again.
func TestFirstDay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap", "COUNT", "25"))
	ghosts := w.create(300, githubsim.RunnerSpec{})
	working := w.create(700, githubsim.RunnerSpec{Online: true})
	w.offline()
	w.wantCounts("act 0 halt 300 reason_over_max 300")
	w.wantHalts("1 1 1")
	w.resume(300)
	w.wantCounts("act 300 done 300")
	if got := slices.Sorted(slices.Values(w.deletes())); !slices.Equal(got, ghosts) {
		t.Errorf("deletions of %d runners, want the %d ghosts", len(got), len(ghosts))
	}
	w.kill(working[:51]) // the cap has 25 of them anew, and 25 of the 300 are left
	w.offline()
	w.wantCounts("act 0 halt 51 reason_over_max 51")
	w.want("51 runners are due, 50 allowed in 1h (count 25, 100% of 700 = 700, 0 acted so far, 25 by allowance)", `SELECT reason FROM api.policies`)
	w.wantHalts("2 2 1")
	w.agree()
}

func TestPlanTellsOfTheBrake(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sample("reap"))
	w.create(5, githubsim.RunnerSpec{})
	ids := w.create(45, githubsim.RunnerSpec{Online: true})
	w.offline()
	w.kill(ids[:20])
	w.sync(time.Minute)
	for brake, want := range map[fleet.Brake]string{
		{}:                                       "brake: 20 of 50 runners went dark since 2026-03-01T14:31:00Z (20 offline); at most 20%, which is 10, may within 15m",
		{Percent: 40, Min: 1, Window: time.Hour}: "",
	} {
		target := w.target()
		target.Brake = brake
		preview, err := enforce.Plan(w.ctx, enforce.NewReader(w.db), w.policies[0], target, w.clock())
		w.ok(err)
		if preview.Plan.Halt != want {
			t.Errorf("with %+v: Halt = %q, want %q", brake, preview.Plan.Halt, want)
		}
	}
	w.wantHalts("0 0 0") // it writes nothing
}
