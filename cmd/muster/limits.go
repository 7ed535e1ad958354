package main

import (
	"context"
	"errors"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/github"
)

const (
	// pausesEvery is how often a replica asks what the others were told.
	pausesEvery = time.Second
	// presentEvery is how often it says that it is there, in these.
	presentEvery = 5
	// leaveLimit is how long it may take to say that it stops.
	leaveLimit = 2 * time.Second
)

// limits are what the clients of the wiring in force know of GitHub's limits.
func (s *service) limits() map[string]github.Limits {
	all := map[string]github.Limits{}
	for target, c := range s.wiring.Load().clients {
		all[target] = c.Limits()
	}
	return all
}

// join is what has to be known before the first request: what GitHub asked of
// others, or before a restart, and with how many its limits are shared.
func (s *service) join(ctx context.Context) error {
	return errors.Join(s.refreshPauses(ctx), s.present(ctx))
}

// refreshPauses reads what other processes were told, and has the clients keep
// to it.
func (s *service) refreshPauses(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	err := s.pauses.Refresh(ctx)
	for _, c := range s.wiring.Load().clients {
		c.keepPauses(s.pauses)
	}
	return err
}

// present says that this replica is there, and has the clients leave to the
// others what is theirs. Where that is not known, they do as before.
func (s *service) present(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	n, err := db.Replicas{DB: s.record.Load()}.Present(ctx, s.id, s.wiring.Load().config.targetNames())
	if err != nil {
		return err
	}
	s.replicas.Store(int64(n))
	for _, c := range s.wiring.Load().clients {
		c.Share(n)
	}
	return nil
}

// leave leaves the others what was this replica's. Where it does not come to
// that, they find out by themselves.
func (s *service) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	if err := (db.Replicas{DB: s.record.Load()}).Leave(ctx, s.id); err != nil {
		s.log.WarnContext(ctx, "the other replicas learn late that this one stops", "err", err)
	}
}

// shareLimits keeps to what other replicas were told, and spend, until ctx
// ends.
func (s *service) shareLimits(ctx context.Context) error {
	failing := false
	tick := time.NewTicker(pausesEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := s.refreshPauses(ctx)
		if n%presentEvery == 0 {
			err = errors.Join(err, s.present(ctx))
		}
		if err != nil && !failing && ctx.Err() == nil {
			s.log.WarnContext(ctx, "GitHub's limits and pauses cannot be shared with other replicas, trying again", "err", err)
		}
		failing = err != nil
	}
}
