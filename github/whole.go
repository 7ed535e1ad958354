package github

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	found            []T      // not to be changed
	unread           []string // elements that cannot be read, each with the reason
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
	if k == nil || p.etag == "" || len(p.unread) > 0 {
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
// charged for. Pages that do not add up, because something came or went between
// them, are walked once more. What is wrong then is an error, and no element is
// given. Where elements cannot be read, the others come with the error.
func (l whole[W, T]) list(ctx context.Context, c *Client) (all []T, charged int, _ error) {
	w, fault := l.twice(ctx, c, &charged)
	if fault != nil {
		return nil, charged, fault
	}
	lacks := w.lacks(l.most)
	if lacks == "" {
		return w.all, charged, nil
	}
	err := l.operation(1).malformed(http.StatusOK, lacks)
	if w.bad != "" || w.beyond(l.most) {
		return nil, charged, err
	}
	err.Err = errUnread
	return w.all, charged, err
}

// errUnread marks the error of a listing whose only fault is that some of its
// elements cannot be read.
var errUnread = errors.New("elements cannot be read")

// Unread reports whether err says no more than that some elements of a listing
// cannot be read. The others came with it.
func Unread(err error) bool { return errors.Is(err, errUnread) }

// shown is list where some elements are better than none: lacks says why they may
// not be all; empty: they are.
func (l whole[W, T]) shown(ctx context.Context, c *Client) (all []T, lacks string, charged int, err error) {
	w, err := l.twice(ctx, c, &charged)
	if err != nil {
		return nil, "", charged, err
	}
	return w.all, w.lacks(l.most), charged, nil
}

// twice walks once more where the pages do not add up.
func (l whole[W, T]) twice(ctx context.Context, c *Client, charged *int) (walked[T], error) {
	w, err := l.walk(ctx, c, charged)
	if err != nil || w.bad == "" || w.beyond(l.most) {
		return w, err
	}
	l.kept = nil // validators may be what is wrong
	return l.walk(ctx, c, charged)
}

// walked is what one walk over the pages showed.
type walked[T any] struct {
	all    []T
	total  int      // the greatest that a page tells
	bad    string   // why the pages are no proof of each other; empty: they are
	unread []string // elements that cannot be read, each with the reason
}

// beyond reports whether there are more elements than GitHub shows, however
// often they are asked for. A most of 0 means that it shows all.
func (w walked[T]) beyond(most int) bool { return most > 0 && w.total > most }

// lacks says why the elements may not be all; empty: they are.
func (w walked[T]) lacks(most int) string {
	switch {
	case w.beyond(most):
		return fmt.Sprintf("there are %d, of which no more than %d are shown", w.total, most)
	case w.bad != "":
		return "the pages do not add up, twice in a row: " + w.bad
	case len(w.unread) > 0:
		return cannotRead(w.unread)
	}
	return ""
}

// cannotRead counts elements that cannot be read and names the first of them.
func cannotRead(unread []string) string {
	return fmt.Sprintf("%d cannot be read: %s", len(unread), strings.Join(unread[:min(len(unread), 3)], "; "))
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

// walk is one walk over the pages, one after another. An element that cannot be
// read costs itself alone.
func (l whole[W, T]) walk(ctx context.Context, c *Client, charged *int) (walked[T], error) {
	var got walked[T]
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
			return walked[T]{}, err
		}
		l.kept.put(scopePath(l.scope)+o.path, p.page)
		if number == 1 {
			first = p.page.total
		}
		if p.page.total != first && got.bad == "" {
			got.bad = fmt.Sprintf("total_count is %d on page 1 and %d on page %d", first, p.page.total, number)
		}
		got.total = max(got.total, p.page.total)
		got.all, got.unread = append(got.all, p.page.found...), append(got.unread, p.page.unread...)
		items := len(p.page.found) + len(p.page.unread)
		shown += items
		beyond := got.beyond(l.most)
		if got.bad != "" && !beyond || beyond && shown >= l.most || shown >= got.total || items == 0 {
			break
		}
	}
	slices.SortStableFunc(got.all, func(a, b T) int { return cmp.Compare(l.id(a), l.id(b)) })
	got.all = slices.CompactFunc(got.all, func(a, b T) bool { return l.id(a) == l.id(b) })
	if items := len(got.all) + len(got.unread); got.bad == "" && items != got.total {
		got.bad = fmt.Sprintf("%d are shown where total_count says %d", items, got.total)
	}
	return got, nil
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
	var elements []json.RawMessage
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
	for i, raw := range elements {
		t, err := element(raw, p.whole.read)
		if err != nil {
			p.page.unread = append(p.page.unread, fmt.Sprintf("element %d of %s: %v", i+1, p.of, err))
			continue
		}
		p.page.found = append(p.page.found, t)
	}
	return nil
}

// element reads one element of a list, or says why it cannot be read.
func element[W, T any](raw json.RawMessage, read func(*W) (T, error)) (T, error) {
	var none T
	var w *W
	if err := json.Unmarshal(raw, &w); err != nil {
		return none, errors.New(explainJSON(err))
	}
	if w == nil {
		return none, errors.New("it is null")
	}
	return read(w)
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
