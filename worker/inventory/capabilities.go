package inventory

import (
	"context"
	"errors"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

const (
	// probeEvery is how long it is believed what a server can do.
	probeEvery = 24 * time.Hour
	// probeAgain is when a probe is made again that had no result.
	probeAgain = time.Hour
	// probeTime bounds a probe, for which the result of the walk waits.
	probeTime = 5 * time.Second
)

// errUnprobed rolls a transaction back until the server has been probed.
var errUnprobed = errors.New("nobody has looked at what the server can do")

// learn adds what the walk and the probe showed to what is known of the server.
// It returns errUnprobed where that wants a probe, and none was made yet.
func (w *walk) learn(have fleet.Capabilities) (fleet.Capabilities, error) {
	seen := w.listing.Server
	if w.probed == nil {
		if probeDue(have, seen, w.listing.Count, w.began) {
			return have, errUnprobed
		}
		return github.Learn(have, seen), nil
	}
	c := github.Learn(have, seen)
	if *w.probed != fleet.NotKnown {
		c.NameFilter = *w.probed
	}
	c.ProbedAt = w.began
	return c, nil
}

// probeDue reports whether what is known of a server has to be renewed. It is
// pure.
func probeDue(have fleet.Capabilities, seen github.Sight, runners int, now time.Time) bool {
	age := now.Sub(have.ProbedAt)
	switch {
	case !seen.Answered:
		return false
	case seen.Version != have.ServerVersion, age >= probeEvery:
		return true
	}
	return have.NameFilter == fleet.NotKnown && runners > 0 && age >= probeAgain
}

// probe asks for what no listing shows by the way, of which there is nothing to
// see where there are no runners. A probe that fails is no fault of the sync's.
func (w *walk) probe(ctx context.Context) {
	found := fleet.NotKnown
	w.probed = &found
	if w.listing.Count == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	heeds, err := w.target.GitHub.HeedsName(ctx, w.target.Scope)
	w.sync.APICalls++
	if err == nil {
		found = fleet.KnownAs(heeds)
	}
}
