package githubsim

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

const (
	defaultPerPage = 30
	maxPerPage     = 100
)

// list answers one page over what is there now: there is no snapshot, so that
// pages shift where runners come and go between them.
func (s *Sim) list(r *http.Request, st *scopeState) *answer {
	params := r.URL.Query()
	perPage, err := strconv.Atoi(params.Get("per_page"))
	if err != nil || perPage <= 0 {
		perPage = defaultPerPage
	}
	perPage = min(perPage, maxPerPage)
	page, err := strconv.Atoi(params.Get("page"))
	if err != nil || page <= 0 {
		page = 1
	}
	now := s.config.Now()
	if page == 1 && perPage > 1 { // a single runner is a look, not a listing
		st.walks++
		s.sweep(st, now)
	}
	var lies []lie
	for _, l := range st.lies {
		if l.from <= st.walks && st.walks <= l.to {
			lies = append(lies, l)
		}
	}
	shown := st.order
	if slices.ContainsFunc(lies, func(l lie) bool { return l.hide != nil }) {
		shown = slices.DeleteFunc(slices.Clone(shown), func(r *runner) bool {
			return slices.ContainsFunc(lies, func(l lie) bool { return l.hides(r.id) })
		})
	}

	total := len(shown)
	last := max((total+perPage-1)/perPage, 1)
	rows := []*runner{}
	if page <= last {
		rows = shown[(page-1)*perPage : min(page*perPage, total)]
	}
	body := make([]byte, 0, 64+len(rows)*300)
	body = append(body, `{"total_count":`...)
	body = strconv.AppendInt(body, int64(total), 10)
	body = append(body, `,"runners":[`...)
	for i, row := range rows {
		if i > 0 {
			body = append(body, ',')
		}
		row.settle(now)
		status := row.status()
		if slices.ContainsFunc(lies, func(l lie) bool { return l.silences(row.id) }) {
			status = fleet.StatusOffline
		}
		body = row.appendJSON(body, status)
	}
	body = append(body, "]}"...)
	return &answer{status: http.StatusOK, body: body, link: links(r, st, params, page, last)}
}

// links is the Link header: absent where all fits on one page, in the form
// with ids, and with per_page only where it was asked.
func links(r *http.Request, st *scopeState, params url.Values, page, last int) string {
	if last <= 1 && page <= 1 {
		return ""
	}
	size := ""
	if params.Has("per_page") {
		size = "per_page=" + url.QueryEscape(params.Get("per_page")) + "&"
	}
	var all []string
	add := func(rel string, to int) {
		all = append(all, "<http://"+r.Host+idPath(st)+"/actions/runners?"+size+"page="+strconv.Itoa(to)+`>; rel="`+rel+`"`)
	}
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
	return strings.Join(all, ", ")
}

// downloads is what 3.1 offers.
var downloads = func() []byte {
	const version = "2.277.1"
	var list []map[string]string
	for _, d := range []struct{ os, arch, ending string }{
		{"osx", "x64", "tar.gz"}, {"linux", "x64", "tar.gz"}, {"linux", "arm", "tar.gz"}, {"win", "x64", "zip"}, {"linux", "arm64", "tar.gz"},
	} {
		file := "actions-runner-" + d.os + "-" + d.arch + "-" + version + "." + d.ending
		list = append(list, map[string]string{
			"os": d.os, "architecture": d.arch, "filename": file,
			"download_url": "https://github.com/actions/runner/releases/download/v" + version + "/" + file,
		})
	}
	return quote(list)
}()
