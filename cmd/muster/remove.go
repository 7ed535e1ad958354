package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

func (a *app) removeCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "remove TARGET RUNNER",
		Short: "Delete one runner by hand, through the same guards and records",
		Long: `Delete one runner by hand. RUNNER is its id, or the exact name of a registered
one. It takes a complete inventory of the last ten minutes and a last look that
shows the runner offline and not busy; at most ten a minute. A refusal exits 3.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			why, err := reasonFor("remove", reason)
			if err != nil {
				return err
			}
			return a.remove(cmd.Context(), args[0], args[1], why)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit `trail` (required)")
	return cmd
}

func (a *app) remove(ctx context.Context, target, runner, reason string) error {
	c, err := a.loadAll()
	if err != nil {
		return err
	}
	if _, known := c.target(target); !known {
		return usage("%s", c.unknownTarget(target))
	}
	w, err := wire(c, nil)
	if err != nil {
		return err
	}
	store, err := openDB(ctx, c)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := checkIdentities(ctx, store, c); err != nil {
		return err
	}
	found, err := remove.Find(ctx, store, target, runner)
	if errors.Is(err, fleet.ErrNotFound) {
		return exit(exitFailed, "remove runner %s/%s: muster knows no such runner: see muster runners --target %s", target, runner, target)
	}
	if err != nil {
		return err
	}
	remover := &remove.Remover{
		Log: slog.New(slog.DiscardHandler), DB: store, Now: store.Now,
		Targets: func() map[string]remove.Target { return w.remove },
	}
	res, err := remover.Remove(ctx, remove.Request{
		Policy: policies.Operator(), Target: target, RunnerID: found.ID, TriggerID: uuid.NewString(),
		Actor: operator(), Reason: reason,
	})
	return a.removed(found, res, err)
}

// removed says what became of it.
func (a *app) removed(r fleet.Observed, res remove.Result, err error) error {
	act := res.Action
	switch {
	case act.ID == "" && err != nil:
		return err
	case act.ID == "":
		return exit(exitRefused, "runner %s/%d (%s) was not deleted: %s", r.Target, r.ID, r.Name, explain(res.Decision.Reasons))
	case act.State == fleet.ActionDone:
		_, _ = fmt.Fprintf(a.stdout, "runner %s/%d (%s) is deleted\n", r.Target, r.ID, r.Name)
	case act.State == fleet.ActionGone:
		_, _ = fmt.Fprintf(a.stdout, "runner %s/%d (%s) was gone already\n", r.Target, r.ID, r.Name)
	case act.State == fleet.ActionSpared:
		return exit(exitRefused, "runner %s/%d (%s) was not deleted: GitHub shows it %s", r.Target, r.ID, r.Name, act.Reason)
	case err != nil:
		return err
	default:
		return exit(exitFailed, "runner %s/%d (%s) was not deleted: %s", r.Target, r.ID, r.Name, act.Reason)
	}
	return err
}

// explain puts the reasons that can keep an operator's deletion into words.
func explain(reasons []string) string {
	words := map[string]string{
		policies.ReasonRemoved:             "it is no longer registered",
		policies.ReasonMissing:             "the newest listing lacks it, and whether it is gone is being found out",
		policies.ReasonOnline:              "it is online",
		policies.ReasonBusy:                "it is busy",
		policies.ReasonSpared:              "the last look spoke against it; wait for the next sync",
		policies.ReasonCredential:          "GitHub refuses the target's credential",
		policies.ReasonInventoryIncomplete: "the newest sync did not see everything",
		policies.ReasonInventoryStale:      "the inventory is older than ten minutes; muster trigger sync first",
		policies.ReasonInventorySuspect:    "the newest listing looks like a fault of GitHub's",
		policies.ReasonRate:                "ten in the last minute are enough; wait a little",
		remove.ReasonElsewhere:             "another deletion of it is under way",
	}
	said := make([]string, len(reasons))
	for i, reason := range reasons {
		if said[i] = words[reason]; said[i] == "" {
			said[i] = reason
		}
	}
	return strings.Join(said, "; ")
}
