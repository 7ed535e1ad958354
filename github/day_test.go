package github

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

var daySeed = flag.Uint64("day.seed", 1, "of TestADayWithinTheLimits")

const (
	dayFleets  = 3
	dayRunners = 5_000                  // of each: a walk is 50 pages
	daySlowest = 200 * time.Millisecond // to GitHub, and back
	// For so long in the morning fleets are walked over without a rest.
	dayRush, dayRushFor = 9 * time.Hour, 20 * time.Minute
	// A burst of tokens is a pool that grows: no more than GitHub would make in
	// a minute.
	dayBurst = 60
)

// near takes requests to a simulator in the same virtual time.
type near struct {
	handler http.Handler
	wait    func()
}

func (n near) RoundTrip(r *http.Request) (*http.Response, error) {
	n.wait()
	w, arrived := httptest.NewRecorder(), r.Clone(r.Context())
	arrived.Body = http.NoBody
	n.handler.ServeHTTP(w, arrived)
	n.wait()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// day is a day of a demanding fleet on one credential, with the limits of
// github.com in force.
type day struct {
	*testing.T
	sim    *githubsim.Sim
	gh     *Client
	began  time.Time
	ids    [dayFleets][]int64
	scopes [dayFleets]fleet.Scope

	mu       sync.Mutex
	random   *rand.Rand
	synced   [dayFleets][]time.Time // when complete listings were there
	tokens   int
	slowest  time.Duration            // of them, from the moment at which GitHub was to be asked again
	waits    map[Reason]time.Duration // of tokens, the longest
	refusals int                      // that were injected
	confirms int
}

func (d *day) upTo(most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.random.Int64N(int64(most) + 1))
}

func (d *day) intn(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.IntN(n)
}

func newDay(t *testing.T) *day {
	d := &day{T: t, began: time.Now(), random: rand.New(rand.NewPCG(*daySeed, 0)), waits: map[Reason]time.Duration{}}
	const token = "ghp_day"
	d.sim = githubsim.New(githubsim.Config{Tokens: []string{token}, Seed: int64(*daySeed), Limits: githubsim.Usual})
	for i := range d.scopes {
		d.scopes[i] = fleet.Scope{Kind: fleet.ScopeOrg, Owner: fmt.Sprintf("org%d", i)}
		d.ok(d.sim.AddScope(d.scopes[i]))
		var err error
		d.ids[i], err = d.sim.CreateMany(d.scopes[i], dayRunners, func(n int) githubsim.RunnerSpec {
			return githubsim.RunnerSpec{Name: fmt.Sprintf("r%d", n), Online: true}
		})
		d.ok(err)
	}
	var err error
	d.gh, err = New(Config{
		APIURL: "http://github.test/api/v3", UserAgent: "muster/test",
		Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(token), nil },
		Waited: func(w Wait) {
			if w.Priority != PriorityToken {
				return
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.waits[w.Reason] = max(d.waits[w.Reason], w.Took)
		},
	})
	d.ok(err)
	d.gh.http.Transport = near{d.sim.Handler(), func() { time.Sleep(d.upTo(daySlowest)) }}
	return d
}

func (d *day) ok(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// over reports whether the day has ended.
func (d *day) over() bool { return time.Since(d.began) >= 24*time.Hour }

func (d *day) rush(at time.Time) bool {
	since := at.Sub(d.began)
	return since >= dayRush && since < dayRush+dayRushFor
}

// again does something until it works, as often as a trigger is delivered. Only
// a limit may be in its way.
func (d *day) again(what string, do func() error) {
	for {
		err := do()
		var e *Error
		switch {
		case err == nil:
			return
		case !errors.Is(err, fleet.ErrRateLimited) && !errors.Is(err, fleet.ErrUnavailable):
			d.Errorf("%s: %v", what, err)
			return
		case errors.As(err, &e):
			if what == "token" && e.Status == 0 && !strings.Contains(e.Detail, "asked for a pause") {
				d.Errorf("seed %d: %v", *daySeed, err)
			}
			time.Sleep(max(e.Wait, time.Second))
		}
	}
}

// sync walks over a fleet every ten minutes, and in the busy time without a rest,
// with what it kept of the walk before.
func (d *day) sync(i int) {
	var kept fleet.KeptListing
	for !d.over() {
		d.again("sync", func() error {
			l, err := d.gh.Runners(d.Context(), d.scopes[i], kept)
			if err != nil {
				return err
			}
			if !l.Complete {
				return l.Incomplete
			}
			kept = keep(kept, l)
			return nil
		})
		d.mu.Lock()
		d.synced[i] = append(d.synced[i], time.Now())
		d.mu.Unlock()
		if !d.rush(time.Now()) {
			time.Sleep(10*time.Minute + d.upTo(time.Minute))
		}
	}
}

// keep is what is kept after a complete walk.
func keep(kept fleet.KeptListing, l Listing) fleet.KeptListing {
	pages := map[int]fleet.Page{}
	for _, p := range append(kept.Pages, l.Fresh...) {
		pages[p.Number] = p
	}
	return fleet.KeptListing{Pages: slices.Collect(maps.Values(pages)), Proven: l.Digest}
}

// confirm asks for single runners, as many as a sync does that lacks them.
func (d *day) confirm() {
	for !d.over() {
		for range d.intn(40) {
			i := d.intn(dayFleets)
			id := d.ids[i][d.intn(dayRunners)]
			d.again("confirmation", func() error {
				_, err := d.gh.Confirm(d.Context(), d.scopes[i], id)
				return err
			})
			d.mu.Lock()
			d.confirms++
			d.mu.Unlock()
		}
		time.Sleep(d.upTo(10 * time.Minute))
	}
}

// mint asks for many tokens at once, now and then, and measures how long hosts
// wait that GitHub has not been asked to leave alone.
func (d *day) mint() {
	for !d.over() {
		var hosts sync.WaitGroup
		for range 1 + d.intn(dayBurst) {
			hosts.Go(func() {
				var since time.Time
				d.again("token", func() error {
					since = time.Now()
					_, err := d.gh.RegistrationToken(d.Context(), d.scopes[0])
					return err
				})
				d.mu.Lock()
				defer d.mu.Unlock()
				d.tokens++
				d.slowest = max(d.slowest, time.Since(since))
			})
		}
		hosts.Wait()
		time.Sleep(2*time.Minute + d.upTo(20*time.Minute))
	}
}

// spend is somebody else who spends most of an hour, three times.
func (d *day) spend() {
	for _, at := range []time.Duration{3 * time.Hour, 14 * time.Hour, 18 * time.Hour} {
		time.Sleep(at - time.Since(d.began))
		d.sim.Spend("ghp_day", 4400)
	}
}

// disturb changes the fleets, and has GitHub ask to be left alone.
func (d *day) disturb() {
	for !d.over() {
		for range 20 {
			i := d.intn(dayFleets)
			id := d.ids[i][d.intn(dayRunners)]
			_ = d.sim.Kill(d.scopes[i], id) // what is dead stays so
		}
		time.Sleep(d.upTo(50 * time.Minute))
		status := []int{429, 403, 503}[d.intn(3)]
		wait := time.Duration(1+d.intn(300)) * time.Second
		_, err := d.sim.Inject(githubsim.Fault{Kind: githubsim.FaultStatus, Status: status, Count: 1, RetryAfter: wait})
		d.ok(err)
		d.mu.Lock()
		d.refusals++
		d.mu.Unlock()
		time.Sleep(10 * time.Minute)
	}
}

// A day with the limits of github.com in force: syncs of 30,000 runners, more of
// them for a while than a minute's points allow, bursts of tokens, confirmations,
// somebody else who spends the budget, and pauses. GitHub refuses nothing that
// was muster's to know, nothing is sent in a pause, tokens do not wait for
// syncs, and syncs get on.
func TestADayWithinTheLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDay(t)
		var all sync.WaitGroup
		for i := range dayFleets {
			all.Go(func() { d.sync(i) })
		}
		all.Go(d.confirm)
		all.Go(d.mint)
		all.Go(d.disturb)
		all.Go(d.spend)
		all.Wait()
		d.judge()
	})
}

func (d *day) judge() {
	log := d.sim.Log()
	requests, charged, refused := 0, 0, 0
	for _, e := range log {
		if e.Method == "" {
			continue
		}
		requests++
		if e.Status != http.StatusNotModified {
			charged++
		}
		switch {
		case e.Status != http.StatusForbidden && e.Status != http.StatusTooManyRequests && e.Status < 500:
		case strings.Contains(e.Fault, string(githubsim.FaultStatus)):
			refused++
		default:
			d.Errorf("seed %d: GitHub had to refuse %s %s at %s with %d: %s", *daySeed, e.Method, e.Path, e.At.Sub(d.began), e.Status, e.Fault)
		}
	}
	for _, e := range githubsim.InPenalty(log, 2*daySlowest) { // what was on its way in both directions
		d.Errorf("seed %d: %s %s was sent at %s, in a pause told %s before", *daySeed, e.Method, e.Path, e.At.Sub(d.began), e.ToldFor)
	}
	d.Logf("%d requests, %d of them charged; %d pauses, as injected", requests, charged, refused)
	if refused < 20 || requests < 10_000 {
		d.Errorf("seed %d: the day is too calm to prove anything", *daySeed)
	}
	for i, at := range d.synced {
		longest, last, rushed := time.Duration(0), d.began, 0
		for _, done := range at {
			longest, last = max(longest, done.Sub(last)), done
			if d.rush(done) {
				rushed++
			}
		}
		d.Logf("%s: %d complete syncs, %d of them in the rush; at most %s from one to the next", d.scopes[i], len(at), rushed, longest)
		// The rest of an hour that somebody else has used up, a pause and the time
		// between two syncs.
		if longest > 80*time.Minute {
			d.Errorf("seed %d: %s was not synced for %s", *daySeed, d.scopes[i], longest)
		}
	}
	d.Logf("%d tokens, the slowest after %s; the longest waits: %v; %d confirmations", d.tokens, d.slowest, d.waits, d.confirms)
	if limit := pauseQueue + 2*daySlowest; d.waits[ReasonPause] > pauseQueue || d.slowest > limit {
		d.Errorf("seed %d: a token took %s, want at most the %s that a pause is waited for and an answer", *daySeed, d.slowest, pauseQueue)
	}
	for why, took := range d.waits {
		if why != ReasonPause && took > time.Second {
			d.Errorf("seed %d: a token waited %s for want of %s, want at most a second", *daySeed, took, why)
		}
	}
	if total := len(d.synced[0]) + len(d.synced[1]) + len(d.synced[2]); total < 3*24*3 {
		d.Errorf("seed %d: %d complete syncs in a day, want three an hour of each", *daySeed, total)
	}
}
