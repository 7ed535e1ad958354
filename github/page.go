package github

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// page is a page of the walk under way.
type page struct {
	fleet.Page
	runners     []fleet.Runner // decoded; nil where the page is as it was kept
	nameless    []string       // items without an id, each with its place and the reason
	unreadable  bool           // of some item: the page is not kept, so that the next walk counts it again
	same        bool           // its runners are what was kept
	fresh       bool           // something of it is not as it was kept
	notModified bool           // GitHub said so, with a 304
	rate        int            // requests left; -1: not said
	sight       Sight
}

// items is how many runners the page shows, those without an id included.
func (p page) items() int { return len(p.IDs) + len(p.nameless) }

// pages is how many pages the listing has that this one is the first of.
func (p page) pages() int {
	if p.items() == 0 {
		return 1
	}
	// A server may cap pages lower than asked, so its own count comes first;
	// one page more than the total can fill is the most that is believed.
	byTotal := (p.Total + p.items() - 1) / p.items()
	if p.Last > 0 {
		return min(p.Last, byTotal+1, maxPages)
	}
	return min(byTotal, maxPages)
}

// ask is the request for one page.
type ask struct {
	op           string
	scope        fleet.Scope
	number, size int
	name         string // of the runners; empty: all
	kept         *page  // of the walk before; nil: nothing is
	sets         *labelSets
	heard        func(http.Header) // see operation
}

// page fetches one page and checks its shape.
func (c *Client) page(ctx context.Context, a ask) (page, error) {
	o := operation{
		op: a.op, scope: a.scope, method: http.MethodGet, want: http.StatusOK, heard: a.heard,
		path: fmt.Sprintf("actions/runners?per_page=%d&page=%d", a.size, a.number),
	}
	if a.name != "" {
		o.path += "&name=" + url.QueryEscape(a.name)
	}
	if a.kept != nil {
		o.match, o.matchFor = a.kept.ETag, a.kept.Credential
	}
	if a.sets == nil {
		a.sets = new(labelSets)
	}
	r := pageReader{ask: a}
	if _, err := c.do(ctx, o, &r); err != nil {
		return page{}, err
	}
	return r.page, nil
}

// pageReader makes a page of a reply.
type pageReader struct {
	ask
	page page
}

func (r *pageReader) read(o operation, got reply) error {
	rate := rateRemaining(got.header)
	if o.unchanged(got) {
		r.page = *r.kept
		r.page.notModified, r.page.rate = true, rate
		r.page.sight.hear(got.header)
		return nil
	}
	head := fleet.Page{
		Number: r.number, ETag: got.header.Get("ETag"), Credential: got.credential.Fingerprint(),
		SHA256: sha256.Sum256(got.body), Last: lastPage(got.header),
	}
	if k := r.kept; k != nil && k.SHA256 == head.SHA256 {
		r.page = *k
		r.page.rate = rate
		r.page.sight.hear(got.header)
		// Another validator for the same body under the same credential is one
		// that GitHub makes anew each time: not worth keeping.
		if k.Credential != head.Credential || k.ETag == "" && head.ETag != "" {
			r.page.ETag, r.page.Credential, r.page.fresh = head.ETag, head.Credential, true
		}
		r.page.fresh = r.page.fresh || k.Last != head.Last
		r.page.Last = head.Last
		return nil
	}
	r.page = page{Page: head, fresh: true, rate: rate}
	r.page.sight.hear(got.header)
	if r.number == 1 {
		r.page.sight.fields(got.body)
	}
	return r.decode(o, got)
}

// decode reads the runners of a page that is new. An item that cannot be read
// costs that item and no other.
func (r *pageReader) decode(o operation, got reply) error {
	w, err := r.items(o, got)
	if err != nil {
		return err
	}
	switch {
	case w.TotalCount == nil:
		return o.malformed(http.StatusOK, "total_count is missing")
	case *w.TotalCount < 0 || *w.TotalCount != math.Trunc(*w.TotalCount) || *w.TotalCount > maxPages*perPage:
		return o.malformed(http.StatusOK, fmt.Sprintf("total_count %v is not believable", *w.TotalCount))
	case w.Runners == nil:
		return o.malformed(http.StatusOK, "runners is missing")
	case len(w.Runners) > r.size:
		return o.malformed(http.StatusOK, fmt.Sprintf("%d runners on a page of %d", len(w.Runners), r.size))
	}
	p := &r.page
	p.Total = int(*w.TotalCount)
	p.IDs = make([]int64, 0, len(w.Runners))
	p.runners = make([]fleet.Runner, 0, len(w.Runners))
	for i := range w.Runners {
		runner := w.Runners[i].runner(r.sets)
		if runner.Unreadable != "" {
			p.unreadable = true
		}
		if runner.ID == 0 {
			p.nameless = append(p.nameless, fmt.Sprintf("item %d of page %d: %s", i+1, r.number, runner.Unreadable))
			continue
		}
		p.IDs = append(p.IDs, runner.ID)
		p.runners = append(p.runners, runner)
	}
	return nil
}

// wirePage is a page of runners as GitHub sends it.
type wirePage[R any] struct {
	TotalCount *float64 `json:"total_count"` // a number, not an integer, in the enterprise schema
	Runners    []R      `json:"runners"`
}

// items decodes a page at once or, where one of its items has another shape,
// item by item.
func (r *pageReader) items(o operation, got reply) (wirePage[wireRunner], error) {
	var w wirePage[wireRunner]
	err := o.decode(got, &w)
	if err == nil {
		return w, nil
	}
	var raw wirePage[json.RawMessage]
	if o.decode(got, &raw) != nil {
		return w, err
	}
	w = wirePage[wireRunner]{TotalCount: raw.TotalCount}
	if raw.Runners != nil {
		w.Runners = make([]wireRunner, 0, len(raw.Runners))
	}
	for _, item := range raw.Runners {
		var one wireRunner
		if json.Unmarshal(item, &one) != nil {
			one = lenient(item)
		}
		w.Runners = append(w.Runners, one)
	}
	return w, nil
}

// lastPage reads the number of the last page from the Link header. Hosts and
// paths in it are not used: GitHub writes /organizations/ID where /orgs/NAME
// was asked.
func lastPage(h http.Header) int {
	for link := range strings.SplitSeq(strings.Join(h.Values("Link"), ","), ",") {
		address, params, ok := strings.Cut(link, ";")
		if !ok || !strings.Contains(params, `rel="last"`) {
			continue
		}
		u, err := url.Parse(strings.Trim(strings.TrimSpace(address), "<>"))
		if err != nil {
			return 0
		}
		n, err := strconv.Atoi(u.Query().Get("page"))
		if err != nil {
			return 0
		}
		return n
	}
	return 0
}
