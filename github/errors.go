package github

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	gh "github.com/google/go-github/v45/github"

	"github.com/muster-fleet/muster/fleet"
)

// The operations, as Error and Call name them.
const (
	OpRunners           = "list_runners"
	OpCanList           = "check_access"
	OpRunner            = "get_runner"
	OpConfirm           = "confirm_runner"
	OpRunnerNamed       = "find_runner"
	OpProbe             = "probe_server"
	OpExamine           = "examine_credential"
	OpRemoveRunner      = "delete_runner"
	OpDownloads         = "list_downloads"
	OpRegistrationToken = "create_registration_token"
	OpRemovalToken      = "create_removal_token"
	OpRepositories      = "list_repositories"
	OpRepository        = "get_repository"
	OpWorkflowRuns      = "list_workflow_runs"
	OpWorkflowJobs      = "list_workflow_jobs"
	OpWorkflowJob       = "get_workflow_job"
	OpRunnerGroups      = "list_runner_groups"
	OpGroupMembers      = "list_runner_group_members"
	OpHookDeliveries    = "list_hook_deliveries"
	OpRedeliver         = "redeliver_hook"
	// OpInstallationToken is what an App does before anything else. An Error of
	// it says that the operation that was asked for has not been sent.
	OpInstallationToken = "create_installation_token"
)

// Error is why an operation did not come to its result. errors.Is finds the
// Kind, and context errors where there were any.
type Error struct {
	Op       string        // one of the Op constants
	Scope    fleet.Scope   // zero: the operation is about none
	RunnerID int64         // 0: the operation concerns no single runner
	Status   int           // 0: no answer
	Wait     time.Duration // how long GitHub asks to wait; 0: it does not
	Kind     error         // one of fleet's sentinels; nil: the request itself was invalid and was not sent
	Detail   string        // GitHub's message or what is wrong, short; never a secret or a page of HTML
	// SSO is where the owner of a token authorizes it for an organisation with
	// SAML single sign-on, as GitHub says in X-GitHub-SSO; empty: it does not.
	SSO string
	// Page is whether the answer is an HTML page, and Foreign whether it is a
	// refusal of somebody between muster and GitHub.
	Page, Foreign bool
	Err           error // underneath, where there is one
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(e.Op, "_", " "))
	if e.RunnerID != 0 {
		fmt.Fprintf(&b, " %d", e.RunnerID)
	}
	if e.Scope != (fleet.Scope{}) {
		b.WriteString(" of " + e.Scope.String())
	}
	if e.Kind != nil {
		b.WriteString(": " + e.Kind.Error())
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", e.Status)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Wait > 0 {
		fmt.Fprintf(&b, "; wait %s", e.Wait.Round(time.Second))
	}
	return b.String() + e.mend()
}

// mend is what the operator can do.
func (e *Error) mend() string {
	var untrusted x509.UnknownAuthorityError
	switch {
	case errors.As(e.Err, &untrusted):
		return "; have this machine trust the authority that signed it, or name a file that holds its certificate in SSL_CERT_FILE"
	case e.Foreign:
		return "; it is not GitHub's: a proxy or firewall on the way refuses. Have it let api_url through; HTTPS_PROXY and NO_PROXY say which way muster takes"
	case e.Page && e.Status < http.StatusInternalServerError:
		return "; web sites, sign-in pages and proxies answer so: api_url must be the API, https://api.github.com, https://api.NAME.ghe.com or https://HOST/api/v3"
	case e.SSO != "":
		return "; the organisation wants SAML single sign-on: the token's owner authorizes it at " + e.SSO
	case e.Op == OpInstallationToken:
		return e.mendApp()
	case errors.Is(e.Kind, fleet.ErrUnauthorized):
		return "; check that the token is the right one and has not expired"
	case hidden(e.Kind) && mends[e.Op] != "":
		return "; " + mends[e.Op]
	case errors.Is(e.Kind, fleet.ErrForbidden) && strings.Contains(e.Detail, "suspended"):
		return "; see the installed Apps of its account" // no right is lacking
	case errors.Is(e.Kind, fleet.ErrForbidden):
		switch e.Scope.Kind {
		case fleet.ScopeEnterprise:
			return "; a classic token needs manage_runners:enterprise (GitHub Enterprise Server 3.1: admin:enterprise)"
		case fleet.ScopeOrg:
			return "; a classic token needs admin:org, and its user must own the organisation; an App needs write access to the organisation's self-hosted runners"
		default:
			return "; a classic token needs repo, and its user must administer the repository; an App needs write access to the repository's administration"
		}
	case errors.Is(e.Kind, fleet.ErrNotFound) && e.RunnerID == 0:
		return "; the scope does not exist or the token cannot see it"
	}
	return ""
}

// hidden reports whether GitHub lets somebody else do it, perhaps: it says that
// there is no such thing to those who may not see it.
func hidden(kind error) bool {
	return errors.Is(kind, fleet.ErrForbidden) || errors.Is(kind, fleet.ErrNotFound)
}

// mends are what operations need that are not about runners.
var mends = map[string]string{
	OpRepositories:   mendRepositories,
	OpRepository:     mendRepositories,
	OpWorkflowRuns:   mendRuns,
	OpWorkflowJobs:   mendRuns,
	OpWorkflowJob:    mendRuns,
	OpHookDeliveries: mendHooks,
	OpRedeliver:      mendHooks,
}

const (
	mendRepositories = "a classic token needs repo; an App needs read access to metadata"

	mendRuns  = "a classic token needs repo; an App needs read access to actions"
	mendHooks = "a classic token needs admin:org_hook or admin:repo_hook; an App needs write access to the webhooks of the organisation or repository"
)

// mendApp is what the operator can do about an App that gets no token.
func (e *Error) mendApp() string {
	switch {
	case e.Status == http.StatusNotFound && errors.Is(e.Kind, fleet.ErrUnauthorized):
		return "; it was removed, or belongs to another App or server: check installation_id"
	case e.Status == http.StatusUnauthorized && errors.Is(e.Kind, fleet.ErrUnauthorized):
		return "; check that the private key is one of this App's and its id the right one"
	case errors.Is(e.Kind, fleet.ErrForbidden):
		return "; it may be suspended: see the installed Apps of its account"
	}
	return ""
}

// Unwrap gives the kind and what is underneath.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (o operation) fail(kind error, detail string, err error) *Error {
	return &Error{Op: o.op, Scope: o.scope, RunnerID: o.runnerID, Kind: kind, Detail: clean(detail), Err: err}
}

func (o operation) malformed(status int, detail string) *Error {
	e := o.fail(fleet.ErrMalformed, detail, nil)
	e.Status = status
	return e
}

// noAnswer is for requests that got no status at all.
func (o operation) noAnswer(ctx context.Context, err error, timeout time.Duration) *Error {
	// The address in a url.Error tells nothing that the operation does not.
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	detail := err.Error()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		detail = fmt.Sprintf("no answer within %s", timeout)
	}
	return o.fail(fleet.ErrUnavailable, detail, err)
}

// brokenOff is for answers whose status came and whose body did not.
func (o operation) brokenOff(ctx context.Context, err error, status int) *Error {
	kind, detail := fleet.ErrUnavailable, "the answer broke off: "+err.Error()
	switch {
	case errors.Is(err, errTooLarge):
		kind, detail = fleet.ErrMalformed, err.Error()
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		detail = "the answer did not end in time"
	}
	e := o.fail(kind, detail, err)
	e.Status = status
	return e
}

// refused turns a status that is not the wanted one into an Error.
func (o operation) refused(got reply, secret fleet.Secret) *Error {
	answer := got.explanation()
	detail := answer.Message
	if detail == "" {
		detail = "answer is " + got.describe()
	}
	e := o.fail(fleet.ErrMalformed, strings.ReplaceAll(detail, secret.Reveal(), "[redacted]"), nil)
	e.Status, e.Page = got.status, got.isPage()

	switch status := got.status; {
	case got.limited(answer):
		e.Kind, e.Wait = fleet.ErrRateLimited, got.wait
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && !got.isGitHubs(answer):
		// It says nothing about the credential.
		e.Kind, e.Foreign = fleet.ErrUnavailable, true
	case status == http.StatusUnauthorized:
		e.Kind = fleet.ErrUnauthorized
	case status == http.StatusForbidden:
		e.Kind, e.SSO = fleet.ErrForbidden, got.singleSignOn()
	case status == http.StatusNotFound && answer.Message != "":
		// A proxy's page that says 404 is no proof that anything is gone.
		e.Kind = fleet.ErrNotFound
	case status == http.StatusUnprocessableEntity && o.method == http.MethodDelete:
		// The wording has changed over the years, the status has not.
		e.Kind = fleet.ErrBusy
	case status >= 500:
		// Up to GitHub Enterprise Server 3.3 or so, 500 is also what the
		// DELETE of a busy runner gets: the caller has to look again.
		e.Kind = fleet.ErrUnavailable
		e.Wait = got.wait
	case redirects(status):
		e.Kind = fleet.ErrUnavailable
		e.Detail = "redirect" + got.redirect() + " refused; if the owner or repository was renamed, write its new name into scope and carry the target over with muster target rename"
	default:
		e.Detail = clean(fmt.Sprintf("status is not %d: %s", o.want, e.Detail))
	}
	return e
}

// explanation is what GitHub says of a refusal; of another one's, nothing.
func (r reply) explanation() gh.ErrorResponse {
	answer := gh.ErrorResponse{}
	if r.isJSON() {
		// What else the body holds may be of any shape: only the message and
		// the link to the documentation are used.
		_ = json.Unmarshal(r.body, &answer)
	}
	return answer
}

// limited recognises GitHub's ways of asking for a pause. Secondary limits may
// come with neither Retry-After nor an exhausted budget, so that only the text
// or the link to the documentation tells them from a lack of rights.
func (r reply) limited(answer gh.ErrorResponse) bool {
	switch r.status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusForbidden:
		return r.header.Get("Retry-After") != "" ||
			r.header.Get("X-RateLimit-Remaining") == "0" ||
			strings.Contains(answer.DocumentationURL, "rate-limit") ||
			strings.Contains(strings.ToLower(answer.Message), "rate limit")
	}
	return false
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirect names the host that a redirect points to, and no more of it: the rest
// may carry secrets.
func (r reply) redirect() string {
	at, err := url.Parse(r.header.Get("Location"))
	if err != nil || at.Host == "" {
		return ""
	}
	return " to " + clean(at.Host)
}

const maxDetail = 200 // runes

// clean makes foreign text fit for one line of a log.
func clean(s string) string {
	return fleet.ShownUpTo(strings.Join(strings.Fields(fleet.Shown(s)), " "), maxDetail)
}
