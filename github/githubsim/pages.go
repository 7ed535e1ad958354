package githubsim

import (
	"container/heap"
	"strconv"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// page is the body of one page of a list, made once and served until a runner
// on it changes. Its body is never written to again.
type page struct {
	body  []byte
	zip   func() []byte     // the body compressed, made at the first call
	etags map[string]string // by what else goes into it; the Sim's lock guards it

	link, linkFor string // the Link header, and who asked how; under the same lock
}

const (
	// Pages smaller than this are cheaper made than kept.
	minKept = 30
	// maxSizes bounds the memory: the pages of 100,000 runners take 30 MB in
	// each size.
	maxSizes = 4
	maxEtags = 8 // of credentials at one page
)

// kept is a page of the list as it is, from the store if it is there.
func (st *scopeState) kept(number, perPage int) *page {
	if perPage < minKept {
		return newPage(st.body(st.order, number, perPage, nil, nil))
	}
	pages := st.pages[perPage]
	if pages == nil {
		if len(st.pages) >= maxSizes {
			clear(st.pages)
		}
		pages = make(map[int]*page)
		st.pages[perPage] = pages
	}
	p := pages[number]
	if p == nil {
		p = newPage(st.body(st.order, number, perPage, nil, nil))
		if number <= pageCount(len(st.order), perPage) { // those beyond the end are many
			pages[number] = p
		}
	}
	return p
}

// body is what one page says of the runners shown: what is believed of them, and
// where silenced is not nil, that those are offline whatever they are.
func (st *scopeState) body(shown []*runner, number, perPage int, believed belief, silenced func(*runner) bool) []byte {
	total := len(shown)
	rows := []*runner{}
	if number <= pageCount(total, perPage) {
		rows = shown[(number-1)*perPage : min(number*perPage, total)]
	}
	size := 64
	for _, r := range rows {
		size += len(r.head) + len(r.tail) + len(`offline","busy":false,`)
	}
	b := make([]byte, 0, size)
	b = append(b, `{"total_count":`...)
	b = strconv.AppendInt(b, int64(total), 10)
	b = append(b, `,"runners":[`...)
	for i, r := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		status := believed.status(r)
		if silenced != nil && silenced(r) {
			status = fleet.StatusOffline
		}
		b = r.appendJSON(b, status, believed.busy(r))
	}
	return append(b, "]}"...)
}

func pageCount(total, perPage int) int { return max((total+perPage-1)/perPage, 1) }

// touch is for a runner that is shown otherwise than before: the pages it is on
// have to be made anew, and no others.
func (st *scopeState) touch(r *runner) {
	i, found := st.place(r)
	if !found || st.order[i] != r {
		return // it is gone, and all pages with it
	}
	for perPage, pages := range st.pages {
		delete(pages, i/perPage+1)
	}
}

// shift is for runners that come or go: total_count stands on every page.
func (st *scopeState) shift() { clear(st.pages) }

// settle lets happen to a runner what the passing of time brings.
func (st *scopeState) settle(r *runner, now time.Time) {
	shown, busy := r.shown, r.job != 0
	r.settle(now)
	if r.shown != shown || (r.job != 0) != busy {
		st.touch(r)
	}
}

// watch remembers when time will bring something to a runner.
func (st *scopeState) watch(r *runner) {
	if r.shown != r.online {
		heap.Push(&st.due, dueAt{r.flipAt, r})
	}
	if r.job != 0 && !r.busyUntil.IsZero() {
		heap.Push(&st.due, dueAt{r.busyUntil, r})
	}
}

// settleDue lets happen to all runners what the passing of time brings.
func (st *scopeState) settleDue(now time.Time) {
	for len(st.due) > 0 && !now.Before(st.due[0].at) {
		st.settle(heap.Pop(&st.due).(dueAt).runner, now)
	}
}

// dueAt is a moment at which time may change a runner. That it does not any
// more is no harm.
type dueAt struct {
	at     time.Time
	runner *runner
}

type dueHeap []dueAt

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(v any)        { *h = append(*h, v.(dueAt)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = dueAt{}
	*h = old[:len(old)-1]
	return last
}

// Prepare makes all pages of a scope's list now, in the size given and with the
// validators for whoever asked last, so that whoever measures a client does not
// measure the simulator.
func (s *Sim) Prepare(scope fleet.Scope, perPage int) error {
	s.mu.Lock()
	st, err := s.in(scope)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	now := s.config.Now()
	s.sweep(st, now)
	st.settleDue(now)
	perPage = min(max(perPage, minKept), maxPerPage)
	pages := make([]*page, pageCount(len(st.order), perPage))
	for i := range pages {
		pages[i] = st.kept(i+1, perPage)
		if s.asker != "" {
			pages[i].etag(s.asker)
		}
	}
	s.mu.Unlock()
	for _, p := range pages {
		p.zip()
	}
	return nil
}
