package githubsim

import (
	"encoding/base64"
	"net/http"
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
}

func newCredentials(accepted []string) credentials {
	c := credentials{
		any:      len(accepted) == 0,
		accepted: make(map[string]bool),
		revoked:  make(map[string]bool),
		access:   make(map[string]Access),
		attempts: make(map[string][]time.Time),
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
		return jsonError(http.StatusUnauthorized, "Requires authentication", docsRoot)
	}
	if !c.revoked[token] && (c.any || c.accepted[token]) {
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
		return jsonError(http.StatusForbidden, "Maximum number of login attempts exceeded. Please try again later.", docsRoot)
	}
	return jsonError(http.StatusUnauthorized, "Bad credentials", docsRoot)
}

// permit is nil for a credential that may act in the scope.
func (s *Sim) permit(token string, q query, st *scopeState) *answer {
	switch s.credentials.access[token+" "+key(st.scope)] {
	case AccessForbidden:
		noun := map[fleet.ScopeKind]string{
			fleet.ScopeEnterprise: "Enterprise", fleet.ScopeOrg: "Organization", fleet.ScopeRepo: "Repository",
		}[st.scope.Kind]
		return jsonError(http.StatusForbidden, "Must have admin rights to "+noun+".", q.docs())
	case AccessInvisible:
		return notFound(q.docs())
	}
	return nil
}
