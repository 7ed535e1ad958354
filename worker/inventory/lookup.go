package inventory

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

const (
	// lookUps is how many runners that a listing lacks are looked up in one
	// sync; the rest wait for the next.
	lookUps = 1000
	// lookUpsAtOnce stays well below the 100 requests in flight that GitHub
	// allows.
	lookUpsAtOnce = 16
	// lookUpTime bounds the looking up of one sync, whose walk grows old.
	lookUpTime = 45 * time.Second
)

// look is what GitHub said of one runner by id. The zero look is of one that
// was not asked for.
type look struct {
	asked  bool
	found  bool
	gone   bool // 404 by id, in a scope that is seen; asked and neither found nor gone: no answer
	runner fleet.Runner
}

// lookUp asks GitHub for single runners. Beyond the limit a part is taken that
// moves on as turn counts up, so that none waits for ever. It ends early when
// GitHub asks for a pause, or its limits leave no room. One that gets no answer
// by id and has a name is asked for by that too. lookUp also returns how many
// requests it took.
func lookUp(ctx context.Context, target Target, ids []int64, names map[int64]string, turn int64) (map[int64]look, int) {
	looked, calls := lookOneByOne(ctx, target, ids, names, turn)
	if !anyGone(looked) {
		return looked, calls
	}
	// The right to see the scope may have been lost since it was listed, and
	// GitHub answers 404 to that too.
	err := target.GitHub.CanList(ctx, target.Scope)
	if err != nil {
		for id, l := range looked {
			l.gone = false
			looked[id] = l
		}
	}
	if !heldBack(err) {
		calls++
	}
	return looked, calls
}

// heldBack reports whether a request was not sent, for want of room in GitHub's
// limits.
func heldBack(err error) bool {
	var e *github.Error
	return errors.Is(err, fleet.ErrRateLimited) && errors.As(err, &e) && e.Status == 0
}

func anyGone(looked map[int64]look) bool {
	for _, l := range looked {
		if l.gone {
			return true
		}
	}
	return false
}

func lookOneByOne(ctx context.Context, target Target, ids []int64, names map[int64]string, turn int64) (map[int64]look, int) {
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	if len(ids) > lookUps {
		from := int(turn*lookUps) % len(ids)
		ids = append(slices.Clone(ids[from:]), ids[:from]...)[:lookUps]
	}
	var mu sync.Mutex
	looked, calls := make(map[int64]look, len(ids)), 0
	var g errgroup.Group
	g.SetLimit(lookUpsAtOnce)
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			r, err := target.GitHub.Confirm(ctx, target.Scope, id)
			if errors.Is(err, fleet.ErrRateLimited) {
				cancel()
			}
			if heldBack(err) || errors.Is(err, context.Canceled) {
				return nil // not asked
			}
			asked := 1
			if names[id] != "" && unusable(err) {
				// Who is listed under the name is there, as long as it is the
				// same; who is not may be there all the same.
				asked++
				named, errNamed := target.GitHub.RunnerNamed(ctx, target.Scope, names[id], true)
				switch {
				case errNamed == nil && named.ID == id:
					r, err = named, nil
				case errors.Is(errNamed, fleet.ErrRateLimited):
					cancel()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			calls += asked
			looked[id] = look{asked: true, found: err == nil, gone: errors.Is(err, fleet.ErrNotFound), runner: r}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return looked, calls
}

// unusable reports whether an answer says nothing about the runner, although
// GitHub might with another question.
func unusable(err error) bool {
	return errors.Is(err, fleet.ErrUnavailable) || errors.Is(err, fleet.ErrMalformed)
}
