package githubsim

import (
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// strike is one occurrence of a fault. What it leaves to chance follows from
// the seed, the request and how often that came before, so that requests side
// by side may overtake each other without changing it.
type strike struct {
	*injected
	random *rand.Rand
}

// strikes decides which faults a request suffers, those that are chosen. The
// caller holds the lock.
func (s *Sim) strikes(r *http.Request, q query, choose func(*injected) bool) []strike {
	s.expire()
	var struck []strike
	for _, f := range s.faults {
		if !choose(f) || !f.concerns(r, q, s.find(q)) {
			continue
		}
		if random, ok := s.roll(f, r.Method+" "+r.URL.RequestURI()); ok {
			struck = append(struck, strike{f, random})
		}
	}
	return struck
}

// roll decides whether the fault strikes what it could strike, of that name.
func (s *Sim) roll(f *injected, name string) (*rand.Rand, bool) {
	f.seen++
	f.repeats[name]++
	random := s.chanceOf(strconv.FormatInt(f.id, 10)+" "+name, f.repeats[name])
	late := f.seen - max(f.Nth, 1)
	switch {
	case late < 0,
		f.Every > 0 && late%f.Every != 0,
		f.Count > 0 && f.struck >= f.Count,
		f.Probability > 0 && random.Float64() >= f.Probability:
		return nil, false
	}
	f.struck++
	return random, true
}

// chanceOf is what the seed has in store for the nth of that name.
func (s *Sim) chanceOf(name string, nth uint64) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strconv.FormatUint(nth, 10) + " " + name)) // a hash takes all
	return rand.New(rand.NewPCG(s.seed, h.Sum64()))
}

// scopeIDs are the scopes' numbers, ascending.
func (s *Sim) scopeIDs() []int64 { return slices.Sorted(maps.Keys(s.byID)) }

// concerns reports whether the fault could strike this request.
func (f *injected) concerns(r *http.Request, q query, st *scopeState) bool {
	switch {
	case f.Method != "" && f.Method != r.Method,
		f.Path != "" && !strings.HasSuffix(q.template, f.Path),
		f.Scope != (fleet.Scope{}) && !sameScope(f.Scope, q, st):
		return false
	}
	if f.Kind == FaultZombie || f.Kind == FaultTLS || slices.Contains(hookKinds, f.Kind) {
		return false
	}
	page, perPage := paging(r.URL.Query())
	switch f.Kind {
	case FaultFieldMissing, FaultFieldNull, FaultFieldWrong, FaultUnlabelled:
		return q.op == opList || q.op == opGet
	case FaultRowsTwice, FaultRowsLost, FaultRowsNull, FaultTotal:
		return q.op == opList
	case FaultHidden, FaultOffline:
		return q.op == opList && beginsWalk(page, perPage)
	case FaultMistaken:
		return q.op == opList || st != nil && (q.op == opGet || q.op == opDelete) && f.mistakes(st.byID[q.runnerID])
	case FaultShift, FaultSwap:
		return q.op == opList && page > 1
	case FaultStale:
		return r.Method == http.MethodGet
	case FaultStale304:
		return r.Method == http.MethodGet && r.Header.Get("If-None-Match") != ""
	}
	return true
}

func sameScope(scope fleet.Scope, q query, st *scopeState) bool {
	if st != nil {
		return key(st.scope) == key(scope)
	}
	return key(q.scope) == key(scope)
}

// paging reads which page is asked for, as GitHub does: what makes no sense is
// the default, what is too much is the most.
func paging(params url.Values) (page, perPage int) {
	perPage, err := strconv.Atoi(params.Get("per_page"))
	if err != nil || perPage <= 0 {
		perPage = defaultPerPage
	}
	page, err = strconv.Atoi(params.Get("page"))
	if err != nil || page <= 0 {
		page = 1
	}
	return page, min(perPage, maxPerPage)
}

// beginsWalk tells a listing from a look, which is for a single runner.
func beginsWalk(page, perPage int) bool { return page == 1 && perPage > 1 }

// chosen are the runners that a fault of a scope concerns.
func (st strike) chosen(in *scopeState) []int64 {
	ids := st.IDs
	if len(ids) == 0 {
		for _, r := range in.order {
			if st.Label == "" || r.hasLabel(st.Label) {
				ids = append(ids, r.id)
			}
		}
	}
	if st.Rows > 0 && st.Rows < len(ids) {
		ids = slices.Clone(ids)
		st.random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		ids = ids[:st.Rows]
	}
	return ids
}

func (r *runner) hasLabel(name string) bool {
	return slices.ContainsFunc(r.labels, func(l label) bool { return strings.EqualFold(l.Name, name) })
}
