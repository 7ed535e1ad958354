package githubsim

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Handler is the API, for a listener that is not the Sim's own.
func (s *Sim) Handler() http.Handler { return http.HandlerFunc(s.serveAPI) }

func (s *Sim) serveAPI(w http.ResponseWriter, r *http.Request) {
	if s.down.Load() {
		panic(http.ErrAbortHandler) // closes the connection without an answer
	}
	s.mu.Lock()
	intercept := s.intercept
	s.mu.Unlock()
	if intercept != nil {
		if h := intercept(r); h != nil {
			s.pass(w, r, h)
			return
		}
	}
	a := s.answer(r)
	defer s.sent(w, a.metered)
	if !a.wire.befalls() {
		s.send(w, r, a, s.requestID())
		return
	}
	h := &held{header: make(http.Header)}
	s.send(h, r, a, s.requestID())
	a.wire.send(r.Context(), w, h, s.config.Sleep)
}

// clock is what the server takes the time to be.
func (s *Sim) clock() time.Time { return s.config.Now().Add(s.config.Skew) }

// requestID names a request, by its number and the seed.
func (s *Sim) requestID() string {
	n := s.requests.Add(1)
	h := rand.NewPCG(s.seed, n).Uint64()
	return fmt.Sprintf("%08X:%04X:%X", uint32(h>>32), uint16(h), n)
}

// pass lets a test's handler answer, and logs what it said.
func (s *Sim) pass(w http.ResponseWriter, r *http.Request, h http.Handler) {
	q := s.parse(r.Method, r.URL.Path)
	token, _ := credential(r)
	heard := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
	defer func() { // also where the handler aborts the connection
		s.mu.Lock()
		defer s.mu.Unlock()
		e := s.event(r, q, token)
		e.Status = heard.status
		s.record(e)
	}()
	h.ServeHTTP(heard, r)
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets handlers flush and hijack.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// event is the log entry of a request, without its outcome.
func (s *Sim) event(r *http.Request, q query, token string) Event {
	e := Event{Method: r.Method, Path: q.template, Query: r.URL.RawQuery, Credential: s.print(token), RunnerID: q.runnerID}
	if t := s.issued[token]; t != nil {
		e.Installation = t.of.ID
	}
	if st := s.find(q); st != nil {
		e.Scope = st.name
	} else if q.scope.Valid() == nil {
		e.Scope = q.scope.String()
	}
	return e
}

// find is the scope that a request means, or nil.
func (s *Sim) find(q query) *scopeState {
	if st := s.scopes[key(q.scope)]; st != nil {
		return st
	}
	if st := s.byID[q.scopeID]; st != nil && st.scope.Kind == q.scope.Kind {
		return st
	}
	return nil
}

const maxBody = 64 << 10 // no body that this API takes comes near

// answer decides, acts and logs.
func (s *Sim) answer(r *http.Request) *answer {
	q := s.parse(r.Method, r.URL.Path)
	token, scheme := credential(r)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		body = nil // the client broke off; what it asked for is answered all the same
	}

	s.mu.Lock()
	struck := s.strikes(r, q, func(f *injected) bool { return f.Kind != FaultMistaken })
	m := s.arrival(r.Method)
	s.mu.Unlock()
	s.delay(r.Context(), struck)

	s.mu.Lock()
	refusal := s.refuse(r, q, token, scheme, &m)
	if a := s.interfere(r, q, struck); a != nil {
		refusal, m.stay = a, nil
	}
	hooks := s.hooks
	asked := Request{Method: r.Method, Path: q.template, Scope: q.scope, RunnerID: q.runnerID}
	if st := s.find(q); st != nil {
		asked.Scope = st.scope
	}
	s.mu.Unlock()
	if refusal == nil {
		for _, h := range hooks {
			h.call(asked)
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.event(r, q, token)
	a := refusal
	if a == nil {
		s.arrange(r, q, struck)
		// What GitHub believes by now: hooks may have changed it.
		believed := s.strikes(r, q, func(f *injected) bool { return f.Kind == FaultMistaken })
		struck = append(struck, believed...)
		a = s.act(r, q, token, scheme, body, m, believed, &e)
	}
	a = s.spoil(r, q, a, struck)
	s.validate(r, a)
	s.charge(&m, a, token, &e)
	if m.good {
		s.introduce(token, q, a)
	}
	told := a.status
	a = s.damage(a, struck, q)
	if a.wire.reset || a.status != told {
		m.stay = nil // the client does not get to know
	}
	a.metered = m
	e.Status = a.status
	s.suffered(q, struck, &e)
	if s.config.LogListings && q.op == opList {
		e.Listing = a.listing()
	}
	s.record(e)
	return a
}

// print is the fingerprint of a credential.
func (s *Sim) print(token string) string {
	known, ok := s.prints[token]
	if !ok {
		const most = 10_000 // so that bad credentials do not add up
		if len(s.prints) >= most {
			clear(s.prints)
		}
		known = fingerprint(token)
		s.prints[token] = known
	}
	return known
}

// refuse is nil for requests that may go on.
func (s *Sim) refuse(r *http.Request, q query, token, scheme string, m *metered) *answer {
	switch {
	case s.maintenance:
		return htmlPage(http.StatusServiceUnavailable, "GitHub Enterprise Server is down for maintenance. It will be back soon.")
	case r.UserAgent() == "":
		return htmlPage(http.StatusForbidden, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.")
	case r.URL.Path != s.prefix && !strings.HasPrefix(r.URL.Path, s.prefix+"/"):
		return htmlPage(http.StatusNotFound, "This is not the web page you are looking for.")
	case q.op == opRunnerRegistration:
		return nil // has a credential of its own
	case scheme == "remoteauth":
		return s.admit("")
	case q.op == opMeta && token == "":
		return nil // everybody may ask
	case q.op.byApp():
		if _, a := s.asserted(token, scheme); a != nil {
			return a
		}
		return s.meter(q, token, m)
	}
	if a := s.admit(token); a != nil {
		return a
	}
	if a := s.meter(q, token, m); a != nil {
		return a
	}
	if q.op == opNone {
		return s.notFound(query{})
	}
	return nil
}

// act does what is asked. The caller holds the lock.
func (s *Sim) act(r *http.Request, q query, token, scheme string, body []byte, m metered, believed belief, e *Event) *answer {
	switch q.op {
	case opRunnerRegistration:
		return s.runnerRegistration(token, scheme, body, e)
	case opRateLimit:
		return s.rateLimit(m)
	case opMeta:
		return s.meta()
	case opUser:
		return s.user(token, q)
	case opApp, opInstallation, opInstallationToken:
		by, a := s.asserted(token, scheme)
		if a != nil {
			return a // its time has just ended
		}
		return s.answerApp(q, by, body, e)
	}
	st := s.find(q)
	if st == nil {
		if id, ok := s.renamed[key(q.scope)]; ok {
			return s.moved(r.Method, origin(r)+s.idPath(s.byID[id])+"/"+q.rest)
		}
		return s.notFound(q)
	}
	if a := s.permit(token, q, st); a != nil {
		return a
	}
	if (r.Method == http.MethodPost || r.Method == http.MethodPut) && len(body) > 0 && !json.Valid(body) {
		return s.jsonError(http.StatusBadRequest, "Problems parsing JSON", q)
	}
	switch q.op {
	case opList:
		return s.list(r, st, believed)
	case opDownloads:
		return &answer{status: http.StatusOK, body: s.profile.downloads()}
	case opRegistrationToken:
		return s.mint(st, fleet.TokenRegistration, e)
	case opRemovalToken:
		return s.mint(st, fleet.TokenRemoval, e)
	case opJITConfig:
		return s.jitConfig(st, body, q, e)
	case opRepos, opRepo, opRuns, opRunJobs, opJob, opGroups, opGroupMembers, opDeliveries, opDelivery, opRedeliver:
		return s.more(r, q, st, e)
	}
	s.sweep(st, s.config.Now())
	found := st.byID[q.runnerID]
	if found == nil {
		return s.notFound(q)
	}
	st.settle(found, s.config.Now())
	e.RunnerName, e.Online, e.Busy = found.name, found.online, found.job != 0
	switch q.op {
	case opGet:
		return &answer{status: http.StatusOK, body: found.appendJSON(nil, believed.status(found), believed.busy(found))}
	case opDelete:
		if believed.busy(found) {
			return s.jsonError(s.profile.busyStatus, fmt.Sprintf(s.profile.busyText, found.name), q)
		}
		e.Acted = true
		s.drop(st, found, "DELETE")
		return &answer{status: http.StatusNoContent}
	}
	return s.runnerLabels(st, found, body, q, e)
}

// idPath is where a scope is found whatever its name.
func (s *Sim) idPath(st *scopeState) string {
	kind := map[fleet.ScopeKind]string{
		fleet.ScopeEnterprise: "enterprises", fleet.ScopeOrg: "organizations", fleet.ScopeRepo: "repositories",
	}[st.scope.Kind]
	return s.prefix + "/" + kind + "/" + strconv.FormatInt(st.id, 10)
}
