package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/remove"
)

func (a *app) removeCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "remove TARGET RUNNER --reason R",
		Short: "Delete one runner by hand, through the same guards and records",
		Long: `Delete one runner by hand. It takes a complete inventory of the last ten minutes
and a last look that shows the runner offline and not busy; at most ten a minute,
and none while much of the target has just gone dark. A refusal exits 3.

` + runnerHelp,
		Args: targetAndRunner,
	}
	var which runnerFlags
	which.idFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		why, err := reasonFor("remove", reason)
		if err != nil {
			return err
		}
		runner, err := which.inTarget(args)
		if err != nil {
			return err
		}
		return a.remove(cmd.Context(), runner, why)
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func (a *app) remove(ctx context.Context, runner runnerArg, reason string) error {
	target := runner.target
	c, err := a.loadFor(target)
	if err != nil {
		return err
	}
	if _, known := c.target(target); !known {
		return usage("remove: %s", c.unknownTarget(target))
	}
	store, err := openDB(ctx, c)
	if err != nil {
		return err
	}
	defer store.Close()
	pauses := &github.Pauses{Record: db.Pauses{DB: store}}
	if err := pauses.Refresh(ctx); err != nil {
		return err
	}
	w, err := wire(c, nil, hearers{pauses: pauses})
	if err != nil {
		return err
	}
	if err := checkIdentities(ctx, store, c); err != nil {
		return err
	}
	found, err := findRunner(ctx, store, "remove", runner)
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
func (a *app) removed(r db.Namesake, res remove.Result, err error) error {
	act := res.Action
	switch {
	case act.ID == "" && err != nil:
		return err
	case act.ID == "":
		return exit(exitRefused, "runner %s/%d (%s) was not deleted: %s", r.Target, r.ID, printable(r.Name), refusal(r.Target, res.Decision))
	case act.State == fleet.ActionDone:
		_, _ = fmt.Fprintf(a.stdout, "runner %s/%d (%s) is deleted\n", r.Target, r.ID, printable(r.Name))
	case act.State == fleet.ActionGone:
		_, _ = fmt.Fprintf(a.stdout, "runner %s/%d (%s) was gone already\n", r.Target, r.ID, printable(r.Name))
	case act.State == fleet.ActionSpared:
		return exit(exitRefused, "runner %s/%d (%s) was not deleted: %s", r.Target, r.ID, printable(r.Name), explain(strings.Split(act.Reason, ", ")))
	case err != nil:
		return err
	default:
		return exit(exitFailed, "runner %s/%d (%s) was not deleted: %s", r.Target, r.ID, printable(r.Name), act.Reason)
	}
	return err
}

// refusal puts into words what keeps an operator's deletion.
func refusal(target string, d fleet.Decision) string {
	if slices.Contains(d.Reasons, policies.ReasonBrake) || slices.Contains(d.Reasons, policies.ReasonHalted) {
		return fmt.Sprintf("deletions by hand are halted: %v; when you have looked: muster policy resume %s --target %s --reason WHY",
			d.Evidence["halt"], policies.OperatorName, target)
	}
	return explain(d.Reasons)
}

// explain puts the reasons that can keep an operator's deletion into words.
func explain(reasons []string) string {
	words := map[string]string{
		policies.ReasonRemoved:             "it is no longer registered",
		policies.ReasonMissing:             "the newest listing lacks it, and whether it is gone is being found out",
		policies.ReasonUnreadable:          "GitHub's newest answer about it could not be read: muster explain says why",
		policies.ReasonOnline:              "it is online",
		policies.ReasonBusy:                "it is busy",
		policies.ReasonSpared:              "the last look spoke against it; wait for the next sync",
		policies.ReasonCredential:          "GitHub refuses the target's credential",
		policies.ReasonInventoryIncomplete: "the newest sync did not see everything",
		policies.ReasonInventoryStale:      "the inventory is older than ten minutes; muster trigger sync first",
		policies.ReasonInventorySuspect:    "the newest listing looks like a fault of GitHub's",
		policies.ReasonOpenJob:             "GitHub's events say that a workflow job runs on it",
		policies.ReasonRefused:             "deliveries of GitHub's webhook were refused, so a workflow job may run on it: see muster doctor",
		policies.ReasonHostBusy:            "its host says that it is at work",
		policies.ReasonHostAlive:           "its host says that its program is running",
		policies.ReasonBooting:             "it was registered a moment ago and may be starting yet",
		policies.ReasonHold:                "an operator wants it kept: api.holds says who and why, muster unhold lifts it",
		policies.ReasonBudget:              "GitHub's limits leave no room for it now; muster doctor says until when",
		policies.ReasonClock:               "Postgres's clock has stepped; muster doctor says when",
		policies.ReasonRate:                "ten in the last minute are enough; wait a little",
		remove.ReasonRenamed:               "GitHub shows another name for its id; wait for the next sync",
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
