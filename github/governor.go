package github

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// GitHub's secondary limits on a credential, a little short of what it
// documents, over a little more than its minute and hour: what else uses the
// credential is not seen here.
const (
	minute = 61 * time.Second
	hour   = time.Hour + time.Second

	pointsPerMinute = 870 // of 900, for each endpoint: 1 for a GET, 5 for any other method
	// GitHub limits what creates content to 80 a minute and 500 an hour and does
	// not say whether tokens and deletions are among it.
	mutationsPerMinute = 76
	mutationsPerHour   = 480
)

// governor decides when a client's requests are sent, so that GitHub need not
// refuse any: the most important one first, as many as the limits allow, none
// during a pause. A server that shows no limits is sent as many at once as are
// allowed in flight.
//
// Its parts are pure: they are told what time it is. The mutex guards all that
// follows it.
type governor struct {
	now     func() time.Time
	sleep   func(context.Context, time.Duration) error
	onPause func(until time.Time, reason string)
	unpaced bool

	mu       sync.Mutex
	budget   budget
	penalty  penalty
	inFlight int
	pacing   bool // the server has shown that it has limits
	sharers  int  // processes that spend of the same limits, this one included
	routes   map[route]*meter
	minute   *meter // mutations
	hour     *meter // mutations, as far as they are deletions
	line     line
	passes   uint64 // over the line
}

// route is an endpoint as GitHub counts requests.
type route struct {
	kind fleet.ScopeKind
	name string
}

func newGovernor(c Config) *governor {
	g := &governor{
		now: c.Now, sleep: c.Sleep, onPause: c.OnPause, unpaced: c.Unpaced,
		routes: map[route]*meter{}, sharers: 1,
		minute: &meter{what: "changes a minute", window: minute, limit: mutationsPerMinute},
		hour:   &meter{what: "changes an hour", window: hour, limit: mutationsPerHour},
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.sleep == nil {
		g.sleep = sleep
	}
	if g.onPause == nil {
		g.onPause = func(time.Time, string) {}
	}
	return g
}

// sleep waits until the time has passed or ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// charge is what an operation takes of one meter.
type charge struct {
	meter  *meter
	points int
}

// call is an operation in the terms of the governor.
type call struct {
	op       operation
	priority Priority
	charges  [3]charge // those without a meter are none
}

// call is to be called with the mutex held.
func (g *governor) call(o operation) call {
	c := call{op: o, priority: o.priority()}
	at := route{o.scope.Kind, o.route()}
	m := g.routes[at]
	if m == nil {
		m = &meter{what: "points a minute of this endpoint", window: minute, limit: pointsPerMinute}
		g.routes[at] = m
	}
	if o.method == http.MethodGet {
		c.charges[0] = charge{m, 1}
		return c
	}
	c.charges = [3]charge{{m, 5}, {g.minute, 1}, {g.hour, 1}}
	return c
}

// turn is the leave to send one request. It ends with end or unused.
type turn struct {
	call
	waited time.Duration
	why    Reason // it waited for; empty: it did not
	// What the parts of the governor had counted when it was sent.
	episode, silences uint64
}

// grant lets a call go. The mutex is held.
func (g *governor) grant(c call) turn {
	g.inFlight++
	g.budget.send()
	for _, charge := range c.charges {
		if charge.meter != nil {
			charge.meter.send(charge.points)
		}
	}
	return turn{call: c, episode: g.penalty.episode, silences: g.budget.silences}
}

// start is called right before the request is sent, and reports whether it may
// be: a pause may have begun since the turn was granted.
func (g *governor) start(t *turn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.episode, t.silences = g.penalty.episode, g.budget.silences
	return !g.now().Before(g.penalty.until)
}

// unused takes a turn back in which nothing was sent.
func (g *governor) unused(t turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	g.budget.unsend()
	for _, charge := range t.charges {
		if charge.meter != nil {
			charge.meter.unsend(charge.points)
		}
	}
	g.dispatch(g.now())
}

// end learns from the answer, of which the zero reply is the lack. It returns
// for how long GitHub wants to be left alone, where this answer says so, and
// zero else.
func (g *governor) end(t turn, got reply) time.Duration {
	refused := got.wantsPause()
	g.mu.Lock()
	now := g.now()
	g.inFlight--
	if g.budget.answered(got, t.silences, now) || refused {
		g.pacing = true
	}
	if refused {
		g.penalty.refused(got, t.episode, now)
	} else if got.status != 0 && got.status < 500 {
		g.penalty.accepted(t.episode)
	}
	for _, charge := range t.charges {
		if charge.meter == nil {
			continue
		}
		// A server without limits is not measured: there is no end to what it
		// may be asked in a minute.
		if charge.meter.unsend(charge.points); g.pacing {
			charge.meter.spend(charge.points, now)
		}
	}
	g.dispatch(now)
	until := g.penalty.until
	g.mu.Unlock()
	if !refused {
		return 0
	}
	g.onPause(until, got.words())
	return until.Sub(now)
}

// wantsPause reports whether nothing may be sent for some time after the
// answer.
func (r reply) wantsPause() bool {
	switch r.status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusForbidden:
		return r.limited(r.explanation())
	}
	return r.status >= 500 && r.header.Get("Retry-After") != ""
}

// words is what a refusal says, on one line and without its credential.
func (r reply) words() string {
	text := fmt.Sprintf("HTTP %d", r.status)
	if said := r.explanation().Message; said != "" {
		text += ": " + said
	}
	if secret := r.credential.Reveal(); secret != "" {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return clean(text)
}

// Reason is what a request waited for.
type Reason string

// The reasons.
const (
	ReasonPause    Reason = "pause"     // GitHub asked to be left alone
	ReasonBudget   Reason = "budget"    // what is left of the hour is for others
	ReasonPace     Reason = "pace"      // the points of a minute
	ReasonInFlight Reason = "in_flight" // too many requests under way
)

// hold is what keeps a call from being sent: nothing, where why is empty.
type hold struct {
	why   Reason
	until time.Time // zero: until an answer arrives
	meter *meter    // that has no points; nil: it is not about points
	long  bool      // longer than the call is worth waiting in line
}

// hold finds what keeps a call, the longest of several. The mutex is held.
func (g *governor) hold(c call, now time.Time) hold {
	queue, pause := c.op.patience()
	var h hold
	later := func(why Reason, until time.Time, patience time.Duration, m *meter) {
		if !until.After(h.until) {
			return
		}
		h = hold{why: why, until: until, meter: m, long: until.Sub(now) > patience}
	}
	if now.Before(g.penalty.until) {
		later(ReasonPause, g.penalty.until, pause, nil)
	}
	if g.unpaced {
		return h
	}
	g.budget.pass(now)
	if !g.budget.allows(c.priority) {
		later(ReasonBudget, g.budget.ends, pause, nil)
	}
	if h.why == "" && (g.inFlight >= g.atOnce(c.priority) || g.penalty.probing && g.inFlight > 0) {
		h.why = ReasonInFlight
	}
	if !g.pacing {
		return h
	}
	for _, charge := range c.charges {
		if charge.meter == nil || charge.meter == g.hour && c.priority == PriorityToken {
			continue
		}
		at, ok := charge.meter.free(now, charge.points, g.part(charge.meter, c.priority))
		switch {
		case ok && at.After(now):
			later(ReasonPace, at, queue, charge.meter)
		case !ok && h.why == "":
			h.why, h.meter = ReasonPace, charge.meter
		}
	}
	return h
}

// part is what a priority may have of a meter in this process. The mutex is held.
func (g *governor) part(m *meter, p Priority) int { return m.limit * ranks[p].share / 100 / g.sharers }

// atOnce is how many requests there may be under way for one more of a priority
// to be sent. Its figures suit two processes. The mutex is held.
func (g *governor) atOnce(p Priority) int {
	most := ranks[p].inFlight
	return max(min(most, 2*most/g.sharers), 1)
}
