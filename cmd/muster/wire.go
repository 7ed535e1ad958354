package main

import (
	"context"
	"fmt"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/scheduler"
	"github.com/muster-fleet/muster/worker/inventory"
	"github.com/muster-fleet/muster/worker/remove"
	"github.com/muster-fleet/muster/worker/token"
)

// wiring is a configuration in the terms of the packages that do the work: one
// client per target, shared by all that speak to it. It is not changed once it
// is made.
type wiring struct {
	config    *config
	inventory map[string]inventory.Target
	remove    map[string]remove.Target
	token     map[string]token.Target
	grants    []token.Grant
	downloads map[string]*github.Client
}

// wire makes a configuration's clients. It opens nothing. observe sees the
// calls of each target; nil: nobody does.
func wire(c *config, observe func(target string, call github.Call)) (*wiring, error) {
	w := &wiring{
		config: c, inventory: map[string]inventory.Target{}, remove: map[string]remove.Target{},
		token: map[string]token.Target{}, downloads: map[string]*github.Client{},
	}
	for _, t := range c.targets {
		cfg := github.Config{APIURL: t.APIURL, Token: t.token, UserAgent: "muster/" + readBuild().version}
		if observe != nil {
			cfg.Observe = func(call github.Call) { observe(t.Name, call) }
		}
		client, err := github.New(cfg)
		if err != nil {
			return nil, usage("target %s: %w", t.Name, err)
		}
		w.inventory[t.Name] = inventory.Target{Target: t.Target, GitHub: client}
		w.remove[t.Name] = remove.Target{Target: t.Target, GitHub: client}
		w.token[t.Name] = token.Target{
			Target: t.Target, GitHub: client, ShareRegistration: t.shareRegistration, MinValidity: t.minValidity,
		}
		w.downloads[t.Name] = client
	}
	for _, g := range c.grants {
		w.grants = append(w.grants, token.Grant(g))
	}
	return w, nil
}

// names are what a job may be asked for by name.
func (w *wiring) names(fleet.Job) []string { return w.config.targetNames() }

func (w *wiring) schedules() []scheduler.Schedule { return w.config.schedules }

// identities refuses a configuration in which the name of a known target
// stands for another scope.
type identities interface {
	CheckIdentity(ctx context.Context, t fleet.Target) error
}

func checkIdentities(ctx context.Context, record identities, c *config) error {
	for _, t := range c.targets {
		if err := record.CheckIdentity(ctx, t.Target); err != nil {
			return fmt.Errorf("check targets against the record: %w", err)
		}
	}
	return nil
}
