package demo

import (
	"fmt"
	"maps"
	"sync/atomic"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github/githubsim"
)

// The three targets, one of each scope.
var (
	octo    = fleet.Scope{Kind: fleet.ScopeEnterprise, Owner: "octo"}
	acme    = fleet.Scope{Kind: fleet.ScopeOrg, Owner: "acme"}
	widgets = fleet.Scope{Kind: fleet.ScopeRepo, Owner: "acme", Repo: "widgets"}
)

// targets are the scopes by the name they have in the configuration.
var targets = map[string]fleet.Scope{"octo": octo, "acme": acme, "widgets": widgets}

// everywhere are they, and the pool's.
func everywhere() map[string]fleet.Scope {
	all := maps.Clone(targets)
	all[Pool] = forge
	return all
}

// Cast is who plays which part, by runner id per target.
type Cast struct {
	Dead     map[string][]int64 // long offline: to be removed, where the limit lets it
	Kept     map[string][]int64 // long offline, with the label keep
	Zombies  map[string][]int64 // offline, and busy as GitHub believes
	Flapping map[string][]int64
	Working  map[string][]int64 // online and busy all the time
	Comeback int64              // of acme: connects the moment muster looks at it for the last time
	Caught   int64              // of acme: gets a workflow job between that look and the DELETE
}

// parts is how many of each there are per target. widgets has more dead
// runners than the policy may act on.
var parts = map[string]struct {
	share                         int // percent of the fleet
	dead, kept, zombies, flapping int
}{
	"octo":    {45, 14, 3, 3, 6},
	"acme":    {40, 12, 2, 2, 4},
	"widgets": {15, 30, 1, 1, 2},
}

// Halting is the target on which the policy runs into its limit.
const Halting = "widgets"

// assemble makes the fleet. Nobody is killed yet: who is long offline has been
// so since before muster looked for the first time.
func assemble(sim *githubsim.Sim, runners int) (Cast, error) {
	c := Cast{
		Dead: map[string][]int64{}, Kept: map[string][]int64{}, Zombies: map[string][]int64{},
		Flapping: map[string][]int64{}, Working: map[string][]int64{},
	}
	rest := runners
	for _, target := range []string{"octo", "acme", "widgets"} {
		p, scope := parts[target], targets[target]
		n := runners * p.share / 100
		rest -= n
		if target == "widgets" {
			n += rest
		}
		if err := sim.AddScope(scope); err != nil {
			return c, err
		}
		special := p.dead + p.kept + p.zombies + p.flapping
		extra := 0
		if target == "acme" {
			extra = 2 // the comeback and the one that is caught
		}
		ids, err := sim.CreateMany(scope, n, func(i int) githubsim.RunnerSpec {
			spec := githubsim.RunnerSpec{
				Name: fmt.Sprintf("%s-%04d", target, i), Labels: []string{"team-core"}, Online: true,
			}
			switch {
			case i < p.dead:
				spec.Online = false
			case i < p.dead+p.kept:
				spec.Online, spec.Labels = false, []string{"team-core", "keep"}
			case i < p.dead+p.kept+p.zombies:
				spec.Online, spec.Busy = false, true
			case i < special: // flapping
			case i < special+extra:
				spec.Online = false
			case i%20 == 0:
				spec.Busy = true
			case i%50 == 1:
				spec.Labels = nil
			}
			return spec
		})
		if err != nil {
			return c, err
		}
		c.Dead[target] = ids[:p.dead]
		c.Kept[target] = ids[p.dead : p.dead+p.kept]
		c.Zombies[target] = ids[p.dead+p.kept : p.dead+p.kept+p.zombies]
		c.Flapping[target] = ids[p.dead+p.kept+p.zombies : special]
		if extra > 0 {
			c.Comeback, c.Caught = ids[special], ids[special+1]
		}
		for i := special + extra; i < len(ids); i++ {
			if i%20 == 0 {
				c.Working[target] = append(c.Working[target], ids[i])
			}
		}
	}
	return c, nil
}

// stage arranges the two moments that no timing could: a runner that comes
// back as muster looks at it for the last time, and one that is given a
// workflow job between that look and the DELETE.
func (c Cast) stage(sim *githubsim.Sim) {
	var back, caught atomic.Bool
	sim.Before(func(r githubsim.Request) {
		switch {
		case r.RunnerID == c.Comeback && r.Method == "GET" && back.CompareAndSwap(false, true):
			_ = sim.Connect(acme, c.Comeback) // it is there: nobody has removed it yet
		case r.RunnerID == c.Caught && r.Method == "DELETE" && caught.CompareAndSwap(false, true):
			_ = sim.Connect(acme, c.Caught)
			_ = sim.Assign(acme, c.Caught)
		}
	})
}
