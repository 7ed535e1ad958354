package github_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

func TestNewAppRefuses(t *testing.T) {
	t.Parallel()
	good := github.AppConfig{APIURL: "https://ghes.example.com/api/v3", ID: 1, InstallationID: 2, PrivateKey: token("key"), UserAgent: "muster/test"}
	if _, err := github.NewApp(good); err != nil {
		t.Errorf("NewApp() = %v, want the key not to be read yet", err)
	}
	for name, change := range map[string]func(*github.AppConfig){
		"no address":         func(c *github.AppConfig) { c.APIURL = "" },
		"no id":              func(c *github.AppConfig) { c.ID = 0 },
		"no installation":    func(c *github.AppConfig) { c.InstallationID = -1 },
		"no key":             func(c *github.AppConfig) { c.PrivateKey = nil },
		"no user agent":      func(c *github.AppConfig) { c.UserAgent = "" },
		"a negative timeout": func(c *github.AppConfig) { c.Timeout = -1 },
	} {
		c := good
		change(&c)
		if _, err := github.NewApp(c); err == nil {
			t.Errorf("%s: NewApp() = nil, want an error", name)
		}
	}
}

func TestAnInstallationWorksWithOneTokenAsLongAsItIsGood(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	var calls []github.Call
	a := s.app(t, s.hand, func(c *github.AppConfig) { c.Observe = func(call github.Call) { calls = append(calls, call) } })
	gh := client(t, s.api, func(c *github.Config) { c.Token, c.Refused = a.Token, a.Refused })
	for _, wait := range []time.Duration{0, time.Minute, 53 * time.Minute} {
		s.move(wait)
		if err := gh.CanList(t.Context(), org); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"ghs_1", "ghs_1", "ghs_1"}, s.used); diff != "" {
		t.Errorf("tokens used (-want +got):\n%s", diff)
	}
	want := []github.Call{{Op: github.OpInstallationToken, Status: 201, RateRemaining: -1}}
	if diff := cmp.Diff(want, calls, cmpopts.IgnoreFields(github.Call{}, "Took")); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestATokenIsRenewedBeforeItEndsAndNobodyWaitsForThat(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	a := s.app(t, s.hand)
	if got := mustToken(t, a); got != "ghs_1" {
		t.Fatalf("Token() = %q, want ghs_1", got)
	}
	slow := make(chan struct{})
	s.set(func(s *appServer) {
		s.instead = func(w http.ResponseWriter, r *http.Request) {
			<-slow
			s.set(func(s *appServer) { s.instead = nil })
			s.issue(w, r)
		}
	})
	s.move(56 * time.Minute)
	for range 3 {
		if got := mustToken(t, a); got != "ghs_1" {
			t.Errorf("Token() = %q while a renewal is under way, want ghs_1", got)
		}
	}
	close(slow)
	untilToken(t, a, "ghs_3") // the second request was answered as a third
	s.move(54 * time.Minute)
	if got := mustToken(t, a); got != "ghs_3" || s.requests() != 3 {
		t.Errorf("Token() = %q after %d requests, want ghs_3 after 3", got, s.requests())
	}
}

func TestAFailedRenewalIsNoErrorAsLongAsTheOldTokenIsGood(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	a := s.app(t, s.hand)
	mustToken(t, a)
	s.set(func(s *appServer) { s.instead = says(http.StatusBadGateway, `{"message":"unicorn"}`) })
	s.move(59*time.Minute + 30*time.Second) // too late not to wait for the renewal
	if got := mustToken(t, a); got != "ghs_1" || s.requests() != 2 {
		t.Errorf("Token() = %q after %d requests, want ghs_1 after 2", got, s.requests())
	}
	if got := mustToken(t, a); got != "ghs_1" || s.requests() != 2 {
		t.Errorf("Token() = %q after %d requests, want ghs_1 without another attempt right away", got, s.requests())
	}
	s.move(30 * time.Second)
	_, err := a.Token(t.Context())
	wantKind(t, "ended", err, fleet.ErrUnavailable)
	s.set(func(s *appServer) { s.instead = nil })
	s.move(5 * time.Second)
	if got := mustToken(t, a); got != "ghs_4" {
		t.Errorf("Token() = %q once GitHub is back, want ghs_4", got)
	}
}

// A wrong clock here costs one request more, once, and never a dead token.
func TestAWrongClockHereDoesNoHarm(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{-30 * 24 * time.Hour, -2 * time.Hour, -9 * time.Minute, -40 * time.Second, 0, 90 * time.Second, 3 * time.Hour, 30 * 24 * time.Hour} {
		s := newAppServer(t)
		local := &hand{at: s.now().Add(skew)}
		pass := func(d time.Duration) { s.move(d); local.move(d) }
		a := s.app(t, local)
		gh := client(t, s.api, func(c *github.Config) { c.Token, c.Refused = a.Token, a.Refused })
		list := func() {
			t.Helper()
			if err := gh.CanList(t.Context(), org); err != nil {
				t.Errorf("clock off by %s: %v", skew, err)
			}
		}
		list()
		first := s.requests()
		if first > 2 {
			t.Errorf("clock off by %s: %d requests for the first token", skew, first)
		}
		pass(54 * time.Minute)
		list()
		if got := s.requests(); got != first {
			t.Errorf("clock off by %s: %d requests more for a token that was good", skew, got-first)
		}
		pass(6 * time.Minute)
		list()
		if got := s.requests(); got != first+1 {
			t.Errorf("clock off by %s: %d requests for the second token, want 1", skew, got-first)
		}
		if last := s.used[len(s.used)-1]; last == s.used[0] || len(s.used) != 3 {
			t.Errorf("clock off by %s: used %q, want no token that has ended", skew, s.used)
		}
	}
}

func TestAClockThatStepsIsFoundOut(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	local := &hand{at: s.now()}
	a := s.app(t, local)
	mustToken(t, a)
	local.move(5 * time.Hour)
	if got := mustToken(t, a); got != "ghs_3" { // the second request was refused
		t.Errorf("Token() = %q after a step of the clock, want ghs_3", got)
	}
	if got := mustToken(t, a); got != "ghs_3" || s.requests() != 3 {
		t.Errorf("Token() = %q after %d requests, want ghs_3 after 3", got, s.requests())
	}
}

func TestWithoutADateTheHourIsTaken(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	local := &hand{at: s.now().Add(-20 * time.Second)}
	s.instead = func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		says(http.StatusCreated, `{"token":"ghs_dateless","expires_at":"2030-01-01T00:00:00Z"}`)(w, r)
	}
	a := s.app(t, local)
	mustToken(t, a)
	local.move(54 * time.Minute)
	if mustToken(t, a); s.requests() != 1 {
		t.Errorf("%d requests within the hour, want 1", s.requests())
	}
	local.move(6 * time.Minute)
	if mustToken(t, a); s.requests() != 2 {
		t.Errorf("%d requests after the hour, want 2", s.requests())
	}
}

// Fifty callers share one attempt. One that is cancelled leaves at once, and
// neither ends nor delays it.
func TestCallersShareOneAttempt(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	a := s.app(t, s.hand)
	reached, release := make(chan struct{}), make(chan struct{})
	s.instead = func(w http.ResponseWriter, r *http.Request) {
		close(reached)
		<-release
		s.set(func(s *appServer) { s.instead, s.asked = nil, 0 })
		s.issue(w, r)
	}
	first, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := a.Token(first)
		left <- err
	}()
	<-reached
	cancel() // who began the attempt
	if err := <-left; !errors.Is(err, context.Canceled) || !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Token() = %v for the caller who was cancelled", err)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got, err := a.Token(t.Context()); err != nil || got.Reveal() != "ghs_1" {
				t.Errorf("Token() = %q, %v, want ghs_1", got.Reveal(), err)
			}
		})
	}
	close(release)
	all.Wait()
	if got := s.requests(); got != 1 {
		t.Errorf("%d requests after the one that was waited for, want none", got-1)
	}
}

func TestAnAttemptHasATimeLimitOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	s.instead = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	a := s.app(t, s.hand, func(c *github.AppConfig) { c.Timeout = 20 * time.Millisecond })
	_, err := a.Token(context.WithoutCancel(t.Context()))
	wantKind(t, "no answer", err, fleet.ErrUnavailable)
	if e := issueError(t, "no answer", err); e.Detail != "installation 22 of App 11: no answer within 20ms" {
		t.Errorf("error is %v", err)
	}
}

func TestARotatedKeyIsTakenForTheNextToken(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	key := pkcs1(keys()[0])
	a := s.app(t, s.hand, func(c *github.AppConfig) {
		c.PrivateKey = func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(key), nil }
	})
	mustToken(t, a)
	s.set(func(s *appServer) { s.key = &keys()[1].PublicKey })
	s.move(time.Hour)
	_, err := a.Token(t.Context())
	wantKind(t, "the old key", err, fleet.ErrUnauthorized)
	key = pkcs1(keys()[1])
	s.move(30 * time.Second)
	if got := mustToken(t, a); got != "ghs_3" {
		t.Errorf("Token() = %q with the new key, want ghs_3", got)
	}
}

// Tokens that GitHub issues and then refuses are not asked for again and again.
func TestARefusedTokenIsReplacedAndNotInAStorm(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	a := s.app(t, s.hand)
	gh := client(t, s.api, func(c *github.Config) { c.Token, c.Refused = a.Token, a.Refused })
	if err := gh.CanList(t.Context(), org); err != nil {
		t.Fatal(err)
	}
	s.set(func(s *appServer) { clear(s.ends) }) // revoked, all of them
	if err := gh.CanList(t.Context(), org); err != nil {
		t.Errorf("CanList() = %v after the token was revoked, want a second one to be used", err)
	}
	s.set(func(s *appServer) { s.refusing = true })
	for range 100 {
		wantKind(t, "refused", gh.CanList(t.Context(), org), fleet.ErrUnauthorized)
	}
	if got := s.requests(); got != 2 {
		t.Errorf("%d tokens issued within half a minute, want 2", got)
	}
	s.move(31 * time.Second)
	for range 100 {
		wantKind(t, "refused", gh.CanList(t.Context(), org), fleet.ErrUnauthorized)
	}
	if got := s.requests(); got != 3 {
		t.Errorf("%d tokens issued half a minute later, want 3", got)
	}
	if a.Refused(fleet.NewSecret("ghs_1")) != true {
		t.Error("Refused() = false for a token that was replaced long ago")
	}
}

func TestAnAppSpeaksToItsOwnServerOnly(t *testing.T) {
	t.Parallel()
	sent := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sent++ }))
	t.Cleanup(other.Close)
	s := newAppServer(t)
	s.instead = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}
	_, err := s.app(t, s.hand).Token(t.Context())
	wantKind(t, "redirect", err, fleet.ErrUnavailable)
	if sent != 0 {
		t.Errorf("%d requests were carried to where a redirect points", sent)
	}
}
