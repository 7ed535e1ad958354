package githubsim

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

const (
	prefix   = "/api/v3"
	docsRoot = "https://docs.github.com/enterprise-server@3.1/rest"
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
	opRunnerRegistration
	opRateLimit
)

// query is a request taken apart.
type query struct {
	op       operation
	template string // or the path itself, where it is none of ours
	scope    fleet.Scope
	scopeID  int64 // in place of scope, for the paths that redirects and links give
	runnerID int64
	rest     string // of the path, below the scope
}

// parse takes a path apart. opNone means that nothing is there; the method is
// part of the question, as on GitHub, where the wrong one is a 404.
func parse(method, path string) query {
	q := query{template: path}
	rest, ok := strings.CutPrefix(path, prefix+"/")
	if !ok {
		return q
	}
	parts := strings.Split(rest, "/")
	switch {
	case rest == "actions/runner-registration" && method == http.MethodPost:
		return query{op: opRunnerRegistration, template: "/" + rest}
	case rest == "rate_limit" && method == http.MethodGet:
		return query{op: opRateLimit, template: "/" + rest}
	case len(parts) >= 2 && parts[0] == "enterprises":
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
		return query{template: path}
	}
	q.template += "/actions/runners"
	switch {
	case below == "" && method == http.MethodGet:
		q.op = opList
	case below == "/downloads" && method == http.MethodGet:
		q.op, q.template = opDownloads, q.template+below
	case below == "/registration-token" && method == http.MethodPost:
		q.op, q.template = opRegistrationToken, q.template+below
	case below == "/remove-token" && method == http.MethodPost:
		q.op, q.template = opRemovalToken, q.template+below
	case strings.HasPrefix(below, "/") && (method == http.MethodGet || method == http.MethodDelete):
		id, err := strconv.ParseInt(below[1:], 10, 64)
		if err != nil || id <= 0 {
			return query{template: path}
		}
		q.op, q.template, q.runnerID = opGet, q.template+"/{runner_id}", id
		if method == http.MethodDelete {
			q.op = opDelete
		}
	default:
		return query{template: path}
	}
	return q
}

// docs is the address of the operation's documentation.
func (q query) docs() string {
	page, of := "actions", "an-organization"
	switch q.scope.Kind {
	case fleet.ScopeEnterprise:
		page, of = "enterprise-admin", "an-enterprise"
	case fleet.ScopeRepo:
		of = "a-repository"
	}
	anchor := ""
	switch q.op {
	case opList:
		anchor = "list-self-hosted-runners-for-"
	case opDownloads:
		anchor = "list-runner-applications-for-"
	case opRegistrationToken:
		anchor = "create-a-registration-token-for-"
	case opRemovalToken:
		anchor = "create-a-remove-token-for-"
	case opGet:
		anchor = "get-a-self-hosted-runner-for-"
	case opDelete:
		anchor = "delete-a-self-hosted-runner-from-"
	default:
		return docsRoot
	}
	return docsRoot + "/reference/" + page + "#" + anchor + of
}
