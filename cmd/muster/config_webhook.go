package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/muster-fleet/muster/fleet"
)

// webhook reads where a target's webhook secret is: in a file or a variable,
// one secret a line, two while one gives way to the other.
func (r *reader) webhook(t *targetConfig, target *mapping) {
	file, variable := target.get("webhook_secret_file"), target.get("webhook_secret_env")
	switch {
	case file.there() && variable.there():
		file.fault("webhook_secret_env is set too: keep one of them")
		return
	case !file.there() && !variable.there():
		return
	}
	what := "webhook secret of target " + t.Name
	source, at := r.lasting(what, file, variable, &t.webhookFaults)
	if source.secret == nil {
		return
	}
	t.webhookSecrets = func(ctx context.Context) ([]fleet.Secret, error) {
		s, err := source.secret(ctx)
		if err != nil {
			return nil, err
		}
		secrets, err := secretLines(s)
		if err != nil {
			return nil, fmt.Errorf("read the %s from %s: %w", what, source.source, err)
		}
		return secrets, nil
	}
	s, err := source.secret(context.Background())
	if err != nil || s.IsZero() {
		return // said already
	}
	if _, err := secretLines(s); err != nil {
		r.at(at, "", &t.webhookFaults, "the %s cannot be used: %v", what, err)
	}
}

// secretLines takes the secrets of a webhook apart.
func secretLines(s fleet.Secret) ([]fleet.Secret, error) {
	var secrets []fleet.Secret
	for line := range strings.Lines(s.Reveal()) {
		if line = strings.TrimSpace(line); line != "" {
			secrets = append(secrets, fleet.NewSecret(line))
		}
	}
	if len(secrets) > 2 {
		return nil, fmt.Errorf("it has %d lines: want one secret, or two while the new one is being set at GitHub", len(secrets))
	}
	return secrets, nil
}
