package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/github"
)

const (
	// namePatience is how long a change of a target's name waits for the work
	// that is under way: a little longer than the lease of a deletion.
	namePatience = 40 * time.Second
	// namePause is how often it looks.
	namePause = 500 * time.Millisecond
)

func (a *app) targetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "target",
		Short: "Rename targets, and forget those that are not needed any more",
	}
	cmd.AddCommand(a.targetRenameCommand(), a.targetForgetCommand())
	return cmd
}

func (a *app) targetRenameCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Carry what is known of a target over to another name or address",
		Long: `Record a target under another name: its runners with their holds and offline
clocks, workflow jobs, history, decisions, tokens and pools, in one transaction.
Rename it in muster.yaml too (targets, schedules, policies, pools, grants), then
reload muster serve. What hosts and webhook receivers tell under the old name
counts for the new one from then on.

Where muster.yaml gives the target NEW another scope or api_url than recorded, as
after an organisation was renamed or the server got another host name, GitHub is
asked first whether it lists the same runners there. muster target rename NAME
NAME takes over such a change under the same name.

While a deletion, a sync or an enforce of the target is under way, the command
waits up to 40 seconds, then exits 3.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(reason) > mostReason {
				return usage("target rename: --reason has %d bytes, want at most %d", len(reason), mostReason)
			}
			return a.targetRename(cmd.Context(), args[0], args[1], strings.TrimSpace(reason))
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`why`, for the audit trail")
	return cmd
}

func (a *app) targetForgetCommand() *cobra.Command {
	var f db.Forget
	cmd := &cobra.Command{
		Use:   "forget NAME",
		Short: "Delete what is recorded of a target, so that its name is free",
		Long: `Delete what is recorded of a target: runners, holds, workflow jobs, history,
decisions, syncs. The audit trail and tokens stay. The name may then stand for
another scope.

It is refused, with exit 3, while muster.yaml or a running muster serve uses the
target, while work on it is under way, and where holds or workflow jobs in
progress protect its runners, unless --drop-protection is given. Take the target
out of muster.yaml and reload first; an entry that gives the name another scope
or api_url than recorded may stay.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(f.Reason) > mostReason {
				return usage("target forget: --reason has %d bytes, want at most %d", len(f.Reason), mostReason)
			}
			f.Target, f.Actor, f.Reason = args[0], operator(), strings.TrimSpace(f.Reason)
			return a.targetForget(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.Reason, "reason", "", "`why`, for the audit trail")
	cmd.Flags().BoolVar(&f.Protection, "drop-protection", false, "also where holds or workflow jobs protect its runners")
	return cmd
}

func (a *app) targetRename(ctx context.Context, from, to string, reason string) error {
	if !fleet.ValidName(to) || to == fleet.All {
		return usage("target rename: %q cannot be a name: %s", to, nameRule)
	}
	c, err := a.loadFor(to)
	if err != nil {
		return err
	}
	return onRecord(ctx, c, func(store *db.DB) error {
		known, err := recordedUse(ctx, store, "rename", from)
		if err != nil {
			return err
		}
		wish := db.Rename{From: from, To: known.Target, Actor: operator(), Reason: reason}
		wish.To.Name = to
		configured, is := c.target(to)
		switch {
		case is && !configured.Same(known.Target):
			if err := a.sameRunners(ctx, store, configured, from); err != nil {
				return err
			}
			wish.To = configured.Target
		case from == to:
			return usage("rename target %s: %s is %s of %s already", from, to, known.Scope, known.APIURL)
		}

		carried, err := onceIdle(ctx, a, from, func() (db.TargetUse, error) { return store.RenameTarget(ctx, wish) })
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "target %s is %s, %s of %s: carried over %s, %s and %s\n", from, to, wish.To.Scope, wish.To.APIURL,
			counted(carried.Runners, "runner", "runners"), counted(carried.Holds, "hold", "holds"),
			counted(carried.Jobs, "workflow job in progress", "workflow jobs in progress"))
		a.sayWhatIsLeft(c, from, to, carried.Replicas)
		return err
	})
}

// sayWhatIsLeft says what an operator still has to do after a renaming.
func (a *app) sayWhatIsLeft(c *config, from, to string, replicas int) {
	_, old := c.target(from)
	_, renamed := c.target(to)
	if from != to && (old || !renamed) {
		a.say("muster.yaml does not name it %s yet: rename it under targets, schedules, policies, pools and grants", to)
	}
	if replicas > 0 {
		a.say("%s %s yet: reload with SIGHUP once muster.yaml is changed; until then nothing is done for the target",
			counted(replicas, "muster serve works", "muster serve work"), "with "+from)
	}
}

// sameRunners asks GitHub whether the target lists the runners that are recorded
// under a name. What the server says of itself counts, and not its address.
func (a *app) sameRunners(ctx context.Context, store *db.DB, t targetConfig, from string) error {
	recorded, err := store.LiveRunners(ctx, from)
	if err != nil {
		return err
	}
	client, err := newClient(t, hearers{})
	if err != nil {
		return usage("target %s: %w", t.Name, err)
	}
	listing, err := client.Runners(ctx, t.Scope, fleet.KeptListing{})
	if err != nil {
		return fmt.Errorf("list the runners of target %s, to see whether they are those of %s: %w", t.Name, from, err)
	}
	if alike := alikeIn(listing, recorded); 2*alike < min(listing.Count, len(recorded)) || alike == 0 {
		return exit(exitRefused, "rename target %s: nothing shows that %s of %s is the same: of %d runners that it lists, %d have the id and name of one of the %d recorded. "+
			"If it is another fleet: give it a name of its own, or muster target forget %s", from, t.Scope, t.APIURL, listing.Count, alike, len(recorded), from)
	}
	return nil
}

// alikeIn counts the runners of a listing that have the id and the name of a
// recorded one. It is pure.
func alikeIn(listing github.Listing, recorded []fleet.Observed) int {
	names := make(map[int64]string, len(recorded))
	for _, r := range recorded {
		names[r.ID] = r.Name
	}
	alike := 0
	for _, r := range listing.Runners {
		if name, known := names[r.ID]; known && strings.EqualFold(name, r.Name) {
			alike++
		}
	}
	return alike
}

func (a *app) targetForget(ctx context.Context, f db.Forget) error {
	return a.withRecord(ctx, func(c *config, store *db.DB) error {
		known, err := recordedUse(ctx, store, "forget", f.Target)
		if err != nil {
			return err
		}
		if t, configured := c.target(f.Target); configured && t.Same(known.Target) {
			return exit(exitRefused, "forget target %s: muster.yaml has it: take it out first, and reload muster serve", f.Target)
		}
		dropped, err := onceIdle(ctx, a, f.Target, func() (db.TargetUse, error) { return store.ForgetTarget(ctx, f) })
		var guard *db.GuardError
		if errors.As(err, &guard) {
			return exit(exitRefused, "%w", err)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "target %s, %s of %s, is forgotten, with %s, %s and %s\n", f.Target, dropped.Scope, dropped.APIURL,
			counted(dropped.Runners, "runner", "runners"), counted(dropped.Holds, "hold", "holds"),
			counted(dropped.Jobs, "workflow job in progress", "workflow jobs in progress"))
		return err
	})
}

// recordedUse reads a target of the record, and names those there are where
// there is none of that name.
func recordedUse(ctx context.Context, store *db.DB, verb, name string) (db.TargetUse, error) {
	use, err := store.TargetUse(ctx, name)
	if !errors.Is(err, fleet.ErrNotFound) {
		return use, err
	}
	states, err := store.TargetStates(ctx)
	if err != nil {
		return use, err
	}
	var names []string
	for _, s := range states {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	there := "there is none"
	if len(names) > 0 {
		there = "there is " + strings.Join(names, ", ")
	}
	return use, exit(exitFailed, "%s target %s: none of that name is recorded; %s", verb, fleet.CleanText(name, maxShownName), there)
}

// maxShownName is how much of a name that is none is shown, in bytes.
const maxShownName = 64

// onceIdle changes a target's name once no work on it is under way. It waits for
// a while, and says so once.
func onceIdle(ctx context.Context, a *app, target string, change func() (db.TargetUse, error)) (db.TargetUse, error) {
	until := time.Now().Add(namePatience)
	for said := false; ; said = true {
		use, err := change()
		var busy *db.BusyError
		switch {
		case !errors.As(err, &busy):
			return use, refusedIdentity(err)
		case time.Now().After(until):
			return use, exit(exitRefused, "%w", err)
		case !said:
			a.say("waiting for target %s: %s", target, busy.Why)
		}
		pause := time.NewTimer(namePause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return use, exit(exitFailed, "%w", ctx.Err())
		case <-pause.C:
		}
	}
}

// refusedIdentity makes the refusal of a name exit 3: the command is right, and
// the record speaks against it.
func refusedIdentity(err error) error {
	var identity *db.IdentityError
	if errors.As(err, &identity) {
		return exit(exitRefused, "%w", err)
	}
	return err
}
