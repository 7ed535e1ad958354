package githubsim

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	defaultPerPage = 30
	maxPerPage     = 100
)

// list answers one page over what is there now: there is no snapshot, so that
// pages shift where runners come and go between them.
func (s *Sim) list(r *http.Request, st *scopeState, believed belief) *answer {
	params := r.URL.Query()
	page, perPage := paging(params)
	now := s.config.Now()
	if beginsWalk(page, perPage) {
		st.walks++
		s.sweep(st, now)
	}
	st.settleDue(now)
	lies := slices.DeleteFunc(slices.Clone(st.lies), func(l lie) bool { return st.walks < l.from || l.to < st.walks })
	name := params.Get("name")
	if !s.profile.nameFilter {
		name = ""
	}
	if len(lies) == 0 && len(believed) == 0 && name == "" {
		p := st.kept(page, perPage)
		if asked := r.Host + "?" + r.URL.RawQuery; p.linkFor != asked {
			p.link, p.linkFor = s.links(r, st, params, page, pageCount(len(st.order), perPage)), asked
		}
		return &answer{status: http.StatusOK, body: p.body, page: p, link: p.link}
	}
	shown := slices.DeleteFunc(slices.Clone(st.order), func(r *runner) bool {
		return name != "" && r.name != name || slices.ContainsFunc(lies, func(l lie) bool { return l.hides(r.id) })
	})
	silenced := func(r *runner) bool {
		return slices.ContainsFunc(lies, func(l lie) bool { return l.silences(r.id) })
	}
	return &answer{
		status: http.StatusOK, body: st.body(shown, page, perPage, believed, silenced),
		link: s.links(r, st, params, page, pageCount(len(shown), perPage)),
	}
}

// links is the Link header: absent where all fits on one page, in the form
// with ids, and with per_page only where it was asked.
func (s *Sim) links(r *http.Request, st *scopeState, params url.Values, page, last int) string {
	if last <= 1 && page <= 1 {
		return ""
	}
	at := "<" + origin(r) + s.idPath(st) + "/actions/runners?"
	if params.Has("per_page") {
		at += "per_page=" + url.QueryEscape(params.Get("per_page")) + "&"
	}
	at += "page="
	all := make([]string, 0, 4)
	add := func(rel string, to int) { all = append(all, at+strconv.Itoa(to)+`>; rel="`+rel+`"`) }
	eachLink(page, last, add)
	return strings.Join(all, ", ")
}

// eachLink adds what a page links to, in the order in which GitHub does.
func eachLink(page, last int, add func(rel string, to int)) {
	if page > 1 {
		add("prev", page-1)
	}
	if page < last {
		add("next", page+1)
		add("last", last)
	}
	if page > 1 {
		add("first", 1)
	}
}
