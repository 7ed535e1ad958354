package githubsim_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

const credential = "ghp_the-credential-of-the-tests"

var (
	enterprise = fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: "octo"}
	org        = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
	repo       = fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"}
)

// simulator has all three scopes and a server for its API. The clock stands
// still unless the test moves it.
type simulator struct {
	*githubsim.Sim
	t       *testing.T
	version string
	url     string
	now     time.Time
}

func start(t *testing.T, c githubsim.Config) *simulator {
	t.Helper()
	s := &simulator{t: t, version: c.Version, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	if c.Now == nil {
		c.Now = func() time.Time { return s.now }
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	s.Sim = githubsim.New(c)
	for _, scope := range []fleet.Scope{enterprise, org, repo} {
		must(t, s.AddScope(scope))
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *simulator) create(scope fleet.Scope, spec githubsim.RunnerSpec) int64 {
	s.t.Helper()
	id, err := s.Create(scope, spec)
	must(s.t, err)
	return id
}

// response is an answer, read.
type response struct {
	status int
	header http.Header
	body   string
}

func (r response) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), v); err != nil {
		t.Fatalf("decode %q: %v", r.body, err)
	}
}

// ask sends a request with a good credential; header pairs replace what it
// would send, an empty value takes the header away.
func (s *simulator) ask(method, path, body string, header ...string) response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	must(s.t, err)
	req.Header.Set("Authorization", "token "+credential)
	req.Header.Set("User-Agent", "muster/test")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i+1] == "" && header[i] != "User-Agent" {
			req.Header.Del(header[i])
		}
	}
	hc := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := hc.Do(req)
	must(s.t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	must(s.t, err)
	return response{resp.StatusCode, resp.Header, string(text)}
}

func TestRunServesBothListenersUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sim := githubsim.New(githubsim.Config{})
	must(t, sim.AddScope(org))
	ended := make(chan error, 1)
	go func() { ended <- sim.Run(ctx) }()
	<-sim.Ready()
	for _, url := range []string{sim.APIURL() + "/orgs/acme/actions/runners", sim.ControlURL() + "/runners?scope=org/acme"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		must(t, err)
		req.Header.Set("Authorization", "token anything")
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("GET %s = %d, want 200", url, resp.StatusCode)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run() = %v after its context ended, want nil", err)
	}
	if err := sim.Run(t.Context()); err == nil {
		t.Error("a second Run() = nil, want an error")
	}
}

func TestStartReportsAnAddressThatIsTaken(t *testing.T) {
	t.Parallel()
	sim, stop, err := githubsim.Start(t.Context(), githubsim.Config{})
	must(t, err)
	defer stop()
	taken := strings.TrimPrefix(strings.TrimSuffix(sim.APIURL(), "/api/v3"), "http://")
	for _, c := range []githubsim.Config{{Listen: taken}, {Control: taken}} {
		if _, _, err := githubsim.Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), taken) {
			t.Errorf("Start(%+v) = %v, want an error that names %s", c, err, taken)
		}
	}
}

func scopeOf(owner string) fleet.Scope { return fleet.Scope{Kind: fleet.ScopeOrg, Owner: owner} }
