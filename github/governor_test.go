package github

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-fleet/muster/fleet"
)

var acme = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}

// operations are one of each priority, and the DELETE.
var operations = []operation{
	{op: OpDownloads, scope: acme, method: http.MethodGet},
	{op: OpRunners, scope: acme, method: http.MethodGet},
	{op: OpConfirm, scope: acme, method: http.MethodGet},
	{op: OpRunner, scope: acme, method: http.MethodGet},
	{op: OpRemoveRunner, scope: acme, method: http.MethodDelete},
	{op: OpRegistrationToken, scope: acme, method: http.MethodPost},
}

var (
	sweeping, syncing, confirming = operations[0], operations[1], operations[2]
	looking, deleting, minting    = operations[3], operations[4], operations[5]
)

// server is GitHub with its limits as it documents them, to the letter: it
// counts a request at a moment between its sending and its answer.
type server struct {
	limit    int // of an hour; 0: it has no limits at all
	replicas int // that use the credential

	mu        sync.Mutex
	remaining int
	reset     time.Time
	heard     time.Time          // the reset that the newest answer to arrive has named
	taken     map[string][]spent // points by route, and changes
	inFlight  int
	uncounted int       // in flight and not counted yet
	last      time.Time // when something was sent,
	sentThen  []Priority
	told      time.Time // when an answer arrived that begins or prolongs a pause
	until     time.Time // and the end of that
	faults    []string
	sent      map[Priority]int
}

func newServer(limit, replicas int) *server {
	return &server{limit: limit, replicas: replicas, taken: map[string][]spent{}, sent: map[Priority]int{}}
}

func (s *server) fault(format string, args ...any) {
	if s.faults = append(s.faults, fmt.Sprintf(format, args...)); len(s.faults) > 5 {
		s.faults = s.faults[:5]
	}
}

// count adds points and wants no window of a minute to hold more than most.
func (s *server) count(what string, points, most int, window time.Duration) {
	now, sum := time.Now(), points
	s.taken[what] = append(s.taken[what], spent{now, points})
	all := s.taken[what]
	for i := len(all) - 2; i >= 0 && all[i].at.After(now.Add(-window)); i-- {
		sum += all[i].points
	}
	if sum > most {
		s.fault("%d of %d %s within %s", sum, most, what, window)
	}
}

// arrive is a request that is sent now and counted after some time.
func (s *server) arrive(o operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Before(s.until) && now.After(s.told) { // of one moment, the order is not known
		s.fault("%s was sent %s before the end of a pause", o.op, time.Until(s.until))
	}
	s.inFlight++
	s.sent[o.priority()]++
	s.uncounted++
	if s.replicas == 1 && s.inFlight > mostInFlight || s.inFlight > 100 {
		s.fault("%d in flight with %s", s.inFlight, o.op)
	}
	now, before := time.Now(), 0
	if !now.Equal(s.last) {
		s.last, s.sentThen = now, nil
	}
	for _, p := range s.sentThen {
		if p > o.priority() {
			before++ // it may have had its turn after this one
		}
	}
	s.sentThen = append(s.sentThen, o.priority())
	if s.replicas > 1 {
		return // they do not know of each other what is under way
	}
	left := s.remaining - s.uncounted + before
	if floor := s.limit * ranks[o.priority()].floor / 100; s.heard.Equal(s.reset) && now.Before(s.reset) && left < floor {
		s.fault("%d of %d left after %s", left, s.limit, o.op)
	}
}

// answer counts the request and answers it. penalty: it is refused for so long;
// negative: without saying for how long.
func (s *server) answer(o operation, penalty time.Duration) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.uncounted--
	got := reply{status: http.StatusOK, header: http.Header{"Date": {now.UTC().Format(http.TimeFormat)}}}
	if penalty != 0 {
		got.status = http.StatusTooManyRequests
		if penalty > 0 {
			got.header.Set("Retry-After", strconv.Itoa(int(penalty/time.Second)))
		}
	}
	if s.limit == 0 {
		return got
	}
	if !now.Before(s.reset) {
		s.remaining, s.reset = s.limit, now.Add(time.Hour).Truncate(time.Second)
	}
	points := 5
	if o.method == http.MethodGet {
		points = 1
	} else {
		s.count("changes", 1, 80, time.Minute)
	}
	s.count("points of "+o.route(), points, 900, time.Minute)
	s.remaining--
	if s.remaining < 0 && s.replicas == 1 {
		s.fault("%s beyond the limit of %d", o.op, s.limit)
	}
	got.header.Set("X-RateLimit-Limit", strconv.Itoa(s.limit))
	got.header.Set("X-RateLimit-Remaining", strconv.Itoa(max(s.remaining, 0)))
	got.header.Set("X-RateLimit-Reset", strconv.FormatInt(s.reset.Unix(), 10))
	return got
}

// arrived is the moment at which the client has the answer.
func (s *server) arrived(got reply, penalty time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	if r, ok := rateOf(got.header); ok && time.Unix(r.reset, 0).After(s.heard) {
		s.heard = time.Unix(r.reset, 0)
	}
	if penalty < 0 {
		penalty = time.Minute
	}
	if until := time.Now().Add(penalty); penalty > 0 && until.After(s.until) {
		s.told, s.until = time.Now(), until
	}
}

// request has the governor's leave for an operation and sends it: it takes before
// until GitHub counts it, and after until the answer is there.
func request(ctx context.Context, g *governor, s *server, o operation, before, after, penalty time.Duration) error {
	t, err := g.enter(ctx, o)
	if err != nil {
		return err
	}
	if !g.start(&t) {
		g.unused(t)
		return errors.New("a pause began between two statements")
	}
	s.arrive(o)
	time.Sleep(before)
	got := s.answer(o, penalty)
	time.Sleep(after)
	s.arrived(got, penalty)
	g.end(t, got)
	return nil
}

// idle is empty where nothing is left of requests that have ended.
func idle(g *governor) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	inFlight := g.inFlight + g.budget.inFlight + g.minute.inFlight + g.hour.inFlight + len(g.line)
	for _, m := range g.routes {
		inFlight += m.inFlight
	}
	if inFlight != 0 {
		return fmt.Sprintf("what has ended is still counted: %+v, line of %d", g.budget, len(g.line))
	}
	return ""
}

// load is what a client may have to do.
type load struct {
	limit                int // of the server
	asks                 []operation
	replicas             int // with a governor each
	callers, calls       int // of each
	slowest, pause       time.Duration
	refusals, impatience int // in a thousand requests
	seed                 uint64
}

// run lets a load meet a server, in virtual time, and returns what went wrong.
func (l load) run(t *testing.T) (faults []string) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(l.limit, l.replicas)
		var governors []*governor
		for range l.replicas {
			c := &Client{governor: newGovernor(Config{})}
			c.Share(l.replicas)
			governors = append(governors, c.governor)
		}
		var callers sync.WaitGroup
		for caller := range l.callers {
			random := rand.New(rand.NewPCG(l.seed, uint64(caller)))
			upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d) + 1)) }
			callers.Go(func() {
				for range l.calls {
					penalty := time.Duration(0)
					if random.IntN(1000) < l.refusals {
						penalty = time.Duration(random.IntN(120)-1) * time.Second
					}
					ctx, cancel := context.WithCancel(t.Context())
					if random.IntN(1000) < l.impatience {
						ctx, cancel = context.WithTimeout(t.Context(), upTo(20*time.Second))
					}
					// That it may be refused a turn is part of the test.
					_ = request(ctx, governors[caller%l.replicas], s, l.asks[random.IntN(len(l.asks))], upTo(l.slowest), upTo(l.slowest), penalty)
					cancel()
					time.Sleep(upTo(l.pause))
				}
			})
		}
		callers.Wait()
		faults = s.faults
		for _, g := range governors {
			if left := idle(g); left != "" {
				faults = append(faults, left)
			}
		}
	})
	return faults
}

func TestTheGovernorKeepsEveryLimit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := load{
			replicas:   rapid.SampledFrom([]int{1, 1, 2, 3, 7}).Draw(rt, "replicas"),
			limit:      rapid.SampledFrom([]int{0, 60, 500, 5000, 100_000}).Draw(rt, "limit"),
			asks:       rapid.SliceOfN(rapid.SampledFrom(operations), 1, 8).Draw(rt, "operations"),
			callers:    rapid.IntRange(1, 60).Draw(rt, "callers"),
			calls:      rapid.IntRange(1, 100).Draw(rt, "calls of each"),
			slowest:    time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(rt, "slowest")),
			pause:      time.Duration(rapid.Int64Range(0, int64(3*time.Minute)).Draw(rt, "pause between calls")),
			refusals:   rapid.IntRange(0, 200).Draw(rt, "refusals in a thousand"),
			impatience: rapid.IntRange(0, 200).Draw(rt, "impatient in a thousand"),
			seed:       rapid.Uint64().Draw(rt, "seed"),
		}
		if l.replicas > 1 {
			l.refusals = 0 // pauses are shared elsewhere
		}
		for _, fault := range l.run(t) {
			rt.Error(fault)
		}
	})
}
