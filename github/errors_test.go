package github_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

// kinds are all sentinels, so that a test sees that an error is one of them
// and none of the others.
var kinds = []error{
	fleet.ErrNotFound, fleet.ErrBusy, fleet.ErrRateLimited, fleet.ErrUnauthorized,
	fleet.ErrForbidden, fleet.ErrUnavailable, fleet.ErrMalformed, fleet.ErrConflict,
}

// wantKind checks that err is of this kind alone.
func wantKind(t *testing.T, name string, err, want error) {
	t.Helper()
	for _, kind := range kinds {
		if errors.Is(err, kind) != (kind == want) {
			t.Errorf("%s: error is %v, want it to be %q alone", name, err, want)
			return
		}
	}
}

// details gives err as what it has to be.
func details(t *testing.T, name string, err error) *github.Error {
	t.Helper()
	var e *github.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: %v (%T) is no *github.Error", name, err, err)
	}
	return e
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	const date = "Sun, 01 Mar 2026 12:00:00 GMT"
	type header map[string]string
	tests := []struct {
		name   string
		status int
		header header
		body   string
		get    error // what a GET makes of it
		remove error // what a DELETE makes of it
		wait   time.Duration
	}{
		{"gone", 404, nil, `{"message":"Not Found"}`, fleet.ErrNotFound, fleet.ErrNotFound, 0},
		{"a proxy's 404", 404, header{"Content-Type": "text/html"}, `<h1>nginx</h1>`, fleet.ErrMalformed, fleet.ErrMalformed, 0},
		{"somebody's empty 404", 404, nil, ``, fleet.ErrMalformed, fleet.ErrMalformed, 0},
		{"busy, as worded in 2022", 422, nil, `{"message":"Bad request - Runner \"x\" is still running a job\""}`, fleet.ErrMalformed, fleet.ErrBusy, 0},
		{"busy, worded otherwise", 422, nil, `{"message":"no"}`, fleet.ErrMalformed, fleet.ErrBusy, 0},
		{"server error", 500, nil, `{"message":"Server Error"}`, fleet.ErrUnavailable, fleet.ErrUnavailable, 0},
		{"bad gateway", 502, header{"Content-Type": "text/html"}, `<html>`, fleet.ErrUnavailable, fleet.ErrUnavailable, 0},
		{"maintenance with an end", 503, header{"Retry-After": "120"}, ``, fleet.ErrUnavailable, fleet.ErrUnavailable, 2 * time.Minute},
		{"bad credential", 401, nil, `{"message":"Bad credentials"}`, fleet.ErrUnauthorized, fleet.ErrUnauthorized, 0},
		{"no rights", 403, header{"X-RateLimit-Remaining": "4999"}, `{"message":"Must have admin rights to Repository."}`, fleet.ErrForbidden, fleet.ErrForbidden, 0},
		{"403 without a body", 403, nil, ``, fleet.ErrUnavailable, fleet.ErrUnavailable, 0},
		{"a proxy's 403", 403, header{"Content-Type": "text/html"}, `<title>Blocked</title>`, fleet.ErrUnavailable, fleet.ErrUnavailable, 0},
		{"a proxy's 401", 401, header{"Content-Type": "text/html"}, `<title>Sign in</title>`, fleet.ErrUnavailable, fleet.ErrUnavailable, 0},
		{"a gateway's 403", 403, header{"X-GitHub-Request-Id": ""}, `{"message":"Forbidden"}`, fleet.ErrUnavailable, fleet.ErrUnavailable, 0},
		{"403 without GitHub's header", 403, header{"X-GitHub-Request-Id": ""}, `{"message":"no","documentation_url":"https://docs.github.com/rest"}`, fleet.ErrForbidden, fleet.ErrForbidden, 0},
		{"secondary limit with seconds", 403, header{"Retry-After": "17"}, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, 17 * time.Second},
		{"secondary limit with a date", 403, header{"Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT", "Date": date}, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, 30 * time.Second},
		{"secondary limit by its new link", 403, header{"X-RateLimit-Remaining": "4000"}, `{"message":"x","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, time.Minute},
		{"secondary limit by its old link", 403, nil, `{"message":"x","documentation_url":"https://docs.github.com/rest#abuse-rate-limits"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, time.Minute},
		{"secondary limit by its words", 403, nil, `{"message":"You have exceeded a secondary rate limit."}`, fleet.ErrRateLimited, fleet.ErrRateLimited, time.Minute},
		{"primary limit, by the server's clock", 403, header{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1772366700", "Date": date}, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, 5 * time.Minute},
		{"primary limit that has ended", 403, header{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1", "Date": date}, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, time.Second},
		{"primary limit without an end", 403, header{"X-RateLimit-Remaining": "0"}, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, time.Minute},
		{"429", 429, nil, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, time.Minute},
		{"429 with nonsense", 429, header{"Retry-After": "soon"}, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, time.Minute},
		{"429 for ever", 429, header{"Retry-After": "9223372036854775807"}, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, 24 * time.Hour},
		{"429 for no time", 429, header{"Retry-After": "-5"}, `{"message":"x"}`, fleet.ErrRateLimited, fleet.ErrRateLimited, time.Second},
		{"redirect", 301, header{"Location": "https://elsewhere.example/api/v3/x?secret=1"}, `{"message":"Moved Permanently"}`, fleet.ErrUnavailable, fleet.ErrUnavailable, 0},
		{"redirect without a place", 307, nil, ``, fleet.ErrUnavailable, fleet.ErrUnavailable, 0},
		{"not modified", 304, nil, ``, fleet.ErrMalformed, fleet.ErrMalformed, 0},
		{"accepted", 202, nil, `{}`, fleet.ErrMalformed, fleet.ErrMalformed, 0},
		{"created", 201, nil, `{}`, fleet.ErrMalformed, fleet.ErrMalformed, 0},
		{"teapot", 418, nil, `{"message":"x"}`, fleet.ErrMalformed, fleet.ErrMalformed, 0},
	}
	for _, tt := range tests {
		asked := 0
		answer := func(w http.ResponseWriter, _ *http.Request) {
			asked++
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-GitHub-Request-Id", "1")
			for k, v := range tt.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(tt.status)
			_, _ = fmt.Fprint(w, tt.body)
		}
		_, err := answers(t, answer).Runner(t.Context(), org, 7)
		wantKind(t, "GET: "+tt.name, err, tt.get)
		e := details(t, tt.name, err)
		if e.Status != tt.status || e.Wait != tt.wait || e.RunnerID != 7 || e.Scope != org || e.Op != github.OpRunner {
			t.Errorf("GET: %s: status %d, wait %s, runner %d, scope %s, op %s", tt.name, e.Status, e.Wait, e.RunnerID, e.Scope, e.Op)
		}
		// Another client, since the one that was told to wait does.
		wantKind(t, "DELETE: "+tt.name, answers(t, answer).RemoveRunner(t.Context(), org, 7, nil), tt.remove)
		if asked != 2 {
			t.Errorf("%s: %d requests for two operations: want no retries and no redirects followed", tt.name, asked)
		}
	}
}

func TestDeleteIsDoneOnlyWith204(t *testing.T) {
	t.Parallel()
	gets := 0
	gh := answers(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // what net/http makes of a redirected DELETE
			gets++
			says(http.StatusOK, `{"id":7}`)(w, r)
			return
		}
		http.Redirect(w, r, "/api/v3/organizations/1/actions/runners/7", http.StatusMovedPermanently)
	})
	if err := gh.RemoveRunner(t.Context(), org, 7, nil); err == nil || gets != 0 {
		t.Errorf("RemoveRunner() = %v after a redirect, with %d requests sent to its target; want an error and none", err, gets)
	}
	for _, status := range []int{200, 202, 205} {
		gh := answers(t, says(status, `{}`))
		wantKind(t, fmt.Sprint(status), gh.RemoveRunner(t.Context(), org, 7, nil), fleet.ErrMalformed)
	}
	if err := answers(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }).RemoveRunner(t.Context(), org, 7, nil); err != nil {
		t.Errorf("RemoveRunner() = %v after 204, want nil", err)
	}
}

const (
	notTheAPI  = "; web sites, sign-in pages and proxies answer so: api_url must be the API, https://api.github.com, https://api.NAME.ghe.com or https://HOST/api/v3"
	notGitHubs = "; it is not GitHub's: a proxy or firewall on the way refuses. Have it let api_url through; HTTPS_PROXY and NO_PROXY say which way muster takes"
)

// page answers with a page of HTML, as web sites and proxies do.
func page(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, text)
	}
}

// sso answers as GitHub does to a token that is not authorized for an
// organisation.
func sso(header string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-GitHub-SSO", header)
		says(http.StatusForbidden, `{"message":"Resource protected by organization SAML enforcement."}`)(w, r)
	}
}

func TestErrorsSayWhatToDoAndKeepSecrets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer http.HandlerFunc
		scope  fleet.Scope
		want   string
	}{
		{"rate limit", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "90")
			says(http.StatusTooManyRequests, `{"message":"slow down"}`)(w, r)
		}, org, "list runners of org/acme: rate limited (HTTP 429): slow down; wait 1m30s"},
		{"rights in an organisation", says(http.StatusForbidden, `{"message":"no"}`), org,
			"list runners of org/acme: forbidden (HTTP 403): no; a classic token needs admin:org, and its user must own the organisation; an App needs write access to the organisation's self-hosted runners"},
		{"a suspended App that has a token", says(http.StatusForbidden, `{"message":"This installation has been suspended"}`), org,
			"list runners of org/acme: forbidden (HTTP 403): This installation has been suspended; see the installed Apps of its account"},
		{"rights in an enterprise", says(http.StatusForbidden, `{"message":"no"}`), scopes[0],
			"list runners of enterprise/octo: forbidden (HTTP 403): no; a classic token needs manage_runners:enterprise (GitHub Enterprise Server 3.1: admin:enterprise)"},
		{"rights in a repository", says(http.StatusForbidden, `{"message":"no"}`), scopes[2],
			"list runners of repo/acme/widgets: forbidden (HTTP 403): no; a classic token needs repo, and its user must administer the repository; an App needs write access to the repository's administration"},
		{"credential", says(http.StatusUnauthorized, `{"message":"Bad credentials"}`), org,
			"list runners of org/acme: credential not accepted (HTTP 401): Bad credentials; check that the token is the right one and has not expired"},
		{"scope", says(http.StatusNotFound, `{"message":"Not Found"}`), org,
			"list runners of org/acme: not found (HTTP 404): Not Found; the scope does not exist or the token cannot see it"},
		{"a message with the credential in it", says(http.StatusBadRequest, `{"message":"token `+credential+` is odd"}`), org,
			"list runners of org/acme: malformed answer (HTTP 400): status is not 200: token [redacted] is odd"},
		{"a message of many lines", says(http.StatusInternalServerError, `{"message":"a\nb\u0000c\u001b[31m"}`), org,
			"list runners of org/acme: unavailable (HTTP 500): a b c [31m"},
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			_, _ = fmt.Fprint(w, "<h1>unicorn</h1>")
		}, org, "list runners of org/acme: unavailable (HTTP 502): answer is an HTML page"},
		{"a sign-in page", page(http.StatusOK, "<html><head><title>\n Sign in &middot; GitHub\u202e </title></head>"), org,
			`list runners of org/acme: malformed answer (HTTP 200): answer is an HTML page with the title "Sign in · GitHub", not JSON` + notTheAPI},
		{"a web site", page(http.StatusNotFound, "<title>"+strings.Repeat("long ", 100)+"</title>"), org,
			`list runners of org/acme: malformed answer (HTTP 404): status is not 200: answer is an HTML page with the title "` + strings.TrimSpace(strings.Repeat("long ", 12)) + `"` + notTheAPI},
		{"a proxy", page(http.StatusForbidden, "<title>Blocked by policy</title>"), org,
			`list runners of org/acme: unavailable (HTTP 403): answer is an HTML page with the title "Blocked by policy"` + notGitHubs},
		{"a proxy that wants a password", page(http.StatusUnauthorized, ""), org,
			"list runners of org/acme: unavailable (HTTP 401): answer is empty" + notGitHubs},
		{"single sign-on", sso("required; url=https://github.com/orgs/acme/sso?authorization_request=" + strings.Repeat("A", 120)), org,
			"list runners of org/acme: forbidden (HTTP 403): Resource protected by organization SAML enforcement.; the organisation wants SAML single sign-on: " +
				"the token's owner authorizes it at https://github.com/orgs/acme/sso?authorization_request=" + strings.Repeat("A", 120)},
		{"single sign-on without an address", sso("partial-results; organizations=1"), org,
			"list runners of org/acme: forbidden (HTTP 403): Resource protected by organization SAML enforcement.; a classic token needs admin:org, and its user must own the organisation; an App needs write access to the organisation's self-hosted runners"},
		{"single sign-on at an odd address", sso("required; url=javascript:alert(1)"), org,
			"list runners of org/acme: forbidden (HTTP 403): Resource protected by organization SAML enforcement.; a classic token needs admin:org, and its user must own the organisation; an App needs write access to the organisation's self-hosted runners"},
		{"a redirect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://elsewhere.example/x?secret=1")
			w.WriteHeader(http.StatusFound)
		}, org, "list runners of org/acme: unavailable (HTTP 302): redirect to elsewhere.example refused; if the owner or repository was renamed, write its new name into scope and carry the target over with muster target rename"},
	}
	for _, tt := range tests {
		_, err := answers(t, tt.answer).Runners(t.Context(), tt.scope, fleet.KeptListing{})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", tt.name, err, tt.want)
		}
	}
	_, err := answers(t, says(http.StatusInternalServerError, `{"message":"`+strings.Repeat("ä", 10_000)+`"}`)).Runners(t.Context(), org, fleet.KeptListing{})
	if n := len([]rune(err.Error())); n > 300 {
		t.Errorf("an endless message gives an error of %d characters", n)
	}
}

func TestNoAnswerIsUnavailableAndContextsStayVisible(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

	slow := httptest.NewServer(http.HandlerFunc(hang))
	t.Cleanup(slow.Close)
	_, err := client(t, slow.URL, func(c *github.Config) { c.Timeout = 20 * time.Millisecond }).Runners(t.Context(), org, fleet.KeptListing{})
	wantKind(t, "slow", err, fleet.ErrUnavailable)
	if e := details(t, "slow", err); e.Status != 0 || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 20ms") {
		t.Errorf("slow: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	gone := answers(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		hang(w, r)
	})
	_, err = gone.Runners(ctx, org, fleet.KeptListing{})
	wantKind(t, "cancelled", err, fleet.ErrUnavailable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v does not show it", err)
	}

	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	_, err = client(t, closed.URL).Runners(t.Context(), org, fleet.KeptListing{})
	wantKind(t, "nobody there", err, fleet.ErrUnavailable)

	aborting := answers(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	wantKind(t, "closed", aborting.RemoveRunner(t.Context(), org, 7, nil), fleet.ErrUnavailable)

	half := answers(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "100")
		_, _ = fmt.Fprint(w, `{"total_count":0`)
	})
	_, err = half.Runners(t.Context(), org, fleet.KeptListing{})
	wantKind(t, "broken off", err, fleet.ErrUnavailable)
	if e := details(t, "broken off", err); e.Status != http.StatusOK {
		t.Errorf("broken off: status %d, want 200", e.Status)
	}

	stalled := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"total_count":0`)
		_ = http.NewResponseController(w).Flush()
		hang(w, r)
	}))
	t.Cleanup(stalled.Close)
	_, err = client(t, stalled.URL, func(c *github.Config) { c.Timeout = 20 * time.Millisecond }).Runners(t.Context(), org, fleet.KeptListing{})
	wantKind(t, "stalled", err, fleet.ErrUnavailable)
}

// An Enterprise Server often has a certificate of the company's own authority.
func TestACertificateThatNobodyTrustsSaysWhatToDo(t *testing.T) {
	t.Parallel()
	sim, stop, err := githubsim.Start(t.Context(), githubsim.Config{TLS: true})
	must(t, err)
	t.Cleanup(stop)
	err = client(t, sim.APIURL()).CanList(t.Context(), org)
	wantKind(t, "untrusted", err, fleet.ErrUnavailable)
	const want = "check access of org/acme: unavailable: tls: failed to verify certificate: x509: certificate signed by unknown authority; " +
		"have this machine trust the authority that signed it, or name a file that holds its certificate in SSL_CERT_FILE"
	if err.Error() != want {
		t.Errorf("untrusted: %v, want %s", err, want)
	}
}

func TestRequestsThatCannotBeMadeAreNotSent(t *testing.T) {
	t.Parallel()
	asked := 0
	count := func(http.ResponseWriter, *http.Request) { asked++ }
	gh := answers(t, count)
	for _, bad := range []fleet.Scope{
		{},
		{Kind: fleet.ScopeOrg, Owner: ".."},
		{Kind: fleet.ScopeEnterprise, Owner: "../orgs/x"},
		{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "a?b"},
		{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "a#b"},
	} {
		if _, err := gh.Runners(t.Context(), bad, fleet.KeptListing{}); err == nil {
			t.Errorf("Runners(%q) = nil, want an error", bad)
		}
	}
	for _, id := range []int64{0, -1} {
		if err := gh.RemoveRunner(t.Context(), org, id, nil); err == nil {
			t.Errorf("RemoveRunner(%d) = nil, want an error", id)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(count))
	t.Cleanup(srv.Close)
	unreadable := errors.New("permission denied")
	nothing := fleet.Secret{}
	for name, source := range map[string]func(context.Context) (fleet.Secret, error){
		"no file":     func(context.Context) (fleet.Secret, error) { return nothing, unreadable },
		"empty":       token(""),
		"line breaks": token("ghp_x\r\nX-Evil: 1"),
	} {
		_, err := client(t, srv.URL, func(c *github.Config) { c.Token = source }).Runners(t.Context(), org, fleet.KeptListing{})
		wantKind(t, name, err, fleet.ErrUnauthorized)
		if errors.Is(err, unreadable) != (name == "no file") || strings.Contains(err.Error(), "ghp_x") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked != 0 {
		t.Errorf("%d requests were sent", asked)
	}
}
