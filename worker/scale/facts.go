package scale

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// record is what db.DB and db.Tx tell of a target and its pools.
type record interface {
	LeaseCounts(ctx context.Context, target string, pools []string, now time.Time) (map[string]db.LeaseCounts, error)
	Census(ctx context.Context, target string, since, now time.Time) (db.Census, error)
	Reconciliation(ctx context.Context, target string) (db.Reconciliation, error)
	OpenJobs(ctx context.Context, target string, now time.Time) ([]db.OpenJobs, error)
	Access(ctx context.Context, target string) (db.Access, error)
	Carried(ctx context.Context, target string) (map[string]db.Carried, error)
}

// reading is what there is to know of a target, read once for all of its pools
// that are decided on.
type reading struct {
	at       time.Time
	leases   map[string]db.LeaseCounts // by name of the pool, of those decided on
	census   db.Census
	compared db.Reconciliation
	jobs     []db.OpenJobs
	access   db.Access
	carried  map[string]db.Carried // by name of the pool
}

// read reads what the sizes of pools of a target are decided on. pools are all
// that the target has: which one a workflow job waits for depends on the others.
func read(ctx context.Context, r record, target string, decide []string, pools []fleet.Pool, now time.Time) (reading, error) {
	in := reading{at: now}
	var longest time.Duration
	for _, p := range pools {
		longest = max(longest, p.BootDeadline)
	}
	var err error
	// Leases before runners: a host that comes online in between counts twice,
	// and not not at all.
	if in.leases, err = r.LeaseCounts(ctx, target, decide, now); err != nil {
		return in, err
	}
	if in.census, err = r.Census(ctx, target, now.Add(-longest), now); err != nil {
		return in, err
	}
	// How far the jobs are all that there are, before the jobs.
	if in.compared, err = r.Reconciliation(ctx, target); err != nil {
		return in, err
	}
	if in.jobs, err = r.OpenJobs(ctx, target, now); err != nil {
		return in, err
	}
	if in.access, err = r.Access(ctx, target); err != nil {
		return in, err
	}
	in.carried, err = r.Carried(ctx, target)
	return in, err
}

// facts are what the size of a pool is decided on.
type facts struct {
	supply fleet.Supply
	demand fleet.Demand
	rounds int      // of requests in a row that ran out
	groups []string // of its online runners; none: it has none, or the server does not say
	// carried are the labels that all of its online runners have or, where there
	// are none, those before had.
	carried []string
}

// weigh makes supply and demand of each pool of a target of what was read, and
// what is wrong with the target. It is pure.
func weigh(target string, pools []fleet.Pool, in reading) (map[string]facts, []fleet.Finding) {
	homes := homesOf(target, pools)
	all := make(map[string]facts, len(pools))
	for _, p := range pools {
		all[p.Name] = leased(in.leases[p.Name])
	}
	// What jobs may ask of a pool is what its runners were seen to carry, too.
	seen := map[string][][]string{}
	var outside []policies.Offer
	wrong := map[string]mislabelled{}
	for _, set := range in.census.Sets {
		home := homes.of(set.Pool, set.Labels)
		if f, is := all[home]; is {
			f.supply = f.supplied(set, in.at.Add(-homes.pools[home].BootDeadline))
			if set.Online > 0 && set.Group != "" && !slices.Contains(f.groups, set.Group) {
				f.groups = append(f.groups, set.Group)
				slices.Sort(f.groups)
			}
			all[home] = f
		}
		if set.Online == 0 {
			continue
		}
		lacks := homes.lacks(home, set.Labels)
		switch {
		case home == "":
			outside = append(outside, policies.Offer{Labels: set.Labels, Group: set.Group})
		case len(lacks) > 0:
			// What it has may serve jobs all the same.
			outside = append(outside, policies.Offer{Labels: set.Labels, Group: set.Group})
			wrong[home] = wrong[home].and(set.Online, lacks)
		default:
			seen[home] = append(seen[home], set.Labels)
		}
	}
	for _, p := range pools {
		before := in.carried[p.Name]
		if len(seen[p.Name]) == 0 && len(before.Labels) > 0 && slices.Equal(before.Configured, p.Labels) {
			seen[p.Name] = [][]string{before.Labels}
		}
		f := all[p.Name]
		f.carried = policies.EffectiveLabels(nil, seen[p.Name])
		all[p.Name] = f
	}
	matched := policies.NewMatcher(wider(pools, seen)).MatchAlike(alike(target, in.jobs, homes), policies.Outside{
		Runners: map[string][]policies.Offer{target: outside},
		Access:  map[string]policies.Access{target: access(in.access, all)},
	})
	findings := matched.Findings
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		findings = append(findings, wrong[name].finding(target, name))
	}
	whole := in.compared.Fault == "" && !in.compared.Refused.Stands(in.at)
	confidence := fleet.DemandConfidence(in.compared.AsOf, whole, in.at)
	for name, f := range all {
		f.demand = matched.Demand[name]
		f.demand.At, f.demand.Confidence = in.compared.AsOf, confidence
		f.supply.Doubtful = in.census.Suspect == fleet.SuspectMassOffline
		all[name] = f
	}
	return all, findings
}

// leased is what the requests for hosts of a pool say.
func leased(c db.LeaseCounts) facts {
	f := facts{rounds: c.Rounds}
	f.supply.Booting = c.Live
	if c.Expired > 0 {
		f.supply.Expired = c.Expired
		f.supply.RetryAt = c.LastDeadline.Add(policies.LeaseBackoff(c.Rounds))
	}
	return f
}

// supplied adds runners of a pool, whose hosts boot or may come back if that
// began after since.
func (f facts) supplied(set db.LabelSet, since time.Time) fleet.Supply {
	s := f.supply
	s.Online += set.Online
	s.Busy += set.Busy
	s.Draining += set.Draining
	s.Booting += after(set.Registered, since)
	s.Dark += after(set.Dark, since)
	return s
}

// access is whose workflow jobs the pools take: by the groups of their runners,
// or, where none is online, by those of the ones before.
func access(known db.Access, all map[string]facts) policies.Access {
	if len(known.Groups) == 0 {
		return policies.Access{}
	}
	a := policies.Access{Groups: map[string]fleet.RunnerGroup{}, Pools: map[string][]string{}, Public: map[string]bool{}}
	for _, g := range known.Groups {
		a.Groups[g.ID] = g
	}
	for name, f := range all {
		a.Pools[name] = f.groups
		if len(f.groups) == 0 {
			a.Pools[name] = known.Pools[name]
		}
	}
	for _, repository := range known.Public {
		a.Public[repository] = true
	}
	return a
}

// after counts the moments after one.
func after(all []time.Time, since time.Time) int {
	n := 0
	for _, at := range all {
		if at.After(since) {
			n++
		}
	}
	return n
}

// wider are the pools with the labels that a job may ask them for.
func wider(pools []fleet.Pool, seen map[string][][]string) []fleet.Pool {
	all := slices.Clone(pools)
	for i, p := range all {
		all[i].Labels = policies.EffectiveLabels(p.Labels, seen[p.Name])
	}
	return all
}

func alike(target string, jobs []db.OpenJobs, homes homes) []policies.AlikeJobs {
	all := make([]policies.AlikeJobs, len(jobs))
	for i, j := range jobs {
		home := homes.of(j.RunnerPool, j.RunnerLabels)
		all[i] = policies.AlikeJobs{
			WorkflowJob: fleet.WorkflowJob{
				Target: target, ID: int64(i) + 1, Labels: j.Labels, State: j.State, Repository: j.Repository, QueuedAt: j.OldestAt,
			},
			Count: j.Count, Home: home, Homeless: home == "" && j.RunnerLabels != nil,
		}
	}
	return all
}
