package githubsim

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// Access is what a credential may do in a scope.
type Access string

const (
	AccessFull      Access = "full"
	AccessForbidden Access = "forbidden" // 403: sees the scope, does not administer it
	AccessInvisible Access = "invisible" // 404: does not even see it
)

// credentials is who may come in. The Sim's lock guards it.
type credentials struct {
	any      bool // whatever is not revoked
	accepted map[string]bool
	revoked  map[string]bool
	access   map[string]Access // by credential + " " + key(scope)
	attempts map[string][]time.Time
	scopes   map[string][]string // of personal tokens; absent: all that is needed
	expires  map[string]time.Time
}

func newCredentials(accepted []string) credentials {
	c := credentials{
		any:      len(accepted) == 0,
		accepted: make(map[string]bool),
		revoked:  make(map[string]bool),
		access:   make(map[string]Access),
		attempts: make(map[string][]time.Time),
		scopes:   make(map[string][]string),
		expires:  make(map[string]time.Time),
	}
	for _, token := range accepted {
		c.accepted[token] = true
	}
	return c
}

// Accept lets a credential in, from now on or again.
func (s *Sim) Accept(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials.accepted[token] = true
	delete(s.credentials.revoked, token)
	delete(s.credentials.attempts, token)
}

// Revoke keeps a credential out, from now on.
func (s *Sim) Revoke(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials.revoked[token] = true
}

// Grant sets what a credential may do in a scope. Without, it may do all.
func (s *Sim) Grant(token string, scope fleet.Scope, access Access) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials.access[token+" "+key(scope)] = access
}

// SetScopes sets the OAuth scopes of a personal token, which it otherwise has
// all of that it needs.
func (s *Sim) SetScopes(token string, scopes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials.scopes[token] = scopes
}

// SetExpiry ends a personal token at some time, by the server's clock, which
// its answers tell.
func (s *Sim) SetExpiry(token string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials.expires[token] = at
}

// wanted are the OAuth scopes of which a personal token needs one.
func wanted(kind fleet.ScopeKind) []string {
	switch kind {
	case fleet.ScopeEnterprise:
		return []string{"admin:enterprise", "manage_runners:enterprise"}
	case fleet.ScopeOrg:
		return []string{"admin:org"}
	}
	return []string{"repo"}
}

// scopesOf are the OAuth scopes that a personal token has.
func (s *Sim) scopesOf(token string) []string {
	if scopes, ok := s.credentials.scopes[token]; ok {
		return scopes
	}
	return s.allScopes
}

// introduce tells of a good credential what GitHub tells of it. The caller holds
// the lock.
func (s *Sim) introduce(token string, q query, a *answer) {
	if s.issued[token] != nil || q.op.byApp() {
		return
	}
	a.scopes = strings.Join(s.scopesOf(token), ", ")
	if q.scope.Kind != "" {
		a.accepted = strings.Join(wanted(q.scope.Kind), ", ")
	}
	if at, ok := s.credentials.expires[token]; ok {
		a.expires = at.UTC().Format("2006-01-02 15:04:05 UTC")
	}
}

// credential reads the header: token X, Bearer X, or Basic with the token in
// either place. RemoteAuth is for the runner's own routes only.
func credential(r *http.Request) (token, scheme string) {
	scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	scheme, rest = strings.ToLower(scheme), strings.TrimSpace(rest)
	switch scheme {
	case "token", "bearer", "remoteauth":
		return rest, scheme
	case "basic":
		raw, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return "", scheme
		}
		user, password, _ := strings.Cut(string(raw), ":")
		if password == "" || password == "x-oauth-basic" {
			return user, scheme
		}
		return password, scheme
	}
	return "", scheme
}

// admit is nil for a credential that may come in. The caller holds the lock.
func (s *Sim) admit(token string) *answer {
	c := &s.credentials
	if token == "" {
		return s.jsonError(http.StatusUnauthorized, "Requires authentication", query{})
	}
	if t := s.issued[token]; t != nil && !c.revoked[token] {
		return s.enter(t)
	}
	if at, ok := c.expires[token]; ok && !s.clock().Before(at) {
		return s.jsonError(http.StatusUnauthorized, "Bad credentials", query{})
	}
	_, asserts := parseAssertion(token) // which is for the routes of Apps
	if !c.revoked[token] && (c.accepted[token] || c.any && !asserts) {
		return nil
	}
	now := s.config.Now()
	recent := c.attempts[token][:0:0]
	for _, at := range c.attempts[token] {
		if now.Sub(at) < time.Minute {
			recent = append(recent, at)
		}
	}
	c.attempts[token] = append(recent, now)
	if limit := s.config.LoginAttempts; limit > 0 && len(recent) >= limit {
		return s.jsonError(http.StatusForbidden, "Maximum number of login attempts exceeded. Please try again later.", query{})
	}
	return s.jsonError(http.StatusUnauthorized, "Bad credentials", query{})
}

// permit is nil for a credential that may act in the scope.
func (s *Sim) permit(token string, q query, st *scopeState) *answer {
	if t := s.issued[token]; t != nil {
		if a := s.permits(t, q, st); a != nil {
			return a
		}
	}
	access := s.credentials.access[token+" "+key(st.scope)]
	if s.issued[token] == nil && !slices.ContainsFunc(wanted(st.scope.Kind), func(scope string) bool { return slices.Contains(s.scopesOf(token), scope) }) {
		access = AccessForbidden
	}
	switch access {
	case AccessForbidden:
		noun := map[fleet.ScopeKind]string{
			fleet.ScopeEnterprise: "Enterprise", fleet.ScopeOrg: "Organization", fleet.ScopeRepo: "Repository",
		}[st.scope.Kind]
		return s.jsonError(http.StatusForbidden, "Must have admin rights to "+noun+".", q)
	case AccessInvisible:
		return s.notFound(q)
	}
	return nil
}
