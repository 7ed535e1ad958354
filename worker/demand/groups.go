package demand

import (
	"context"
	"errors"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// groupsEvery is how often it is asked which repositories' workflow jobs the
// runners of a target take: one request, and one for each hundred repositories
// of a group that is open to some only.
const groupsEvery = 10 * time.Minute

// groups asks for the runner groups, where that is due, and stores them. Where
// GitHub does not tell, what was known goes on to count: demand is no smaller
// for it.
func (p *part) groups(ctx context.Context) error {
	p.groupsAt, p.groupsFault = p.before.GroupsAt, p.before.GroupsFault
	if p.began.Sub(p.groupsAt) < groupsEvery {
		return nil
	}
	has := false
	err := p.DB.InTx(ctx, func(tx *db.Tx) error {
		var err error
		has, err = tx.HasGroups(ctx, p.target.Name)
		return err
	})
	if err != nil || !has {
		return err
	}
	groups, charged, err := p.target.GitHub.RunnerGroups(ctx, p.target.Scope)
	p.calls += charged
	switch {
	case errors.Is(err, fleet.ErrRateLimited), errors.Is(err, fleet.ErrUnauthorized), errors.Is(err, fleet.ErrUnavailable):
		p.fail(err) // of everything that is asked, and not of this
		return nil
	case github.Unread(err):
		p.groupsAt, p.groupsFault = p.began, fleet.CleanText(err.Error(), maxError)
		// A group that cannot be read stays as it was known.
		return p.DB.InTx(ctx, func(tx *db.Tx) error { return tx.AddGroups(ctx, p.target.Name, groups) })
	case err != nil:
		p.groupsAt, p.groupsFault = p.began, fleet.CleanText(err.Error(), maxError)
		if p.groupsFault != p.before.GroupsFault {
			p.Log.WarnContext(ctx, "runner groups not known, workflow jobs are counted for pools as before", "target", p.target.Name, "err", err)
		}
		return nil
	}
	p.groupsAt, p.groupsFault = p.began, ""
	return p.DB.InTx(ctx, func(tx *db.Tx) error { return tx.SaveGroups(ctx, p.target.Name, groups) })
}
