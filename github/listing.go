package github

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
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
	// Runners are those of all pages that are not as they were kept, each once,
	// by id. Their labels may share memory.
	Runners []fleet.Runner
	// Same are the pages whose body is as it was kept. They were not decoded.
	Same []fleet.Page
	// Fresh are the pages that are to be kept anew: those with other runners,
	// and those that differ in nothing but their validator.
	Fresh []fleet.Page
	// Complete says that the walk proved itself: every page arrived and was
	// well formed, and all agree on a total that the distinct ids add up to.
	// Only then does the absence of a runner mean anything.
	Complete   bool
	Incomplete error // why not; nil where Complete
	// Incoherent says that all pages arrived and do not add up, twice in a row:
	// validators that name a page unchanged may be what is wrong.
	Incoherent bool
	Digest     fleet.Digest // of the bodies of all pages
	Count      int          // distinct runners seen, those of Same and of Nameless included
	// Nameless are the items that show no id, each with its place and the
	// reason. Each of them may be any of the runners that the listing lacks.
	Nameless    []string
	Pages       int // that arrived well formed
	Calls       int // requests made
	NotModified int // of them answered 304
	// RateRemaining is how many requests GitHub leaves in the current window,
	// the least that any page said; -1: the server does not say.
	RateRemaining int
	Server        Sight // of page 1
}

// Runners lists all runners of the scope. Pages that were kept are asked for
// on the condition that they have changed; each answer, 304 or not, is of now.
// A walk that does not prove itself complete is walked once more, unless
// GitHub refuses or asks for a pause. An error means that not even the first
// page could be read; a walk that went wrong later gives what was seen, not
// Complete, and says why. After the first page that fails no further page is
// asked for.
func (c *Client) Runners(ctx context.Context, scope fleet.Scope, kept fleet.KeptListing) (Listing, error) {
	have := make(map[int]page, len(kept.Pages))
	for _, p := range kept.Pages {
		have[p.Number] = page{Page: p, same: true, rate: -1}
	}
	w := &walk{client: c, scope: scope, have: have, proven: kept.Proven}
	if err := w.run(ctx); err != nil {
		return Listing{Calls: w.calls, RateRemaining: -1}, err
	}
	first := w.listing()
	if first.Complete || !worthAnother(ctx, first.Incomplete) {
		return first, nil
	}
	again := &walk{client: c, scope: scope, have: have, proven: kept.Proven, calls: w.calls, notModified: w.notModified}
	for _, p := range w.pages {
		p.notModified = false
		again.have[p.Number] = p
	}
	if err := again.run(ctx); err != nil {
		first.Calls = again.calls
		return first, nil
	}
	second := again.listing()
	if !second.Complete && second.Pages < first.Pages {
		first.Calls, first.NotModified = second.Calls, second.NotModified
		return first, nil
	}
	return second, nil
}

// worthAnother reports whether the fault may be over already.
func worthAnother(ctx context.Context, fault error) bool {
	for _, stands := range []error{fleet.ErrRateLimited, fleet.ErrUnauthorized, fleet.ErrForbidden, fleet.ErrNotFound} {
		if errors.Is(fault, stands) {
			return false
		}
	}
	return ctx.Err() == nil
}

// walk is one walk over the pages of a scope. The mutex guards what the pages
// in flight leave behind.
type walk struct {
	client *Client
	scope  fleet.Scope
	have   map[int]page // kept, by number
	proven fleet.Digest
	sets   labelSets

	mu                 sync.Mutex
	pages              []page
	faults             []error
	calls, notModified int
}

// run fetches the first page and then all others, some at a time. It returns
// the error of the first page only, or that no item of any page has an id.
func (w *walk) run(ctx context.Context) error {
	first, err := w.fetch(ctx, 1)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(w.client.parallel)
	for number := 2; number <= first.pages(); number++ {
		g.Go(func() error {
			if w.failed() {
				return nil
			}
			if _, err := w.fetch(ctx, number); err != nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.faults = append(w.faults, fmt.Errorf("page %d: %w", number, err))
			}
			return nil
		})
	}
	_ = g.Wait() // faults holds the errors
	slices.SortFunc(w.pages, func(a, b page) int { return cmp.Compare(a.Number, b.Number) })
	hasID := slices.ContainsFunc(w.pages, func(p page) bool { return len(p.IDs) > 0 })
	if !hasID && first.items() > 0 {
		return operation{op: OpRunners, scope: w.scope}.malformed(http.StatusOK, "no item of the listing has an id")
	}
	return nil
}

func (w *walk) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.faults) > 0
}

func (w *walk) fetch(ctx context.Context, number int) (page, error) {
	a := ask{op: OpRunners, scope: w.scope, number: number, size: perPage, sets: &w.sets}
	if kept, ok := w.have[number]; ok {
		a.kept = &kept
	}
	p, err := w.client.page(ctx, a)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if err != nil {
		return page{}, err
	}
	if p.notModified {
		w.notModified++
	}
	w.pages = append(w.pages, p)
	return p, nil
}

// listing puts the pages together.
func (w *walk) listing() Listing {
	l := Listing{
		Pages: len(w.pages), Calls: w.calls, NotModified: w.notModified,
		Digest: digest(w.pages), RateRemaining: leastRemaining(w.pages),
		Server: w.client.seen(w.pages[0].sight),
	}
	for _, p := range w.pages {
		if p.same {
			l.Same = append(l.Same, p.Page)
		}
		if p.fresh && !p.unreadable {
			l.Fresh = append(l.Fresh, p.Page)
		}
	}
	for _, p := range w.pages {
		l.Nameless = append(l.Nameless, p.nameless...)
	}
	l.Runners = merge(w.pages)
	l.Incomplete = worst(w.faults)
	if l.Incomplete == nil && l.Digest == w.proven {
		l.Count, l.Complete = w.pages[0].Total, true
		return l
	}
	l.Count = distinct(w.pages) + len(l.Nameless)
	if l.Incomplete == nil {
		l.Incomplete = incoherent(w.scope, w.pages, l.Count)
		l.Incoherent = l.Incomplete != nil
	}
	l.Complete = l.Incomplete == nil
	return l
}

// digest is over the bodies of all pages, which are in their order.
func digest(pages []page) fleet.Digest {
	h := sha256.New()
	var number [8]byte
	for _, p := range pages {
		binary.BigEndian.PutUint64(number[:], uint64(p.Number))
		h.Write(number[:])
		h.Write(p.SHA256[:])
	}
	return fleet.Digest(h.Sum(nil))
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

// merge gives every decoded runner once, by id. Where pages shifted and show
// one twice, the sight of it that speaks more for keeping it wins.
func merge(pages []page) []fleet.Runner {
	n := 0
	for _, p := range pages {
		n += len(p.runners)
	}
	all := make([]fleet.Runner, 0, n)
	for _, p := range pages {
		all = append(all, p.runners...)
	}
	slices.SortStableFunc(all, func(a, b fleet.Runner) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(liveliness(b), liveliness(a)))
	})
	return slices.CompactFunc(all, func(a, b fleet.Runner) bool { return a.ID == b.ID })
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

// distinct counts the runners of all pages, each once.
func distinct(pages []page) int {
	n := 0
	for _, p := range pages {
		n += len(p.IDs)
	}
	ids := make([]int64, 0, n)
	for _, p := range pages {
		ids = append(ids, p.IDs...)
	}
	slices.Sort(ids)
	return len(slices.Compact(ids))
}

// incoherent says why pages that all arrived are still no proof, or nil.
func incoherent(scope fleet.Scope, pages []page, distinct int) error {
	total := pages[0].Total
	detail := ""
	for _, p := range pages {
		if p.Total != total {
			detail = fmt.Sprintf("total_count is %d on page 1 and %d on page %d", total, p.Total, p.Number)
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
