package token

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/db/dbtest"
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

// A token is of one scope at one address: where a reload gives the name of a target
// another one, the token that is kept must not be handed out for it.
func TestASharedTokenIsOfOneScopeAndAddress(t *testing.T) {
	t.Parallel()
	now := time.Now()
	acme, other := fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}, fleet.Scope{Kind: fleet.ScopeOrg, Owner: "other"}
	at := func() (*githubsim.Sim, *github.Client) {
		sim, stop, err := githubsim.Start(context.Background(), githubsim.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		for _, scope := range []fleet.Scope{acme, other} {
			if err := sim.AddScope(scope); err != nil {
				t.Fatal(err)
			}
		}
		client, err := github.New(github.Config{
			APIURL: sim.APIURL(), UserAgent: "muster/test",
			Token: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret("t"), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		return sim, client
	}
	here, clientHere := at()
	there, clientThere := at()
	var s shared
	seen := map[string]string{}
	for _, tt := range []struct {
		name   string
		target Target
	}{
		{"the first", Target{Target: fleet.Target{Name: "acme", Scope: acme, APIURL: here.APIURL()}, GitHub: clientHere}},
		{"another scope", Target{Target: fleet.Target{Name: "acme", Scope: other, APIURL: here.APIURL()}, GitHub: clientHere}},
		{"another address", Target{Target: fleet.Target{Name: "acme", Scope: acme, APIURL: there.APIURL()}, GitHub: clientThere}},
		{"another name", Target{Target: fleet.Target{Name: "octo", Scope: acme, APIURL: here.APIURL()}, GitHub: clientHere}},
	} {
		token, err := s.get(t.Context(), tt.target, now)
		if err != nil {
			t.Fatal(err)
		}
		if before, handedOut := seen[token.Secret.Reveal()]; handedOut {
			t.Errorf("%s is given the token of %s", tt.name, before)
		}
		seen[token.Secret.Reveal()] = tt.name
		again, err := s.get(t.Context(), tt.target, now)
		if err != nil || again != token {
			t.Errorf("%s is given another token the second time, %v", tt.name, err)
		}
	}
}

func TestSettleForgetsWhatIsOver(t *testing.T) {
	t.Parallel()
	database, err := db.Open(t.Context(), dbtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(database.Close)
	i := &Issuer{Log: slog.New(slog.DiscardHandler), DB: database, Now: func(context.Context) (time.Time, error) { return noon, nil }}
	i.shared.keep("old", fleet.Token{Secret: fleet.NewSecret("old"), ExpiresAt: noon})
	i.shared.keep("good", fleet.Token{Secret: fleet.NewSecret("good"), ExpiresAt: noon.Add(time.Second)})
	for id, at := range map[string]time.Time{"old": noon.Add(-repeatWindow), "good": noon.Add(-repeatWindow + 1)} {
		r := request{host: "h", id: id}
		i.turns.take(r, at)
		i.turns.end(r, answer{request: r, auditID: "x", issuedAt: at})
	}

	if err := i.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := i.shared.tokens["good"]; !ok || len(i.shared.tokens) != 1 {
		t.Errorf("%d tokens are kept, want the good one", len(i.shared.tokens))
	}
	if _, ok := i.turns.issued[turnKey{"h", "good"}]; !ok || len(i.turns.issued) != 1 {
		t.Errorf("%d answers are kept, want the good one", len(i.turns.issued))
	}
}
