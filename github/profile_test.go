package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// Every operation, in every scope, against every version of GitHub: what comes
// out differs only in what the version does not know.
func TestEveryVersionOfGitHub(t *testing.T) {
	t.Parallel()
	for _, version := range githubsim.Versions() {
		for _, scope := range scopes {
			t.Run(version+" "+string(scope.Kind), func(t *testing.T) {
				t.Parallel()
				everyOperation(t, version, scope)
			})
		}
	}
}

func everyOperation(t *testing.T, version string, scope fleet.Scope) {
	sim, url := simulator(t, func(c *githubsim.Config) { c.Version = version })
	gh, ctx := client(t, url), t.Context()
	// Names run against ids, and the systems through all there are.
	systems := []string{"linux", "windows", "macos"}
	ids, err := sim.CreateMany(scope, 120, func(i int) githubsim.RunnerSpec {
		return githubsim.RunnerSpec{Name: fmt.Sprintf("r%03d", 120-i), OS: systems[i%3], Labels: []string{"GPU"}, Online: true, Busy: i == 0}
	})
	must(t, err)
	busy, idle := ids[0], ids[1]

	l, err := gh.Runners(ctx, scope, fleet.KeptListing{})
	must(t, err)
	if !l.Complete || l.Count != 120 || l.Pages != 2 {
		t.Fatalf("listing = complete %v (%v), %d runners on %d pages", l.Complete, l.Incomplete, l.Count, l.Pages)
	}
	for i, got := range l.Runners {

		want := fleet.Runner{
			ID: ids[i], Name: fmt.Sprintf("r%03d", 120-i), OS: systems[i%3], Status: fleet.StatusOnline, Busy: i == 0,
			Labels: []string{"gpu", systems[i%3], "self-hosted", "x64"},
		}
		slices.Sort(want.Labels)
		got.Group, got.Ephemeral, got.Version = "", fleet.NotKnown, ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("runner %d of the listing (-want +got):\n%s", i, diff)
		}
	}
	single, err := gh.Runner(ctx, scope, idle)
	must(t, err)
	if diff := cmp.Diff(l.Runners[1], single); diff != "" {
		t.Errorf("Runner (-listing +by id):\n%s", diff)
	}
	must(t, gh.CanList(ctx, scope))
	named, err := gh.RunnerNamed(ctx, scope, "r120", false)
	if err != nil || named.ID != busy {
		t.Errorf("RunnerNamed = %d, %v, want %d", named.ID, err, busy)
	}

	// 422, or a 500 that leaves it open; never a success, never gone.
	if err := gh.RemoveRunner(ctx, scope, busy, nil); !errors.Is(err, fleet.ErrBusy) && !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("RemoveRunner of a busy runner: %v", err)
	}
	if r, err := gh.Runner(ctx, scope, busy); err != nil || !r.Busy {
		t.Errorf("the busy runner afterwards = %+v, %v", r, err)
	}
	must(t, gh.RemoveRunner(ctx, scope, idle, nil))
	if _, err := gh.Runner(ctx, scope, idle); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("Runner of one that was deleted: %v, want not found", err)
	}
	if err := gh.RemoveRunner(ctx, scope, idle, nil); !errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("RemoveRunner of one that was deleted: %v, want not found", err)
	}

	token, err := gh.RegistrationToken(ctx, scope)
	must(t, err)
	if _, _, err := sim.RegisterRunner(token.Secret.Reveal(), githubsim.RunnerSpec{Name: "new"}); err != nil {
		t.Errorf("the registration token: %v", err)
	}
	if token, err = gh.RemovalToken(ctx, scope); err != nil || token.Secret.IsZero() {
		t.Errorf("RemovalToken: %v", err)
	}
	downloads, err := gh.Downloads(ctx, scope)
	if err != nil || len(downloads) < 5 {
		t.Errorf("Downloads = %d, %v", len(downloads), err)
	}
	for _, e := range sim.Log() {
		if e.Status == http.StatusBadRequest || e.Status == http.StatusForbidden {
			t.Errorf("%s %s was answered %d", e.Method, e.Path, e.Status)
		}
	}
}
