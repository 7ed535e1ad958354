package token

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/muster-fleet/muster/fleet"
)

// shared keeps one registration token per target in memory: it registers any
// number of runners until it expires, so that a fleet that boots need not ask
// GitHub once per host. The zero value is empty.
type shared struct {
	minting singleflight.Group

	mu     sync.Mutex
	tokens map[string]fleet.Token
}

// get returns a token that is still good for the target's MinValidity, and
// mints one where there is none; one that is minted is handed out however
// short its life. Callers that come together wait for one minting, which ends
// for none of them because another one has lost patience.
func (s *shared) get(ctx context.Context, t Target, now time.Time) (fleet.Token, error) {
	// Not the name alone: a reload may have mended scope or address under it.
	key := t.Name + " " + t.Scope.String() + " " + t.APIURL
	v, err, _ := s.minting.Do(key, func() (any, error) {
		if token, ok := s.cached(key, now.Add(t.MinValidity)); ok {
			return token, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mintLimit)
		defer cancel()
		token, err := t.GitHub.RegistrationToken(ctx, t.Scope)
		if err != nil {
			return nil, err
		}
		s.keep(key, token)
		return token, nil
	})
	if err != nil {
		return fleet.Token{}, err
	}
	return v.(fleet.Token), nil
}

func (s *shared) cached(key string, until time.Time) (fleet.Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token, ok := s.tokens[key]
	return token, ok && !token.ExpiresAt.Before(until)
}

func (s *shared) keep(key string, token fleet.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens == nil {
		s.tokens = make(map[string]fleet.Token)
	}
	s.tokens[key] = token
}

// forget drops what has expired.
func (s *shared) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, token := range s.tokens {
		if !token.ExpiresAt.After(now) {
			delete(s.tokens, key)
		}
	}
}
