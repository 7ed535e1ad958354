package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// deadLetterRow is a dead letter in JSON, with the keys of api.dead_letters.
type deadLetterRow struct {
	ID        string    `json:"id"`
	Subject   string    `json:"subject"`
	TriggerID *string   `json:"trigger_id"`
	Body      string    `json:"body"`
	Error     string    `json:"error"`
	Attempts  int       `json:"attempts"`
	DiedAt    time.Time `json:"died_at"`
}

func (a *app) deadLettersCommand() *cobra.Command {
	list := func(use, short string) *cobra.Command {
		cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
		output := outputFlag(cmd)
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.deadLetters(cmd.Context(), *output) }
		return cmd
	}
	cmd := list("dead-letters", "List triggers that failed for good; send them again or give them up")
	cmd.AddCommand(list("list", "List them, newest first"), &cobra.Command{
		Use:   "retry ID",
		Short: "Send a dead trigger again, as a new one",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.deadLetterRetry(cmd.Context(), args[0])
		},
	}, a.deadLetterDropCommand())
	return cmd
}

func (a *app) deadLetters(ctx context.Context, output format) error {
	return a.withRecord(ctx, func(_ *config, store *db.DB) error {
		rows := convert(store.EachDeadLetter(ctx), func(l fleet.DeadLetter) deadLetterRow {
			return deadLetterRow{l.ID, l.Subject, orNull(l.TriggerID), l.Body, l.Error, l.Attempts, l.DiedAt}
		})
		_, err := stream(a, output, rows, "no dead letters", []string{"ID", "DIED", "ATTEMPTS", "SUBJECT", "ERROR"}, func(r deadLetterRow) []string {
			return []string{r.ID, moment(r.DiedAt), strconv.Itoa(r.Attempts), r.Subject, r.Error}
		})
		return err
	})
}

// take removes a dead letter in one transaction with what becomes of it.
func (a *app) takeDeadLetter(ctx context.Context, id string, then func(*db.Tx, fleet.DeadLetter) error) error {
	return a.withRecord(ctx, func(_ *config, store *db.DB) error {
		err := store.InTx(ctx, func(tx *db.Tx) error {
			letter, err := tx.TakeDeadLetter(ctx, id)
			if err != nil {
				return err
			}
			return then(tx, letter)
		})
		if errors.Is(err, fleet.ErrNotFound) {
			return exit(exitFailed, "there is no dead letter %s: muster dead-letters list shows them", id)
		}
		return err
	})
}

func (a *app) deadLetterRetry(ctx context.Context, id string) error {
	actor := operator()
	var sent fleet.Trigger
	err := a.takeDeadLetter(ctx, id, func(tx *db.Tx, letter fleet.DeadLetter) error {
		job, name, ok := triggerOf(letter.Subject)
		if !ok {
			return exit(exitFailed, "retry dead letter %s: %q is no trigger that muster knows, it would fail again: muster dead-letters drop %s --reason R gives it up", id, printable(letter.Subject), id)
		}
		// For triggers of the command line the reason is who sent it.
		sent = fleet.Trigger{ID: uuid.NewString(), Job: job, Name: name, Source: fleet.SourceCLI, Reason: actor.Name}
		if err := tx.Queue(ctx, sent); err != nil {
			return err
		}
		return tx.Audit(ctx, fleet.AuditEvent{
			Code: fleet.AuditTriggerRetried, Actor: actor, TriggerID: sent.ID,
			Details: map[string]any{"dead_letter_id": letter.ID, "subject": letter.Subject},
		})
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, sent.ID)
	return err
}

// triggerOf reads the subject of a trigger; ok is false where it is none that
// could ever run.
func triggerOf(subject string) (job fleet.Job, name string, ok bool) {
	rest, found := strings.CutPrefix(subject, fleet.TriggerPrefix)
	before, after, _ := strings.Cut(rest, ".")
	job, name = fleet.Job(before), after
	return job, name, found && slices.Contains(fleet.Jobs, job) && fleet.ValidName(name) && (job.Named() || name == fleet.All)
}

func (a *app) deadLetterDropCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "drop ID --reason R",
		Short: "Give a dead trigger up",
		Args:  cobra.ExactArgs(1),
	}
	reasonFlag(cmd, &reason)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		why, err := reasonFor("dead-letters drop", reason)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		return a.takeDeadLetter(ctx, args[0], func(tx *db.Tx, letter fleet.DeadLetter) error {
			return tx.Audit(ctx, fleet.AuditEvent{
				Code: fleet.AuditTriggerDropped, Actor: operator(), TriggerID: letter.TriggerID, Reason: why,
				Details: map[string]any{"dead_letter_id": letter.ID, "subject": letter.Subject, "error": letter.Error},
			})
		})
	}
	return cmd
}
