package inventory_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
	"github.com/muster-fleet/muster/worker"
	"github.com/muster-fleet/muster/worker/inventory"
)

// permanent reports whether the engine would give the trigger up at once: the
// errors it knows are values.
func permanent(err error) bool { return err == worker.Permanent(errors.Unwrap(err)) }

func TestCredentialThatIsRefusedIsNotedOnce(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(w *world) func(){
		"revoked": func(w *world) func() {
			w.sim.Revoke(credential)
			return func() { w.sim.Accept(credential) }
		},
		"forbidden": func(w *world) func() {
			w.sim.Grant(credential, acme, githubsim.AccessForbidden)
			return func() { w.sim.Grant(credential, acme, githubsim.AccessFull) }
		},
		"invisible": func(w *world) func() {
			w.sim.Grant(credential, acme, githubsim.AccessInvisible)
			return func() { w.sim.Grant(credential, acme, githubsim.AccessFull) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.create(2, githubsim.RunnerSpec{Online: true})
			w.sync()
			mend := refuse(w)
			for range 2 {
				w.pass(time.Minute)
				if err := w.try(); err == nil {
					t.Error("a sync with a refused credential succeeds")
				}
			}
			w.want("true", `SELECT credential_fault <> '' AND last_outcome = 'failed' FROM muster.target`)
			w.want("2", `SELECT count(*) FROM api.syncs WHERE outcome = 'failed' AND error <> '' AND runners = 0`)
			w.want("2", `SELECT count(*) FROM muster.outbox WHERE subject = 'muster.v1.event.sync.failed'`)
			w.removed("")
			mend()
			w.sync()
			w.sync()
			w.want("<null>", `SELECT credential_fault FROM muster.target`)
			w.want("TG302I TG300E TG301I", `SELECT string_agg(code, ' ' ORDER BY event_id) FROM api.audit`)
		})
	}
}

func TestOutageSaysNothingOfTheCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(2, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.sim.Down(true)
	w.pass(time.Minute)
	if err := w.try(); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("sync while GitHub is away = %v, want fleet.ErrUnavailable", err)
	}
	w.sim.Down(false)
	w.want("failed 0", `SELECT concat_ws(' ', (SELECT last_outcome FROM muster.target), (SELECT count(*) FROM api.audit WHERE code LIKE 'TG30_E'))`)
	w.wantSync("complete +0 ~0 -0")
}

func TestEmptyAnswersAreNoFleet(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing": "", "an object": "{}", "null": "null", "a list": "[]", "no runners": `{"total_count":0}`, "a page of HTML": "<html>",
		"a broken one": `{"total_count":1,"runners":[{`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.create(12, githubsim.RunnerSpec{Online: true})
			w.sync()
			w.sim.Intercept(func(*http.Request) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Content-Type", "application/json")
					_, _ = rw.Write([]byte(body)) // a client that is gone notices
				})
			})
			w.pass(time.Minute)
			if err := w.try(); !errors.Is(err, fleet.ErrMalformed) {
				t.Errorf("sync = %v, want fleet.ErrMalformed", err)
			}
			w.want("failed 12", `SELECT concat_ws(' ', (SELECT last_outcome FROM muster.target), (SELECT count(*) FROM api.runners WHERE removed_at IS NULL))`)
			w.missing("")
		})
	}
}

func TestPauseThatGitHubAsksForIsTheTriggers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sim.Intercept(func(*http.Request) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "1234")
			http.Error(rw, `{"message":"slow down"}`, http.StatusTooManyRequests)
		})
	})
	err := w.try()
	if !errors.Is(err, fleet.ErrRateLimited) {
		t.Fatalf("sync = %v, want fleet.ErrRateLimited", err)
	}
	if want := worker.RetryAfter(1234*time.Second, errors.Unwrap(err)); err != want {
		t.Errorf("sync = %#v, want %#v", err, want)
	}
	w.want("0", `SELECT count(*) FROM api.audit WHERE code = 'TG300E'`)
}

func TestTargetThatIsAnotherIsGivenUp(t *testing.T) {
	t.Parallel()
	other := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "other"}
	w := newWorld(t, other)
	w.create(1, githubsim.RunnerSpec{})
	w.sync()
	w.syncer.Targets = func() map[string]inventory.Target {
		moved := w.target(other)
		moved.Name = "acme"
		return map[string]inventory.Target{"acme": moved}
	}
	before := len(w.sim.Log())
	err := w.try()
	if !errors.Is(err, fleet.ErrConflict) || !permanent(err) {
		t.Errorf("sync of another scope under a known name = %v, want a permanent conflict", err)
	}
	if asked := len(w.sim.Log()) - before; asked != 0 {
		t.Errorf("GitHub was asked %d times", asked)
	}
	w.want("1", `SELECT count(*) FROM api.syncs`)

	_, err = w.syncer.Handle(w.ctx, trigger("nosuch"))
	if err == nil || !permanent(err) {
		t.Errorf("sync of a target that is not configured = %v, want a permanent error", err)
	}
}

func TestWalkThatEndsAfterAYoungerOneChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(3, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.sync()

	// The old walk has its answer and is held up while a younger one sees
	// something else.
	held, release := make(chan struct{}), make(chan struct{})
	var walks atomic.Int64
	w.syncer.Targets = func() map[string]inventory.Target {
		target := w.target(acme)
		return map[string]inventory.Target{"acme": {Target: target.Target, GitHub: slow{w.gh, func() {
			if walks.Add(1) == 1 {
				close(held)
				<-release
			}
		}}}}
	}
	w.pass(time.Minute)
	var g errgroup.Group
	g.Go(w.try)
	<-held
	w.ok(w.sim.Kill(acme, ids[0]))
	w.wantSync("complete +0 ~1 -0")
	w.exec(`DELETE FROM muster.outbox`)
	row := w.value(`SELECT md5(string_agg(r::text, ',')) || md5((SELECT t::text FROM muster.target t)) FROM muster.runner r`)
	close(release)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.want(row, `SELECT md5(string_agg(r::text, ',')) || md5((SELECT t::text FROM muster.target t)) FROM muster.runner r`)
	w.want("partial a walk that began later was recorded first", `SELECT outcome || ' ' || error FROM api.syncs ORDER BY sync_id DESC LIMIT 1 OFFSET 1`)
	w.want("0", `SELECT count(*) FROM muster.outbox`)
}

// slow holds a listing up after GitHub has answered.
type slow struct {
	*github.Client
	hold func()
}

func (s slow) Runners(ctx context.Context, scope fleet.Scope, kept fleet.KeptListing) (github.Listing, error) {
	l, err := s.Client.Runners(ctx, scope, kept)
	s.hold()
	return l, err
}

func TestSyncsAtOnceAreOneAfterTheOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(300, githubsim.RunnerSpec{Online: true})
	var g errgroup.Group
	for range 6 {
		g.Go(func() error {
			w.pass(time.Second)
			return w.try()
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.want("300 6", `SELECT concat_ws(' ', (SELECT count(*) FROM api.runners), (SELECT count(*) FROM api.syncs))`)
	w.want("0", `SELECT count(*) FROM api.runner_history`)
	w.want("300", `SELECT sum(added) FROM api.syncs`)
}

func TestShutdownInTheMiddleOfAWalkIsNoFaultOfGitHubs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(3, githubsim.RunnerSpec{Online: true})
	w.sync()
	ctx, cancel := context.WithCancel(w.ctx)
	w.sim.Intercept(func(*http.Request) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done() // the client has hung up
		})
	})
	w.pass(time.Minute)
	if _, err := w.syncer.Handle(ctx, trigger("acme")); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted sync = %v, want that it was canceled", err)
	}
	w.want("1 complete", `SELECT concat_ws(' ', (SELECT count(*) FROM api.syncs), (SELECT last_outcome FROM muster.target))`)
}

// What GitHub has answered is recorded even while muster is being stopped.
func TestShutdownAfterAWalkLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.create(3, githubsim.RunnerSpec{Online: true})
	w.sync()
	w.ok(w.sim.Kill(acme, ids[0]))
	ctx, cancel := context.WithCancel(w.ctx)
	target := w.target(acme)
	w.syncer.Targets = func() map[string]inventory.Target {
		return map[string]inventory.Target{"acme": {Target: target.Target, GitHub: slow{w.gh, cancel}}}
	}
	w.pass(time.Minute)
	if _, err := w.syncer.Handle(ctx, trigger("acme")); err != nil {
		t.Error(err)
	}
	w.want("1", `SELECT count(*) FROM api.runner_history WHERE change = 'offline'`)
}

func TestPostgresAwayMeansNoWalk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	closed, err := db.Open(w.ctx, "postgres://muster@127.0.0.1:1/muster?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	w.syncer.DB, w.syncer.Now = closed, closed.Now
	if err := w.try(); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("sync without Postgres = %v, want fleet.ErrUnavailable", err)
	}
	if n := len(w.sim.Log()); n != 0 {
		t.Errorf("GitHub was asked %d times", n)
	}
}
