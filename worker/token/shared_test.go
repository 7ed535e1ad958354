package token

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

func TestOneWhoLosesPatienceDoesNotFailTheOthers(t *testing.T) {
	t.Parallel()
	scope := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
	sim, stop, err := githubsim.Start(context.Background(), githubsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	if err := sim.AddScope(scope); err != nil {
		t.Fatal(err)
	}
	client, err := github.New(github.Config{
		APIURL: sim.APIURL(), UserAgent: "muster/test",
		Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret("t"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	target := Target{Target: fleet.Target{Name: "acme", Scope: scope, APIURL: sim.APIURL()}, GitHub: client}
	minting, release := make(chan struct{}), make(chan struct{})
	sim.Before(func(githubsim.Request) {
		close(minting)
		<-release
	})

	var s shared
	impatient, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	tokens := make([]fleet.Token, 2)
	get := func(ctx context.Context, n int) {
		var err error
		if tokens[n], err = s.get(ctx, target, time.Now()); err != nil {
			t.Errorf("caller %d: %v", n, err)
		}
	}
	all.Go(func() { get(impatient, 0) })
	<-minting
	leave()
	all.Go(func() { get(t.Context(), 1) })
	close(release)
	all.Wait()
	if tokens[0].Secret.IsZero() || tokens[0] != tokens[1] {
		t.Error("the callers have no token, or different ones")
	}
	mints := 0
	for _, e := range sim.Log() {
		if e.Is(http.MethodPost, "/orgs/{org}/actions/runners/registration-token") {
			mints++
		}
	}
	if mints != 1 {
		t.Errorf("GitHub was asked %d times, want once", mints)
	}
}

func TestWhatIsOverIsForgotten(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	var s shared
	s.keep("old", fleet.Token{Secret: fleet.NewSecret("old"), ExpiresAt: now})
	s.keep("good", fleet.Token{Secret: fleet.NewSecret("good"), ExpiresAt: now.Add(time.Second)})
	s.forget(now)
	if _, ok := s.tokens["old"]; ok || len(s.tokens) != 1 {
		t.Errorf("%d tokens are kept, want the good one", len(s.tokens))
	}

	var turns turns
	for id, at := range map[string]time.Time{"old": now.Add(-repeatWindow), "good": now.Add(-repeatWindow + 1)} {
		r := request{host: "h", id: id}
		turns.take(r, at)
		turns.end(r, answer{request: r, auditID: "x", issuedAt: at})
	}
	turns.forget(now)
	if _, ok := turns.issued[turnKey{"h", "old"}]; ok || len(turns.issued) != 1 {
		t.Errorf("%d answers are kept, want the good one", len(turns.issued))
	}
}
