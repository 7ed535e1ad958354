package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

const (
	perPage    = 100
	credential = "ghp_sidebyside"
	// changesEvery is how far apart the runners are that change: 2 of each
	// page, so that no page stays as it was.
	changesEvery = 50
)

// org is the organisation with that many runners.
func org(runners int) fleet.Scope {
	return fleet.Scope{Kind: fleet.ScopeOrg, Owner: fmt.Sprintf("fleet-%d", runners)}
}

// setup is what the simulator is first told; its answer is addresses.
type setup struct {
	Runners     []int // an organisation for each
	Certificate certificate
}

// addresses are what a target's api_url takes.
type addresses struct{ Plain, TLS string }

// order is what the simulator is told from then on, each time in full; its
// answer is a report.
type order struct {
	Latency  time.Duration // before each answer
	Withhold bool          // take every page for changed, whatever validators the client has
	Change   int           // change 2 % of the organisation with that many runners; 0: nothing
}

// report is what happened since the last order.
type report struct {
	Err       string
	Requests  int
	Protocols string // such as HTTP/2.0
}

// simulator serves the simulated GitHub over HTTP and over TLS.
type simulator struct {
	sim *githubsim.Sim
	ids map[int][]int64 // by size of fleet
	off map[int]bool    // whether those that change are offline

	latency  atomic.Int64 // ns
	withhold atomic.Bool

	mu        sync.Mutex
	requests  int
	protocols map[string]int
	askers    map[asker]bool
}

// asker is what of a request goes into the validators of its answer.
type asker struct{ accept, authorization string }

func playSimulator(ctx context.Context, in io.Reader, out io.Writer) error {
	orders, reports := json.NewDecoder(in), json.NewEncoder(out)
	var first setup
	if err := orders.Decode(&first); err != nil {
		return fmt.Errorf("read what to simulate: %w", err)
	}
	s := &simulator{
		sim: githubsim.New(githubsim.Config{Seed: 1, Tokens: []string{credential}}),
		ids: map[int][]int64{}, off: map[int]bool{},
		protocols: map[string]int{}, askers: map[asker]bool{},
	}
	for _, n := range append(first.Runners, 1) {
		if err := s.fill(n); err != nil {
			return err
		}
	}
	pair, err := tls.X509KeyPair(first.Certificate.CertPEM, first.Certificate.KeyPEM)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	var lc net.ListenConfig
	plain, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	secure, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, plain.Close())
	}
	// Two, since a server that serves without TLS first sets HTTP/2 up for good
	// as if there were none.
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	secured := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}},
	}
	var g errgroup.Group
	g.Go(func() error { return server.Serve(plain) })
	g.Go(func() error { return secured.ServeTLS(secure, "", "") })
	err = reports.Encode(addresses{
		Plain: "http://" + plain.Addr().String() + "/api/v3",
		TLS:   "https://" + secure.Addr().String() + "/api/v3",
	})
	for err == nil {
		var o order
		if err = orders.Decode(&o); err == nil {
			err = reports.Encode(s.obey(o))
		}
	}
	err = errors.Join(err, server.Close(), secured.Close(), g.Wait())
	if errors.Is(err, io.EOF) {
		return nil // the parent has no more to ask
	}
	return err
}

// fill makes an organisation with that many runners, a tenth of them offline.
func (s *simulator) fill(runners int) error {
	if err := s.sim.AddScope(org(runners)); err != nil {
		return err
	}
	var err error
	s.ids[runners], err = s.sim.CreateMany(org(runners), runners, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprintf("build-%06d", i), Labels: []string{"gpu"}, Online: i%10 != 0}
	})
	return err
}

func (s *simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	s.protocols[r.Proto]++
	s.askers[asker{r.Header.Get("Accept"), r.Header.Get("Authorization")}] = true
	s.mu.Unlock()
	if wait := time.Duration(s.latency.Load()); wait > 0 {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
		}
	}
	if s.withhold.Load() {
		r.Header.Del("If-None-Match")
	}
	s.sim.Handler().ServeHTTP(w, r)
}

// obey returns once all is as ordered and the pages are ready to be served.
func (s *simulator) obey(o order) report {
	s.latency.Store(int64(o.Latency))
	s.withhold.Store(o.Withhold)
	var r report
	if o.Change > 0 {
		if err := s.change(o.Change); err != nil {
			r.Err = err.Error()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Requests = s.requests
	r.Protocols = strings.Join(slices.Sorted(maps.Keys(s.protocols)), " ")
	s.requests = 0
	clear(s.protocols)
	return r
}

// change has every fiftieth runner go offline, or come back.
func (s *simulator) change(runners int) error {
	move := s.sim.Kill
	if s.off[runners] {
		move = s.sim.Connect
	}
	s.off[runners] = !s.off[runners]
	ids := s.ids[runners]
	for i := 1; i < len(ids); i += changesEvery { // the second: the first is offline from the beginning
		if err := move(org(runners), ids[i]); err != nil {
			return err
		}
	}
	return s.prepare(runners)
}

// prepare makes the pages, and the validators for everybody who has asked so
// far, so that no contender waits for them.
func (s *simulator) prepare(runners int) error {
	s.mu.Lock()
	all := slices.SortedFunc(maps.Keys(s.askers), func(a, b asker) int { return cmp.Compare(a.accept, b.accept) })
	s.mu.Unlock()
	for _, a := range all {
		r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1/api/v3/orgs/"+org(runners).Owner+"/actions/runners?per_page=100", http.NoBody)
		if err != nil {
			return err
		}
		r.Header = http.Header{"Accept": {a.accept}, "Authorization": {a.authorization}, "User-Agent": {"sidebyside"}}
		s.sim.Handler().ServeHTTP(nowhere{}, r)
		if err := s.sim.Prepare(org(runners), perPage); err != nil {
			return err
		}
	}
	return nil
}

// nowhere takes an answer and keeps nothing of it.
type nowhere http.Header

func (n nowhere) Header() http.Header         { return http.Header(n) }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}
