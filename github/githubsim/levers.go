package githubsim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// A lie makes the listings from one walk to another differ from the truth. A
// walk begins with a request for page 1 of more than one runner; the pages
// after it belong to it, so that a lie is told consistently over all pages.
// GET by id tells what GitHub knows, unless FaultMistaken strikes it.
type lie struct {
	// forThis says that a fault tells it in answer to the request at hand, and in
	// no other where that one is refused.
	forThis  bool
	name     string
	from, to int // walks, both included
	hide     map[int64]bool
	offline  map[int64]bool
	// all makes the lie concern every runner there is.
	all bool
}

func (l lie) hides(id int64) bool    { return l.hide != nil && (l.all || l.hide[id]) }
func (l lie) silences(id int64) bool { return l.offline != nil && (l.all || l.offline[id]) }

// Hide keeps runners out of the next listings of the scope; total_count
// matches what is shown.
func (s *Sim) Hide(scope fleet.Scope, listings int, ids ...int64) error {
	return s.lie(scope, listings, lie{name: string(FaultHidden), hide: set(ids)})
}

// HideSome hides n runners chosen at random and returns their ids.
func (s *Sim) HideSome(scope fleet.Scope, listings, n int) ([]int64, error) {
	s.mu.Lock()
	st, err := s.in(scope)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	ids := make([]int64, 0, n)
	for _, i := range s.random.Perm(len(st.order))[:min(max(n, 0), len(st.order))] {
		ids = append(ids, st.order[i].id)
	}
	s.mu.Unlock()
	slices.Sort(ids)
	return ids, s.Hide(scope, listings, ids...)
}

// EmptyListing makes the next listings of the scope empty.
func (s *Sim) EmptyListing(scope fleet.Scope, listings int) error {
	return s.lie(scope, listings, lie{name: string(FaultHidden), hide: set(nil), all: true})
}

// ShowOffline makes the next listings show runners offline: the named ones, or
// all where none is named.
func (s *Sim) ShowOffline(scope fleet.Scope, listings int, ids ...int64) error {
	return s.lie(scope, listings, lie{name: string(FaultOffline), offline: set(ids), all: len(ids) == 0})
}

func set(ids []int64) map[int64]bool {
	m := make(map[int64]bool, len(ids))
	for _, id := range ids {
		m[id] = true
	}
	return m
}

func (s *Sim) lie(scope fleet.Scope, listings int, l lie) error {
	if listings <= 0 {
		return fmt.Errorf("github simulator: lie in %d listings of %s: want at least one", listings, scope)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return err
	}
	st.lies = slices.DeleteFunc(st.lies, func(old lie) bool { return old.to < st.walks })
	l.from, l.to = st.walks+1, st.walks+listings
	st.lies = append(st.lies, l)
	return nil
}

// Down makes the API break every connection without an answer, or ends that.
// The state is kept, and nothing that arrives meanwhile is logged.
func (s *Sim) Down(down bool) { s.down.Store(down) }

// Maintenance makes the API answer everything with a 503 page, or ends that.
func (s *Sim) Maintenance(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maintenance = on
}

// Request is what a hook is told of a request that is about to be answered.
type Request struct {
	Method   string
	Path     string // the template, as in Event
	Scope    fleet.Scope
	RunnerID int64 // 0: the request concerns no single runner
}

type hook struct{ call func(Request) }

// Before has f called before each request with a good credential and a known
// path is answered, so that f can change what it will find. Several are called
// in the order of their coming, in the request's goroutine. The function
// returned takes f off again.
func (s *Sim) Before(f func(Request)) func() {
	h := &hook{f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(slices.Clone(s.hooks), h)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hooks = slices.DeleteFunc(slices.Clone(s.hooks), func(other *hook) bool { return other == h })
	}
}

// Intercept lets f answer requests to the API in the simulator's place: where
// it returns nil, the answer is the normal one. A nil f ends that. What f
// answers is logged with its status.
func (s *Sim) Intercept(f func(*http.Request) http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Rename gives an organisation or a repository another name. The old one is
// redirected from then on.
func (s *Sim) Rename(from, to fleet.Scope) error {
	if err := to.Valid(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(from)
	if err != nil {
		return err
	}
	switch {
	case from.Kind != to.Kind || from.Kind == fleet.ScopeEnterprise:
		return fmt.Errorf("github simulator: rename %s to %s: want two organisations or two repositories", from, to)
	case s.scopes[key(to)] != nil:
		return fmt.Errorf("github simulator: rename %s to %s: the name is taken: %w", from, to, fleet.ErrConflict)
	}
	delete(s.scopes, key(from))
	delete(s.renamed, key(to))
	st.scope, st.name = to, to.String()
	s.scopes[key(to)] = st
	s.renamed[key(from)] = st.id
	if from.Kind == fleet.ScopeRepo {
		s.renameRuns(from.Owner+"/"+from.Repo, to.Owner+"/"+to.Repo)
	}
	s.record(Event{Change: ChangeRenamed, Scope: to.String(), Cause: from.String()})
	return nil
}

// renameRuns gives the workflow jobs of a repository its new name. The caller holds
// the lock.
func (s *Sim) renameRuns(from, to string) {
	for _, run := range s.flows.runs {
		for _, j := range run.jobs {
			if strings.EqualFold(j.Repository, from) {
				j.Repository = to
			}
		}
	}
}
