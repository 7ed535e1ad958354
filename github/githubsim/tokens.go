package githubsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/muster-fleet/muster/fleet"
)

// minted is a registration or removal token.
type minted struct {
	scope   int64 // id
	kind    fleet.TokenKind
	expires time.Time
}

// mint makes a token. Those made before stay good.
func (s *Sim) mint(st *scopeState, kind fleet.TokenKind, e *Event) *answer {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	raw := []byte("A")
	for len(raw) < 29 {
		raw = append(raw, alphabet[s.random.IntN(len(alphabet))])
	}
	token, expires := string(raw), s.clock().Add(s.config.TokenLife)
	s.tokens[token] = minted{scope: st.id, kind: kind, expires: expires}
	e.Acted, e.Token = true, fingerprint(token)
	return &answer{
		status: http.StatusCreated,
		body: fmt.Appendf(nil, `{"token":"%s","expires_at":"%s"}`,
			token, expires.In(s.config.Zone).Format("2006-01-02T15:04:05.000-07:00")),
	}
}

// redeem finds the scope that a token is good for. The caller holds the lock.
func (s *Sim) redeem(token string, kind fleet.TokenKind) (*scopeState, error) {
	m, ok := s.tokens[token]
	switch {
	case !ok:
		return nil, fmt.Errorf("the token is unknown: %w", fleet.ErrUnauthorized)
	case m.kind != kind:
		return nil, fmt.Errorf("the token is for %s, not for %s: %w", m.kind, kind, fleet.ErrUnauthorized)
	case !s.clock().Before(m.expires):
		return nil, fmt.Errorf("the token has expired: %w", fleet.ErrUnauthorized)
	}
	return s.byID[m.scope], nil
}

// RegisterRunner does what config.sh does with a registration token: the
// runner is registered in the token's scope, not yet connected, and its State
// names the token by its fingerprint.
func (s *Sim) RegisterRunner(token string, spec RunnerSpec) (fleet.Scope, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.redeem(token, fleet.TokenRegistration)
	if err != nil {
		return fleet.Scope{}, 0, fmt.Errorf("github simulator: register runner %s: %w", spec.Name, err)
	}
	spec.Online, spec.Busy = false, false
	r, err := s.create(st, spec, fingerprint(token))
	if err != nil {
		return fleet.Scope{}, 0, err
	}
	st.sort(1)
	return st.scope, r.id, nil
}

// runnerRegistration answers the route on which a runner's config.sh trades its
// token for a connection of its own.
func (s *Sim) runnerRegistration(token, scheme string, body []byte, e *Event) *answer {
	if scheme != "remoteauth" || token == "" {
		return s.jsonError(http.StatusUnauthorized, "Requires authentication", query{})
	}
	var in struct {
		URL         string `json:"url"`
		RunnerEvent string `json:"runner_event"`
	}
	if json.Unmarshal(body, &in) != nil {
		return s.jsonError(http.StatusBadRequest, "Problems parsing JSON", query{})
	}
	kind, ok := map[string]fleet.TokenKind{"register": fleet.TokenRegistration, "remove": fleet.TokenRemoval}[in.RunnerEvent]
	at, err := url.Parse(in.URL)
	if !ok || err != nil || at.Host == "" {
		return s.invalid("runner_event")
	}
	st, err := s.redeem(token, kind)
	if err != nil {
		return s.jsonError(http.StatusUnauthorized, "Bad credentials", query{})
	}
	e.Scope = st.name
	path := st.scope.Owner
	switch st.scope.Kind {
	case fleet.ScopeEnterprise:
		path = "enterprises/" + st.scope.Owner
	case fleet.ScopeRepo:
		path = st.scope.Owner + "/" + st.scope.Repo
	}
	if !strings.EqualFold(strings.Trim(at.Path, "/"), path) {
		return s.notFound(query{})
	}
	return &answer{
		status: http.StatusOK,
		body:   fmt.Appendf(nil, `{"url":"%s://%s/_services/pipelines/","token":"%s","token_schema":"OAuthAccessToken"}`, at.Scheme, at.Host, fingerprint(token)),
	}
}
