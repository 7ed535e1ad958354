package inventory

import (
	"cmp"
	"slices"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// Shares and numbers from which a complete listing looks more like a fault
// than a fleet. Those who see a fleet go in one piece have seen GitHub err
// (github.com/lfn-cnti/testsuite issue 923).
const (
	suspectPercent = 20
	suspectMin     = 10
)

// sight is a runner as GitHub shows it.
type sight struct {
	fleet.Runner
	print int64 // its fingerprint
	known bool  // as one that is live
}

// difference is what sets a walk apart from the record.
type difference struct {
	// changed are runners that are new, or show something else than recorded.
	changed []sight
	// again are runners that show what is recorded and whose row has to move on
	// all the same.
	again []int64
	// missing are recorded runners that a complete listing lacks, ascending;
	// those that looking up found are in changed or nowhere instead, and those
	// that somebody is just deleting are left to worker/remove, which knows
	// better what became of them.
	missing []int64
	// newlyOffline counts runners recorded as not offline and shown offline.
	newlyOffline int
}

// census counts the recorded runners of a target.
type census struct {
	live, online int // before the walk
	listed       int // of live, those that the walk shows
	outdated     int // shown although they were removed since the walk began
}

// compare sets a listing, and what was found by looking up single runners,
// against the record. prints are the fingerprints of the listing's Runners; its
// pages that are as they were kept have to be upToDate. It is pure.
func compare(known map[int64]db.KnownRunner, listing github.Listing, prints []int64, looked map[int64]look) (difference, census) {
	var d difference
	var c census
	for _, k := range known {
		if !k.Removed {
			c.live++
			if !k.Offline {
				c.online++
			}
		}
	}
	d.changed = slices.Grow(d.changed, max(len(listing.Runners)-len(known), 0)) // all, of a first load
	see := func(r fleet.Runner, print int64) {
		k, ok := known[r.ID]
		if ok && k.Removed {
			c.outdated++
			return
		}
		if ok && !k.Offline && r.Status == fleet.StatusOffline {
			d.newlyOffline++
		}
		if !ok || k.Fingerprint != print || moves(k, listing.Complete) {
			d.changed = append(d.changed, sight{r, print, ok})
		}
	}
	for i, r := range listing.Runners {
		if k, ok := known[r.ID]; ok && !k.Removed {
			c.listed++
		}
		see(r, prints[i])
	}
	for _, p := range listing.Same {
		for _, id := range p.IDs {
			if _, decoded := find(listing.Runners, id); decoded {
				continue // pages shifted, and another one shows it as it is now
			}
			c.listed++
			if moves(known[id], listing.Complete) {
				d.again = append(d.again, id)
			}
		}
	}
	if !listing.Complete || c.listed == c.live {
		return d, c
	}
	for _, id := range absent(known, listing) {
		if l, ok := looked[id]; ok && l.found {
			see(l.runner, fingerprint(l.runner))
			continue
		}
		d.missing = append(d.missing, id)
	}
	return d, c
}

// moves reports whether the row of a runner has to move on although it shows
// what is recorded.
func moves(k db.KnownRunner, complete bool) bool {
	return k.Missing || k.Unreadable || k.Offline && !k.Counting && complete
}

// absent are the recorded runners that a listing lacks, ascending, but for
// those that somebody is just deleting.
func absent(known map[int64]db.KnownRunner, listing github.Listing) []int64 {
	shown := make(map[int64]bool, listing.Count)
	for _, r := range listing.Runners {
		shown[r.ID] = true
	}
	for _, p := range listing.Same {
		for _, id := range p.IDs {
			shown[id] = true
		}
	}
	var ids []int64
	for id, k := range known {
		if !k.Removed && !k.Intended && !shown[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// find looks a runner up among those of a listing, which are sorted by id.
func find(runners []fleet.Runner, id int64) (int, bool) {
	return slices.BinarySearchFunc(runners, id, func(r fleet.Runner, id int64) int { return cmp.Compare(r.ID, id) })
}

// suspect says why a complete listing looks like a fault. It is pure.
func suspect(listing github.Listing, d difference, c census) fleet.Suspect {
	absent := c.live - c.listed
	switch {
	case !listing.Complete:
		return fleet.SuspectNot
	case c.live > 0 && listing.Count == 0:
		return fleet.SuspectEmpty
	case absent >= suspectMin && absent*100 >= c.live*suspectPercent:
		return fleet.SuspectShrunk
	case d.newlyOffline >= suspectMin && d.newlyOffline*100 >= c.online*suspectPercent:
		return fleet.SuspectMassOffline
	}
	return fleet.SuspectNot
}

// fingerprint is a 64-bit FNV-1a hash of all that GitHub shows of a runner but
// its id: what a stored one is compared by.
func fingerprint(r fleet.Runner) int64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	add := func(s string) {
		for i := 0; i < len(s); i++ {
			h = (h ^ uint64(s[i])) * prime
		}
		h = (h ^ 0xff) * prime // no byte of UTF-8: "ab","c" is not "a","bc"
	}
	flag := func(b bool) {
		if b {
			add("t")
			return
		}
		add("f")
	}
	add(r.Name)
	add(r.OS)
	add(string(r.Status))
	flag(r.Busy)
	for _, l := range r.Labels {
		add(l)
	}
	add("")
	add(r.Group)
	add(r.Ephemeral.String())
	add(r.Version)
	add(r.Unreadable)
	return int64(h)
}
