package github

import (
	"net/http"
	"testing"
	"time"
)

func refusal(status int, header ...string) reply {
	r := reply{status: status, header: http.Header{"Date": {noon.Format(http.TimeFormat)}}}
	for i := 0; i < len(header); i += 2 {
		r.header.Set(header[i], header[i+1])
	}
	return r
}

func TestRefusalsWithoutAWordDouble(t *testing.T) {
	t.Parallel()
	var p penalty
	now := noon
	silent := refusal(http.StatusForbidden)
	for _, want := range []time.Duration{1, 2, 4, 8, 15, 15} {
		p.refused(silent, p.episode, now)
		if got := p.until.Sub(now); got != want*time.Minute {
			t.Errorf("a pause of %s, want %d minutes", got, want)
		}
		now = p.until
	}
	p.accepted(p.episode)
	p.refused(silent, p.episode, now)
	if got := p.until.Sub(now); got != time.Minute {
		t.Errorf("after a success a pause of %s, want a minute", got)
	}
}

func TestRefusalsOfWhatWasInFlightTogetherAreOne(t *testing.T) {
	t.Parallel()
	var p penalty
	for range 16 {
		p.refused(refusal(http.StatusForbidden), 0, noon)
	}
	if got := p.until.Sub(noon); got != time.Minute {
		t.Errorf("a pause of %s, want a minute", got)
	}
	// Nor does what was in flight and went well end anything.
	p.accepted(0)
	if !p.probing || p.strikes != 1 {
		t.Errorf("an answer to what was sent before has ended the episode: %+v", p)
	}
}

func TestAPauseIsNeverShortened(t *testing.T) {
	t.Parallel()
	var p penalty
	p.refused(refusal(http.StatusTooManyRequests, "Retry-After", "300"), 0, noon)
	p.refused(refusal(http.StatusTooManyRequests, "Retry-After", "10"), 0, noon)
	p.refused(refusal(http.StatusForbidden), p.episode, noon)
	p.imposed(noon.Add(time.Minute))
	p.accepted(p.episode)
	if got := p.until.Sub(noon); got != 5*time.Minute {
		t.Errorf("a pause of %s, want 5 minutes", got)
	}
	p.imposed(noon.Add(time.Hour))
	if got := p.until.Sub(noon); got != time.Hour || !p.probing {
		t.Errorf("a pause of %s, probing %v, want the hour that somebody else was told", got, p.probing)
	}
}
