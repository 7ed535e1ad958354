package demand

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

// signatureCheck checks a signature with the secrets of all targets. Targets may
// share a secret, and each costs a pass over the body.
type signatureCheck struct {
	bySecret map[string]*github.Signature
	secrets  map[string][]string // of each target, by name
	unread   map[string]error    // by name of the target
	observe  func(Outcome)
}

// CheckSignature begins to check the signature of a delivery with the secrets of
// the targets. A signature of nobody's is observed; observe may be nil.
func CheckSignature(ctx context.Context, targets map[string]Target, signature string, observe func(Outcome)) fleet.SignatureCheck {
	c := &signatureCheck{
		bySecret: map[string]*github.Signature{}, secrets: map[string][]string{}, unread: map[string]error{}, observe: observe,
	}
	if observe == nil {
		c.observe = func(Outcome) {}
	}
	for name, t := range targets {
		if t.Secrets == nil {
			continue
		}
		secrets, err := t.Secrets(ctx)
		if err != nil {
			c.unread[name] = err
		}
		for _, s := range secrets {
			text := s.Reveal()
			if c.bySecret[text] == nil {
				c.bySecret[text] = github.NewSignature(signature, s)
			}
			c.secrets[name] = append(c.secrets[name], text)
		}
	}
	return c
}

// Write adds a part of the body. It never fails.
func (c *signatureCheck) Write(part []byte) (int, error) {
	for _, s := range c.bySecret {
		_, _ = s.Write(part) // a hash takes everything
	}
	return len(part), nil
}

// Signers are the targets whose secret signed what was written, by name.
func (c *signatureCheck) Signers() ([]string, error) {
	good := map[string]bool{}
	for text, s := range c.bySecret {
		good[text] = s.Holds()
	}
	var signers []string
	for _, name := range slices.Sorted(maps.Keys(c.secrets)) {
		if slices.ContainsFunc(c.secrets[name], func(text string) bool { return good[text] }) {
			signers = append(signers, name)
		}
	}
	if len(signers) > 0 {
		return signers, nil
	}
	if len(c.unread) > 0 {
		c.observe(OutcomeFailed)
		unread := slices.Sorted(maps.Keys(c.unread))
		var all error
		for _, name := range unread {
			all = errors.Join(all, c.unread[name])
		}
		return unread, fmt.Errorf("take in a webhook: %w: %w", all, fleet.ErrUnavailable)
	}
	c.observe(OutcomeRefused)
	return nil, fmt.Errorf("take in a webhook: no target's webhook secret signed it: %w", fleet.ErrUnauthorized)
}

// Check begins to check the signature of a delivery whose body still arrives.
func (i *Intake) Check(ctx context.Context, signature string) fleet.SignatureCheck {
	return CheckSignature(ctx, i.Targets(), signature, func(o Outcome) { i.observe(ViaWebhook, o) })
}
