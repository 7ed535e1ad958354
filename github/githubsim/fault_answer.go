package githubsim

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// interfere is the answer to a request that never gets to what it asks for, or
// nil. The caller holds the lock.
func (s *Sim) interfere(r *http.Request, q query, struck []strike) *answer {
	for _, f := range struck {
		switch f.Kind {
		case FaultStatus:
			a := s.failure(f.Status, q)
			if f.RetryAfter > 0 {
				if f.Status == http.StatusForbidden || f.Status == http.StatusTooManyRequests {
					a = s.jsonError(f.Status, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.", query{})
				}
				a.retryAfter, a.wait = strconv.Itoa(int(f.RetryAfter/time.Second)), f.RetryAfter
			}
			return a
		case FaultRedirect:
			a := s.moved(r.Method, origin(r)+r.URL.RequestURI())
			a.status = http.StatusMovedPermanently
			if f.Status != 0 {
				a.status = f.Status
			}
			return a
		case FaultReset:
			return &answer{wire: wire{reset: true}}
		}
	}
	return nil
}

// failure is how GitHub says a status that it has no reason for.
func (s *Sim) failure(status int, q query) *answer {
	switch status {
	case http.StatusUnauthorized:
		return s.jsonError(status, "Bad credentials", query{})
	case http.StatusForbidden:
		return s.jsonError(status, "Resource not accessible by integration", q)
	case http.StatusNotFound:
		return s.notFound(q)
	case http.StatusUnprocessableEntity:
		if st := s.find(q); q.op == opDelete && st != nil && st.byID[q.runnerID] != nil {
			return s.jsonError(status, fmt.Sprintf(s.profile.busyText, st.byID[q.runnerID].name), q)
		}
		return s.jsonError(status, "Validation Failed", q)
	case http.StatusInternalServerError:
		return s.jsonError(status, "Server Error", q)
	}
	if status > http.StatusInternalServerError {
		return htmlPage(status, "We had issues producing the response to your request.")
	}
	return s.jsonError(status, http.StatusText(status), q)
}

// spoil makes of a good answer what the server itself gets wrong, before it is
// given its ETag. The answer may be shared and stays as it is. The caller holds
// the lock.
func (s *Sim) spoil(r *http.Request, q query, good *answer, struck []strike) *answer {
	s.remember(r, q, good)
	if len(struck) == 0 {
		return good
	}
	bad := *good
	for _, f := range struck {
		switch f.Kind {
		case FaultStale:
			if old := f.recall(r, s.config.Now()); old != nil {
				bad = *old
			}
		case FaultStale304:
			if bad.status == http.StatusOK {
				bad.status, bad.etag = http.StatusNotModified, strings.TrimPrefix(r.Header.Get("If-None-Match"), "W/")
			}
		default:
			f.spoilRows(q, &bad)
		}
	}
	return &bad
}

// damage is what befalls an answer on its way to the client. Its ETag is that of
// what was sent off.
func (s *Sim) damage(good *answer, struck []strike, q query) *answer {
	if len(struck) == 0 {
		return good
	}
	a := *good
	for _, f := range struck {
		switch f.Kind {
		case FaultSlowBody:
			a.wire.slow += f.Delay
		case FaultSkew:
			a.wire.set("Date", s.clock().Add(f.Skew).UTC().Format(http.TimeFormat))
		case FaultLost:
			lost := &answer{wire: wire{reset: true}}
			if f.Status != 0 {
				lost = s.failure(f.Status, q)
				lost.wire = a.wire
			}
			a = *lost
		case FaultResetBody:
			a.wire.half, a.wire.reset = true, true
		case FaultShortBody:
			a.wire.half = true
		case FaultTruncated:
			a.body = a.body[:len(a.body)/2]
		case FaultBody:
			a.replaceBody(f.Body)
		}
	}
	return &a
}

// replaceBody keeps status and type, so that only the body tells.
func (a *answer) replaceBody(body string) {
	if len(a.body) == 0 || a.status == http.StatusNotModified {
		return
	}
	a.body = []byte(body)
	a.html = len(body) > 0 && body[0] == '<'
	if body == "" {
		a.wire.set("Content-Type", "application/json; charset=utf-8")
	}
}

// remembered is an answer as it once was.
type remembered struct {
	at time.Time
	a  answer
}

// remember keeps the answers that FaultStale gives later on. What is older than
// the newest that is old enough will not be asked for again.
func (s *Sim) remember(r *http.Request, q query, a *answer) {
	for _, f := range s.faults {
		if f.Kind != FaultStale || a.status != http.StatusOK && a.status != http.StatusNotFound || !f.concerns(r, q, s.find(q)) {
			continue
		}
		name, now := r.URL.RequestURI(), s.config.Now()
		past := append(f.past[name], remembered{now, *a})
		for len(past) > 1 && now.Sub(past[1].at) >= f.Age {
			past = past[1:]
		}
		f.past[name] = past
	}
}

// recall is the newest answer that is old enough, or the oldest there is.
func (f *injected) recall(r *http.Request, now time.Time) *answer {
	past := f.past[r.URL.RequestURI()]
	for i := len(past) - 1; i > 0; i-- {
		if now.Sub(past[i].at) >= f.Age {
			return &past[i].a
		}
	}
	if len(past) == 0 {
		return nil
	}
	return &past[0].a
}
