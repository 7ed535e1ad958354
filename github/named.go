package github

import (
	"context"
	"fmt"
	"net/http"

	"github.com/muster-fleet/muster/fleet"
)

// RunnerNamed looks a runner up by its name, which has to be the very same.
// With heeded, which says that the server lists by name, that takes one
// request, and an answer with runners of other names is fleet.ErrMalformed;
// without, a walk over all runners. fleet.ErrNotFound proves nothing: a listing
// may lack a runner that is there.
func (c *Client) RunnerNamed(ctx context.Context, scope fleet.Scope, name string, heeded bool) (fleet.Runner, error) {
	o := operation{op: OpRunnerNamed, scope: scope}
	if name == "" {
		return fleet.Runner{}, o.fail(nil, "a runner without a name cannot be looked up by it", nil)
	}
	var found []fleet.Runner
	var nameless []string
	if heeded {
		p, err := c.page(ctx, ask{op: OpRunnerNamed, scope: scope, number: 1, size: perPage, name: name})
		if err != nil {
			return fleet.Runner{}, err
		}
		found, nameless = p.runners, p.nameless
	} else {
		l, err := c.Runners(ctx, scope, fleet.KeptListing{})
		if err == nil {
			err = l.Incomplete
		}
		if err != nil {
			return fleet.Runner{}, err
		}
		found, nameless = l.Runners, l.Nameless
	}
	var match []fleet.Runner
	for _, r := range found {
		if r.Name == name {
			match = append(match, r)
		}
	}
	switch {
	case len(match) == 1:
		return match[0], nil
	case len(match) > 1:
		return fleet.Runner{}, o.malformed(http.StatusOK, fmt.Sprintf("%d runners have the name", len(match)))
	case heeded && len(found) > 0:
		return fleet.Runner{}, o.malformed(http.StatusOK, "runners of other names are listed: the server does not heed the name")
	}
	if len(nameless) > 0 {
		return fleet.Runner{}, o.malformed(http.StatusOK, nameless[0])
	}
	e := o.fail(fleet.ErrNotFound, "no runner of that name is listed", nil)
	e.Status = http.StatusOK
	return fleet.Runner{}, e
}
