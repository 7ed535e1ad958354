package inventory

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
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
	gone   bool // 404; asked and neither found nor gone: no answer
	runner fleet.Runner
}

// lookUp asks GitHub for single runners. Beyond the limit a part is taken that
// moves on as turn counts up, so that none waits for ever. It ends early when
// GitHub asks for a pause. The credential has just listed the scope, so a 404
// means the runner and not the right to see it.
func lookUp(ctx context.Context, target Target, ids []int64, turn int64) map[int64]look {
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	if len(ids) > lookUps {
		from := int(turn*lookUps) % len(ids)
		ids = append(slices.Clone(ids[from:]), ids[:from]...)[:lookUps]
	}
	var mu sync.Mutex
	looked := make(map[int64]look, len(ids))
	var g errgroup.Group
	g.SetLimit(lookUpsAtOnce)
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			r, err := target.GitHub.Runner(ctx, target.Scope, id)
			if errors.Is(err, fleet.ErrRateLimited) {
				cancel()
			}
			if errors.Is(err, context.Canceled) {
				return nil // not asked
			}
			mu.Lock()
			defer mu.Unlock()
			looked[id] = look{asked: true, found: err == nil, gone: errors.Is(err, fleet.ErrNotFound), runner: r}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return looked
}
