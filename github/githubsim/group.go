package githubsim

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// defaultGroup is the id of the group that every scope has.
const defaultGroup = 1

// group is a runner group. Those of a repository are only there for its runners
// to name.
type group struct {
	id         int64
	name       string
	visibility fleet.GroupVisibility
	public     bool
	selected   map[int64]bool // ids of scopes: repositories, or an enterprise's organisations
}

// newGroup is a group that nobody has said anything of.
func newGroup(id int64) *group {
	g := &group{id: id, name: fmt.Sprintf("group-%d", id), visibility: fleet.GroupAll}
	if id == defaultGroup {
		g.name = "Default"
	}
	return g
}

// groupOf is the group of that number, which is made where it is not there.
func (st *scopeState) groupOf(id int64) *group {
	g := st.groups[id]
	if g == nil {
		g = newGroup(id)
		st.groups[id] = g
	}
	return g
}

// SetGroup adds a runner group to an organisation or enterprise, or changes the
// one of that ID, which is the one that RunnerSpec.Group is. Without a Name it is
// called Default or group-ID, without a Visibility it is for all. What is Selected
// is made known. Workflow jobs that runners have already stay with them.
func (s *Sim) SetGroup(scope fleet.Scope, g fleet.RunnerGroup) error {
	wrong := func(what string) error {
		return fmt.Errorf("github simulator: set runner group %s of %s: %s", g.ID, scope, what)
	}
	id, err := strconv.ParseInt(g.ID, 10, 64)
	if err != nil || id <= 0 {
		return wrong("want a number above 0 as the id")
	}
	set := newGroup(id)
	set.name, set.visibility, set.public = cmp.Or(g.Name, set.name), cmp.Or(g.Visibility, set.visibility), g.Public
	var members []fleet.Scope
	switch {
	case scope.Kind == fleet.ScopeRepo:
		return wrong("a repository has none")
	case set.visibility == fleet.GroupPrivate && scope.Kind == fleet.ScopeEnterprise:
		return wrong("visibility private: want all or selected")
	case set.visibility == fleet.GroupSelected:
		if members, err = selected(scope, g.Selected); err != nil {
			return wrong(err.Error())
		}
	case set.visibility != fleet.GroupAll && set.visibility != fleet.GroupPrivate:
		return wrong(fmt.Sprintf("visibility %q: want all, private or selected", set.visibility))
	case len(g.Selected) > 0:
		return wrong(fmt.Sprintf("something is selected, and the visibility is %s", set.visibility))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(scope)
	if err != nil {
		return err
	}
	set.selected = make(map[int64]bool, len(members))
	for _, member := range members {
		if s.scopes[key(member)] == nil {
			s.addScope(member)
		}
		set.selected[s.scopes[key(member)].id] = true
	}
	st.groups[id] = set
	return nil
}

// selected reads the names of what is selected for a group.
func selected(in fleet.Scope, names []string) ([]fleet.Scope, error) {
	kind := "repo/"
	if in.Kind == fleet.ScopeEnterprise {
		kind = "org/"
	}
	var all []fleet.Scope
	for _, name := range names {
		member, err := fleet.ParseScope(kind + name)
		switch {
		case err != nil:
			return nil, err
		case in.Kind == fleet.ScopeOrg && !covers(in, member):
			return nil, fmt.Errorf("repository %s is not of the organisation", name)
		}
		all = append(all, member)
	}
	return all, nil
}

// SetPublic makes a repository public, or private, which it is at first.
func (s *Sim) SetPublic(repo fleet.Scope, public bool) error {
	if repo.Kind != fleet.ScopeRepo {
		return fmt.Errorf("github simulator: make %s public: want a repository", repo)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.in(repo)
	if err != nil {
		return err
	}
	st.public = public
	return nil
}

// takes reports whether the runner's group takes jobs of a repository. The
// runners of a repository take all of its jobs.
func (s *Sim) takes(st *scopeState, r *runner, repo fleet.Scope) bool {
	if st.scope.Kind == fleet.ScopeRepo {
		return true
	}
	known, g := s.called(repo), st.groupOf(r.group)
	public := known != nil && known.public
	switch {
	case public && !g.public, public && g.visibility == fleet.GroupPrivate:
		return false
	case g.visibility != fleet.GroupSelected:
		return true
	case st.scope.Kind == fleet.ScopeEnterprise:
		known = s.called(fleet.Scope{Kind: fleet.ScopeOrg, Owner: repo.Owner})
	}
	return known != nil && g.selected[known.id]
}

// called is the scope of that name, or the one that had it; nil: none.
func (s *Sim) called(scope fleet.Scope) *scopeState {
	if st := s.scopes[key(scope)]; st != nil {
		return st
	}
	return s.byID[s.renamed[key(scope)]]
}

// ownRepository is one that the runner's group takes jobs of, as OWNER/REPO: the
// one that jobs are of which name none, or else one that is selected.
func (s *Sim) ownRepository(st *scopeState, r *runner) (string, bool) {
	owner, name := st.scope.Owner, cmp.Or(st.scope.Repo, ownRepo)
	candidates := []fleet.Scope{{Kind: fleet.ScopeRepo, Owner: owner, Repo: name}}
	for _, id := range slices.Sorted(maps.Keys(st.groupOf(r.group).selected)) {
		at := s.byID[id].scope
		candidates = append(candidates, fleet.Scope{Kind: fleet.ScopeRepo, Owner: at.Owner, Repo: cmp.Or(at.Repo, ownRepo)})
	}
	for _, repo := range candidates {
		if s.takes(st, r, repo) {
			return repo.Owner + "/" + repo.Repo, true
		}
	}
	return "", false
}

type groupJSON struct {
	ID            int64                 `json:"id"`
	Name          string                `json:"name"`
	Visibility    fleet.GroupVisibility `json:"visibility"`
	Default       bool                  `json:"default"`
	Repositories  string                `json:"selected_repositories_url,omitempty"`
	Organizations string                `json:"selected_organizations_url,omitempty"`
	Runners       string                `json:"runners_url"`
	Inherited     *bool                 `json:"inherited,omitempty"` // of organisations
	Public        bool                  `json:"allows_public_repositories"`
	Restricted    *bool                 `json:"restricted_to_workflows,omitempty"` // of newer servers, as is the next
	Workflows     *[]string             `json:"selected_workflows,omitempty"`
}

// listGroups answers with the runner groups of a scope, by id.
func (s *Sim) listGroups(r *http.Request, q query, st *scopeState) *answer {
	ids := slices.Sorted(maps.Keys(st.groups))
	params := r.URL.Query()
	page, perPage := paging(params)
	shown := make([]groupJSON, 0, perPage)
	for _, id := range pageSlice(ids, page, perPage) {
		shown = append(shown, s.groupJSON(st, st.groups[id]))
	}
	return &answer{status: http.StatusOK, body: quote(struct {
		Total  int         `json:"total_count"`
		Groups []groupJSON `json:"runner_groups"`
	}{len(ids), shown}), link: s.pageLinks(r, q, st, params, page, pageCount(len(ids), perPage))}
}

func (s *Sim) groupJSON(st *scopeState, g *group) groupJSON {
	at := fmt.Sprintf("%s%s/%ss/%s/actions/runner-groups/%d", s.web.origin, s.prefix, st.scope.Kind, st.scope.Owner, g.id)
	no, none := false, []string{}
	out := groupJSON{
		ID: g.id, Name: g.name, Visibility: g.visibility, Default: g.id == defaultGroup, Runners: at + "/runners", Public: g.public,
	}
	if s.profile.groups {
		out.Restricted, out.Workflows = &no, &none
	}
	if st.scope.Kind == fleet.ScopeOrg {
		out.Inherited = &no
	}
	if g.visibility == fleet.GroupSelected {
		if st.scope.Kind == fleet.ScopeOrg {
			out.Repositories = at + "/repositories"
		} else {
			out.Organizations = at + "/organizations"
		}
	}
	return out
}

// listGroupMembers answers with what is selected for a group, by id.
func (s *Sim) listGroupMembers(r *http.Request, q query, st *scopeState) *answer {
	g := st.groups[q.ids[0]]
	if g == nil {
		return s.notFound(q)
	}
	ids := slices.Sorted(maps.Keys(g.selected))
	params := r.URL.Query()
	page, perPage := paging(params)
	shown := make([]any, 0, perPage)
	for _, id := range pageSlice(ids, page, perPage) {
		if at := s.byID[id].scope; at.Kind == fleet.ScopeRepo {
			shown = append(shown, s.repositoryJSON(at.Owner+"/"+at.Repo))
		} else {
			shown = append(shown, s.ownerJSON(at.Owner))
		}
	}
	of := q.template[strings.LastIndex(q.template, "/")+1:]
	return &answer{status: http.StatusOK, body: quote(map[string]any{"total_count": len(ids), of: shown}), link: s.pageLinks(r, q, st, params, page, pageCount(len(ids), perPage))}
}
