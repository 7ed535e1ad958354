// Package githubsim is GitHub Enterprise Server 3.1 as far as self-hosted
// runners go: a real HTTP server, stateful and strict, with a control API on a
// listener of its own and an ordered log of everything that was asked and
// done. Safety is checked against that log, never against a client's story.
//
// What GitHub shows and what is true differ, as they do outside: runners take
// time to be shown online or offline, and levers make listings lie.
package githubsim

import (
	"context"
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

// Version is the server version that the simulator keeps to.
const Version = "3.1.0"

// Config is how a Sim behaves. The zero Config is usable.
type Config struct {
	Listen  string // of the API; empty: a free port of 127.0.0.1
	Control string // of the control API; empty: a free port of 127.0.0.1

	Tokens []string // accepted credentials; none: any that is not empty
	// LoginAttempts is how many requests in a minute one bad credential may
	// make before it is answered 403 instead of 401. Zero: any number.
	LoginAttempts int

	Lag Lags
	// BusyDeleteStatus answers the DELETE of a busy runner: 422, or 500 as old
	// servers do. Zero means 422.
	BusyDeleteStatus int
	TokenLife        time.Duration  // of registration and removal tokens; zero: an hour
	Zone             *time.Location // of expires_at; nil: eight hours west, as seen in the wild

	Seed int64            // of tokens and of random choices; zero: another one each time
	Now  func() time.Time // nil: time.Now
	Log  *slog.Logger     // of the HTTP servers' own complaints; nil: nowhere
}

// Lags is how far behind the truth GitHub is. Zero: not at all.
type Lags struct {
	Connect   time.Duration // until a connected runner is shown online
	Offline   time.Duration // until a killed runner is shown offline
	BusyClear time.Duration // until a killed runner's workflow job is given up; negative: never
}

// Sim is one simulated GitHub. All methods are safe for concurrent use.
type Sim struct {
	config Config
	ready  chan struct{}
	apiURL string // set before ready is closed
	ctlURL string
	ran    atomic.Bool
	down   atomic.Bool

	mu          sync.Mutex
	random      *rand.Rand
	scopes      map[string]*scopeState // by key(scope)
	byID        map[int64]*scopeState
	renamed     map[string]int64 // former key(scope) → scope id
	lastID      int64            // of runners; they are never used twice
	lastScope   int64
	lastJob     int64
	labelIDs    map[string]int64
	credentials credentials
	tokens      map[string]minted
	maintenance bool
	log         eventLog

	hooks     []*hook
	intercept func(*http.Request) http.Handler
}

// New makes a Sim without scopes. It starts nothing.
func New(c Config) *Sim {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Control == "" {
		c.Control = "127.0.0.1:0"
	}
	if c.BusyDeleteStatus == 0 {
		c.BusyDeleteStatus = http.StatusUnprocessableEntity
	}
	if c.TokenLife == 0 {
		c.TokenLife = time.Hour
	}
	if c.Zone == nil {
		c.Zone = time.FixedZone("", -8*60*60)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	seed := uint64(c.Seed)
	if seed == 0 {
		seed = rand.Uint64()
	}
	return &Sim{
		config:      c,
		ready:       make(chan struct{}),
		random:      rand.New(rand.NewPCG(seed, 0)),
		scopes:      make(map[string]*scopeState),
		byID:        make(map[int64]*scopeState),
		renamed:     make(map[string]int64),
		labelIDs:    make(map[string]int64),
		credentials: newCredentials(c.Tokens),
		tokens:      make(map[string]minted),
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
	s.apiURL = "http://" + api.Addr().String() + "/api/v3"
	s.ctlURL = "http://" + ctl.Addr().String() + "/_sim"

	g, ctx := errgroup.WithContext(ctx)
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
	s.lastScope++
	st := &scopeState{
		scope: scope,
		id:    s.lastScope,
		byID:  make(map[int64]*runner),
		names: make(map[string]*runner),
	}
	s.scopes[key(scope)], s.byID[st.id] = st, st
	delete(s.renamed, key(scope))
	return nil
}
