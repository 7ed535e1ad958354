package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	gh "github.com/google/go-github/v45/github"
	"golang.org/x/sync/singleflight"

	"github.com/muster-fleet/muster/fleet"
)

const (
	installationTokenLife = time.Hour       // GitHub's; what claims to live longer is not believed
	renewBefore           = 5 * time.Minute // before a token ends, or a quarter of a shorter life
	keyLimit              = 5 * time.Second
	enoughLeft            = time.Minute      // for a request and its answer, with ample time
	reissueEvery          = 30 * time.Second // at most, of tokens that GitHub refuses
	refusalPause          = 30 * time.Second // after GitHub refused to issue a token
	outagePause           = 5 * time.Second  // after it did not answer, or not in a believable way
)

// AppConfig is what an App needs. APIURL, ID, InstallationID, PrivateKey and
// UserAgent are required.
type AppConfig struct {
	// APIURL is https://api.github.com or https://HOST/api/v3.
	APIURL string
	ID     int64 // of the App, from its settings page
	// InstallationID is the number at the end of the installation's address.
	InstallationID int64
	// PrivateKey gives one of the App's keys, as CheckPrivateKey wants it. It is
	// asked before every issue of a token, so that a rotated file is seen.
	PrivateKey func(context.Context) (fleet.Secret, error)
	// UserAgent names the program; GitHub refuses requests without one.
	UserAgent string
	// Timeout limits one request for a token with its answer. Zero means 10 s.
	Timeout time.Duration
	// Now is this machine's clock, which may be wrong. Nil means time.Now.
	Now func() time.Time
	// Observe hears of every request for a token: its Scope is zero, and its
	// RateRemaining -1, since the window is not that of the installation. Nil:
	// nobody listens.
	Observe func(Call)
	// Waited and OnPause are those of a Config, for what the App asks GitHub for
	// itself.
	Waited  func(Wait)
	OnPause func(until time.Time, reason string)
}

// App is one installation of a GitHub App as a credential: its Token and
// Refused are those of a Config. It holds one token in memory and issues the
// next one shortly before that ends. It is safe for concurrent use.
type App struct {
	id, installation int64
	key              func(context.Context) (fleet.Secret, error)
	now              func() time.Time
	timeout          time.Duration
	server           *serverClock
	client           *Client // speaks as the App, not as the installation
	flights          singleflight.Group

	mu      sync.Mutex
	have    issued
	dropped time.Time // when a refused token was last replaced; zero: never
}

// issued is a token, and how the newest attempt to get one failed, if it did.
// All times are this machine's. The zero value is no token and no failure.
type issued struct {
	token        fleet.Secret
	permissions  map[string]string // what it may do; nil: GitHub did not say
	renew, until time.Time
	failure      *Error
	retry        time.Time // no attempt before this
}

// NewApp checks the configuration and returns an App. It sends nothing and
// does not read the key.
func NewApp(c AppConfig) (*App, error) {
	if c.ID <= 0 || c.InstallationID <= 0 {
		return nil, fmt.Errorf("github app: id %d and installation id %d have to be positive", c.ID, c.InstallationID)
	}
	if c.PrivateKey == nil {
		return nil, errors.New("github app: no way to get the private key")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	a := &App{
		id: c.ID, installation: c.InstallationID, key: c.PrivateKey, now: c.Now, timeout: c.Timeout,
		server: &serverClock{now: c.Now},
	}
	client, err := New(Config{
		APIURL: c.APIURL, UserAgent: c.UserAgent, Timeout: c.Timeout,
		Token: a.assertion, Now: c.Now, Waited: c.Waited, OnPause: c.OnPause,
		// A clock that is off is the one mendable reason for a 401.
		Refused: func(fleet.Secret) bool { return a.server.corrected() },
		Observe: func(call Call) {
			if call.RateRemaining = -1; c.Observe != nil {
				c.Observe(call)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	a.server.next, client.http.Transport = client.http.Transport, a.server
	a.client = client
	return a, nil
}

// Token gives an installation token. It issues one where there is none or the
// one there is will end soon; callers that come meanwhile share the attempt,
// whose time limit is its own: a caller whose context ends leaves it to the
// others. As long as the token before is good, a failure to renew it is no
// error. Errors are *Error of OpInstallationToken and never fleet.ErrNotFound,
// which would speak of a runner or a scope. After a failure GitHub is left
// alone for as long as it asks, or for some seconds, and the error is repeated.
func (a *App) Token(ctx context.Context) (fleet.Secret, error) {
	now := a.now()
	have := a.held()
	good := now.Before(have.until)
	switch {
	case now.Before(have.renew), now.Before(have.retry) && good:
		return have.token, nil
	case now.Before(have.retry):
		return fleet.Secret{}, have.failed(now)
	}
	attempt := a.flights.DoChan("", func() (any, error) { return a.issue() })
	if have.until.Sub(now) > enoughLeft {
		return have.token, nil // nobody has to wait for the attempt
	}
	var err error
	select {
	case <-ctx.Done():
		err = a.operation().fail(fleet.ErrUnavailable, "waiting for the token: "+ctx.Err().Error(), ctx.Err())
	case result := <-attempt:
		if err = result.Err; err == nil {
			return result.Val.(fleet.Secret), nil
		}
	}
	if a.now().Before(have.until) {
		return have.token, nil
	}
	return fleet.Secret{}, err
}

// Refused drops a token that GitHub answered with 401, and reports whether
// Token may give another one: twice in half a minute it does not, since then
// it is not the token that is at fault.
func (a *App) Refused(token fleet.Secret) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token != a.have.token {
		return true // it has been replaced already
	}
	now := a.now()
	if !a.dropped.IsZero() && now.Sub(a.dropped) < reissueEvery {
		return false
	}
	a.dropped = now
	a.have.token, a.have.renew, a.have.until = fleet.Secret{}, time.Time{}, time.Time{}
	return true
}

// Pause is that of a Client: until then no token is issued. One that is there
// stays good.
func (a *App) Pause(until time.Time) { a.client.Pause(until) }

// Permissions is what the token that the App holds may do, such as
// administration: write. It is nil where it holds none, and where GitHub did not
// say.
func (a *App) Permissions() map[string]string { return a.held().permissions }

func (a *App) held() issued {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.have
}

// failed is the failure as it has to be told now.
func (h issued) failed(now time.Time) error {
	e := *h.failure
	if e.Wait > 0 {
		e.Wait = h.retry.Sub(now)
	}
	return &e
}

// issue makes one attempt to get a token, unless there has just been one.
func (a *App) issue() (fleet.Secret, error) {
	now := a.now()
	switch have := a.held(); {
	case now.Before(have.renew):
		return have.token, nil
	case now.Before(have.retry):
		return fleet.Secret{}, have.failed(now)
	}
	// Two requests, since a wrong clock shows only by the first answer, and
	// the reading of the key for each.
	ctx, cancel := context.WithTimeout(context.Background(), 2*(a.timeout+keyLimit))
	defer cancel()
	token, life, permissions, err := a.mint(ctx)
	now = a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		if errors.Is(err.Kind, fleet.ErrNotFound) {
			err.Kind = fleet.ErrUnauthorized // a 404 to a runner or a scope means something else
		}
		err.Detail = clean(fmt.Sprintf("installation %d of App %d: %s", a.installation, a.id, err.Detail))
		a.have.failure, a.have.retry = err, now.Add(err.pause())
		return fleet.Secret{}, err
	}
	a.have = issued{token: token, permissions: permissions, renew: now.Add(life - min(renewBefore, life/4)), until: now.Add(life)}
	return token, nil
}

// pause is how long GitHub is left alone after it gave no token.
func (e *Error) pause() time.Duration {
	switch {
	case e.Wait > 0:
		return e.Wait
	case e.Status == 0 && errors.Is(e.Kind, fleet.ErrUnauthorized):
		return 0 // the key could not be used: nothing was sent
	case errors.Is(e.Kind, fleet.ErrUnauthorized), errors.Is(e.Kind, fleet.ErrForbidden):
		return refusalPause
	}
	return outagePause
}

func (a *App) operation() operation {
	return operation{
		op: OpInstallationToken, method: http.MethodPost, want: http.StatusCreated,
		path: "app/installations/" + strconv.FormatInt(a.installation, 10) + "/access_tokens",
	}
}

// mint has GitHub issue a token, and says how long it lives from now on and what
// it may do.
func (a *App) mint(ctx context.Context) (fleet.Secret, time.Duration, map[string]string, *Error) {
	o := a.operation()
	var w struct {
		gh.RegistrationToken                   // what counts of an installation token has the same shape
		Permissions          map[string]string `json:"permissions"`
	}
	_, err := a.client.do(ctx, o, decoded{&w})
	var e *Error
	switch {
	case errors.As(err, &e):
		return fleet.Secret{}, 0, nil, e
	case w.GetToken() == "":
		return fleet.Secret{}, 0, nil, o.malformed(http.StatusCreated, "token is missing")
	case w.GetExpiresAt().IsZero():
		return fleet.Secret{}, 0, nil, o.malformed(http.StatusCreated, "expires_at is missing")
	}
	// By the server's clock on both sides: ours may be hours off.
	life := installationTokenLife
	if server, known := a.server.time(); known {
		life = min(life, w.GetExpiresAt().Sub(server))
	}
	if life <= 0 {
		return fleet.Secret{}, 0, nil, o.malformed(http.StatusCreated, "the token has ended by the server's own clock")
	}
	return fleet.NewSecret(w.GetToken()), life, w.Permissions, nil
}
