package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// demanded is the lease that a request names as its demand, locked. An empty
// one says that it names none: a demand_id may be anything that a script wants
// to find again. Who takes a runner away claims nothing.
func demanded(ctx context.Context, tx *db.Tx, q request) (fleet.Lease, error) {
	id, err := uuid.Parse(q.demandID)
	if err != nil || len(q.demandID) != uuidLength || q.kind == fleet.TokenRemoval {
		return fleet.Lease{}, nil
	}
	l, err := tx.LockLease(ctx, id.String())
	if errors.Is(err, fleet.ErrNotFound) {
		return fleet.Lease{}, nil
	}
	return l, err
}

// claimable says why a host may not have a token for a lease; empty: it may.
// The host that has claimed it may ask again, as its first answer may be lost.
// It is pure.
func claimable(l fleet.Lease, host string, now time.Time) string {
	switch {
	case l.State == fleet.LeaseExpired || !l.Deadline.After(now):
		return fmt.Sprintf("lease %s is over since %s", l.RequestID, l.Deadline.UTC().Format(time.RFC3339))
	case l.Host != "" && l.Host != host:
		return fmt.Sprintf("lease %s was claimed by host %s", l.RequestID, l.Host)
	case l.State == fleet.LeaseOnline:
		return fmt.Sprintf("the runner of lease %s is online already", l.RequestID)
	}
	return ""
}
