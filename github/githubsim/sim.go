// Package githubsim is GitHub as far as self-hosted runners go, Enterprise
// Server 3.1 unless told another version: a real HTTP server, stateful and
// strict, with a control API on a listener of its own and an ordered log of
// everything that was asked and done. Safety is checked against that log, never
// against a client's story.
//
// What GitHub shows and what is true differ, as they do outside: runners take
// time to be shown online or offline, and levers make listings lie.
package githubsim

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
)

// Config is how a Sim behaves. The zero Config is usable.
type Config struct {
	Listen  string // of the API; empty: a free port of 127.0.0.1
	Control string // of the control API; empty: a free port of 127.0.0.1
	TLS     bool   // of the API, which nobody trusts without Sim.Roots

	// Version is one of Versions; New panics on any other. Empty means Version.
	Version string
	Order   Order // of lists
	// EphemeralField and VersionField are about fields of runners that came to
	// servers by date rather than by version.
	EphemeralField, VersionField Toggle
	// Root puts the API where api.github.com has it: at the root of the server
	// and not under /api/v3.
	Root bool
	// NoEnterprises takes the routes of enterprises away, which api.github.com
	// describes none of; GitHub Enterprise Cloud has them.
	NoEnterprises bool

	Tokens []string // accepted credentials; none: any that is not empty
	// LoginAttempts is how many requests in a minute one bad credential may
	// make before it is answered 403 instead of 401. Zero: any number.
	LoginAttempts int

	Lag Lags
	// BusyDeleteStatus answers the DELETE of a busy runner: 422, or 500 as old
	// servers do. Zero means what the Version does, and 422 without a Version.
	BusyDeleteStatus int
	TokenLife        time.Duration  // of registration and removal tokens; zero: an hour
	Zone             *time.Location // of expires_at; nil: eight hours west, as seen in the wild
	Limits           Limits
	Skew             time.Duration // of the server's clock, against Now

	Seed int64 // of tokens and of random choices; zero: another one each time
	// Now is the Sim's clock; nil: time.Now. With another, webhooks wait for
	// Deliver.
	Now func() time.Time
	// Sleep waits for the delays that faults want. Nil: for real, 30 s at most.
	Sleep       func(context.Context, time.Duration) error
	HookTimeout time.Duration // for the receivers of webhooks; zero: 30 s, or 10 s of DotCom
	// LogListings has events say which runners the pages of lists showed, for
	// DeletesUnseen. It costs a decoding of each page.
	LogListings bool
	Log         *slog.Logger // of the HTTP servers' own complaints; nil: nowhere
}

// Lags is how far behind the truth GitHub is. Zero: not at all.
type Lags struct {
	Connect   time.Duration // until a connected runner is shown online
	Offline   time.Duration // until a killed runner is shown offline
	BusyClear time.Duration // until a killed runner's workflow job is given up; negative: never
}

// Sim is one simulated GitHub. All methods are safe for concurrent use.
type Sim struct {
	config  Config
	profile profile
	prefix  string // of the API's paths
	seed    uint64
	ready   chan struct{}
	apiURL  string // set before ready is closed
	ctlURL  string
	ran     atomic.Bool
	down    atomic.Bool

	requests      atomic.Uint64
	versionHeader []string
	dated         atomic.Pointer[dated]

	mu          sync.Mutex
	random      *rand.Rand
	scopes      map[string]*scopeState // by key(scope)
	byID        map[int64]*scopeState
	renamed     map[string]int64 // former key(scope) → scope id
	lastID      int64            // of runners; they are never used twice
	lastScope   int64
	lastJob     int64
	labelIDs    map[string]int64
	tails       map[string]tailAndLabels
	prints      map[string]string // fingerprints of credentials
	asker       string            // of the last prepared page
	credentials credentials
	tokens      map[string]minted
	allScopes   []string // OAuth scopes that suffice
	apps        map[int64]*app
	issued      map[string]*issued // tokens of installations
	budgets     map[string]*budget
	arrivals    uint64 // of requests
	maintenance bool
	log         eventLog

	faults    []*injected
	lastFault int64
	flows     workflows
	web       webhooks
	realTime  bool
	roots     *x509.CertPool // set before ready is closed

	hooks     []*hook
	intercept func(*http.Request) http.Handler
}

// New makes a Sim without scopes. It starts nothing.
func New(c Config) *Sim {
	p, err := profileOf(c.Version)
	if err != nil {
		panic(err)
	}
	if c.Order != OrderVersion {
		p.order = c.Order
	}
	p.ephemeral = c.EphemeralField.over(p.ephemeral)
	p.runnerVersion = c.VersionField.over(p.runnerVersion)
	if c.Version == "" {
		p.busyStatus = http.StatusUnprocessableEntity
	}
	if c.BusyDeleteStatus != 0 {
		p.busyStatus = c.BusyDeleteStatus
	}
	prefix := "/api/v3"
	if c.Root {
		prefix = ""
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Control == "" {
		c.Control = "127.0.0.1:0"
	}
	if c.TokenLife == 0 {
		c.TokenLife = time.Hour
	}
	if c.Zone == nil {
		c.Zone = time.FixedZone("", -8*60*60)
	}
	realTime := c.Now == nil
	if realTime {
		c.Now = time.Now
	}
	if c.HookTimeout == 0 {
		c.HookTimeout = p.hookTimeout()
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	seed := uint64(c.Seed)
	if seed == 0 {
		seed = rand.Uint64()
	}
	return &Sim{
		config:        c,
		versionHeader: []string{p.version},
		profile:       p,
		prefix:        prefix,
		seed:          seed,
		ready:         make(chan struct{}),
		random:        rand.New(rand.NewPCG(seed, 0)),
		scopes:        make(map[string]*scopeState),
		byID:          make(map[int64]*scopeState),
		renamed:       make(map[string]int64),
		labelIDs:      make(map[string]int64),
		tails:         make(map[string]tailAndLabels),
		prints:        make(map[string]string),
		credentials:   newCredentials(c.Tokens),
		tokens:        make(map[string]minted),
		allScopes:     []string{"admin:org", p.scope, "repo"},
		apps:          make(map[int64]*app),
		issued:        make(map[string]*issued),
		budgets:       make(map[string]*budget),
		flows:         workflows{byID: make(map[int64]*workflowJob), runs: make(map[int64]*workflowRun)},
		web:           webhooks{wake: make(chan struct{}, 1), origin: "https://github.example.com"},
		realTime:      realTime,
	}
}

// Run listens and serves until ctx ends, then returns nil. A Sim runs once.
func (s *Sim) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return errors.New("github simulator: has run already")
	}
	var lc net.ListenConfig
	api, err := lc.Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("github simulator: listen for the API: %w", err)
	}
	ctl, err := lc.Listen(ctx, "tcp", s.config.Control)
	if err != nil {
		return errors.Join(fmt.Errorf("github simulator: listen for control: %w", err), api.Close())
	}
	at := "http://" + api.Addr().String()
	if s.config.TLS {
		at = "https://" + api.Addr().String()
		secured, err := s.secure(api)
		if err != nil {
			return errors.Join(err, api.Close(), ctl.Close())
		}
		api = secured
	}
	s.apiURL = at + s.prefix
	s.ctlURL = "http://" + ctl.Addr().String() + "/_sim"

	s.mu.Lock()
	s.web.origin = at
	s.mu.Unlock()

	g, ctx := errgroup.WithContext(ctx)
	if s.realTime {
		g.Go(func() error { return s.runHooks(ctx) })
	}
	s.serve(ctx, g, api, s.Handler())
	s.serve(ctx, g, ctl, s.ControlHandler())
	close(s.ready)
	return g.Wait()
}

// shutdownGrace is how long requests under way may take once the Sim stops.
const shutdownGrace = 2 * time.Second

func (s *Sim) serve(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelWarn),
	}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("github simulator: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if srv.Shutdown(stop) != nil {
			return srv.Close()
		}
		return nil
	})
}

// Start makes a Sim and runs it. It returns once the Sim listens; stop ends it
// and waits.
func Start(ctx context.Context, c Config) (*Sim, func(), error) {
	if err := CheckVersion(c.Version); err != nil {
		return nil, nil, err
	}
	s := New(c)
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	ended := make(chan struct{})
	g.Go(func() error {
		defer close(ended)
		return s.Run(ctx)
	})
	select {
	case <-s.Ready():
	case <-ended:
		cancel()
		return nil, nil, g.Wait()
	}
	return s, func() {
		cancel()
		<-ended
	}, nil
}

// Ready is closed once both listeners listen.
func (s *Sim) Ready() <-chan struct{} { return s.ready }

// APIURL is what a target's api_url takes. Call it after Ready.
func (s *Sim) APIURL() string { return s.apiURL }

// ControlURL is the address that the control API's paths are below. Call it
// after Ready.
func (s *Sim) ControlURL() string { return s.ctlURL }

// AddScope makes an enterprise, organisation or repository known. One that is
// known already stays as it is.
func (s *Sim) AddScope(scope fleet.Scope) error {
	if err := scope.Valid(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.scopes[key(scope)] != nil {
		return nil
	}
	s.addScope(scope)
	return nil
}

func (s *Sim) addScope(scope fleet.Scope) {
	s.lastScope++
	st := &scopeState{
		scope:  scope,
		name:   scope.String(),
		id:     s.lastScope,
		by:     s.profile.order,
		byID:   make(map[int64]*runner),
		names:  make(map[string]*runner),
		groups: map[int64]*group{defaultGroup: newGroup(defaultGroup)},
		pages:  make(map[int]map[int]*page),
	}
	s.scopes[key(scope)], s.byID[st.id] = st, st
	delete(s.renamed, key(scope))
}
