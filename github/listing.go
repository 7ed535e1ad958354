package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
)

const (
	perPage  = 100    // the most that GitHub gives
	maxPages = 10_000 // a million runners: beyond that total_count is not believed
)

// Listing is what one walk over the pages of a scope saw.
type Listing struct {
	Runners []fleet.Runner // distinct by id, ascending
	// Complete says that the walk proved itself: every page arrived and was
	// well formed, and all agree on a total that the distinct ids add up to.
	// Only then does the absence of a runner mean anything.
	Complete   bool
	Incomplete error // why not; nil where Complete
	Pages      int   // that arrived well formed
	Calls      int   // requests made
	// RateRemaining is how many requests GitHub leaves in the current window,
	// the least that any page said; -1: the server does not say.
	RateRemaining int
}

// Runners lists all runners of the scope. An error means that not even the
// first page could be read; a walk that went wrong later gives what was seen,
// not Complete, and says why. After the first page that fails no further page
// is asked for.
func (c *Client) Runners(ctx context.Context, scope fleet.Scope) (Listing, error) {
	first, err := c.page(ctx, OpRunners, scope, 1, perPage)
	if err != nil {
		return Listing{Calls: 1, RateRemaining: -1}, err
	}
	pages := []page{first}
	calls := 1
	faults := []error{}

	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(c.parallel)
	for number := 2; number <= first.pages(); number++ {
		g.Go(func() error {
			mu.Lock()
			failed := len(faults) > 0
			mu.Unlock()
			if failed {
				return nil
			}
			p, err := c.page(ctx, OpRunners, scope, number, perPage)
			mu.Lock()
			defer mu.Unlock()
			calls++
			if err != nil {
				faults = append(faults, fmt.Errorf("page %d: %w", number, err))
				return nil
			}
			pages = append(pages, p)
			return nil
		})
	}
	_ = g.Wait() // faults holds the errors

	listing := Listing{Runners: merge(pages), Pages: len(pages), Calls: calls, RateRemaining: leastRemaining(pages)}
	listing.Incomplete = worst(faults)
	if listing.Incomplete == nil {
		listing.Incomplete = incoherent(scope, pages, len(listing.Runners))
	}
	listing.Complete = listing.Incomplete == nil
	return listing, nil
}

// page is one well-formed page.
type page struct {
	number  int
	total   int
	last    int // from the Link header; 0: not said
	rate    int // requests left; -1: not said
	runners []fleet.Runner
}

// leastRemaining is -1 where no page says how many requests are left.
func leastRemaining(pages []page) int {
	least := -1
	for _, p := range pages {
		if p.rate >= 0 && (least < 0 || p.rate < least) {
			least = p.rate
		}
	}
	return least
}

// pages is how many pages the listing has that this one is the first of.
func (p page) pages() int {
	if len(p.runners) == 0 {
		return 1
	}
	// A server may cap pages lower than asked, so its own count comes first;
	// one page more than the total can fill is the most that is believed.
	byTotal := (p.total + len(p.runners) - 1) / len(p.runners)
	if p.last > 0 {
		return min(p.last, byTotal+1, maxPages)
	}
	return min(byTotal, maxPages)
}

// page fetches one page and checks its shape.
func (c *Client) page(ctx context.Context, op string, scope fleet.Scope, number, size int) (page, error) {
	o := operation{
		op: op, scope: scope, method: http.MethodGet, want: http.StatusOK,
		path: fmt.Sprintf("actions/runners?per_page=%d&page=%d", size, number),
	}
	var w struct {
		// A number, not an integer, in the enterprise schema. v45 cannot tell
		// an absent one from zero.
		TotalCount *float64      `json:"total_count"`
		Runners    []*wireRunner `json:"runners"`
	}
	header, err := c.do(ctx, o, &w)
	if err != nil {
		return page{}, err
	}
	switch {
	case w.TotalCount == nil:
		return page{}, o.malformed(http.StatusOK, "total_count is missing")
	case *w.TotalCount < 0 || *w.TotalCount != math.Trunc(*w.TotalCount) || *w.TotalCount > maxPages*perPage:
		return page{}, o.malformed(http.StatusOK, fmt.Sprintf("total_count %v is not believable", *w.TotalCount))
	case w.Runners == nil:
		return page{}, o.malformed(http.StatusOK, "runners is missing")
	case len(w.Runners) > size:
		return page{}, o.malformed(http.StatusOK, fmt.Sprintf("%d runners on a page of %d", len(w.Runners), size))
	}
	p := page{
		number:  number,
		total:   int(*w.TotalCount),
		last:    lastPage(header),
		rate:    rateRemaining(header),
		runners: make([]fleet.Runner, 0, len(w.Runners)),
	}
	for _, wr := range w.Runners {
		r, err := wr.runner()
		if err != nil {
			return page{}, o.malformed(http.StatusOK, err.Error())
		}
		p.runners = append(p.runners, r)
	}
	return p, nil
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

// merge gives every runner once. Where pages shifted and show one twice, the
// sight of it that speaks more for keeping it wins.
func merge(pages []page) []fleet.Runner {
	seen := make(map[int64]fleet.Runner)
	for _, p := range pages {
		for _, r := range p.runners {
			if other, again := seen[r.ID]; !again || liveliness(r) > liveliness(other) {
				seen[r.ID] = r
			}
		}
	}
	return slices.SortedFunc(maps.Values(seen), func(a, b fleet.Runner) int { return cmp.Compare(a.ID, b.ID) })
}

func liveliness(r fleet.Runner) int {
	switch {
	case r.Busy:
		return 2
	case r.Status != fleet.StatusOffline:
		return 1
	}
	return 0
}

// incoherent says why pages that all arrived are still no proof, or nil.
func incoherent(scope fleet.Scope, pages []page, distinct int) error {
	total := pages[0].total
	detail := ""
	for _, p := range pages {
		if p.total != total {
			detail = fmt.Sprintf("total_count is %d on page 1 and %d on page %d", total, p.total, p.number)
		}
	}
	if detail == "" && distinct != total {
		detail = fmt.Sprintf("%d distinct runners where total_count says %d", distinct, total)
	}
	if detail == "" {
		return nil
	}
	return operation{op: OpRunners, scope: scope}.malformed(http.StatusOK, "the pages do not add up: "+detail)
}

// worst picks the fault to report: the longest wish for a pause, or else the
// first one.
func worst(faults []error) error {
	if len(faults) == 0 {
		return nil
	}
	return slices.MaxFunc(faults, func(a, b error) int { return cmp.Compare(wish(a), wish(b)) })
}

func wish(err error) int64 {
	var e *Error
	if errors.As(err, &e) && errors.Is(e.Kind, fleet.ErrRateLimited) {
		return int64(e.Wait)
	}
	return 0
}
