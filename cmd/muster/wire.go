package main

import (
	"context"
	"fmt"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/scheduler"
	"github.com/muster-fleet/muster/worker/demand"
	"github.com/muster-fleet/muster/worker/inventory"
	"github.com/muster-fleet/muster/worker/remove"
	"github.com/muster-fleet/muster/worker/scale"
	"github.com/muster-fleet/muster/worker/token"
)

// wiring is a configuration in the terms of the packages that do the work. It
// is not changed once it is made.
type wiring struct {
	config    *config
	clients   map[string]*sharedClient // by target
	inventory map[string]inventory.Target
	remove    map[string]remove.Target
	token     map[string]token.Target
	demand    map[string]demand.Target
	compared  map[string]demand.Compared
	grants    []token.Grant
	matcher   *policies.Matcher // of the pools
}

// wire makes a configuration's clients, or takes over those of the wiring
// before; nil: there is none. It opens nothing.
func wire(c *config, before *wiring, by hearers) (*wiring, error) {
	w := &wiring{
		config: c, inventory: map[string]inventory.Target{}, remove: map[string]remove.Target{}, token: map[string]token.Target{},
		demand: map[string]demand.Target{}, compared: map[string]demand.Compared{},
	}
	pools := make([]fleet.Pool, len(c.pools))
	for i, p := range c.pools {
		pools[i] = p.Pool
	}
	w.matcher = policies.NewMatcher(pools)
	var old map[string]*sharedClient
	if before != nil {
		old = before.clients
	}
	var err error
	if w.clients, err = clients(c.targets, old, by); err != nil {
		return nil, err
	}
	for _, t := range c.targets {
		client := w.clients[t.Name].Client
		w.inventory[t.Name] = inventory.Target{Target: t.Target, GitHub: client}
		w.remove[t.Name] = remove.Target{Target: t.Target, GitHub: client}
		w.demand[t.Name] = demand.Target{Target: t.Target, Secrets: t.webhookSecrets}
		if pools := len(scale.Of(c.pools, t.Name)) > 0; pools || t.webhookSecrets != nil {
			w.compared[t.Name] = demand.Compared{Target: t.Target, GitHub: client, Pools: pools}
		}
		w.token[t.Name] = token.Target{
			Target: t.Target, GitHub: client, ShareRegistration: t.shareRegistration, MinValidity: t.minValidity,
		}
	}
	for _, g := range c.grants {
		w.grants = append(w.grants, token.Grant(g))
	}
	return w, nil
}

// names are what a job may be asked for by name.
func (w *wiring) names(job fleet.Job) []string {
	if job == fleet.JobScale {
		return w.config.poolNames()
	}
	return w.config.targetNames()
}

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
