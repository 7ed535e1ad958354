package githubsim

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

var (
	repos       = []fleet.ScopeKind{fleet.ScopeRepo}
	orgs        = []fleet.ScopeKind{fleet.ScopeOrg}
	enterprises = []fleet.ScopeKind{fleet.ScopeEnterprise}
	both        = []fleet.ScopeKind{fleet.ScopeRepo, fleet.ScopeOrg}
	owners      = []fleet.ScopeKind{fleet.ScopeOrg, fleet.ScopeEnterprise}
)

// moreRoutes are what there is of a scope beside its runners: the parts in
// braces are numbers.
var moreRoutes = []struct {
	op       operation
	method   string
	template string
	has      []fleet.ScopeKind
}{
	{opRepos, http.MethodGet, "repos", orgs},
	{opRepo, http.MethodGet, "", repos},
	{opRuns, http.MethodGet, "actions/runs", repos},
	{opRunJobs, http.MethodGet, "actions/runs/{run_id}/jobs", repos},
	{opJob, http.MethodGet, "actions/jobs/{job_id}", repos},
	{opGroups, http.MethodGet, "actions/runner-groups", owners},
	{opGroupMembers, http.MethodGet, "actions/runner-groups/{runner_group_id}/repositories", orgs},
	{opGroupMembers, http.MethodGet, "actions/runner-groups/{runner_group_id}/organizations", enterprises},
	{opDeliveries, http.MethodGet, "hooks/{hook_id}/deliveries", both},
	{opDelivery, http.MethodGet, "hooks/{hook_id}/deliveries/{delivery_id}", both},
	{opRedeliver, http.MethodPost, "hooks/{hook_id}/deliveries/{delivery_id}/attempts", both},
}

// parseMore takes the rest of a path apart, where it is none of runners.
func parseMore(method string, q query) (query, bool) {
	for _, route := range moreRoutes {
		if !slices.Contains(route.has, q.scope.Kind) || method != route.method {
			continue
		}
		if ids, ok := numbers(q.rest, route.template); ok {
			q.op, q.ids, q.template = route.op, ids, strings.TrimSuffix(q.template+"/"+route.template, "/")
			return q, true
		}
	}
	return query{}, false
}

// numbers are those that a path has where the template has braces.
func numbers(path, template string) ([]int64, bool) {
	given, want := strings.Split(path, "/"), strings.Split(template, "/")
	if len(given) != len(want) {
		return nil, false
	}
	var ids []int64
	for i := range want {
		if !strings.HasPrefix(want[i], "{") {
			if given[i] != want[i] {
				return nil, false
			}
			continue
		}
		id, err := strconv.ParseInt(given[i], 10, 64)
		if err != nil || id <= 0 {
			return nil, false
		}
		ids = append(ids, id)
	}
	return ids, true
}

// more answers those routes. The caller holds the lock.
func (s *Sim) more(r *http.Request, q query, st *scopeState, e *Event) *answer {
	switch q.op {
	case opRepos:
		return s.listRepos(r, q, st)
	case opRepo:
		return &answer{status: http.StatusOK, body: quote(s.repositoryJSON(st.scope.Owner + "/" + st.scope.Repo))}
	case opRuns:
		return s.listRuns(r, q, st)
	case opRunJobs:
		return s.listRunJobs(r, q, st)
	case opJob:
		return s.getJob(q, st)
	case opGroups:
		return s.listGroups(r, q, st)
	case opGroupMembers:
		return s.listGroupMembers(r, q, st)
	case opDeliveries:
		return s.listDeliveries(r, q, st)
	case opDelivery:
		return s.getDelivery(q, st)
	}
	return s.redeliver(q, st, e)
}
