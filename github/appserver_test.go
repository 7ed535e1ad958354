package github_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

const (
	appID          = 11
	installationID = 22
)

// keys are two keys of an App: making one takes a while.
var keys = sync.OnceValue(func() (pair [2]*rsa.PrivateKey) {
	for i := range pair {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		pair[i] = key
	}
	return pair
})

// pkcs1 is a key as GitHub gives it.
func pkcs1(key *rsa.PrivateKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

// hand is a clock that stands still until it is moved.
type hand struct {
	mu sync.Mutex
	at time.Time
}

func (h *hand) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *hand) move(by time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.at.Add(by)
}

// appServer is a GitHub with one App, installed in org/acme.
type appServer struct {
	api string
	*hand

	mu       sync.Mutex
	key      *rsa.PublicKey
	instead  http.HandlerFunc // answers requests for tokens; nil: it issues them
	refusing bool             // takes none of its tokens
	ends     map[string]time.Time
	asked    int // for a token
	used     []string
}

func newAppServer(t testing.TB) *appServer {
	t.Helper()
	s := &appServer{
		hand: &hand{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
		key:  &keys()[0].PublicKey, ends: map[string]time.Time{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v3/app/installations/22/access_tokens", s.issue)
	mux.HandleFunc("/api/v3/orgs/acme/", s.use)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", s.now().Format(http.TimeFormat))
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.api = srv.URL + "/api/v3"
	return s
}

// set changes the server under its lock.
func (s *appServer) set(change func(*appServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// requests is how often a token was asked for.
func (s *appServer) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *appServer) issue(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	n, instead, key := s.asked, s.instead, s.key
	s.mu.Unlock()
	if instead != nil {
		instead(w, r)
		return
	}
	if err := checkAssertion(r, key, s.now()); err != nil {
		says(http.StatusUnauthorized, fmt.Sprintf(`{"message":%q}`, err))(w, r)
		return
	}
	token, ends := fmt.Sprintf("ghs_%d", n), s.now().Add(time.Hour)
	s.set(func(s *appServer) { s.ends[token] = ends })
	says(http.StatusCreated, fmt.Sprintf(`{"token":%q,"expires_at":%q,"permissions":{"administration":"write"},"repository_selection":"all"}`,
		token, ends.Format(time.RFC3339)))(w, r)
}

// checkAssertion is what GitHub checks.
func checkAssertion(r *http.Request, key *rsa.PublicKey, now time.Time) error {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(text, ".")
	if !ok || len(parts) != 3 {
		return errors.New("A JSON web token could not be decoded")
	}
	var head struct{ Alg, Typ string }
	var claims struct {
		Iat, Exp int64
		Iss      string
	}
	for i, v := range []any{&head, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(raw, v) != nil {
			return errors.New("A JSON web token could not be decoded")
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	switch {
	case err != nil || head.Alg != "RS256" || rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) != nil:
		return errors.New("A JSON web token could not be decoded")
	case claims.Iss != fmt.Sprint(appID):
		return errors.New("Integration not found")
	case claims.Iat > now.Unix():
		return errors.New("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
	case claims.Exp <= now.Unix() || claims.Exp > now.Add(10*time.Minute).Unix():
		return errors.New("'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires")
	}
	return nil
}

func (s *appServer) use(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "token ")
	s.mu.Lock()
	s.used = append(s.used, token)
	ends, known := s.ends[token]
	good := known && s.now().Before(ends) && !s.refusing
	s.mu.Unlock()
	if !good {
		says(http.StatusUnauthorized, `{"message":"Bad credentials"}`)(w, r)
		return
	}
	says(http.StatusOK, `{"total_count":0,"runners":[]}`)(w, r)
}

// app is an installation at the server, by the clock of this machine.
func (s *appServer) app(t testing.TB, local *hand, change ...func(*github.AppConfig)) *github.App {
	t.Helper()
	c := github.AppConfig{
		APIURL: s.api, ID: appID, InstallationID: installationID, UserAgent: "muster/test",
		PrivateKey: token(pkcs1(keys()[0])), Now: local.now,
	}
	for _, f := range change {
		f(&c)
	}
	a, err := github.NewApp(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// mustToken gives the token that an App gives now.
func mustToken(t *testing.T, a *github.App) string {
	t.Helper()
	got, err := a.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got.Reveal()
}

// untilToken asks until an attempt that goes on in the background has brought
// the token.
func untilToken(t *testing.T, a *github.App, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		got, err := a.Token(ctx)
		switch {
		case err != nil:
			t.Fatal(err)
		case got.Reveal() == want:
			return
		case ctx.Err() != nil:
			t.Fatalf("the token is still %q, want %q", got.Reveal(), want)
		}
	}
}

// issueError is what an App says of a failure.
func issueError(t *testing.T, name string, err error) *github.Error {
	t.Helper()
	e := details(t, name, err)
	if e.Op != github.OpInstallationToken || e.RunnerID != 0 || errors.Is(err, fleet.ErrNotFound) {
		t.Errorf("%s: error %v is of %s, runner %d, and must not say that anything is gone", name, err, e.Op, e.RunnerID)
	}
	return e
}
