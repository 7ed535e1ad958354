package scale

import (
	"slices"
	"strings"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
)

// of are the pools of a target.
func of(all []*policies.Pool, target string) []fleet.Pool {
	var pools []fleet.Pool
	for _, p := range all {
		if p.Target == target {
			pools = append(pools, p.Pool)
		}
	}
	return pools
}

// homes tells which pool of a target a runner counts for.
type homes struct {
	target  string
	matcher *policies.Matcher
	pools   map[string]fleet.Pool // by name, as configured
}

func homesOf(target string, pools []fleet.Pool) homes {
	h := homes{target, policies.NewMatcher(pools), make(map[string]fleet.Pool, len(pools))}
	for _, p := range pools {
		h.pools[p.Name] = p
	}
	return h
}

// of is the pool that asked for the runner's host; where none did, the one whose
// labels it carries; empty: none. Hosts count for who asked, since a pool whose
// hosts come with other labels would ask for more of them without end.
func (h homes) of(asked string, labels []string) string {
	if _, configured := h.pools[asked]; configured {
		return asked
	}
	home, _ := h.matcher.Home(h.target, labels)
	return home
}

// HomeOf is the name of the pool that a runner counts for; empty: none.
func HomeOf(all []*policies.Pool, r *fleet.Observed) string {
	return homesOf(r.Target, of(all, r.Target)).of(r.Pool, r.Labels)
}

// lacks are the labels of a pool that are not among these.
func (h homes) lacks(pool string, labels []string) []string {
	var lacks []string
	for _, label := range h.pools[pool].Labels {
		if !slices.ContainsFunc(labels, func(has string) bool { return strings.EqualFold(has, label) }) {
			lacks = append(lacks, label)
		}
	}
	return lacks
}

// mislabelled are the online hosts of a pool that lack some of its labels.
type mislabelled struct {
	hosts int
	lacks []string
}

func (w mislabelled) and(hosts int, lacks []string) mislabelled {
	all := slices.Concat(w.lacks, lacks)
	slices.Sort(all)
	return mislabelled{w.hosts + hosts, slices.Compact(all)}
}

func (w mislabelled) finding(target, pool string) fleet.Finding {
	return fleet.Finding{
		Kind: fleet.FindingMislabelledHost, Target: target, Subject: pool,
		Detail: fleet.Evidence{"hosts": w.hosts, "they_lack": strings.Join(w.lacks, ",")},
	}
}
