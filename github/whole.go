package github

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/muster-fleet/muster/fleet"
)

// whole is a listing that is wanted whole or not at all.
type whole[W, T any] struct {
	op    string
	scope fleet.Scope
	path  string // below the scope
	of    string // the field that holds the elements
	read  func(*W) (T, error)
	id    func(T) int64
	kept  *pagesKept[T] // nil: no page is
	most  int           // elements that GitHub shows, however many there are; 0: all
}

// pagesKept are pages of listings as they were, with their validators: asked for
// on the condition that they have changed they cost nothing of the hour's
// requests where they have not. The zero value is ready, and safe for concurrent
// use.
type pagesKept[T any] struct {
	mu    sync.Mutex
	pages map[string]pageKept[T] // by path
}

type pageKept[T any] struct {
	etag, credential string // the latter's fingerprint
	total            int
	found            []T // not to be changed
}

// mostKept bounds the memory: the queued and the running runs of 10,000
// repositories.
const mostKept = 20_000

func (k *pagesKept[T]) get(path string) pageKept[T] {
	if k == nil {
		return pageKept[T]{}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pages[path]
}

func (k *pagesKept[T]) put(path string, p pageKept[T]) {
	if k == nil || p.etag == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pages == nil || len(k.pages) >= mostKept {
		k.pages = map[string]pageKept[T]{}
	}
	k.pages[path] = p
}

// list gives every element once, by id, and how many requests it took that GitHub
// charged for. Pages that do not add up, because
// something came or went between them, are walked once more. What is wrong then
// is an error, and never fewer elements.
func (l whole[W, T]) list(ctx context.Context, c *Client) (all []T, charged int, err error) {
	all, lacks, charged, err := l.shown(ctx, c)
	if err == nil && lacks != "" {
		err = l.operation(1).malformed(http.StatusOK, lacks)
	}
	if err != nil {
		return nil, charged, err
	}
	return all, charged, nil
}

// shown is list where some elements are better than none: lacks says why they may
// not be all; empty: they are.
func (l whole[W, T]) shown(ctx context.Context, c *Client) (all []T, lacks string, charged int, err error) {
	for range 2 {
		var total int
		if all, total, lacks, err = l.walk(ctx, c, &charged); err != nil {
			return nil, "", charged, err
		}
		if l.most > 0 && total > l.most { // however often they are asked for
			return all, fmt.Sprintf("there are %d, of which no more than %d are shown", total, l.most), charged, nil
		}
		if lacks == "" {
			return all, "", charged, nil
		}
		l.kept = nil // validators may be what is wrong
	}
	return all, "the pages do not add up, twice in a row: " + lacks, charged, nil
}

func (l whole[W, T]) operation(page int) operation {
	and := "?"
	if strings.Contains(l.path, and) {
		and = "&"
	}
	return operation{
		op: l.op, scope: l.scope, method: http.MethodGet, want: http.StatusOK,
		path: fmt.Sprintf("%s%sper_page=%d&page=%d", l.path, and, perPage, page),
	}
}

// walk is one walk over the pages, one after another. bad says why they are no
// proof of each other; empty: they are. Total is the greatest that a page tells.
func (l whole[W, T]) walk(ctx context.Context, c *Client, charged *int) (all []T, total int, bad string, err error) {
	first, shown := 0, 0
	for number := 1; number <= maxPages; number++ {
		o := l.operation(number)
		before := l.kept.get(scopePath(l.scope) + o.path)
		o.match, o.matchFor = before.etag, before.credential
		p := wholePage[W, T]{whole: l, page: before}
		_, err := c.do(ctx, o, &p)
		if !p.same {
			*charged++
		}
		if err != nil {
			return nil, 0, "", err
		}
		l.kept.put(scopePath(l.scope)+o.path, p.page)
		if number == 1 {
			first = p.page.total
		}
		if p.page.total != first && bad == "" {
			bad = fmt.Sprintf("total_count is %d on page 1 and %d on page %d", first, p.page.total, number)
		}
		total = max(total, p.page.total)
		all, shown = append(all, p.page.found...), shown+len(p.page.found)
		beyond := l.most > 0 && total > l.most
		if bad != "" && !beyond || beyond && shown >= l.most || shown >= total || len(p.page.found) == 0 {
			break
		}
	}
	slices.SortStableFunc(all, func(a, b T) int { return cmp.Compare(l.id(a), l.id(b)) })
	all = slices.CompactFunc(all, func(a, b T) bool { return l.id(a) == l.id(b) })
	if bad == "" && len(all) != total {
		bad = fmt.Sprintf("%d are shown where total_count says %d", len(all), total)
	}
	return all, total, bad, nil
}

// wholePage takes the answer that one page is.
type wholePage[W, T any] struct {
	whole[W, T]
	page pageKept[T] // as it was kept, until it is read
	same bool        // GitHub said so, with a 304
}

func (p *wholePage[W, T]) read(o operation, got reply) error {
	if p.same = o.unchanged(got); p.same {
		return nil
	}
	var fields map[string]json.RawMessage
	if err := o.decode(got, &fields); err != nil {
		return err
	}
	var total *float64
	var elements []*W
	for field, into := range map[string]any{"total_count": &total, p.of: &elements} {
		if raw, has := fields[field]; has {
			if err := json.Unmarshal(raw, into); err != nil {
				return o.malformed(http.StatusOK, field+": "+explainJSON(err))
			}
		}
	}
	switch {
	case total == nil:
		return o.malformed(http.StatusOK, "total_count is missing")
	case *total < 0 || *total != math.Trunc(*total) || *total > maxPages*perPage:
		return o.malformed(http.StatusOK, fmt.Sprintf("total_count %v is not believable", *total))
	case elements == nil:
		return o.malformed(http.StatusOK, p.of+" is missing")
	case len(elements) > perPage:
		return o.malformed(http.StatusOK, fmt.Sprintf("%d of %s on a page of %d", len(elements), p.of, perPage))
	}
	p.page = pageKept[T]{etag: got.header.Get("ETag"), credential: got.credential.Fingerprint(), total: int(*total)}
	for _, w := range elements {
		if w == nil {
			return o.malformed(http.StatusOK, "an element of "+p.of+" is null")
		}
		t, err := p.whole.read(w)
		if err != nil {
			return o.malformed(http.StatusOK, err.Error())
		}
		p.page.found = append(p.page.found, t)
	}
	return nil
}

// nextPage is the query of the next page, from the Link header; nil: this one
// is the last.
func nextPage(h http.Header) url.Values {
	for link := range strings.SplitSeq(strings.Join(h.Values("Link"), ","), ",") {
		address, params, ok := strings.Cut(link, ";")
		if !ok || !strings.Contains(params, `rel="next"`) {
			continue
		}
		if u, err := url.Parse(strings.Trim(strings.TrimSpace(address), "<>")); err == nil {
			return u.Query()
		}
	}
	return nil
}
