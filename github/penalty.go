package github

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	shortestPause = time.Second
	defaultPause  = time.Minute // GitHub's advice where the answer says nothing
	longestGuess  = 15 * time.Minute
	longestPause  = 24 * time.Hour
)

// penalty is what GitHub's refusals ask of a credential: that nothing is sent
// until a moment. A later one never shortens an earlier one.
type penalty struct {
	until time.Time
	// episode counts refusals, those of requests that were in flight together
	// as one.
	episode uint64
	// strikes counts episodes without a word on how long to wait, since the
	// last success.
	strikes int
	// probing lasts from a refusal to the next success: one request at a time
	// finds out whether the rest may follow.
	probing bool
}

// refused learns from an answer that asks for a pause. episode is what it was
// when the request was sent.
func (p *penalty) refused(got reply, episode uint64, now time.Time) {
	again := episode == p.episode
	if again {
		p.episode++
	}
	wait, said := got.pause(now)
	if !said {
		if again {
			p.strikes++
		}
		wait = min(defaultPause<<min(max(p.strikes, 1)-1, 10), longestGuess)
	}
	p.extend(now.Add(wait))
}

func (p *penalty) extend(until time.Time) {
	p.probing = true
	if until.After(p.until) {
		p.until = until
	}
}

// imposed takes over a pause that somebody else was asked for.
func (p *penalty) imposed(until time.Time) {
	if until.After(p.until) {
		p.episode++ // what is in flight says nothing about it
		p.extend(until)
	}
}

// accepted learns from an answer that asks for no pause.
func (p *penalty) accepted(episode uint64) {
	if episode == p.episode {
		p.strikes, p.probing = 0, false
	}
}

// pause is how long the answer asks to wait, and whether it says so.
func (r reply) pause(now time.Time) (time.Duration, bool) {
	var wait time.Duration
	date := serverTime(r.header, now)
	after := strings.TrimSpace(r.header.Get("Retry-After"))
	if seconds, err := strconv.ParseInt(after, 10, 64); err == nil {
		wait = time.Duration(min(max(seconds, 0), int64(longestPause/time.Second))) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		wait = at.Sub(date)
	} else if r.header.Get("X-RateLimit-Remaining") != "0" {
		return 0, false
	} else if reset, err := strconv.ParseInt(r.header.Get("X-RateLimit-Reset"), 10, 64); err == nil {
		wait = time.Unix(reset, 0).Sub(date)
	} else {
		return 0, false
	}
	return min(max(wait, shortestPause), longestPause), true
}
