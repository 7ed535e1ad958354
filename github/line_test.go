package github

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
)

// spend uses n turns up, each answered at once.
func spend(t *testing.T, g *governor, o operation, n int, answer reply) {
	t.Helper()
	for i := range n {
		turn, err := g.enter(t.Context(), o)
		if err != nil {
			t.Fatalf("turn %d of %d: %v", i, n, err)
		}
		g.end(turn, answer)
	}
}

// plenty is an answer that shows a limit far from reached.
func plenty() reply { return says(5000, 4999, time.Now().Add(time.Hour), time.Now()) }

// refused is the error of a call that got no turn.
func refused(t *testing.T, g *governor, o operation) *Error {
	t.Helper()
	began := time.Now()
	_, err := g.enter(t.Context(), o)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, fleet.ErrRateLimited) || e.Status != 0 {
		t.Fatalf("%s: %v, want a refusal without a status", o.op, err)
	}
	if took := time.Since(began); took != 0 {
		t.Errorf("%s was refused after %s, want at once", o.op, took)
	}
	return e
}

func TestWhoIsWorthMoreGoesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		var held []turn
		for range mostInFlight {
			held = append(held, g.grant(g.call(minting)))
		}
		var mu sync.Mutex
		var order []string
		var callers sync.WaitGroup
		for _, o := range []operation{sweeping, syncing, minting, confirming, deleting, looking, minting} {
			callers.Go(func() {
				turn, err := g.enter(t.Context(), o)
				if err != nil {
					t.Errorf("%s: %v", o.op, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, o.priority().String())
				held = append(held, turn)
			})
			synctest.Wait() // until it is in the line
		}
		for {
			mu.Lock()
			if len(held) == 0 {
				break
			}
			first := held[0]
			held = held[1:]
			mu.Unlock()
			g.end(first, reply{status: http.StatusOK})
			synctest.Wait()
		}
		mu.Unlock()
		callers.Wait()
		want := []string{"token", "token", "safety", "safety", "confirm", "sync", "sweep"}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestPartOfWhatMayBeInFlightIsReserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		got := map[Priority]int{}
		var mu sync.Mutex
		for _, o := range []operation{sweeping, syncing, confirming, looking, minting} {
			for range 100 {
				callers.Go(func() {
					if _, err := g.enter(ctx, o); err == nil {
						mu.Lock()
						got[o.priority()]++
						mu.Unlock()
					}
				})
			}
			synctest.Wait()
		}
		want := map[Priority]int{PrioritySweep: 24, PrioritySync: 8, PrioritySafety: 8, PriorityToken: 8}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in flight by priority (-want +got):\n%s", diff)
		}
		cancel()
		callers.Wait()
		if len(g.line) != 0 || g.inFlight != mostInFlight {
			t.Errorf("%d wait and %d are in flight once all have gone", len(g.line), g.inFlight)
		}
	})
}

func TestPagesLeavePointsToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		began := time.Now()
		const pages = pointsPerMinute * 80 / 100
		spend(t, g, syncing, pages, plenty())
		if waited := time.Since(began); waited != 0 {
			t.Errorf("%d pages waited %s", pages, waited)
		}
		spend(t, g, operation{op: OpCanList, scope: acme, method: http.MethodGet}, 50, plenty()) // the same endpoint
		spend(t, g, minting, 10, plenty())
		if waited := time.Since(began); waited != 0 {
			t.Errorf("safety and tokens waited %s for pages", waited)
		}
		spend(t, g, syncing, 1, plenty())
		if waited := time.Since(began); waited != minute {
			t.Errorf("one page more waited %s, want %s", waited, minute)
		}
	})
}

func TestReplicasDivideTheMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &Client{governor: newGovernor(Config{})}
		g := c.governor
		c.Share(3)
		began := time.Now()
		const pages = pointsPerMinute * 80 / 100 / 3
		spend(t, g, syncing, pages, plenty())
		if waited := time.Since(began); waited != 0 {
			t.Errorf("%d pages waited %s", pages, waited)
		}
		spend(t, g, deleting, mutationsPerMinute*95/100/3, plenty())
		if e, want := refused(t, g, deleting), "; 3 replicas share what GitHub allows; wait 1m1s"; !strings.HasSuffix(e.Error(), want) {
			t.Errorf("error is %s, want %q at its end", e, want)
		}
		for processes, want := range map[int]int{0: 1, 1: 1, 16: 16, 1000: mostSharers} {
			if c.Share(processes); g.sharers != want {
				t.Errorf("of %d processes %d count, want %d", processes, g.sharers, want)
			}
		}
		// Those who are gone leave their part at once.
		c.Share(1)
		spend(t, g, syncing, pointsPerMinute*80/100-pages, plenty())
		if waited := time.Since(began); waited != 0 {
			t.Errorf("what the others have left waited %s", waited)
		}
	})
}

func TestAServerWithoutLimitsIsNotPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		began := time.Now()
		spend(t, g, syncing, 5000, reply{status: http.StatusOK})
		spend(t, g, deleting, 1000, reply{status: http.StatusNoContent})
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %s", waited)
		}
		for _, m := range g.routes {
			if len(m.spent) > 0 {
				t.Errorf("%d requests are remembered of a server without limits", len(m.spent))
			}
		}
	})
}

func TestUnpacedKeepsPausesOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{Unpaced: true})
		began := time.Now()
		last := says(5000, 0, time.Now().Add(time.Hour), time.Now())
		spend(t, g, syncing, 5000, last)
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %s", waited)
		}
		g.end(g.grant(g.call(syncing)), reply{status: http.StatusTooManyRequests, header: http.Header{"Retry-After": {"60"}}})
		if e := refused(t, g, minting); e.Wait != time.Minute {
			t.Errorf("wait %s, want a minute", e.Wait)
		}
	})
}

func TestBelowItsFloorACallIsRefusedInWords(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		reset := time.Now().Add(20 * time.Minute)
		left := func(n int) { spend(t, g, minting, 1, says(5000, n, reset, time.Now())) }
		left(480)
		want := "list runners of org/acme: rate limited: not sent: 480 of the hour's 5000 requests are left, " +
			"and the last 500 are kept for what matters more than a sync; wait 20m0s"
		if e := refused(t, g, syncing); e.Error() != want {
			t.Errorf("error is\n%s, want\n%s", e, want)
		}
		spend(t, g, confirming, 1, says(5000, 479, reset, time.Now()))
		left(0)
		want = "create registration token of org/acme: rate limited: not sent: 0 of the hour's 5000 requests are left; wait 20m0s"
		if e := refused(t, g, minting); e.Error() != want {
			t.Errorf("error is\n%s, want\n%s", e, want)
		}
		time.Sleep(20*time.Minute - 3*time.Second)
		began := time.Now()
		spend(t, g, syncing, 1, plenty())
		if waited := time.Since(began); waited != 3*time.Second {
			t.Errorf("waited %s for the rest of the hour, want 3 s", waited)
		}
	})
}

func TestAWaitIsNotBegunThatTheContextWouldEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		g.penalty.imposed(time.Now().Add(5 * time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := g.enter(ctx, looking); !errors.Is(err, fleet.ErrRateLimited) || time.Since(began) != 0 {
			t.Errorf("after %s: %v, want a refusal at once: 2 s are too few for an answer", time.Since(began), err)
		}
		// The look before a DELETE grows old while it waits.
		if e := refused(t, g, deleting); e.Wait != 5*time.Second {
			t.Errorf("the deletion is to wait %s, want 5 s", e.Wait)
		}
		spend(t, g, looking, 1, plenty())
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("waited %s, want 5 s", waited)
		}
	})
}

func TestWhoEndsWaitingLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		g.penalty.imposed(time.Now().Add(8 * time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for _, o := range operations {
			if o.method == http.MethodDelete {
				continue
			}
			callers.Go(func() {
				_, err := g.enter(ctx, o)
				if !errors.Is(err, context.Canceled) || !errors.Is(err, fleet.ErrUnavailable) {
					t.Errorf("%s: %v, want the end of the context", o.op, err)
				}
			})
		}
		synctest.Wait()
		if len(g.line) != 5 {
			t.Errorf("%d wait, want 5", len(g.line))
		}
		cancel()
		callers.Wait()
		if left := idle(g); left != "" {
			t.Error(left)
		}
	})
}

func TestWhatIsKeptTooLongByANewPauseIsSentAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		g.penalty.imposed(time.Now().Add(5 * time.Second))
		var callers sync.WaitGroup
		callers.Go(func() {
			began := time.Now()
			_, err := g.enter(t.Context(), minting)
			var e *Error
			if !errors.As(err, &e) || e.Wait != time.Minute || time.Since(began) != time.Second {
				t.Errorf("after %s: %v, want a refusal after 1 s that says a minute", time.Since(began), err)
			}
		})
		time.Sleep(time.Second)
		g.mu.Lock()
		g.penalty.imposed(time.Now().Add(time.Minute))
		g.dispatch(time.Now())
		g.mu.Unlock()
		callers.Wait()
	})
}

func TestDeletionsLeaveChangesToTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		spend(t, g, minting, 1, plenty())
		deleted := 1
		for ; deleted < mutationsPerHour; deleted++ {
			turn, err := g.enter(t.Context(), deleting)
			if err != nil {
				if e := refused(t, g, deleting); e.Wait > minute {
					break // the hour's are used up
				}
				time.Sleep(time.Second)
				deleted--
				continue
			}
			g.end(turn, plenty())
		}
		if want := mutationsPerHour * 95 / 100; deleted != want {
			t.Errorf("%d changes before deletions had to wait for the hour, want %d", deleted, want)
		}
		time.Sleep(minute)
		began := time.Now()
		spend(t, g, minting, mutationsPerMinute, plenty())
		if waited := time.Since(began); waited != 0 {
			t.Errorf("%d tokens waited %s", mutationsPerMinute, waited)
		}
	})
}

func TestReasonsOfWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		g.penalty.imposed(time.Now().Add(4 * time.Second))
		turn, err := g.enter(t.Context(), minting)
		if err != nil || turn.why != ReasonPause || turn.waited != 4*time.Second {
			t.Errorf("waited %s for %q, %v, want 4 s for a pause", turn.waited, turn.why, err)
		}
		g.penalty.imposed(time.Now().Add(time.Hour))
		turn, err = g.enter(t.Context(), minting)
		if err == nil || turn.why != ReasonPause || turn.waited != 0 || !strings.Contains(err.Error(), "GitHub asked for a pause") {
			t.Errorf("waited %s for %q, %v, want a refusal because of the pause", turn.waited, turn.why, err)
		}
	})
}

// A call that waits for the answer to another, which brings a pause, has waited
// for the pause.
func TestAWaitIsToldByWhatTookLongest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGovernor(Config{})
		g.penalty.imposed(time.Now().Add(time.Second))
		probe, err := g.enter(t.Context(), minting)
		if err != nil {
			t.Fatal(err)
		}
		var got turn
		done := make(chan error)
		go func() {
			var err error
			got, err = g.enter(t.Context(), minting)
			done <- err
		}()
		synctest.Wait()
		time.Sleep(200 * time.Millisecond)
		g.end(probe, refusal(http.StatusTooManyRequests, "Retry-After", "5"))
		if err := <-done; err != nil || got.why != ReasonPause || got.waited != 5200*time.Millisecond {
			t.Errorf("waited %s for %q, %v, want 5.2 s for a pause", got.waited, got.why, err)
		}
	})
}
