package githubsim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// arrange does what has to be done before a request is answered, for the faults
// that work on what it will find. The caller holds the lock.
func (s *Sim) arrange(r *http.Request, q query, struck []strike) {
	st := s.find(q)
	if st == nil {
		return
	}
	for _, f := range struck {
		switch f.Kind {
		case FaultHidden, FaultOffline:
			l := lie{name: string(f.Kind), forThis: true, from: st.walks + 1, to: st.walks + 1}
			ids := set(f.chosen(st))
			if f.Kind == FaultHidden {
				l.hide = ids
			} else {
				l.offline = ids
			}
			st.lies = slices.DeleteFunc(st.lies, func(old lie) bool { return old.to < st.walks })
			st.lies = append(st.lies, l)
		case FaultShift, FaultSwap:
			page, perPage := paging(r.URL.Query())
			s.shift(st, f, (page-1)*perPage)
		}
	}
}

// shift removes a runner from among the first ones, if it can one that nobody
// would miss, and registers another where the fault says so.
func (s *Sim) shift(st *scopeState, f strike, first int) {
	before := st.order[:min(first, len(st.order))]
	for _, fits := range []func(*runner) bool{
		func(r *runner) bool { return !r.online && r.job == 0 },
		func(r *runner) bool { return r.job == 0 },
	} {
		var those []*runner
		for _, r := range before {
			if fits(r) {
				those = append(those, r)
			}
		}
		if len(those) == 0 {
			continue
		}
		gone := those[f.random.IntN(len(those))]
		s.drop(st, gone, string(f.Kind))
		if f.Kind == FaultSwap {
			spec := RunnerSpec{Name: fmt.Sprintf("%s-%d", gone.name, s.lastID+1), OS: gone.os, Online: gone.online}
			if _, err := s.create(st, spec, ""); err != nil {
				panic(err) // the number is new, so the name is
			}
			st.sort(1)
		}
		return
	}
}

// suffered puts down in the log what struck a request: the faults, and the lies
// that belong to the listing which the scope is giving.
func (s *Sim) suffered(q query, struck []strike, e *Event) {
	var names []string
	for _, f := range struck {
		if f.Kind != FaultHidden && f.Kind != FaultOffline { // they are lies
			names = append(names, string(f.Kind))
		}
	}
	if st := s.find(q); st != nil && q.op == opList && e.Status == http.StatusOK {
		for _, l := range st.lies {
			if l.from <= st.walks && st.walks <= l.to {
				names = append(names, l.name)
			}
		}
	}
	e.Fault = strings.Join(slices.Compact(names), ",")
	s.forget(q)
}

// forget takes back what a fault would have told in answer to a request that
// began no walk after all: it was refused, or broken by another fault.
func (s *Sim) forget(q query) {
	if st := s.find(q); st != nil {
		st.lies = slices.DeleteFunc(st.lies, func(l lie) bool { return l.forThis && l.from > st.walks })
	}
}

// haunts reports whether a zombie fault concerns the runner.
func (f *injected) haunts(st *scopeState, r *runner) bool {
	return f.Kind == FaultZombie &&
		(f.Scope == fleet.Scope{} || key(f.Scope) == key(st.scope)) &&
		(len(f.IDs) == 0 || slices.Contains(f.IDs, r.id)) &&
		(f.Label == "" || r.hasLabel(f.Label))
}

// zombie reports whether a runner that has been killed stays busy, and counts
// it. The caller holds the lock.
func (s *Sim) zombie(st *scopeState, r *runner) bool {
	s.expire()
	for _, f := range s.faults {
		if !f.haunts(st, r) {
			continue
		}
		f.seen++
		if f.Count == 0 || f.struck < f.Count {
			f.struck++
			return true
		}
	}
	return false
}

// raise keeps those busy that have been killed already.
func (s *Sim) raise(f *injected) {
	now := s.config.Now()
	for _, id := range s.scopeIDs() {
		st := s.byID[id]
		st.settleDue(now)
		for _, r := range st.order {
			if r.job != 0 && !r.busyUntil.IsZero() && f.haunts(st, r) {
				f.seen++
				if f.Count == 0 || f.struck < f.Count {
					f.struck++
					r.busyUntil, r.zombie = time.Time{}, true
				}
			}
		}
	}
}

// layToRest gives the workflow jobs up that the fault has kept.
func (s *Sim) layToRest(f *injected) {
	if s.config.Lag.BusyClear < 0 {
		return // they never are
	}
	until := s.config.Now().Add(s.config.Lag.BusyClear)
	for _, id := range s.scopeIDs() {
		st := s.byID[id]
		for _, r := range st.order {
			if r.zombie && r.job != 0 && !r.online && f.haunts(st, r) {
				r.busyUntil, r.zombie = until, false
				st.watch(r)
			}
		}
	}
}
