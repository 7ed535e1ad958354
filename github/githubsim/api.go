package githubsim

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

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
	id := fmt.Sprintf("%08x:%04x", s.random.Uint32(), s.random.UintN(1<<16))
	s.mu.Unlock()
	if intercept != nil {
		if h := intercept(r); h != nil {
			s.pass(w, r, h)
			return
		}
	}
	s.answer(r).send(w, r, id)
}

// pass lets a test's handler answer, and logs what it said.
func (s *Sim) pass(w http.ResponseWriter, r *http.Request, h http.Handler) {
	q := parse(r.Method, r.URL.Path)
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
	e := Event{Method: r.Method, Path: q.template, Query: r.URL.RawQuery, Credential: fingerprint(token), RunnerID: q.runnerID}
	if st := s.find(q); st != nil {
		e.Scope = st.scope.String()
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
	q := parse(r.Method, r.URL.Path)
	token, scheme := credential(r)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		body = nil // the client broke off; what it asked for is answered all the same
	}

	s.mu.Lock()
	refusal := s.refuse(r, q, token, scheme)
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
		a = s.act(r, q, token, scheme, body, &e)
	}
	e.Status = a.status
	s.record(e)
	return a
}

// refuse is nil for requests that may go on.
func (s *Sim) refuse(r *http.Request, q query, token, scheme string) *answer {
	switch {
	case s.maintenance:
		return htmlPage(http.StatusServiceUnavailable, "GitHub Enterprise Server is down for maintenance. It will be back soon.")
	case r.UserAgent() == "":
		return htmlPage(http.StatusForbidden, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header.")
	case r.URL.Path != prefix && !strings.HasPrefix(r.URL.Path, prefix+"/"):
		return htmlPage(http.StatusNotFound, "This is not the web page you are looking for.")
	case q.op == opRunnerRegistration:
		return nil // has a credential of its own
	case scheme == "remoteauth":
		return s.admit("")
	}
	if a := s.admit(token); a != nil {
		return a
	}
	if q.op == opNone {
		return notFound(docsRoot)
	}
	return nil
}

// act does what is asked. The caller holds the lock.
func (s *Sim) act(r *http.Request, q query, token, scheme string, body []byte, e *Event) *answer {
	switch q.op {
	case opRunnerRegistration:
		return s.runnerRegistration(token, scheme, body, e)
	case opRateLimit:
		return jsonError(http.StatusNotFound, "Rate limiting is not enabled.", docsRoot)
	}
	st := s.find(q)
	if st == nil {
		if id, ok := s.renamed[key(q.scope)]; ok {
			return moved(r.Method, "http://"+r.Host+idPath(s.byID[id])+"/"+q.rest)
		}
		return notFound(q.docs())
	}
	if a := s.permit(token, q, st); a != nil {
		return a
	}
	if r.Method == http.MethodPost && len(body) > 0 && !json.Valid(body) {
		return jsonError(http.StatusBadRequest, "Problems parsing JSON", q.docs())
	}
	switch q.op {
	case opList:
		return s.list(r, st)
	case opDownloads:
		return &answer{status: http.StatusOK, body: downloads}
	case opRegistrationToken:
		return s.mint(st, fleet.TokenRegistration, e)
	case opRemovalToken:
		return s.mint(st, fleet.TokenRemoval, e)
	}
	s.sweep(st, s.config.Now())
	found := st.byID[q.runnerID]
	if found == nil {
		return notFound(q.docs())
	}
	found.settle(s.config.Now())
	e.RunnerName, e.Online, e.Busy = found.name, found.online, found.job != 0
	if q.op == opGet {
		return &answer{status: http.StatusOK, body: found.appendJSON(nil, found.status())}
	}
	if found.job != 0 {
		return jsonError(s.config.BusyDeleteStatus, `Bad request - Runner "`+found.name+`" is still running a job"`, q.docs())
	}
	e.Acted = true
	s.drop(st, found, "DELETE")
	return &answer{status: http.StatusNoContent}
}

// idPath is where a scope is found whatever its name.
func idPath(st *scopeState) string {
	kind := map[fleet.ScopeKind]string{
		fleet.ScopeEnterprise: "enterprises", fleet.ScopeOrg: "organizations", fleet.ScopeRepo: "repositories",
	}[st.scope.Kind]
	return prefix + "/" + kind + "/" + strconv.FormatInt(st.id, 10)
}
