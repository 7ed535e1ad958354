package github_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/github/githubsim"
)

// TestAnAppAgainstTheSimulator lets a day go by, and then all go wrong that can
// go wrong with an installation.
func TestAnAppAgainstTheSimulator(t *testing.T) {
	t.Parallel()
	key := keys()[0]
	clock := &hand{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	sim, url := simulator(t, func(c *githubsim.Config) { c.Now, c.Skew = clock.now, -90*time.Second })
	if err := sim.AddApp(githubsim.App{ID: 7, PublicKey: &key.PublicKey, Installations: []githubsim.Installation{{ID: 70, Account: org.Owner}}}); err != nil {
		t.Fatal(err)
	}
	app, err := github.NewApp(github.AppConfig{
		APIURL: url, ID: 7, InstallationID: 70, UserAgent: "muster/test", Now: clock.now,
		PrivateKey: func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(pkcs1(key)), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	gh := client(t, url, func(c *github.Config) { c.Token, c.Refused = app.Token, app.Refused })
	for range 24 * 6 {
		if err := gh.CanList(t.Context(), org); err != nil {
			t.Fatal(err)
		}
		clock.move(10 * time.Minute)
	}
	issued, refused := 0, 0
	for _, e := range sim.Log() {
		if e.Installation == 70 && e.Token != "" {
			issued++
		}
		if e.Status >= 400 {
			refused++
		}
	}
	if issued < 24 || issued > 30 || refused > 1 { // the one by which the wrong clock shows
		t.Errorf("%d tokens were issued in a day and %d requests refused, want about 25 and at most 1", issued, refused)
	}

	want := func(name string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		clock.move(2 * time.Minute)
	}
	want("an enterprise", gh.CanList(t.Context(), scopes[0]), fleet.ErrForbidden)
	must(t, sim.RevokeInstallationTokens(70))
	want("its token was revoked", gh.CanList(t.Context(), org), nil)
	must(t, sim.Suspend(70, true))
	want("it is suspended", gh.CanList(t.Context(), org), fleet.ErrForbidden)
	must(t, sim.Suspend(70, false))
	want("it is not any more", gh.CanList(t.Context(), org), nil)
	must(t, sim.Uninstall(70))
	want("it is gone", gh.CanList(t.Context(), org), fleet.ErrUnauthorized)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
