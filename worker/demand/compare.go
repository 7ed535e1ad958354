package demand

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// compare compares the workflow jobs of one repository. It reports whether that
// came to its end. GitHub is asked until asking ends; what it had told by then is
// learnt all the same.
//
// An organisation's webhook tells of all its repositories, and the credential may
// have been given some of them. One that is neither listed nor there for it is left
// to its events.
func (p *part) compare(ctx, asking context.Context, known db.KnownRepository) (done bool, err error) {
	repository := known.Repository
	at, err := p.Now(ctx)
	if err != nil {
		return false, err
	}
	repo, err := fleet.ParseScope("repo/" + repository)
	if err != nil {
		// No request can name it, so it is left to its events.
		p.Log.WarnContext(ctx, "workflow jobs of a repository cannot be compared", "target", p.target.Name, "err", err)
		return true, p.leave(ctx, repository)
	}
	told, err := p.open(asking, repo)
	if github.Moved(err) && !known.Moved && p.target.Scope.Kind != fleet.ScopeRepo {
		return p.follow(ctx, asking, known, repo)
	}
	p.answered = p.answered || err == nil
	if err := p.learn(ctx, told); err != nil {
		return false, err
	}
	if err == nil {
		var left map[int64]fleet.WorkflowJob
		if left, err = p.DB.OpenJobsOf(ctx, p.target.Name, repository, at); err != nil {
			return false, err
		}
		maps.DeleteFunc(left, func(id int64, _ fleet.WorkflowJob) bool { _, shown := told[id]; return shown })
		var ends map[int64]fleet.WorkflowJob
		var gone []fleet.WorkflowJob
		ends, gone, err = p.reread(asking, repo, left)
		if err := errors.Join(p.learn(ctx, ends), p.forget(ctx, gone)); err != nil {
			return false, err
		}
	}
	switch {
	case errors.Is(err, errSpent), err != nil && asking.Err() != nil:
		return false, nil // the rest of it has its turn in another part
	case errors.Is(err, fleet.ErrNotFound) && !known.Listed && p.target.Scope.Kind == fleet.ScopeOrg:
		err = p.leave(ctx, repository)
		return err == nil, err
	case err != nil:
		if errors.Is(err, fleet.ErrNotFound) {
			p.listed = time.Time{} // it may have gone, or have another name
		}
		p.fail(err)
		return false, nil
	}
	err = p.DB.InTx(ctx, func(tx *db.Tx) error { return tx.CompareRepository(ctx, p.target.Name, repository, at) })
	return err == nil, err
}

// leave leaves a repository to its events.
func (p *part) leave(ctx context.Context, repository string) error {
	return p.DB.InTx(ctx, func(tx *db.Tx) error { return tx.LeaveRepository(ctx, p.target.Name, repository) })
}

// follow compares a repository that GitHub says has another name, under that name,
// which is recorded. One that has gone to another organisation is not the target's
// any more. The repositories are listed anew in this part, since one that moved is
// seldom alone. A redirect that leads to another one is a fault like any other.
func (p *part) follow(ctx, asking context.Context, known db.KnownRepository, repo fleet.Scope) (done bool, err error) {
	now, err := p.target.GitHub.RepositoryNow(asking, repo)
	p.calls += 2
	if err != nil {
		if asking.Err() == nil {
			p.fail(err)
		}
		return false, nil
	}
	at, err := p.Now(ctx)
	if err != nil {
		return false, err
	}
	name := now.Owner + "/" + now.Repo
	to := name
	if p.target.Scope.Kind == fleet.ScopeOrg && !strings.EqualFold(now.Owner, p.target.Scope.Owner) {
		to = ""
	}
	if to != known.Repository {
		err = p.DB.InTx(ctx, func(tx *db.Tx) error {
			return tx.RenameRepository(ctx, p.target.Name, known.Repository, to, at)
		})
		if err != nil {
			return false, err
		}
	}
	p.Log.InfoContext(ctx, "a repository has moved", "target", p.target.Name, "repository", known.Repository, "now", name)
	if err := p.relist(ctx, asking); err != nil {
		return false, err
	}
	if to == "" {
		return true, nil
	}
	known.Repository = to
	known.Moved = true
	return p.compare(ctx, asking, known)
}

// relist lists the repositories anew, once in a part.
func (p *part) relist(ctx, asking context.Context) error {
	if p.relisted || p.listed.Equal(p.began) {
		return nil
	}
	p.relisted = true
	p.before.ListedAt = time.Time{}
	list := p.list(asking)
	return p.DB.InTx(ctx, list)
}

// open lists the workflow jobs of all runs that are not over, by id. With an error
// they are those that were shown: they are there, and there may be others.
func (p *part) open(ctx context.Context, repo fleet.Scope) (map[int64]fleet.WorkflowJob, error) {
	runs := map[int64]bool{}
	var lacks error
	// In this order: a run that begins in between is in the second list.
	for _, state := range []fleet.WorkflowJobState{fleet.WorkflowJobQueued, fleet.WorkflowJobInProgress} {
		listed, charged, err := p.target.GitHub.WorkflowRuns(ctx, repo, state)
		p.calls += charged
		if err != nil {
			return nil, err
		}
		if listed.Lacks != "" && lacks == nil {
			lacks = lacking(listed.Lacks)
		}
		for _, run := range listed.Runs {
			runs[run.ID] = true
		}
	}
	all := map[int64]fleet.WorkflowJob{}
	for _, run := range slices.Sorted(maps.Keys(runs)) {
		jobs, charged, err := p.target.GitHub.WorkflowJobs(ctx, repo, run, github.LatestAttempt)
		p.calls += charged
		for _, j := range jobs {
			all[j.ID] = j
		}
		switch {
		case err == nil || errors.Is(err, fleet.ErrNotFound): // it was deleted since
		case github.Unread(err):
			lacks = cmp.Or[error](lacks, lacking(err.Error())) // what cannot be read costs itself alone
		default:
			return all, err
		}
	}
	return all, lacks
}

// lacking says why what was listed may not be all. GitHub has answered: it is no
// fault of its.
type lacking string

func (l lacking) Error() string { return string(l) }

// errSpent says that a part has asked enough.
var errSpent = errors.New("no requests are left for this part")

// reread asks for workflow jobs one by one that nobody has told the end of and
// that no run shows: those of one run together. Listings lack what is there now
// and then, so only what is said of the job itself counts. One that waits and is
// gone, in a repository whose runs can be listed, wants nobody. Of one that runs
// that is no proof: its event may be the only witness that keeps its runner, and
// one false answer must not silence it for ever. It counts until GitHub would end
// it.
func (p *part) reread(ctx context.Context, repo fleet.Scope, left map[int64]fleet.WorkflowJob) (told map[int64]fleet.WorkflowJob, gone []fleet.WorkflowJob, err error) {
	told = map[int64]fleet.WorkflowJob{}
	byRun := map[int64]int{}
	for _, j := range left {
		byRun[j.RunID]++
	}
	for _, run := range slices.Sorted(maps.Keys(byRun)) {
		if run == 0 || byRun[run] < 2 {
			continue
		}
		if p.spent() >= 2*partRoom {
			return told, gone, errSpent
		}
		jobs, charged, err := p.target.GitHub.WorkflowJobs(ctx, repo, run, github.AllAttempts)
		p.calls += charged
		for _, j := range jobs {
			told[j.ID] = j
		}
		if err != nil && !errors.Is(err, fleet.ErrNotFound) && !github.Unread(err) {
			return told, gone, err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(left)) {
		if _, done := told[id]; done {
			continue
		}
		if p.spent() >= 2*partRoom {
			return told, gone, errSpent
		}
		j, err := p.target.GitHub.WorkflowJob(ctx, repo, id)
		p.calls++
		switch {
		case errors.Is(err, fleet.ErrNotFound) && left[id].State == fleet.WorkflowJobInProgress:
			continue
		case errors.Is(err, fleet.ErrNotFound):
			gone = append(gone, left[id])
			continue
		case err != nil:
			return told, gone, err
		}
		told[id] = j
	}
	return told, gone, nil
}

// forget drops workflow jobs that waited and are gone. They are not put down as
// completed: that nobody tells of them is no end that was told, and an event that
// says later that one runs has to count.
func (p *part) forget(ctx context.Context, gone []fleet.WorkflowJob) error {
	for _, j := range gone {
		err := p.DB.InTx(ctx, func(tx *db.Tx) error {
			news, err := tx.ForgetWorkflowJob(ctx, p.target.Name, j.ID)
			if err != nil || !news {
				return err
			}
			p.news++
			return p.wake(ctx, tx, j)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// learn adds what GitHub told to what is known. What is known already costs one
// statement, however much it is.
func (p *part) learn(ctx context.Context, told map[int64]fleet.WorkflowJob) error {
	if len(told) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(told))
	known, err := p.DB.WorkflowJobs(ctx, p.target.Name, ids)
	if err != nil {
		return err
	}
	now, err := p.Now(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		j := told[id]
		j.Target = p.target.Name
		if have, ok := known[id]; j.State == "" || ok && same(have, Fold(have, believable(j, now))) {
			continue
		}
		// One transaction each: a job may concern its runner, and syncs lock
		// many of those.
		err := p.DB.InTx(ctx, func(tx *db.Tx) error {
			news, err := p.add(ctx, tx, j, now)
			if news && err == nil {
				p.news++
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
