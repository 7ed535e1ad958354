package github_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

// clock is a time that moves when somebody sleeps.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(_ context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	return nil
}

// limited is a simulator with limits and a client, in one time.
func limited(t *testing.T, l githubsim.Limits, change ...func(*github.Config)) (*githubsim.Sim, *github.Client, *clock) {
	t.Helper()
	at := newClock()
	sim, url := simulator(t, func(c *githubsim.Config) { c.Limits, c.Now = l, at.Now })
	change = append(change, func(c *github.Config) { c.Now, c.Sleep = at.Now, at.Sleep })
	return sim, client(t, url, change...), at
}

func TestNothingIsSentDuringAPause(t *testing.T) {
	t.Parallel()
	var paused []time.Time
	sim, gh, at := limited(t, githubsim.Usual, func(c *github.Config) {
		c.OnPause = func(until time.Time, _ string) { paused = append(paused, until) }
	})
	ids := fill(t, sim, org, 1)
	began := at.Now()
	sim.Penalise(credential, 5*time.Minute)
	err := gh.CanList(t.Context(), org)
	wantKind(t, "the refusal", err, fleet.ErrRateLimited)
	if e := details(t, "the refusal", err); e.Status != http.StatusForbidden || e.Wait != 5*time.Minute {
		t.Errorf("status %d, wait %s, want 403 and 5 minutes", e.Status, e.Wait)
	}
	if diff := cmp.Diff([]time.Time{began.Add(5 * time.Minute)}, paused); diff != "" {
		t.Errorf("OnPause (-want +got):\n%s", diff)
	}
	before := len(sim.Log())
	for name, call := range map[string]func() error{
		"a token":    func() error { _, err := gh.RegistrationToken(t.Context(), org); return err },
		"a deletion": func() error { return gh.RemoveRunner(t.Context(), org, ids[0], nil) },
		"a listing":  func() error { _, err := gh.Runners(t.Context(), org, fleet.KeptListing{}); return err },
	} {
		err := call()
		wantKind(t, name, err, fleet.ErrRateLimited)
		if e := details(t, name, err); e.Status != 0 || e.Wait != 5*time.Minute {
			t.Errorf("%s: status %d, wait %s, want none and 5 minutes", name, e.Status, e.Wait)
		}
	}
	if asked := len(sim.Log()) - before; asked != 0 {
		t.Errorf("GitHub was asked %d times during the pause", asked)
	}
	_ = at.Sleep(t.Context(), 5*time.Minute)
	if err := gh.RemoveRunner(t.Context(), org, ids[0], nil); err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

func TestAPauseOfSomebodyElseIsKept(t *testing.T) {
	t.Parallel()
	sim, gh, at := limited(t, githubsim.Limits{}, func(c *github.Config) {
		c.OnPause = func(time.Time, string) { t.Error("OnPause hears of what it may have told") }
	})
	until := at.Now().Add(time.Minute)
	gh.Pause(until)
	gh.Pause(until.Add(-30 * time.Second))
	wantKind(t, "paused", gh.CanList(t.Context(), org), fleet.ErrRateLimited)
	if diff := cmp.Diff(github.Limits{Paused: until}, gh.Limits()); diff != "" || len(sim.Log()) != 0 {
		t.Errorf("%d requests; limits (-want +got):\n%s", len(sim.Log()), diff)
	}
	_ = at.Sleep(t.Context(), 55*time.Second)
	if err := gh.CanList(t.Context(), org); err != nil { // 5 s are waited
		t.Error(err)
	}
	if !at.Now().Equal(until) {
		t.Errorf("sent at %s, want %s", at.Now(), until)
	}
}

func TestAnExhaustedHourStopsTheNextRequest(t *testing.T) {
	t.Parallel()
	sim, gh, at := limited(t, githubsim.Limits{Primary: 3})
	for n := range 3 {
		if _, err := gh.RegistrationToken(t.Context(), org); err != nil {
			t.Fatalf("token %d: %v", n, err)
		}
	}
	_, err := gh.RegistrationToken(t.Context(), org)
	wantKind(t, "a fourth token", err, fleet.ErrRateLimited)
	if got := gh.Limits(); got.Limit != 3 || got.Hourly != 3 || got.Remaining != 0 || got.Reset.Sub(at.Now()) != time.Hour {
		t.Errorf("limits are %+v, want none left of 3 for an hour", got)
	}
	if asked := len(sim.Log()); asked != 3 {
		t.Errorf("GitHub was asked %d times, want 3", asked)
	}
	_ = at.Sleep(t.Context(), time.Hour)
	if got := gh.Limits(); got.Limit != 0 || got.Hourly != 3 {
		t.Errorf("after the hour limits are %+v, want that nothing is known", got)
	}
	if _, err := gh.RegistrationToken(t.Context(), org); err != nil {
		t.Errorf("in the next hour: %v", err)
	}
}

func TestWaitedHearsOfWaits(t *testing.T) {
	t.Parallel()
	var waits []github.Wait
	_, gh, at := limited(t, githubsim.Limits{}, func(c *github.Config) {
		c.Waited = func(w github.Wait) { waits = append(waits, w) }
	})
	gh.Pause(at.Now().Add(4 * time.Second))
	if err := gh.CanList(t.Context(), org); err != nil {
		t.Fatal(err)
	}
	gh.Pause(at.Now().Add(time.Hour))
	wantKind(t, "paused", gh.CanList(t.Context(), org), fleet.ErrRateLimited)
	want := []github.Wait{
		{Op: github.OpCanList, Scope: org, Priority: github.PrioritySafety, Reason: github.ReasonPause, Took: 4 * time.Second, Sent: true},
		{Op: github.OpCanList, Scope: org, Priority: github.PrioritySafety, Reason: github.ReasonPause},
	}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

func TestACredentialThatIsNotThereTakesNoTurn(t *testing.T) {
	t.Parallel()
	var waits atomic.Int64
	_, url := simulator(t)
	lost := errors.New("no such file")
	gh := client(t, url, func(c *github.Config) {
		c.Token = func(context.Context) (fleet.Secret, error) { return fleet.Secret{}, lost }
		c.Waited = func(github.Wait) { waits.Add(1) }
	})
	for range 200 { // more than may be in flight
		if err := gh.CanList(t.Context(), org); !errors.Is(err, lost) {
			t.Fatal(err)
		}
	}
	if waits.Load() != 0 {
		t.Errorf("%d waits for requests that never were", waits.Load())
	}
}

func TestAPauseThatBeginsWhileTheCredentialIsGot(t *testing.T) {
	t.Parallel()
	var gh *github.Client
	var once sync.Once
	at := newClock()
	sim, url := simulator(t)
	gh = client(t, url, func(c *github.Config) {
		c.Now, c.Sleep = at.Now, at.Sleep
		c.Token = func(context.Context) (fleet.Secret, error) {
			once.Do(func() { gh.Pause(at.Now().Add(time.Minute)) })
			return fleet.NewSecret(credential), nil
		}
	})
	wantKind(t, "paused", gh.CanList(t.Context(), org), fleet.ErrRateLimited)
	if n := len(sim.Log()); n != 0 {
		t.Errorf("GitHub was asked %d times", n)
	}
}

func TestA401IsSentAgainInATurnOfItsOwn(t *testing.T) {
	t.Parallel()
	_, gh, _ := limited(t, githubsim.Limits{Primary: 10}, func(c *github.Config) {
		current := "ghp_revoked"
		c.Token = func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(current), nil }
		c.Refused = func(fleet.Secret) bool { current = credential; return true }
	})
	if err := gh.CanList(t.Context(), org); err != nil {
		t.Fatal(err)
	}
	want := github.Limits{Limit: 10, Remaining: 9, Hourly: 10}
	if diff := cmp.Diff(want, gh.Limits(), cmpopts.IgnoreFields(github.Limits{}, "Reset")); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}
