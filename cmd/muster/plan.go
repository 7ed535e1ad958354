package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	var target, policy string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what enforcement would do now, for every runner in scope",
		Long: `Show what enforcement would do now, for every runner in scope: act or keep, and
why. It is the decision of enforcement itself, on the same facts. Nothing is
done and nothing is written.`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&target, "target", "", "on this `target` only")
	cmd.Flags().StringVar(&policy, "policy", "", "of this `policy` only")
	cmd.Flags().String("pool", "", "") // of pools, which are not there yet
	_ = cmd.Flags().MarkHidden("pool") // it is there: the line above
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("pool") {
			return notYet(cmd, "--pool")
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
	var rows []planRow
	if err := onRecord(ctx, c, func(store *db.DB) error {
		rows, err = a.planAll(ctx, store, c, wanted, target)
		return err
	}); err != nil {
		return err
	}
	head := []string{"POLICY", "TARGET", "ID", "NAME", "VERDICT", "REASONS", "OFFLINE"}
	return show(a, output, rows, "no runners in the scope of any policy", head, func(r planRow) []string {
		offline, _ := r.Evidence["offline_for"].(string)
		return []string{
			r.Policy, r.Target, strconv.FormatInt(r.RunnerID, 10), r.Name, string(r.Verdict),
			strings.Join(r.Reasons, ","), offline,
		}
	})
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
// sums each up on the way.
func (a *app) planAll(ctx context.Context, store *db.DB, c *config, wanted []*policies.Policy, only string) ([]planRow, error) {
	now, err := store.Now(ctx)
	if err != nil {
		return nil, err
	}
	var rows []planRow
	for _, target := range c.targetNames() {
		if only != "" && target != only {
			continue
		}
		for _, p := range enforce.Covering(wanted, target) {
			preview, err := enforce.Plan(ctx, store, p, target, now)
			if errors.Is(err, fleet.ErrNotFound) {
				a.say("%s on %s: never synced, so nothing is known: muster trigger sync %s", p.Name, target, target)
				continue
			}
			if err != nil {
				return nil, err
			}
			a.say("%s", summarise(preview))
			for _, d := range preview.Decisions {
				rows = append(rows, planRow{d.Policy, d.Enforcement, d.Target, d.RunnerID, d.Name, d.Verdict, d.Reasons, d.Evidence})
			}
		}
	}
	return rows, nil
}

// summarise is the line above the table.
func summarise(p enforce.Preview) string {
	n := p.Plan.Counts
	line := fmt.Sprintf("%s on %s (%s): act on %d, keep %d, halt at %d, %d not matched",
		p.Policy.Name, p.Target, p.Policy.Enforcement, n[string(fleet.VerdictAct)], n[string(fleet.VerdictKeep)],
		n[string(fleet.VerdictHalt)], p.NotMatched)
	switch {
	case p.Plan.Halt != "":
		line += "; it would halt: " + p.Plan.Halt
	case p.State.Halted:
		line += "; it is halted: " + p.State.Reason
	}
	return line
}
