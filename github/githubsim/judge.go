package githubsim

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DeletesOfWorking are the DELETE requests of runners that were online or busy
// at that moment, in truth, whether or not GitHub refused. A runner that came
// to life between a client's last look and its DELETE is among them; whether
// the client could have known is the caller's to judge.
func DeletesOfWorking(events []Event) []Event {
	var found []Event
	for _, e := range events {
		if e.Method == http.MethodDelete && strings.HasSuffix(e.Path, "/{runner_id}") && (e.Online || e.Busy) {
			found = append(found, e)
		}
	}
	return found
}

// InPenalty are the requests that came although their credential had been told
// to wait, in an answer sent more than slack earlier by the Sim's clock: as long
// as an answer may take to reach all that its client does side by side.
func InPenalty(events []Event, slack time.Duration) []Event {
	var found []Event
	for _, e := range events {
		if e.Penalty && e.ToldFor > slack {
			found = append(found, e)
		}
	}
	return found
}

// DeletesUnseen are the DELETE requests of runners that no coherent walk of
// their scope had shown before. See CoherentWalks for what the events have to
// be like.
func DeletesUnseen(events []Event) []Event {
	var found []Event
	walks := CoherentWalks(events)
	seen := make(map[string]map[int64]bool) // by scope
	for _, e := range events {
		for len(walks) > 0 && walks[0].To <= e.Seq {
			w := walks[0]
			walks = walks[1:]
			if seen[w.Scope] == nil {
				seen[w.Scope] = make(map[int64]bool)
			}
			maps.Copy(seen[w.Scope], w.IDs)
		}
		if e.Method == http.MethodDelete && e.RunnerID != 0 && strings.HasSuffix(e.Path, "/{runner_id}") && !seen[e.Scope][e.RunnerID] {
			found = append(found, e)
		}
	}
	return found
}

// Walk is a walk that proved itself.
type Walk struct {
	Scope, Credential string // as in Event
	From, To          int64  // the Seq of its first page and of the one that completed it
	IDs               map[int64]bool
}

// CoherentWalks are the walks that proved themselves, in the order of their
// ends. A walk is what one credential asks for from one page 1 to the next; it
// is coherent when all its pages were answered, name the same total, and show as
// many distinct runners. Walks of one credential in one scope must not overlap.
// The events have to be of a Sim with Config.LogListings.
func CoherentWalks(events []Event) []Walk {
	var found []Walk
	walks := make(map[string]*walk)
	for _, e := range events {
		if e.Method != http.MethodGet || !strings.HasSuffix(e.Path, "/actions/runners") {
			continue
		}
		who := e.Scope + " " + e.Credential
		if walks[who] == nil {
			walks[who] = &walk{before: make(map[string]Event)}
		}
		if ids := walks[who].add(e); ids != nil {
			found = append(found, Walk{Scope: e.Scope, Credential: e.Credential, From: walks[who].pages[1].Seq, To: e.Seq, IDs: ids})
		}
	}
	return found
}

// walk is what a client was shown since it last asked for page 1.
type walk struct {
	perPage int
	pages   map[int]Event    // by number
	before  map[string]Event // what was last shown, by query
}

// add is the runners that the walk proves, once it does, and else nil.
func (w *walk) add(e Event) map[int64]bool {
	params, err := url.ParseQuery(e.Query)
	if err != nil {
		return nil
	}
	page, perPage := paging(params)
	if perPage == 1 || params.Get("name") != "" {
		return nil // a look
	}
	if page == 1 || perPage != w.perPage {
		w.perPage, w.pages = perPage, make(map[int]Event)
	}
	switch {
	case e.Status == http.StatusNotModified && strings.Contains(e.Fault, string(FaultStale304)):
		e.Listing = w.before[e.Query].Listing // it goes on believing what it was shown then
	case e.Status != http.StatusOK && e.Status != http.StatusNotModified, e.Listing == nil:
		return nil
	default:
		w.before[e.Query] = e
	}
	w.pages[page] = e
	first := w.pages[1].Listing
	if first == nil || len(w.pages) < pageCount(first.Total, perPage) {
		return nil
	}
	ids := make(map[int64]bool)
	for number := range pageCount(first.Total, perPage) {
		p := w.pages[number+1].Listing
		if p == nil || p.Total != first.Total {
			return nil
		}
		for _, id := range p.IDs {
			ids[id] = true
		}
	}
	if len(ids) != first.Total {
		return nil
	}
	return ids
}

// listing is what the client is shown that can read the answer, or nil.
func (a *answer) listing() *Listing {
	if a.status != http.StatusOK && a.status != http.StatusNotModified || a.wire.half || a.wire.reset {
		return nil
	}
	var body struct {
		Total   *int                  `json:"total_count"`
		Runners []*struct{ ID int64 } // nil where a row is null
	}
	if json.Unmarshal(a.body, &body) != nil || body.Total == nil || body.Runners == nil {
		return nil
	}
	l := &Listing{Total: *body.Total, IDs: make([]int64, 0, len(body.Runners))}
	for _, r := range body.Runners {
		if r != nil {
			l.IDs = append(l.IDs, r.ID)
		}
	}
	return l
}
