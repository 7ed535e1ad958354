package github_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// Whatever goes wrong with the token, no operation may take it for news of a
// runner or a scope.
func TestAnAppWithoutATokenSaysWhy(t *testing.T) {
	t.Parallel()
	html := func(status int, page string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, page)
		}
	}
	with := func(header, value string, h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(header, value)
			h(w, r)
		}
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		kind   error
		wait   time.Duration
		text   string
	}{
		{"another key", says(401, `{"message":"A JSON web token could not be decoded"}`), fleet.ErrUnauthorized, 0,
			"credential not accepted (HTTP 401): installation 22 of App 11: A JSON web token could not be decoded; check that the private key is one of this App's and its id the right one"},
		{"suspended", says(403, `{"message":"This installation has been suspended"}`), fleet.ErrForbidden, 0,
			"forbidden (HTTP 403): installation 22 of App 11: This installation has been suspended; it may be suspended: see the installed Apps of its account"},
		{"gone", says(404, `{"message":"Not Found"}`), fleet.ErrUnauthorized, 0,
			"credential not accepted (HTTP 404): installation 22 of App 11: Not Found; it was removed, or belongs to another App or server: check installation_id"},
		{"no API there", html(404, "<h1>nginx</h1>"), fleet.ErrMalformed, 0,
			"malformed answer (HTTP 404): installation 22 of App 11: status is not 201: answer is an HTML page" + notTheAPI},
		{"primary limit", with("X-RateLimit-Remaining", "0", with("X-RateLimit-Reset", "1772366700", says(403, `{"message":"API rate limit exceeded"}`))), fleet.ErrRateLimited, 5 * time.Minute,
			"rate limited (HTTP 403): installation 22 of App 11: API rate limit exceeded; wait 5m0s"},
		{"secondary limit", with("Retry-After", "17", says(429, `{"message":"slow down"}`)), fleet.ErrRateLimited, 17 * time.Second,
			"rate limited (HTTP 429): installation 22 of App 11: slow down; wait 17s"},
		{"away", html(502, "<h1>unicorn</h1>"), fleet.ErrUnavailable, 0,
			"unavailable (HTTP 502): installation 22 of App 11: answer is an HTML page"},
		{"maintenance", with("Retry-After", "90", says(503, `{"message":"back soon"}`)), fleet.ErrUnavailable, 90 * time.Second,
			"unavailable (HTTP 503): installation 22 of App 11: back soon; wait 1m30s"},
		{"not processable", says(422, `{"message":"Validation Failed"}`), fleet.ErrMalformed, 0,
			"malformed answer (HTTP 422): installation 22 of App 11: status is not 201: Validation Failed"},
		{"not created", says(200, `{"token":"ghs_1","expires_at":"2026-03-01T13:00:00Z"}`), fleet.ErrMalformed, 0,
			"malformed answer (HTTP 200): installation 22 of App 11: status is not 201: answer is application/json"},
		{"no token in it", says(201, `{"expires_at":"2026-03-01T13:00:00Z"}`), fleet.ErrMalformed, 0,
			"malformed answer (HTTP 201): installation 22 of App 11: token is missing"},
		{"no end to it", says(201, `{"token":"ghs_1"}`), fleet.ErrMalformed, 0,
			"malformed answer (HTTP 201): installation 22 of App 11: expires_at is missing"},
		{"ended", says(201, `{"token":"ghs_1","expires_at":"2026-03-01T12:00:00Z"}`), fleet.ErrMalformed, 0,
			"malformed answer (HTTP 201): installation 22 of App 11: the token has ended by the server's own clock"},
		{"empty", says(201, ``), fleet.ErrMalformed, 0,
			"malformed answer (HTTP 201): installation 22 of App 11: answer is empty, not JSON"},
	}
	for _, tt := range tests {
		s := newAppServer(t)
		s.instead = tt.answer
		if tt.name == "empty" {
			s.instead = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }
		}
		a := s.app(t, s.hand)
		gh := client(t, s.api, func(c *github.Config) { c.Token, c.Refused = a.Token, a.Refused })
		_, err := gh.Runner(t.Context(), org, 7)
		for name, err := range map[string]error{
			"get": err, "access": gh.CanList(t.Context(), org), "delete": gh.RemoveRunner(t.Context(), org, 7, nil),
		} {
			wantKind(t, tt.name+": "+name, err, tt.kind)
			if e := issueError(t, tt.name, err); e.Wait != tt.wait || e.Scope != org {
				t.Errorf("%s: %s: wait %s, scope %s, want %s and org/acme", tt.name, name, e.Wait, e.Scope, tt.wait)
			}
			if want := "create installation token of org/acme: " + tt.text; err.Error() != want {
				t.Errorf("%s: %s:\n got %v\nwant %s", tt.name, name, err, want)
			}
		}
		if len(s.used) != 0 || s.requests() != 1 {
			t.Errorf("%s: %d requests for a token and %d without one, want 1 and none", tt.name, s.requests(), len(s.used))
		}
	}
}

func TestGitHubIsLeftAloneAfterAFailure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		pause  time.Duration
	}{
		{"asked to", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "120")
			says(403, `{"message":"secondary rate limit"}`)(w, r)
		}, 2 * time.Minute},
		{"refused", says(401, `{"message":"no"}`), 30 * time.Second},
		{"suspended", says(403, `{"message":"no"}`), 30 * time.Second},
		{"away", says(500, `{"message":"no"}`), 5 * time.Second},
	} {
		s := newAppServer(t)
		s.instead = tt.answer
		a := s.app(t, s.hand)
		ask := func(want int) error {
			t.Helper()
			_, err := a.Token(t.Context())
			if s.requests() != want {
				t.Errorf("%s: Token() = %v with %d requests, want %d", tt.name, err, s.requests(), want)
			}
			return err
		}
		first := ask(1)
		s.move(tt.pause - time.Second)
		again := ask(1)
		if wait := details(t, tt.name, again).Wait; details(t, tt.name, first).Wait > 0 && wait != time.Second {
			t.Errorf("%s: a second before the end the wait is %s", tt.name, wait)
		}
		s.move(time.Second)
		if err := ask(2); err == nil {
			t.Errorf("%s: Token() = nil the second time GitHub refuses", tt.name)
		}
	}
}

func TestAKeyThatCannotBeUsedIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	var key string
	var unreadable error
	a := s.app(t, s.hand, func(c *github.AppConfig) {
		c.PrivateKey = func(context.Context) (fleet.Secret, error) { return fleet.NewSecret(key), unreadable }
	})
	unreadable = os.ErrNotExist
	_, err := a.Token(t.Context())
	wantKind(t, "no file", err, fleet.ErrUnauthorized)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v, want the reason in it", err)
	}
	unreadable, key = nil, "half a key"
	_, err = a.Token(t.Context())
	want := "create installation token: credential not accepted: installation 22 of App 11: read the credential: not a private key in PEM, which begins with -----BEGIN and has line breaks"
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	key = pkcs1(keys()[0])
	if got := mustToken(t, a); got != "ghs_1" {
		t.Errorf("Token() = %q as soon as the key is there, want ghs_1", got)
	}
}

func TestNoErrorOfAnAppHoldsASecret(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	var assertion string
	s.instead = func(w http.ResponseWriter, r *http.Request) {
		assertion = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		says(http.StatusUnauthorized, fmt.Sprintf(`{"message":"cannot decode %s"}`, assertion))(w, r)
	}
	_, err := s.app(t, s.hand).Token(t.Context())
	if err == nil || assertion == "" || !strings.Contains(err.Error(), "[redacted]") {
		t.Fatalf("error is %v, want what GitHub repeated redacted", err)
	}
	for _, text := range []string{err.Error(), fmt.Sprintf("%#v", details(t, "echo", err))} {
		wantNot(t, text, assertion)
		wantNot(t, text, strings.Split(assertion, ".")[2])
	}
	s.set(func(s *appServer) {
		s.instead = says(http.StatusCreated, `{"token":"ghs_canary","expires_at":"2026-03-01T11:00:00Z"}`)
	})
	_, err = s.app(t, s.hand).Token(t.Context())
	wantNot(t, err.Error(), "ghs_canary")
}

// What GitHub asks of an App that wants a token, another process with that App
// keeps to as well. A token that it has is good meanwhile.
func TestAnAppKeepsThePauseOfAnother(t *testing.T) {
	t.Parallel()
	s := newAppServer(t)
	var told time.Time
	var reason string
	first := s.app(t, s.hand, func(c *github.AppConfig) {
		c.OnPause = func(until time.Time, said string) { told, reason = until, said }
	})
	second, third := s.app(t, s.hand), s.app(t, s.hand)
	have := mustToken(t, third)
	s.set(func(s *appServer) {
		s.instead = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "90")
			says(429, `{"message":"slow down"}`)(w, r)
		}
	})
	_, err := first.Token(t.Context())
	wantKind(t, "the one that was told", err, fleet.ErrRateLimited)
	if want := s.now().Add(90 * time.Second); !told.Equal(want) || reason != "HTTP 429: slow down" {
		t.Fatalf("OnPause heard %s, %q, want %s and GitHub's words", told, reason, want)
	}
	asked := s.requests()
	second.Pause(told)
	third.Pause(told)
	_, err = second.Token(t.Context())
	if e := issueError(t, "another", err); !errors.Is(err, fleet.ErrRateLimited) || e.Status != 0 || e.Wait != 90*time.Second {
		t.Errorf("another: %v, want nothing sent and a wait of 90 s", err)
	}
	if got := mustToken(t, third); got != have {
		t.Errorf("the token that was there became %q", got)
	}
	if n := s.requests() - asked; n != 0 {
		t.Errorf("GitHub was asked %d times in the pause", n)
	}
	s.set(func(s *appServer) { s.instead = nil })
	s.move(90 * time.Second)
	mustToken(t, second)
}
