package main

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// hearers are those who hear of what clients do; the zero value: nobody. Clients
// keep the pauses that are known of their credentials, from the first request
// on.
type hearers struct {
	call   observer
	waited func(github.Wait)
	pauses *github.Pauses
	// replicas is how many processes use the same credentials; 0: this one.
	replicas int
}

// pauseRecord is the record of pauses once there is one.
type pauseRecord struct{ db func() *db.DB }

func (r pauseRecord) Now(ctx context.Context) (time.Time, error) {
	if r.db() == nil {
		return time.Time{}, fleet.ErrUnavailable
	}
	return db.Pauses{DB: r.db()}.Now(ctx)
}

func (r pauseRecord) Save(ctx context.Context, p fleet.Pause) error {
	if r.db() == nil {
		return fleet.ErrUnavailable
	}
	return db.Pauses{DB: r.db()}.Save(ctx, p)
}

func (r pauseRecord) Standing(ctx context.Context, at time.Time) ([]fleet.Pause, error) {
	if r.db() == nil {
		return nil, fleet.ErrUnavailable
	}
	return db.Pauses{DB: r.db()}.Standing(ctx, at)
}

// keepPauses has the client keep what is known of its credential.
func (c *sharedClient) keepPauses(p *github.Pauses) {
	p.Impose(c.account(), c.Client)
	if c.app != nil {
		p.Impose(c.issuer, c.app)
	}
}

// paused is the pause that keeps the client from asking anything; the zero
// value: none does.
func (c *sharedClient) paused(p *github.Pauses, now time.Time) fleet.Pause {
	longest := p.Of(c.account())
	if c.app != nil {
		if its := p.Of(c.issuer); its.Until.After(longest.Until) {
			longest = its
		}
	}
	if !longest.Until.After(now) {
		return fleet.Pause{}
	}
	return longest
}

// openPauses is what a command needs to keep to the pauses that muster serve
// was told, and to tell it of others. Where the record cannot be had it keeps
// to none but its own.
func openPauses(ctx context.Context, c *config) (*github.Pauses, func()) {
	none := func() {}
	unrecorded := &github.Pauses{Record: pauseRecord{db: func() *db.DB { return nil }}}
	url, err := databaseURL(c)
	if err != nil {
		return unrecorded, none
	}
	store, err := db.Open(ctx, url.Reveal())
	if err != nil {
		return unrecorded, none
	}
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	pauses := &github.Pauses{Record: db.Pauses{DB: store}}
	if pauses.Refresh(ctx) != nil {
		store.Close() // without the record there is no more to do with it
		return unrecorded, none
	}
	return pauses, store.Close
}

// leftAlone is why a target is not asked anything.
func leftAlone(p fleet.Pause) error {
	return fmt.Errorf("%w: GitHub asked to be left alone until %s (%s); nothing was sent", fleet.ErrRateLimited, moment(p.Until), p.Reason)
}
