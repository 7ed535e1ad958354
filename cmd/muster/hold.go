package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

func (a *app) holdCommand() *cobra.Command {
	var reason, until string
	cmd := &cobra.Command{
		Use:   "hold TARGET RUNNER --reason R",
		Short: "Keep everybody from acting on a runner",
		Long: `Keep everybody from acting on a runner: policies, and muster remove. The hold
stands until --until, or until muster unhold; a second one takes the place of the
first. api.holds shows them.

` + runnerHelp,
		Args: targetAndRunner,
	}
	var which runnerFlags
	which.idFlag(cmd)
	reasonFlag(cmd, &reason)
	cmd.Flags().StringVar(&until, "until", "", "`when` it ends: RFC 3339, or a time from now such as 8h or 3d")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		why, err := reasonFor("hold", reason)
		if err != nil {
			return err
		}
		if _, err := endOf(until, time.Time{}); err != nil {
			return err
		}
		runner, err := which.inTarget(args)
		if err != nil {
			return err
		}
		return a.hold(cmd.Context(), runner, why, until)
	}
	return cmd
}

func (a *app) unholdCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "unhold TARGET RUNNER --reason R",
		Short: "Lift the hold on a runner",
		Long:  "Lift the hold on a runner.\n\n" + runnerHelp,
		Args:  targetAndRunner,
	}
	var which runnerFlags
	which.idFlag(cmd)
	which.removedFlag(cmd)
	reasonFlag(cmd, &reason)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		why, err := reasonFor("unhold", reason)
		if err != nil {
			return err
		}
		runner, err := which.inTarget(args)
		if err != nil {
			return err
		}
		return a.unhold(cmd.Context(), runner, why)
	}
	return cmd
}

// endOf reads --until: a moment, or a time from now; zero where nothing is said.
func endOf(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC(), nil
	}
	d, err := fleet.ParseDuration(text)
	if err != nil || d <= 0 {
		return time.Time{}, usage("--until %q is no moment, want one in RFC 3339 such as 2026-03-02T08:00:00Z, or a time from now such as 8h or 3d", text)
	}
	return now.Add(d), nil
}

// onRunner finds a runner in the record for a command that is about it.
func (a *app) onRunner(ctx context.Context, verb string, runner runnerArg, do func(store *db.DB, r db.Namesake, now time.Time) error) error {
	return a.withRecord(ctx, func(c *config, store *db.DB) error {
		if _, known := c.target(runner.target); !known {
			return usage("%s: %s", verb, c.unknownTarget(runner.target))
		}
		found, err := findRunner(ctx, store, verb, runner)
		if err != nil {
			return err
		}
		now, err := store.Now(ctx)
		if err != nil {
			return err
		}
		return do(store, found, now)
	})
}

func (a *app) hold(ctx context.Context, runner runnerArg, reason, until string) error {
	target := runner.target
	return a.onRunner(ctx, "hold", runner, func(store *db.DB, r db.Namesake, now time.Time) error {
		end, err := endOf(until, now)
		if err != nil {
			return err
		}
		if !end.IsZero() && !end.After(now) {
			return usage("--until %s is over: it is %s", moment(end), moment(now))
		}
		actor := operator()
		details := map[string]any{}
		if !end.IsZero() {
			details["until"] = moment(end)
		}
		var late bool
		err = store.InTx(ctx, func(tx *db.Tx) error {
			// An intent that is open now was decided on before.
			if err := tx.LockRunner(ctx, target, r.ID); err != nil {
				return err
			}
			open := tx.NoIntent(ctx, target, r.ID)
			if late = errors.Is(open, fleet.ErrConflict); open != nil && !late {
				return open
			}
			if err := tx.Hold(ctx, target, r.ID, fleet.Hold{Reason: reason, By: actor.Name, At: now, Until: end}); err != nil {
				return err
			}
			return tx.Audit(ctx, fleet.AuditEvent{
				At: now, Code: fleet.AuditRunnerHeld, Actor: actor, Target: target, RunnerID: r.ID, RunnerName: r.Name,
				Reason: reason, Details: details,
			})
		})
		if err != nil {
			return err
		}
		if late {
			a.say("a deletion of runner %s/%d (%s) is under way: the hold may be too late, muster audit --id %d says what became of it", target, r.ID, printable(r.Name), r.ID)
		}
		howLong := "until muster unhold"
		if !end.IsZero() {
			howLong = "until " + moment(end)
		}
		_, err = fmt.Fprintf(a.stdout, "runner %s/%d (%s) is held %s\n", target, r.ID, printable(r.Name), howLong)
		return err
	})
}

func (a *app) unhold(ctx context.Context, runner runnerArg, reason string) error {
	target := runner.target
	return a.onRunner(ctx, "unhold", runner, func(store *db.DB, r db.Namesake, now time.Time) error {
		err := store.InTx(ctx, func(tx *db.Tx) error {
			lifted, err := tx.Unhold(ctx, target, r.ID, now)
			if err != nil {
				return err
			}
			return tx.Audit(ctx, fleet.AuditEvent{
				At: now, Code: fleet.AuditRunnerUnheld, Actor: operator(), Target: target, RunnerID: r.ID, RunnerName: r.Name,
				Reason: reason, Details: map[string]any{"held_by": lifted.By, "held_at": moment(lifted.At), "held_reason": lifted.Reason},
			})
		})
		if errors.Is(err, fleet.ErrNotFound) {
			return exit(exitFailed, "unhold runner %s/%d (%s): there is no hold on it", target, r.ID, printable(r.Name))
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "the hold on runner %s/%d (%s) is lifted\n", target, r.ID, printable(r.Name))
		return err
	})
}
