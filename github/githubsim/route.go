package githubsim

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// what a request asks for.
type operation int

const (
	opNone operation = iota
	opList
	opDownloads
	opRegistrationToken
	opRemovalToken
	opGet
	opDelete
	opJITConfig
	opLabels
	opAddLabels
	opSetLabels
	opClearLabels
	opRemoveLabel
	opRunnerRegistration
	opRateLimit
	opMeta
	opUser
	opApp
	opInstallation
	opInstallationToken
	opRepos
	opRepo
	opRuns
	opRunJobs
	opJob
	opGroups
	opGroupMembers
	opDeliveries
	opDelivery
	opRedeliver
)

// reads reports whether an operation changes nothing.
func (o operation) reads() bool {
	switch o {
	case opList, opDownloads, opGet, opLabels, opRepos, opRepo, opRuns, opRunJobs, opJob, opGroups, opGroupMembers, opDeliveries, opDelivery:
		return true
	}
	return false
}

// byApp reports whether an App asks for it as itself.
func (o operation) byApp() bool { return o == opApp || o == opInstallation || o == opInstallationToken }

// query is a request taken apart.
type query struct {
	op       operation
	template string // or the path itself, where it is none of ours
	scope    fleet.Scope
	scopeID  int64 // in place of scope, for the paths that redirects and links give
	runnerID int64
	label    string
	ids      []int64 // of what is no runner, in the order of the path
	rest     string  // of the path, below the scope

	installation int64
}

// alone are the paths that stand for themselves.
var alone = map[string]operation{
	"POST actions/runner-registration": opRunnerRegistration,
	"GET rate_limit":                   opRateLimit,
	"GET meta":                         opMeta,
	"GET user":                         opUser,
	"GET app":                          opApp,
}

// parse takes a path apart. opNone means that nothing is there; the method is
// part of the question, as on GitHub, where the wrong one is a 404.
func (s *Sim) parse(method, path string) query {
	q := query{template: path}
	rest, ok := strings.CutPrefix(path, s.prefix+"/")
	if !ok {
		return q
	}
	parts := strings.Split(rest, "/")
	if op := alone[method+" "+rest]; op != opNone {
		return query{op: op, template: "/" + rest}
	}
	switch {
	case strings.HasPrefix(rest, "app/installations/"):
		return parseInstallation(method, path, parts[2:])
	case len(parts) >= 2 && parts[0] == "enterprises" && !s.config.NoEnterprises:
		q.template, q.scope, parts = "/enterprises/{enterprise}", fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: parts[1]}, parts[2:]
		if id, err := strconv.ParseInt(q.scope.Owner, 10, 64); err == nil {
			q.scopeID = id
		}
	case len(parts) >= 2 && parts[0] == "orgs":
		q.template, q.scope, parts = "/orgs/{org}", fleet.Scope{Kind: fleet.ScopeOrg, Owner: parts[1]}, parts[2:]
	case len(parts) >= 3 && parts[0] == "repos":
		q.template, q.scope, parts = "/repos/{owner}/{repo}", fleet.Scope{Kind: fleet.ScopeRepo, Owner: parts[1], Repo: parts[2]}, parts[3:]
	case len(parts) >= 2 && (parts[0] == "organizations" || parts[0] == "repositories"):
		id, err := strconv.ParseInt(parts[1], 10, 64)
		if err != nil {
			return q
		}
		q.template, q.scope.Kind = "/orgs/{org}", fleet.ScopeOrg
		if parts[0] == "repositories" {
			q.template, q.scope.Kind = "/repos/{owner}/{repo}", fleet.ScopeRepo
		}
		q.scopeID, parts = id, parts[2:]
	default:
		return q
	}
	q.rest = strings.Join(parts, "/")
	below, ok := strings.CutPrefix(q.rest, "actions/runners")
	if !ok {
		if more, ok := parseMore(method, q); ok {
			return more
		}
		return query{template: path}
	}
	q.template += "/actions/runners"
	if op := (map[string]operation{
		"GET ":                     opList,
		"GET /downloads":           opDownloads,
		"POST /registration-token": opRegistrationToken,
		"POST /remove-token":       opRemovalToken,
		"POST /generate-jitconfig": opJITConfig,
	})[method+" "+below]; op != opNone && (op != opJITConfig || s.profile.jit) {
		q.op, q.template = op, q.template+below
		return q
	}
	q.template += "/{runner_id}"
	if parts = strings.Split(below, "/"); parts[0] == "" && len(parts) > 1 {
		q.runnerID = runnerID(parts[1])
		q.op = s.ofRunner(method, parts[2:])
	}
	switch {
	case q.op == opNone || q.runnerID <= 0:
		return query{template: path}
	case q.op == opRemoveLabel:
		q.label, q.template = parts[3], q.template+"/labels/{name}"
	case len(parts) > 2:
		q.template += "/labels"
	}
	return q
}

func runnerID(text string) int64 {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// ofRunner is what a request asks for of one runner, by what its path has below.
func (s *Sim) ofRunner(method string, below []string) operation {
	switch {
	case len(below) == 0:
		return map[string]operation{"GET": opGet, "DELETE": opDelete}[method]
	case below[0] != "labels" || !s.profile.labelRoutes:
	case len(below) == 1:
		return map[string]operation{"GET": opLabels, "POST": opAddLabels, "PUT": opSetLabels, "DELETE": opClearLabels}[method]
	case len(below) == 2 && below[1] != "" && method == http.MethodDelete:
		return opRemoveLabel
	}
	return opNone
}

// parseInstallation takes apart what is below /app/installations/.
func parseInstallation(method, path string, parts []string) query {
	id, err := strconv.ParseInt(parts[0], 10, 64)
	q := query{template: "/app/installations/{installation_id}", installation: id}
	switch {
	case err != nil:
	case len(parts) == 1 && method == http.MethodGet:
		q.op = opInstallation
		return q
	case len(parts) == 2 && parts[1] == "access_tokens" && method == http.MethodPost:
		q.op, q.template = opInstallationToken, q.template+"/access_tokens"
		return q
	}
	return query{template: path}
}
