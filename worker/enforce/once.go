package enforce

import (
	"context"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// fleetRead is the live runners of a target as one policy's turn read them, for
// the turns of the other policies. Of what an evaluation costs, this is nearly
// all.
type fleetRead struct {
	target  string
	state   db.FleetState
	runners []fleet.Observed
}

// forget has the next turn read the runners again.
func (f *fleetRead) forget() { *f = fleetRead{} }

// fleetReader reads live runners, and tells one such reading from a later one.
type fleetReader interface {
	FleetState(ctx context.Context, target string) (db.FleetState, error)
	LiveRunners(ctx context.Context, target string) ([]fleet.Observed, error)
}

// read gives the runners that an earlier turn read, where since then neither a
// sync nor a removal has changed who there is. What witnesses have said
// meanwhile is heard before anybody is acted on: see remove.Remover.
func (f *fleetRead) read(ctx context.Context, from fleetReader, target string) ([]fleet.Observed, error) {
	// First: what changes while the runners are read has them read again.
	state, err := from.FleetState(ctx, target)
	if err != nil {
		return nil, err
	}
	if f.target == target && f.state == state {
		return f.runners, nil
	}
	f.forget() // two fleets at a time are too many
	runners, err := from.LiveRunners(ctx, target)
	if err != nil {
		return nil, err
	}
	*f = fleetRead{target: target, state: state, runners: runners}
	return runners, nil
}

// turn reads for one policy, in its transaction and under its lock.
type turn struct {
	*db.Tx
	fleet *fleetRead
}

func (t turn) LiveRunners(ctx context.Context, target string) ([]fleet.Observed, error) {
	return t.fleet.read(ctx, t.Tx, target)
}

// Reader reads the record for plans and explanations: the runners of a target
// once for all its policies. It is not safe for concurrent use.
type Reader struct {
	*db.DB
	fleet fleetRead
}

// NewReader returns a Reader of the record.
func NewReader(d *db.DB) *Reader { return &Reader{DB: d} }

// LiveRunners reads the registered runners of a target, by id.
func (r *Reader) LiveRunners(ctx context.Context, target string) ([]fleet.Observed, error) {
	return r.fleet.read(ctx, r.DB, target)
}
