package demand

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

const (
	// lookEvery is how often it is looked for comparisons that are due, and
	// compareEvery the least time from one part of a target's to the next.
	lookEvery    = 10 * time.Second
	compareEvery = time.Minute
	// partLimit is how long a part may take; then it is somebody else's turn.
	partLimit = 3 * time.Minute
	// partFaults is how many repositories may fail in a part: then it is not
	// they who are at fault.
	partFaults = 3
	// A repository is compared in every part that there is room in for a week
	// after something was told of it. All others, of which the events of a
	// first job would have to be lost, have their turn every few hours. That rests
	// on events: where none came for eventsFor, perhaps since the server sends none,
	// every repository is compared in every part.
	hotFor    = 7 * 24 * time.Hour
	eventsFor = 24 * time.Hour
	coldEvery = 6 * time.Hour
	listEvery = 6 * time.Hour // how often the repositories of an organisation are listed
	maxNamed  = 20            // unreadable repositories that are named; all are counted
	// listsLag is by how much GitHub's lists of runs are behind: a comparison that
	// begins so long after a delivery was refused shows what it told.
	listsLag = 30 * time.Second
)

// A part ends after as many requests that GitHub charged for as a credential
// has room for in partRoom, once the repository under way is done, and each of
// them sets the next part off by as much. Room is comparedShare of the
// credential's hour: 1,800 requests of the 5,000 that each has at least. A server
// without limits is spared all the same, as one of freeHour.
const (
	partRoom      = 2 * time.Minute
	comparedShare = 36 // percent
	freeHour      = 50_000
)

// hourly is how many requests an hour comparisons may cost, where GitHub allows
// so many in all; 0: it does not limit them.
func hourly(limit int) int {
	if limit <= 0 {
		limit = freeHour
	}
	return max(limit*comparedShare/100, 1)
}

// Compared is a target of which GitHub is asked what its events may not have
// told.
type Compared struct {
	fleet.Target
	GitHub teller
	// Pools says that it has some: they rest on all workflow jobs being known.
	// Without, only its webhooks are looked after, and what they refused.
	Pools bool
}

// teller is what a comparison asks of GitHub. Listings are whole, say what they
// lack, or are an error.
type teller interface {
	Repositories(ctx context.Context, org fleet.Scope) (all []github.Repository, unread []string, err error)
	RunnerGroups(ctx context.Context, scope fleet.Scope) (groups []fleet.RunnerGroup, charged int, err error)
	WorkflowRuns(ctx context.Context, repo fleet.Scope, state fleet.WorkflowJobState) (list github.WorkflowRuns, charged int, err error)
	WorkflowJobs(ctx context.Context, repo fleet.Scope, run int64, attempts github.WorkflowAttempts) (jobs []fleet.WorkflowJob, charged int, err error)
	WorkflowJob(ctx context.Context, repo fleet.Scope, id int64) (fleet.WorkflowJob, error)
	RepositoryNow(ctx context.Context, repo fleet.Scope) (fleet.Scope, error)
	Limits() github.Limits
	hooks
}

// Reconciler compares what events told of workflow jobs with what GitHub says
// when it is asked, part by part, and adds what they did not tell. Jobs only
// ever become more, or come to an end that GitHub has told of that very job, so
// that nothing that goes wrong makes demand smaller. All fields are
// required. It is safe for concurrent use; replicas take turns.
type Reconciler struct {
	Intake  *Intake                    // that adds what is told
	Targets func() map[string]Compared // by name, as configured now: those with pools or webhooks
}

// Run compares whatever is due, until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	var underWay sync.Map // targets
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		for name, target := range r.Targets() {
			if _, busy := underWay.LoadOrStore(name, true); busy {
				continue
			}
			all.Go(func() {
				defer underWay.Delete(name)
				_, err := r.Sweep(ctx, name)
				wanted, unknown := r.wanted(ctx, target)
				err = errors.Join(err, unknown)
				if wanted {
					_, compared := r.Reconcile(ctx, name)
					err = errors.Join(err, compared)
				}
				if err != nil && ctx.Err() == nil {
					r.Intake.Log.WarnContext(ctx, "workflow jobs not compared, trying again", "target", name, "err", err)
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// wanted reports whether the workflow jobs of a target are compared: it has pools,
// or deliveries were refused that told of them.
func (r *Reconciler) wanted(ctx context.Context, target Compared) (bool, error) {
	if target.Pools {
		return true, nil
	}
	refused, err := r.Intake.DB.Refusals(ctx)
	return refused[target.Name].Deliveries > 0, err
}

// Reconcile does the next part of a target's comparison, where it is due; false:
// it is not. An error is Postgres's, or says that ctx has ended; what GitHub did
// not answer stands in the record.
func (r *Reconciler) Reconcile(ctx context.Context, name string) (bool, error) {
	target, known := r.Targets()[name]
	if !known {
		return false, fmt.Errorf("compare workflow jobs of %s: no target of that name is configured", name)
	}
	now, err := r.Intake.Now(ctx)
	if err != nil {
		return false, err
	}
	p := &part{Intake: r.Intake, target: target, began: now}
	due := false
	err = r.Intake.DB.InTx(ctx, func(tx *db.Tx) error {
		p.before, due, err = tx.ClaimReconciliation(ctx, name, now, now.Add(partLimit))
		return err
	})
	if err != nil || !due {
		return false, err
	}
	if p.before.Refused.Deliveries > 0 {
		p.knownFrom = p.before.Refused.Until.Add(listsLag)
	}
	err = p.run(ctx)
	if err == nil {
		err = p.save(ctx)
	}
	log := r.Intake.Log.With("target", name, "calls", p.calls, "news", p.news)
	switch {
	case p.fault != nil && fleet.CleanText(p.fault.Error(), maxError) == p.before.Fault:
		log.DebugContext(ctx, "workflow jobs not compared, as before", "err", p.fault)
	case p.fault != nil:
		log.WarnContext(ctx, "workflow jobs not compared, demand is not known", "faults", p.faults, "err", p.fault)
	case p.news > 0:
		log.InfoContext(ctx, "workflow jobs found that no event had told of")
	}
	return true, err
}

// part is one part of a comparison under way.
type part struct {
	*Intake
	target Compared
	before db.Reconciliation
	began  time.Time
	listed time.Time // when the repositories were last listed
	calls  int       // that GitHub charged for; those for repositories roughly
	news   int       // workflow jobs that something new was told of
	faults int
	fault  error // the first
	wait   time.Duration
	over   bool // nothing more is to be asked of GitHub
	// relisted says that the repositories were listed since one of them had moved.
	relisted bool
	events   bool // some came lately
	answered bool // GitHub showed the workflow jobs of a repository
	// knownFrom is from when on a comparison makes good what was refused; zero:
	// nothing was.
	knownFrom time.Time

	unread      int // repositories of the newest listing that cannot be read
	unreadItems []string

	groupsAt    time.Time // as Reconciliation has it
	groupsFault string
}

// run asks GitHub. What it does not answer is a fault of the part's; an error
// is something else.
func (p *part) run(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, partLimit)
	defer cancel()
	if err := p.groups(asking); err != nil {
		return err
	}
	list := p.list(asking)
	var all []db.KnownRepository
	err := p.DB.InTx(ctx, func(tx *db.Tx) (err error) {
		if err := list(tx); err != nil {
			return err
		}
		since := p.before.BeganAt.Add(-time.Minute) // what was about to be committed then
		if longest := p.began.Add(-hotFor); since.Before(longest) {
			since = longest
		}
		if err := tx.HearRepositories(ctx, p.target.Name, since); err != nil {
			return err
		}
		if p.events, err = tx.EventCameSince(ctx, p.target.Name, p.began.Add(-eventsFor)); err != nil {
			return err
		}
		all, err = tx.KnownRepositories(ctx, p.target.Name)
		return err
	})
	if err != nil {
		return err
	}
	for _, known := range all {
		if !p.dueNow(known) {
			continue
		}
		if p.over || p.spent() >= partRoom || asking.Err() != nil {
			break
		}
		done, err := p.compare(ctx, asking, known)
		if err == nil && !done {
			err = p.passOver(ctx, known.Repository)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// passOver lets others have their turn before a repository that was not compared
// to the end.
func (p *part) passOver(ctx context.Context, repository string) error {
	at, err := p.Now(ctx)
	if err != nil {
		return err
	}
	return p.DB.InTx(ctx, func(tx *db.Tx) error { return tx.PassOverRepository(ctx, p.target.Name, repository, at) })
}

// spent is how much of the time that has room for them the requests have taken.
func (p *part) spent() time.Duration {
	return time.Duration(p.calls) * time.Hour / time.Duration(hourly(p.target.GitHub.Limits().Hourly))
}

// list finds out which repositories the target has, and returns what is to be
// stored of it.
func (p *part) list(ctx context.Context) func(*db.Tx) error {
	name, scope := p.target.Name, p.target.Scope
	p.listed, p.unread, p.unreadItems = p.before.ListedAt, p.before.Unreadable, p.before.UnreadableItems
	switch scope.Kind {
	case fleet.ScopeRepo:
		p.listed = p.began
		return func(tx *db.Tx) error {
			return tx.ListRepositories(ctx, name, []string{scope.Owner + "/" + scope.Repo}, nil, p.began)
		}
	case fleet.ScopeEnterprise:
		// Nobody lists those of an enterprise: they are the ones heard of.
		p.listed = p.began
		return func(tx *db.Tx) error { return tx.ListRepositories(ctx, name, nil, nil, p.began.Add(-hotFor)) }
	}
	nothing := func(*db.Tx) error { return nil }
	if p.began.Sub(p.listed) < listEvery && !p.listed.Before(p.knownFrom) {
		return nothing
	}
	repos, unread, err := p.target.GitHub.Repositories(ctx, scope)
	p.calls += 1 + (len(repos)+len(unread))/100
	if err != nil {
		p.listed = time.Time{}
		p.fail(err)
		return nothing
	}
	p.listed = p.began
	names := make([]string, len(repos))
	var public []string
	for i, repo := range repos {
		names[i] = repo.Owner + "/" + repo.Repo
		if repo.Public {
			public = append(public, names[i])
		}
	}
	p.unread, p.unreadItems = len(unread), unread[:min(len(unread), maxNamed)]
	if len(unread) > 0 {
		p.Log.WarnContext(ctx, "repositories cannot be read and are left to their events", "target", name,
			"counts", p.unread, "items", p.unreadItems)
		// Each of them may be any that is known and not listed.
		return func(tx *db.Tx) error { return tx.AddRepositories(ctx, name, names, public) }
	}
	return func(tx *db.Tx) error { return tx.ListRepositories(ctx, name, names, public, p.began) }
}

// hot reports whether a repository is to be compared in every part: something was
// told of it lately, nothing would be told, or what was told may have been refused.
func (p *part) hot(r db.KnownRepository) bool {
	return !p.events || p.began.Sub(r.HeardAt) < hotFor || r.ComparedAt.Before(p.knownFrom)
}

func (p *part) dueNow(r db.KnownRepository) bool {
	return p.hot(r) || p.began.Sub(r.ComparedAt) >= coldEvery
}

// fail notes what GitHub did not answer, or not whole.
func (p *part) fail(err error) {
	if p.fault == nil {
		p.fault = err
	}
	var lacks lacking
	if !errors.As(err, &lacks) {
		p.faults++
	}
	p.over = p.over || p.faults >= partFaults || errors.Is(err, fleet.ErrUnauthorized) || errors.Is(err, fleet.ErrRateLimited)
	var refused *github.Error
	if errors.As(err, &refused) {
		p.wait = max(p.wait, refused.Wait)
	}
}

// save stores how far the comparison has come.
func (p *part) save(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), foldLimit)
	defer cancel()
	pause := max(compareEvery, p.spent(), p.wait)
	return p.DB.InTx(ctx, func(tx *db.Tx) error {
		if p.answered {
			if err := tx.CredentialAnswered(ctx, p.target.Name, db.AnsweredRead, p.began, p.began); err != nil {
				return err
			}
		}
		all, err := tx.KnownRepositories(ctx, p.target.Name)
		if err != nil {
			return err
		}
		next := db.Reconciliation{
			BeganAt: p.began, ListedAt: p.listed, AsOf: p.asOf(all), GroupsAt: p.groupsAt, GroupsFault: p.groupsFault,
			Unreadable: p.unread, UnreadableItems: p.unreadItems,
		}
		if p.fault != nil {
			next.Fault = fleet.CleanText(p.fault.Error(), maxError)
		}
		if p.listed.IsZero() || len(all) == 0 && p.target.Scope.Kind == fleet.ScopeEnterprise {
			next.AsOf = time.Time{} // which repositories there are is not known
		}
		if !next.AsOf.IsZero() {
			if err := p.closeRefusals(ctx, tx, all); err != nil {
				return err
			}
		}
		return tx.SaveReconciliation(ctx, p.target.Name, next, p.began.Add(pause))
	})
}

// closeRefusals ends what was refused, as far as each of the repositories has been
// listed and compared since.
func (p *part) closeRefusals(ctx context.Context, tx *db.Tx, all []db.KnownRepository) error {
	if p.knownFrom.IsZero() {
		return nil
	}
	since := p.listed
	for _, r := range all {
		if r.ComparedAt.Before(since) {
			since = r.ComparedAt
		}
	}
	closed, err := tx.CloseRefusals(ctx, p.target.Name, since.Add(-listsLag))
	if closed > 0 {
		p.Log.InfoContext(ctx, "refused deliveries are made good: workflow jobs were compared since", "target", p.target.Name, "counts", closed)
	}
	return err
}

// asOf is when all workflow jobs of these repositories were known, at last; zero:
// never.
func (p *part) asOf(all []db.KnownRepository) time.Time {
	at := p.began
	for _, r := range all {
		compared := r.ComparedAt
		switch {
		case compared.IsZero():
			return time.Time{}
		case !p.hot(r):
			compared = compared.Add(2 * coldEvery) // within which it had its turn
		}
		if compared.Before(at) {
			at = compared
		}
	}
	return at
}
