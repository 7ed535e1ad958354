package inventory

import (
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

// difference is what sets a walk apart from the record.
type difference struct {
	// changed are runners that are new, or show something else than recorded.
	changed []fleet.Runner
	// missing are recorded runners that a complete listing lacks, ascending;
	// those that looking up found are in changed or nowhere instead, and those
	// that somebody is just deleting are left to worker/remove, which knows
	// better what became of them.
	missing []int64
	// newlyOffline counts runners recorded as not offline and shown offline.
	newlyOffline int
}

// compare sets a listing, and what was found by looking up single runners,
// against the record. It is pure.
func compare(known map[int64]db.KnownRunner, listing github.Listing, looked map[int64]look) difference {
	var d difference
	listed := 0
	see := func(r fleet.Runner) {
		k, ok := known[r.ID]
		if ok && k.Removed {
			return // the walk is older than the removal
		}
		if ok && !k.Offline && r.Status == fleet.StatusOffline {
			d.newlyOffline++
		}
		uncounted := ok && k.Offline && !k.Counting && listing.Complete
		if !ok || k.Fingerprint != fingerprint(r) || k.Missing || uncounted {
			d.changed = append(d.changed, r)
		}
	}
	for _, r := range listing.Runners {
		if k, ok := known[r.ID]; ok && !k.Removed {
			listed++
		}
		see(r)
	}
	if !listing.Complete {
		return d
	}
	live := 0
	for _, k := range known {
		if !k.Removed {
			live++
		}
	}
	if listed == live {
		return d
	}
	absent := make(map[int64]bool, live-listed)
	for id, k := range known {
		if !k.Removed && !k.Intended {
			absent[id] = true
		}
	}
	for _, r := range listing.Runners {
		delete(absent, r.ID)
	}
	for _, id := range sortedIDs(absent) {
		if l, ok := looked[id]; ok && l.found {
			see(l.runner)
			continue
		}
		d.missing = append(d.missing, id)
	}
	return d
}

// suspect says why a complete listing looks like a fault. It is pure.
func suspect(known map[int64]db.KnownRunner, listing github.Listing, d difference) fleet.Suspect {
	if !listing.Complete {
		return fleet.SuspectNot
	}
	live, online := 0, 0
	for _, k := range known {
		if !k.Removed {
			live++
			if !k.Offline {
				online++
			}
		}
	}
	listed := 0
	for _, r := range listing.Runners {
		if k, ok := known[r.ID]; ok && !k.Removed {
			listed++
		}
	}
	absent := live - listed
	switch {
	case live > 0 && len(listing.Runners) == 0:
		return fleet.SuspectEmpty
	case absent >= suspectMin && absent*100 >= live*suspectPercent:
		return fleet.SuspectShrunk
	case d.newlyOffline >= suspectMin && d.newlyOffline*100 >= online*suspectPercent:
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
	flag(r.Ephemeral)
	add(r.Version)
	return int64(h)
}
