package inventory

import (
	"context"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// isNoNews reports whether the walk saw, to the byte, the listing that showed
// exactly the runners that are registered. Then nothing is to be compared.
func (w *walk) isNoNews(proven fleet.Digest) bool {
	return w.listing.Complete && len(w.listing.Runners) == 0 &&
		proven != (fleet.Digest{}) && w.listing.Digest == proven
}

// proven is what isNoNews may hold the next walk against, where this one had
// to be compared and changed that many rows. A partial walk that changed
// nothing leaves it as it was. It is pure.
func proven(was fleet.Digest, listing github.Listing, c census, rows int) fleet.Digest {
	switch {
	case listing.Complete && c.listed == c.live && c.outdated == 0:
		return listing.Digest
	case listing.Complete || rows > 0:
		return fleet.Digest{}
	}
	return was
}

// upToDate reports whether the record of the runners on pages that are as they
// were kept is still what those pages showed: another page, or the look at a
// single runner, may have shown one of them otherwise since. It is pure.
func upToDate(known map[int64]db.KnownRunner, pages []fleet.Page) bool {
	for _, p := range pages {
		var shown int64
		for _, id := range p.IDs {
			k, ok := known[id]
			if !ok || k.Removed {
				return false
			}
			shown += tie(id, k.Fingerprint)
		}
		if shown != p.Shown {
			return false
		}
	}
	return true
}

// tie mixes an id with a fingerprint, so that sums of it tell whose
// fingerprint is whose. It is the finaliser of SplitMix64.
func tie(id, fingerprint int64) int64 {
	x := uint64(fingerprint) + uint64(id)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return int64(x ^ x>>31)
}

// keep stores the pages that are not as they were kept.
func (s *Syncer) keep(ctx context.Context, tx *db.Tx, w *walk) error {
	last := 0
	if w.listing.Complete && w.keeps > w.listing.Pages {
		last = w.listing.Pages
	}
	if len(w.listing.Fresh) > 0 || last > 0 {
		if err := tx.SavePages(ctx, w.target.Name, w.freshPages(), last); err != nil {
			return err
		}
	}
	if w.listing.Incoherent {
		return tx.DistrustPages(ctx, w.target.Name)
	}
	return nil
}

// freshPages ties pages to the runners that they show. Those that differ in
// nothing but their validator are tied already.
func (w *walk) freshPages() []fleet.Page {
	same := make(map[int]bool, len(w.listing.Same))
	for _, p := range w.listing.Same {
		same[p.Number] = true
	}
	pages := make([]fleet.Page, len(w.listing.Fresh))
	next := 0 // most pages show runners by id, as the listing has them
	for i, p := range w.listing.Fresh {
		if pages[i] = p; same[p.Number] {
			continue
		}
		pages[i].Shown = 0
		for _, id := range p.IDs {
			at, ok := next, next < len(w.listing.Runners) && w.listing.Runners[next].ID == id
			if !ok {
				at, ok = find(w.listing.Runners, id)
			}
			if ok {
				pages[i].Shown += tie(id, w.prints[at])
				next = at + 1
			}
		}
	}
	return pages
}
