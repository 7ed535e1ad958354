package github

import (
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Wait is a request that could not be sent at once.
type Wait struct {
	Op       string // one of the Op constants
	Scope    fleet.Scope
	Priority Priority
	Reason   Reason // what it waited for at first
	Took     time.Duration
	Sent     bool // false: it was given up
}

// Limits is what a client knows of GitHub's limits on its credential.
type Limits struct {
	Limit     int       // requests an hour; 0: the server shows no limit, or its hour has ended
	Remaining int       // of them, with what is under way counted as spent; meaningless where Limit is 0
	Reset     time.Time // when the hour ends; zero where Limit is 0
	Hourly    int       // requests an hour, as the server last said; 0: it never did
	Paused    time.Time // nothing is sent before; zero or past: GitHub asks for no pause
}

// Limits tells what is known now. Its times are by the clock of Config.Now.
func (c *Client) Limits() Limits {
	g := c.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	g.budget.pass(g.now())
	l := Limits{Paused: g.penalty.until, Hourly: g.budget.limit}
	if g.budget.known {
		l.Limit, l.Remaining, l.Reset = g.budget.limit, max(g.budget.left(), 0), g.budget.ends
	}
	return l
}

// Pause sends nothing until then, because GitHub asked somebody else with the
// same credential to be left alone. It never shortens a pause. OnPause does not
// hear of it.
func (c *Client) Pause(until time.Time) {
	g := c.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	g.penalty.imposed(until)
	g.dispatch(g.now())
}

// mostSharers is how many processes may use a credential with something left
// for each.
const mostSharers = 16

// Share has the client spend no more than its part of what GitHub allows in a
// minute, and at once, where so many processes use the credential, this one
// included. What is left of the hour GitHub tells each of them.
func (c *Client) Share(processes int) {
	g := c.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := min(max(processes, 1), mostSharers); n != g.sharers {
		g.sharers = n
		g.dispatch(g.now())
	}
}
