package policies

import (
	"cmp"
	"iter"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Matcher tells which pool a workflow job waits for. It is safe for concurrent
// use.
type Matcher struct{ targets map[string]*targetPools }

// targetPools are the pools of one target, those with the fewest labels first.
type targetPools struct {
	pools []fleet.Pool
	with  map[string][]uint64 // by label the pools that carry it, a bit each
	homes map[string][]int    // by a label the pools whose rarest it is: each stands there once
}

// NewMatcher looks at the labels of pools. What GitHub adds to a runner's
// labels counts where it is among them: see [EffectiveLabels].
func NewMatcher(pools []fleet.Pool) *Matcher {
	m := &Matcher{targets: map[string]*targetPools{}}
	for _, p := range pools {
		t := m.targets[p.Target]
		if t == nil {
			t = &targetPools{with: map[string][]uint64{}, homes: map[string][]int{}}
			m.targets[p.Target] = t
		}
		p.Labels = normal(p.Labels)
		t.pools = append(t.pools, p)
	}
	for _, t := range m.targets {
		// Among pools that have all that a job asks for, the fewest labels are
		// the fewest surplus ones.
		slices.SortFunc(t.pools, func(a, b fleet.Pool) int {
			return cmp.Or(cmp.Compare(len(a.Labels), len(b.Labels)), strings.Compare(a.Name, b.Name))
		})
		for i, p := range t.pools {
			for _, label := range p.Labels {
				if t.with[label] == nil {
					t.with[label] = make([]uint64, (len(t.pools)+63)/64)
				}
				t.with[label][i/64] |= 1 << (i % 64)
			}
		}
		t.house()
	}
	return m
}

// house notes each pool under the label of its own that the fewest pools have.
func (t *targetPools) house() {
	pools := map[string]int{}
	for label, with := range t.with {
		for _, word := range with {
			pools[label] += bits.OnesCount64(word)
		}
	}
	for i, p := range t.pools {
		if len(p.Labels) > 0 {
			rarest := slices.MinFunc(p.Labels, func(a, b string) int { return cmp.Compare(pools[a], pools[b]) })
			t.homes[rarest] = append(t.homes[rarest], i)
		}
	}
}

// normal is how GitHub compares labels: without regard to case.
func normal(labels []string) []string {
	all := make([]string, 0, len(labels))
	for _, label := range labels {
		if label = strings.ToLower(strings.TrimSpace(label)); label != "" {
			all = append(all, label)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Pools are those that a workflow job of these labels may wait for, whose
// runners carry all of them: at most so many, the one with the fewest others
// first, then by name. Without labels there are none.
func (m *Matcher) Pools(target string, labels []string, most int) []string {
	var pools []string
	m.eligible(target, normal(labels))(func(pool string) bool {
		pools = append(pools, pool)
		return len(pools) < most
	})
	return pools
}

// eligible are the pools whose runners carry all of these labels, which are
// normal, in the order in which they are wanted.
func (m *Matcher) eligible(target string, labels []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		t := m.targets[target]
		if t == nil || len(labels) == 0 {
			return
		}
		sets := make([][]uint64, len(labels))
		for i, label := range labels {
			if sets[i] = t.with[label]; sets[i] == nil {
				return
			}
		}
		for word := range sets[0] {
			all := sets[0][word]
			for _, set := range sets {
				all &= set[word]
			}
			for ; all != 0; all &= all - 1 {
				if !yield(t.pools[word*64+bits.TrailingZeros64(all)].Name) {
					return
				}
			}
		}
	}
}

// Home is the pool that a runner of these labels belongs to: of those whose
// labels it carries the one with the most, then the first by name.
func (m *Matcher) Home(target string, labels []string) (pool string, found bool) {
	t := m.targets[target]
	if t == nil {
		return "", false
	}
	labels = normal(labels)
	most := 0
	for _, label := range labels {
		for _, i := range t.homes[label] {
			p := &t.pools[i]
			if n := len(p.Labels); (n > most || n == most && p.Name < pool) && contains(labels, p.Labels) {
				pool, most = p.Name, n
			}
		}
	}
	return pool, most > 0
}

// nearest is the pool that lacks the fewest of the labels, with what it lacks.
func (m *Matcher) nearest(target string, labels []string) (pool string, lacks []string) {
	t := m.targets[target]
	if t == nil {
		return "", nil
	}
	for _, p := range t.pools {
		var missing []string
		for _, label := range labels {
			if _, has := slices.BinarySearch(p.Labels, label); !has {
				missing = append(missing, label)
			}
		}
		if len(missing) < len(labels) && (pool == "" || len(missing) < len(lacks)) {
			pool, lacks = p.Name, missing
		}
	}
	return pool, lacks
}

// contains reports whether all of some are among all; both are normal.
func contains(all, some []string) bool {
	for _, label := range some {
		if _, has := slices.BinarySearch(all, label); !has {
			return false
		}
	}
	return true
}

// EffectiveLabels are those that a job may ask a pool for: what the operator
// wrote, and what every one of its runners was seen to carry, the labels that
// GitHub adds by itself included. Nothing is taken for granted: a runner may
// be registered without them.
func EffectiveLabels(configured []string, seen [][]string) []string {
	all := normal(configured)
	if len(seen) == 0 {
		return all
	}
	common := normal(seen[0])
	for _, labels := range seen {
		labels = normal(labels)
		common = slices.DeleteFunc(common, func(label string) bool {
			_, has := slices.BinarySearch(labels, label)
			return !has
		})
	}
	return normal(append(all, common...))
}

// RunnerKey is a runner of a target.
type RunnerKey struct {
	Target string
	ID     int64
}

// Outside is what matching has to know beside jobs and pools.
type Outside struct {
	// Homes are the pools of runners, empty for one that is in none: a job that
	// runs is where it runs, whatever its labels would say.
	Homes map[RunnerKey]string
	// Runners are the online runners in no pool, by target: what they can serve
	// is not unserved.
	Runners map[string][]Offer
	Access  map[string]Access // by target
}

// Offer is what a runner may be asked for.
type Offer struct {
	Labels []string
	Group  string // its runner group; empty: not known
}

// Matched is what workflow jobs want of whom.
type Matched struct {
	// Demand is by name of the pool, without a word on how far it can be relied
	// on. Pools that nobody wants are not there.
	Demand map[string]fleet.Demand
	// Findings are the queued jobs that no pool will ever serve, one for the
	// jobs of a target that ask for the same labels, or of a repository that
	// ask for none.
	Findings []fleet.Finding
}

// Match counts each open workflow job for one pool. Jobs may come in any order
// and more than once: the furthest state of each counts. Those that wait for
// an approval or are completed want nothing.
func (m *Matcher) Match(jobs []fleet.WorkflowJob, outside Outside) Matched {
	alike := make([]AlikeJobs, 0, len(jobs))
	for _, job := range furthest(jobs) {
		home, known := outside.Homes[RunnerKey{job.Target, job.RunnerID}]
		alike = append(alike, AlikeJobs{job, 1, home, known && home == ""})
	}
	return m.MatchAlike(alike, outside)
}

// AlikeJobs are workflow jobs that matching does not tell apart.
type AlikeJobs struct {
	fleet.WorkflowJob // the one that waits longest
	Count             int
	Home              string // of the runners that have them: see Outside.Homes
	Homeless          bool   // those runners are known, and in no pool
}

// MatchAlike is Match of jobs that were counted before, none of them twice. The
// homes of their runners stand with them.
func (m *Matcher) MatchAlike(jobs []AlikeJobs, outside Outside) Matched {
	found := Matched{Demand: map[string]fleet.Demand{}}
	unserved := map[want]*unservedJobs{}
	pools := map[want]waited{}
	markets := map[string]market{}
	for target, runners := range outside.Runners {
		markets[target] = marketOf(runners)
	}
	for _, job := range jobs {
		running := job.State == fleet.WorkflowJobInProgress
		if !running && job.State != fleet.WorkflowJobQueued || running && job.Homeless {
			continue
		}
		labels := normal(job.Labels)
		access := outside.Access[job.Target]
		w := want{target: job.Target, labels: strings.Join(labels, ",")}
		if len(labels) == 0 || len(access.Groups) > 0 {
			w.repository = job.Repository
		}
		is := waited{pool: job.Home}
		if is.pool == "" || !running {
			var known bool
			is, known = pools[w]
			if !known {
				is = m.wait(job, labels, access, markets[job.Target])
				pools[w] = is
			}
		}
		switch {
		case is.pool != "":
			d := found.Demand[is.pool]
			if running {
				d.InProgress += job.Count
			} else {
				d.Queued += job.Count
				d.OldestAt = earliest(d.OldestAt, job.QueuedAt)
			}
			found.Demand[is.pool] = d
		case !running && !is.elsewhere: // one that runs is served by somebody
			if len(labels) > 0 {
				w.repository = ""
			}
			if unserved[w] == nil {
				unserved[w] = &unservedJobs{labels: labels}
			}
			unserved[w].add(job, is.closed)
		}
	}
	for w, u := range unserved {
		found.Findings = append(found.Findings, u.finding(m, w.target))
	}
	slices.SortFunc(found.Findings, func(a, b fleet.Finding) int {
		return cmp.Or(strings.Compare(a.Target, b.Target), strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Subject, b.Subject))
	})
	return found
}

// want is what jobs of a target have in common: the labels that they ask for,
// and the repository, where they ask for none or it matters to runner groups.
type want struct{ target, labels, repository string }

// waited is whom a job waits for.
type waited struct {
	pool      string
	closed    string // the first pool that has its labels and does not take jobs of its repository
	elsewhere bool   // no pool; a runner outside of pools takes it
}

func (m *Matcher) wait(job AlikeJobs, labels []string, access Access, outside market) waited {
	var w waited
	for pool := range m.eligible(job.Target, labels) {
		if access.takes(access.Pools[pool], job.Repository) {
			w.pool = pool
			return w
		}
		if w.closed == "" {
			w.closed = pool
		}
	}
	w.elsewhere = slices.ContainsFunc(outside.with(labels), func(r Offer) bool {
		return contains(r.Labels, labels) && (r.Group == "" || access.takes([]string{r.Group}, job.Repository))
	})
	return w
}

// jobStates are the states of a workflow job in their order. A job never goes
// back, so the furthest state is true where two are told.
var jobStates = []fleet.WorkflowJobState{
	fleet.WorkflowJobWaiting, fleet.WorkflowJobQueued, fleet.WorkflowJobInProgress, fleet.WorkflowJobCompleted,
}

// furthest is each job once, as far as it is known to have come.
func furthest(jobs []fleet.WorkflowJob) []fleet.WorkflowJob {
	type key struct {
		target string
		id     int64
	}
	place := make(map[key]int, len(jobs))
	all := make([]fleet.WorkflowJob, 0, len(jobs))
	for _, job := range jobs {
		k := key{job.Target, job.ID}
		i, twice := place[k]
		switch {
		case !twice:
			place[k] = len(all)
			all = append(all, job)
		case slices.Index(jobStates, job.State) > slices.Index(jobStates, all[i].State):
			all[i] = job
		}
	}
	return all
}

// earliest is the earlier of two times, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
