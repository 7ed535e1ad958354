package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// newestEvents is how much of the trail is shown where nobody says since when.
const newestEvents = 200

// auditRow is an event in JSON, with the keys of api.audit.
type auditRow struct {
	EventID    string             `json:"event_id"`
	OccurredAt time.Time          `json:"occurred_at"`
	Code       fleet.AuditCode    `json:"code"`
	Action     string             `json:"action"`
	Outcome    fleet.AuditOutcome `json:"outcome"`
	ActorType  fleet.ActorType    `json:"actor_type"`
	Actor      string             `json:"actor"`
	Target     *string            `json:"target"`
	RunnerID   *int64             `json:"runner_id"`
	RunnerName *string            `json:"runner_name"`
	Host       *string            `json:"host"`
	Policy     *string            `json:"policy"`
	TriggerID  *string            `json:"trigger_id"`
	Reason     *string            `json:"reason"`
	Payload    json.RawMessage    `json:"payload"`
}

func (a *app) auditCommand() *cobra.Command {
	var f db.TrailFilter
	var since string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read the audit trail, oldest first",
		Long: fmt.Sprintf(`Read the audit trail, oldest first. Without --since the newest %d events.
The whole trail is there for SQL too, as api.audit.

`, newestEvents) + strings.Replace(runnerHelp, "RUNNER", "--runner", 1),
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&since, "since", "", "not older than so `long`: 90m, 36h, 7d, 2w")
	var runner string
	var which runnerFlags
	which.idFlag(cmd)
	which.removedFlag(cmd)
	cmd.Flags().StringVar(&runner, "runner", "", "of the runner of this `name`, or '#12' for an id")
	cmd.Flags().StringVar(&f.Target, "target", "", "of this `target`")
	cmd.Flags().StringVar(&f.Host, "host", "", "of this `host`")
	cmd.Flags().StringVar(&f.Code, "code", "", "with this `code`, such as "+string(fleet.AuditDeleteDone))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, known := fleet.AuditCode(f.Code).Kind(); f.Code != "" && !known {
			return usage("--code %q is no code of an audit event, such as %s", f.Code, fleet.AuditDeleteDone)
		}
		var back time.Duration
		if since != "" {
			var err error
			if back, err = fleet.ParseDuration(since); err != nil {
				return usage("--since: %w", err)
			}
		}
		if runner == "" && which.id == "" {
			return a.audit(cmd.Context(), f, runnerArg{}, since != "", back, *output)
		}
		about, err := which.read(f.Target, runner)
		if err != nil {
			return err
		}
		return a.audit(cmd.Context(), f, about, since != "", back, *output)
	}
	return cmd
}

func (a *app) audit(ctx context.Context, f db.TrailFilter, runner runnerArg, limited bool, back time.Duration, output format) error {
	return a.withRecord(ctx, func(c *config, store *db.DB) error {
		if err := knownTarget(ctx, c, store, "--target", f.Target); err != nil {
			return err
		}
		if runner != (runnerArg{}) {
			found, err := findRunner(ctx, store, "audit", runner)
			if err != nil {
				return err
			}
			f.Target, f.RunnerID = found.Target, found.ID
		}
		if limited {
			now, err := store.Now(ctx)
			if err != nil {
				return err
			}
			f.Since = now.Add(-back)
		} else {
			f.Limit = newestEvents
		}
		head := []string{"TIME", "CODE", "ACTION", "OUTCOME", "ACTOR", "TARGET", "ABOUT", "REASON"}
		shown, err := stream(a, output, convert(store.EachEvent(ctx, f), auditRowOf), "no audit events", head, func(r auditRow) []string {
			return []string{
				moment(r.OccurredAt), string(r.Code), r.Action, string(r.Outcome), string(r.ActorType) + ":" + r.Actor,
				deref(r.Target), about(r), deref(r.Reason),
			}
		})
		if err == nil && !limited && shown == newestEvents {
			a.say("the newest %d events; --since shows more", newestEvents)
		}
		return err
	})
}

func auditRowOf(e db.TrailEvent) auditRow {
	return auditRow{
		EventID: e.ID, OccurredAt: e.At, Code: e.Code, Action: e.Action, Outcome: e.Outcome,
		ActorType: e.Actor.Type, Actor: e.Actor.Name, Target: orNull(e.Target),
		RunnerID: orNull(e.RunnerID), RunnerName: orNull(e.RunnerName), Host: orNull(e.Host),
		Policy: orNull(e.Policy), TriggerID: orNull(e.TriggerID), Reason: orNull(e.Reason), Payload: e.Payload,
	}
}

// about is what an event tells of, besides its target.
func about(r auditRow) string {
	switch {
	case r.RunnerID != nil:
		return fmt.Sprintf("%s (%d)", deref(r.RunnerName), *r.RunnerID)
	case r.Host != nil:
		return *r.Host
	}
	return deref(r.Policy)
}
