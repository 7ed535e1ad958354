package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/enforce"
)

// planRow is what a policy would make of one runner now, with the keys of
// api.decisions.
type planRow struct {
	Policy      string            `json:"policy"`
	Enforcement fleet.Enforcement `json:"enforcement"`
	Target      string            `json:"target"`
	RunnerID    int64             `json:"runner_id"`
	Name        string            `json:"name"`
	Verdict     fleet.Verdict     `json:"verdict"`
	Reasons     []string          `json:"reasons"`
	Evidence    fleet.Evidence    `json:"evidence"`
}

func (a *app) planCommand() *cobra.Command {
	var target, policy, pool string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what enforcement would do now, for every runner in scope",
		Long: `Show what enforcement would do now with every runner in scope: act or keep, and
why. Each policy is shown once it is decided, by groups of runners with the same
reasons, larger ones first, and with how far it is from its limits. With -o json
there is one object for every runner. It is the decision of enforcement itself,
on the same facts. Nothing is done and nothing is written.`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&target, "target", "", "on this `target` only")
	cmd.Flags().StringVar(&policy, "policy", "", "of this `policy` only")
	cmd.Flags().StringVar(&pool, "pool", "", "how this `pool` would be sized, instead")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("pool") {
			if target != "" || policy != "" {
				return usage("--pool is of scaling, --policy and --target of enforcement: ask for one of them")
			}
			return a.planPool(cmd.Context(), pool, *output)
		}
		return a.plan(cmd.Context(), target, policy, *output)
	}
	return cmd
}

func (a *app) plan(ctx context.Context, target, policy string, output format) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	wanted, err := choose(c, policy)
	if err != nil {
		return err
	}
	if _, known := c.target(target); target != "" && !known {
		return usage("--target: %s", c.unknownTarget(target))
	}
	return onRecord(ctx, c, func(store *db.DB) error {
		if output == formatJSON {
			list := newJSONList(a.stdout)
			if err := a.planAll(ctx, store, c, wanted, target, func(p enforce.Preview) error {
				a.say("%s", summarise(p))
				for d := range p.Decisions() {
					if err := list.add(planRow{d.Policy, d.Enforcement, d.Target, d.RunnerID, d.Name, d.Verdict, d.Reasons, d.Evidence}); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
			return list.end()
		}
		return a.planAll(ctx, store, c, wanted, target, func(p enforce.Preview) error { return writePlan(a.stdout, p) })
	})
}

// writePlan shows what a policy would make of a target: the sum, its limits
// with ! at those that are near, and its groups.
func writePlan(w io.Writer, v enforce.Preview) error {
	var p page
	p.line(0, "%s", summarise(v))
	var limits [][]string
	for _, l := range v.Limits() {
		limits = append(limits, []string{l.Name, map[bool]string{true: "!"}[l.Near], l.Says})
	}
	p.columns(2, limits)
	rows := [][]string{{"VERDICT", "REASONS", "RUNNERS", "SUCH AS"}}
	for _, g := range v.Groups() {
		examples := make([]string, len(g.Examples))
		for i, name := range g.Examples {
			examples[i] = printable(name)
		}
		if g.Count > len(examples) {
			examples = append(examples, "…")
		}
		rows = append(rows, []string{string(g.Verdict), strings.Join(g.Reasons, ","), strconv.Itoa(g.Count), strings.Join(examples, ", ")})
	}
	if len(rows) > 1 {
		p.columns(2, rows)
	}
	p.text.WriteString("\n")
	_, err := io.WriteString(w, p.text.String())
	return err
}

// choose is the policies to plan: all, or the one that was named.
func choose(c *config, name string) ([]*policies.Policy, error) {
	if name == "" {
		if len(c.policies) == 0 {
			return nil, usage("there is nothing to plan: name policy files under policies: in muster.yaml")
		}
		return c.policies, nil
	}
	var names []string
	for _, p := range c.policies {
		if p.Name == name {
			return []*policies.Policy{p}, nil
		}
		names = append(names, p.Name)
	}
	return nil, usage("--policy %q is unknown, there is %s", name, cmp.Or(strings.Join(names, ", "), "none"))
}

// planAll previews policies on all targets, or on the one that was named, and
// shows each before the next, of which there may be many on a large fleet.
func (a *app) planAll(ctx context.Context, store *db.DB, c *config, wanted []*policies.Policy, only string, show func(enforce.Preview) error) error {
	now, err := store.Now(ctx)
	if err != nil {
		return err
	}
	reader := enforce.NewReader(store)
	none := true
	for _, t := range c.targets {
		target := t.Name
		if only != "" && target != only {
			continue
		}
		for _, p := range enforce.Covering(wanted, target) {
			none = false
			preview, err := enforce.Plan(ctx, reader, p, t.Target, now)
			if errors.Is(err, fleet.ErrNotFound) {
				a.say("%s on %s: never synced, so nothing is known: muster trigger sync %s", p.Name, target, target)
				continue
			}
			if err != nil {
				return err
			}
			if err := show(preview); err != nil {
				return err
			}
		}
	}
	if none {
		a.say("no policy covers a target in question")
	}
	return nil
}

// summarise is the line that a preview begins with.
func summarise(p enforce.Preview) string {
	n := p.Plan.Counts
	kept := n[string(fleet.VerdictKeep)] + int64(p.NotMatched)
	line := fmt.Sprintf("%s on %s (%s): act on %d, keep %d, %d of them not matched, halt at %d",
		p.Policy.Name, p.Target, p.Policy.Enforcement, n[string(fleet.VerdictAct)], kept, p.NotMatched, n[string(fleet.VerdictHalt)])
	switch {
	case p.Plan.Halt != "":
		line += "; it would halt: " + p.Plan.Halt
	case p.State.Halted:
		line += "; it is halted: " + p.State.Reason
	}
	return line
}
