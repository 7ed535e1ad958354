package policies

import (
	"slices"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// Access is which repositories' workflow jobs the runners of a target take, by
// their runner groups. What is not known closes nothing: a job that is counted
// for nobody gets no host. The zero Access is open to all.
type Access struct {
	Groups map[string]fleet.RunnerGroup // by id
	Pools  map[string][]string          // by name of the pool the groups of its runners
	Public map[string]bool              // repositories that are known to be public, in lower case
}

// takes reports whether runners of one of the groups take workflow jobs of a
// repository.
func (a Access) takes(groups []string, repository string) bool {
	if len(groups) == 0 || repository == "" {
		return true
	}
	repository = strings.ToLower(repository)
	return slices.ContainsFunc(groups, func(id string) bool {
		g, known := a.Groups[id]
		return !known || opens(g, repository, a.Public[repository])
	})
}

// opens is GitHub's rule: a group takes jobs of public repositories only where
// it says so, whatever else it says.
// https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/manage-access
func opens(g fleet.RunnerGroup, repository string, public bool) bool {
	if public && (!g.Public || g.Visibility == fleet.GroupPrivate) {
		return false
	}
	if g.Visibility != fleet.GroupSelected {
		return true
	}
	owner, _, _ := strings.Cut(repository, "/")
	return slices.Contains(g.Selected, repository) || slices.Contains(g.Selected, owner)
}
