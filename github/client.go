// Package github speaks to GitHub's REST API for self-hosted runners, on
// github.com and on GitHub Enterprise Server, at all three levels at which
// runners are registered.
//
// It takes types, addresses and request building from go-github v45 and none
// of its transport: that version knows 15 of the 18 operations, believes an
// empty 200 to be an empty fleet, reports a redirected DELETE as done, does not
// know status 429 and stops sending by itself once a limit was reached. Every
// operation therefore goes through one method of ours, Client.do, which checks
// status and shape before anything is believed.
package github

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gh "github.com/google/go-github/v45/github"

	"github.com/muster-fleet/muster/fleet"
)

const (
	defaultConcurrency = 16 // 95 % of the ideal gain at 50 ms latency; GitHub allows 100 at once
	defaultTimeout     = 10 * time.Second
	maxBody            = 8 << 20 // a page of 100 runners with 100 labels each stays under 2 MiB
)

// Config is what a Client needs. APIURL, Token and UserAgent are required.
type Config struct {
	// APIURL is https://api.github.com or https://HOST/api/v3.
	APIURL string
	// Token is asked before every request, so that a rotated file is seen.
	Token func(context.Context) (fleet.Secret, error)
	// Refused is told that GitHub answered 401 to a credential, and reports
	// whether Token may have another one now: the request is then sent once
	// more with it. It is called from many goroutines at once. Nil: never.
	Refused func(fleet.Secret) bool
	// UserAgent names the program; GitHub refuses requests without one.
	UserAgent string
	// Concurrency is how many pages of one listing are in flight after the
	// first one. Zero means 16.
	Concurrency int
	// Timeout limits one request with its body. Zero means 10 s.
	Timeout time.Duration
	// Observe hears of every request that was sent. It is called from many
	// goroutines at once. Nil: nobody listens.
	Observe func(Call)

	// Waited hears of every request that had to wait for its turn. It is called
	// from many goroutines at once. Nil: nobody listens.
	Waited func(Wait)
	// OnPause hears of every pause that GitHub asks this client for: until when,
	// by the clock of Now, and in which words. It holds up the request that met
	// it, so it has to be quick, and is called from many goroutines at once. Nil:
	// nobody listens.
	OnPause func(until time.Time, reason string)
	// Unpaced sends requests as they come, for measurements. Pauses that GitHub
	// asks for are kept all the same.
	Unpaced bool
	// Now and Sleep are the time that turns are given by, for tests that do not
	// live in real time. Sleep returns the context's error where that ends
	// first. Nil: real time.
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error
}

// Call is one request that was sent, as metrics want it.
type Call struct {
	Op            string      // one of the Op constants
	Scope         fleet.Scope // zero: the operation is about none
	Status        int         // 0: no answer
	Err           error       // nil: the answer was as it has to be
	Took          time.Duration
	RateRemaining int // requests left in the window; -1: the server does not say
}

// Client is one credential at one GitHub instance. It is safe for concurrent
// use. It retries nothing but a 401 that another credential may mend: the rest
// is for whoever knows what the call was for.
type Client struct {
	requests *gh.Client // builds requests, sends none
	http     *http.Client
	token    func(context.Context) (fleet.Secret, error)
	refused  func(fleet.Secret) bool
	observe  func(Call)
	timeout  time.Duration
	parallel int
	busy     atomic.Pointer[busyAnswer] // nil: none seen
	governor *governor
	waited   func(Wait)
	runs     pagesKept[WorkflowRun]
	groups   pagesKept[runnerGroup]
	members  pagesKept[groupMember]
}

// New checks the configuration and returns a Client. It sends nothing.
func New(c Config) (*Client, error) {
	base, err := parseAPIURL(c.APIURL)
	if err != nil {
		return nil, err
	}
	if c.Token == nil {
		return nil, errors.New("github client: no way to get a token")
	}
	if c.UserAgent == "" {
		return nil, errors.New("github client: no user agent: GitHub refuses requests without one")
	}
	if c.Concurrency < 0 || c.Timeout < 0 {
		return nil, fmt.Errorf("github client: concurrency %d and timeout %s must not be negative", c.Concurrency, c.Timeout)
	}
	if c.Concurrency == 0 {
		c.Concurrency = defaultConcurrency
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Refused == nil {
		c.Refused = func(fleet.Secret) bool { return false }
	}
	if c.Observe == nil {
		c.Observe = func(Call) {}
	}
	if c.Waited == nil {
		c.Waited = func(Wait) {}
	}

	hc := &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: c.Timeout,
			// With the default of 2, 16 pages in flight dial anew for almost
			// every page.
			MaxIdleConnsPerHost: max(c.Concurrency, mostInFlight),
			IdleConnTimeout:     90 * time.Second,
		},
		// net/http replays a redirected DELETE as GET, and would carry the
		// credential to wherever the answer points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	requests := gh.NewClient(nil)
	requests.BaseURL = base
	requests.UserAgent = c.UserAgent
	return &Client{
		requests: requests,
		http:     hc,
		token:    c.Token,
		refused:  c.Refused,
		observe:  c.Observe,
		timeout:  c.Timeout,
		parallel: c.Concurrency,
		governor: newGovernor(c),
		waited:   c.Waited,
	}, nil
}

// parseAPIURL returns the address with the trailing slash that go-github
// resolves paths against.
func parseAPIURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		// The text of a parse error repeats the address with any password in it.
		return nil, errors.New("api_url: not a URL: want https://api.github.com or https://HOST/api/v3")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		err = errors.New("not an absolute http or https address")
	case u.User != nil:
		err = errors.New("must not carry a user or password: credentials belong under auth")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		err = errors.New("must not carry a query or fragment")
	}
	if err != nil {
		return nil, fmt.Errorf("api_url %s: %w: want https://api.github.com or https://HOST/api/v3", u.Redacted(), err)
	}
	u.Path = strings.TrimRight(u.Path, "/") + "/"
	u.RawPath = ""
	return u, nil
}

// operation is one request: what is asked, and the only status that is a yes.
type operation struct {
	op       string
	scope    fleet.Scope
	single   bool // concerns one runner
	runnerID int64
	method   string
	path     string // below the scope: "actions/runners/41"
	want     int
	again    bool // sent before, with a credential that was refused
	// match is the validator of an answer that the caller has, and matchFor the
	// fingerprint of the credential that got it: with another one GitHub
	// computes other validators. A 304 is then as good as want.
	match, matchFor string
	heard           func(http.Header) // of any answer, a refusal too; nil: nobody
	// follow says that a redirect within the same API is followed, once, and at is
	// where one pointed to; empty: the operation was not redirected.
	follow bool
	at     string
	// confirm is asked once the request has its turn and its credential, right
	// before it is sent, each time that it is sent. Its error keeps the request
	// from being sent. Nil: nobody is asked.
	confirm func(context.Context) error
}

// answer is what do makes of a good reply.
type answer interface {
	// read takes the reply, which it must not keep. Its errors are *Error.
	read(o operation, got reply) error
}

// decoded is an answer that is one JSON value.
type decoded struct{ v any }

func (d decoded) read(o operation, got reply) error { return o.decode(got, d.v) }

// do sends one request and has its reply read by into. It returns the headers
// of a good answer. With a nil into the body is not looked at. Every error is
// an *Error, except that of the operation's confirm.
func (c *Client) do(ctx context.Context, o operation, into answer) (http.Header, error) {
	turn, req, secret, err := c.prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	buffer := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buffer)
	began := time.Now()
	got, err := c.exchange(ctx, req, buffer)
	got.credential = secret
	c.noteDelete(o, got)
	if o.heard != nil && got.status != 0 {
		o.heard(got.header)
	}
	got.wait = c.governor.end(turn, got)
	if to := c.within(got); o.follow && to != "" {
		c.observe(Call{Op: o.op, Scope: o.scope, Status: got.status, Took: time.Since(began), RateRemaining: rateRemaining(got.header)})
		o.follow = false
		o.at = to
		return c.do(ctx, o, into)
	}
	switch {
	case got.status == 0:
		err = o.noAnswer(ctx, err, c.timeout)
	case got.status != o.want && !o.unchanged(got):
		// The status decides before the body does: a busy runner is busy also
		// where the explanation got lost on the way.
		err = o.refused(got, secret)
	case err != nil:
		err = o.brokenOff(ctx, err, got.status)
	case into != nil:
		err = into.read(o, got)
	}
	c.observe(Call{
		Op: o.op, Scope: o.scope, Status: got.status, Err: err,
		Took: time.Since(began), RateRemaining: rateRemaining(got.header),
	})
	if errors.Is(err, fleet.ErrUnauthorized) && !o.again && c.refused(secret) {
		// A 401 has done nothing, so that even a DELETE may be sent again.
		o.again = true
		return c.do(ctx, o, into)
	}
	if err != nil {
		return nil, err
	}
	return got.header, nil
}

// prepare waits until the request may be sent and builds it: a credential may
// have changed while it waited, and a pause may have begun while the credential
// was got. What it returns without an error is to be sent at once.
func (c *Client) prepare(ctx context.Context, o operation) (turn, *http.Request, fleet.Secret, error) {
	for {
		t, err := c.governor.enter(ctx, o)
		if t.why != "" {
			c.waited(Wait{Op: o.op, Scope: o.scope, Priority: o.priority(), Reason: t.why, Took: t.waited, Sent: err == nil})
		}
		if err != nil {
			return turn{}, nil, fleet.Secret{}, err
		}
		req, secret, err := c.request(ctx, o)
		if err == nil && o.confirm != nil {
			err = o.confirm(ctx)
		}
		switch {
		case err != nil:
			c.governor.unused(t)
			return turn{}, nil, fleet.Secret{}, err
		case c.governor.start(&t):
			return t, req, secret, nil
		}
		c.governor.unused(t)
	}
}

// request builds the request with its credential on it.
func (c *Client) request(ctx context.Context, o operation) (*http.Request, fleet.Secret, error) {
	scheme := "token "
	if o.op == OpInstallationToken {
		scheme = "Bearer " // it is no token
	} else if err := o.scope.Valid(); err != nil {
		return nil, fleet.Secret{}, o.fail(nil, err.Error(), err)
	}
	if o.single && o.runnerID <= 0 {
		err := fmt.Errorf("runner id %d is not positive", o.runnerID)
		return nil, fleet.Secret{}, o.fail(nil, err.Error(), err)
	}
	secret, err := c.token(ctx)
	var issue *Error
	switch {
	case errors.As(err, &issue):
		// The credential takes requests of its own: whether GitHub refused it,
		// wants a pause or is away is for that to say.
		e := *issue
		e.Scope = o.scope
		return nil, fleet.Secret{}, &e
	case err != nil && ctx.Err() != nil:
		return nil, fleet.Secret{}, o.fail(fleet.ErrUnavailable, "read the credential: "+err.Error(), err)
	case err != nil:
		return nil, fleet.Secret{}, o.fail(fleet.ErrUnauthorized, "read the credential: "+err.Error(), err)
	case secret.IsZero():
		return nil, fleet.Secret{}, o.fail(fleet.ErrUnauthorized, "the credential is empty", nil)
	case strings.ContainsFunc(secret.Reveal(), notInHeader):
		return nil, fleet.Secret{}, o.fail(fleet.ErrUnauthorized, "the credential contains white space or control characters", nil)
	}
	// Relative, since a leading slash would drop /api/v3.
	address := o.at
	if address == "" {
		address = strings.TrimSuffix(scopePath(o.scope)+o.path, "/")
	}
	req, err := c.requests.NewRequest(o.method, address, nil)
	if err != nil {
		return nil, fleet.Secret{}, o.fail(nil, err.Error(), err)
	}
	req.Header.Set("Authorization", scheme+secret.Reveal())
	if o.match != "" && o.matchFor == secret.Fingerprint() {
		req.Header.Set("If-None-Match", o.match)
	}
	return req, secret, nil
}

// unchanged reports whether the answer is that what the caller has is still
// true. A 304 that nobody asked for is none.
func (o operation) unchanged(got reply) bool {
	return got.status == http.StatusNotModified && o.match != "" && o.matchFor == got.credential.Fingerprint()
}

func notInHeader(r rune) bool { return r <= ' ' || r >= 0x7f }

// scopePath is the part of the path that names the scope, with a slash at its
// end; empty for the zero scope.
func scopePath(s fleet.Scope) string {
	switch s.Kind {
	case "":
		return ""
	case fleet.ScopeEnterprise:
		return "enterprises/" + url.PathEscape(s.Owner) + "/"
	case fleet.ScopeOrg:
		return "orgs/" + url.PathEscape(s.Owner) + "/"
	default:
		return "repos/" + url.PathEscape(s.Owner) + "/" + url.PathEscape(s.Repo) + "/"
	}
}

// buffers hold bodies. A walk over a large fleet reads a thousand pages.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// exchange sends the request and reads the whole answer within the timeout. An
// answer whose body broke off comes with an error.
func (c *Client) exchange(ctx context.Context, req *http.Request, buffer *bytes.Buffer) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.http.Do(req.WithContext(ctx))
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }() // all that counts has been read
	buffer.Reset()
	_, err = buffer.ReadFrom(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && buffer.Len() > maxBody {
		err = errTooLarge
	}
	return reply{status: resp.StatusCode, header: resp.Header, body: buffer.Bytes()}, err
}

var errTooLarge = fmt.Errorf("answer is larger than %d MiB", maxBody>>20)
