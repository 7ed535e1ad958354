package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

// runnerRow is a runner in JSON, with the keys of api.runners.
type runnerRow struct {
	Target       string        `json:"target"`
	RunnerID     int64         `json:"runner_id"`
	Name         string        `json:"name"`
	OS           *string       `json:"os"`
	Status       *fleet.Status `json:"status"`
	Busy         bool          `json:"busy"`
	Labels       []string      `json:"labels"`
	RunnerGroup  *string       `json:"runner_group"`
	Ephemeral    *bool         `json:"ephemeral"`
	Version      *string       `json:"version"`
	FirstSeenAt  *time.Time    `json:"first_seen_at"`
	LastSeenAt   *time.Time    `json:"last_seen_at"`
	StatusSince  *time.Time    `json:"status_since"`
	OfflineSince *time.Time    `json:"offline_since"`
	// OfflineFor is in seconds.
	OfflineFor   *float64            `json:"offline_for"`
	LastBusyAt   *time.Time          `json:"last_busy_at"`
	RemovedAt    *time.Time          `json:"removed_at"`
	RemovalCause *fleet.RemovalCause `json:"removal_cause"`
	Host         *string             `json:"host"`
}

func runnerRowOf(o fleet.Observed) runnerRow {
	row := runnerRow{
		Target: o.Target, RunnerID: o.ID, Name: o.Name, OS: orNull(o.OS), Status: orNull(o.Status), Busy: o.Busy, Labels: o.Labels,
		RunnerGroup: orNull(o.Group), Ephemeral: o.Ephemeral.Answer(), Version: orNull(o.Version),
		FirstSeenAt: orNull(o.FirstSeenAt), LastSeenAt: orNull(o.LastSeenAt), StatusSince: orNull(o.StatusSince),
		OfflineSince: orNull(o.OfflineSince), LastBusyAt: orNull(o.LastBusyAt),
		RemovedAt: orNull(o.RemovedAt), RemovalCause: orNull(o.RemovalCause), Host: orNull(o.Host),
	}
	if row.Labels == nil {
		row.Labels = []string{}
	}
	if !o.OfflineSince.IsZero() && o.RemovedAt.IsZero() {
		seconds := o.OfflineFor.Seconds()
		row.OfflineFor = &seconds
	}
	return row
}

func (a *app) runnersCommand() *cobra.Command {
	var f db.RunnerFilter
	var status, offlineFor string
	cmd := &cobra.Command{
		Use:   "runners",
		Short: "List the runners that muster knows",
		Args:  cobra.NoArgs,
	}
	output := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.Target, "target", "", "of this `target`")
	flags.StringVar(&status, "status", "", "online or offline")
	flags.StringVar(&offlineFor, "offline-for", "", "offline for at least so `long`, as observed: 36h, 7d, 2w")
	flags.StringArrayVar(&f.Labels, "label", nil, "with this `label`; repeat it for several, which all have to be there")
	flags.BoolVar(&f.Removed, "removed", false, "those that are no longer registered, instead")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.Status = fleet.Status(status)
		if status != "" && f.Status != fleet.StatusOnline && f.Status != fleet.StatusOffline {
			return usage("--status %q is unknown, want online or offline", status)
		}
		if offlineFor != "" {
			var err error
			if f.OfflineFor, err = fleet.ParseDuration(offlineFor); err != nil {
				return usage("--offline-for: %w", err)
			}
		}
		for i, label := range f.Labels {
			f.Labels[i] = strings.ToLower(label)
		}
		return a.runners(cmd.Context(), f, *output)
	}
	return cmd
}

func (a *app) runners(ctx context.Context, f db.RunnerFilter, output format) error {
	return a.withRecord(ctx, func(c *config, store *db.DB) error {
		if err := knownTarget(ctx, c, store, "--target", f.Target); err != nil {
			return err
		}
		rows := convert(store.EachRunner(ctx, f), runnerRowOf)
		if f.Removed {
			_, err := stream(a, output, rows, "no runners", []string{"TARGET", "ID", "NAME", "REMOVED", "CAUSE", "LABELS"}, func(r runnerRow) []string {
				return []string{r.Target, strconv.FormatInt(r.RunnerID, 10), r.Name, momentOf(r.RemovedAt), string(deref(r.RemovalCause)), strings.Join(r.Labels, ",")}
			})
			return err
		}
		head := []string{"TARGET", "ID", "NAME", "STATUS", "BUSY", "OFFLINE", "SEEN", "LABELS"}
		_, err := stream(a, output, rows, "no runners", head, func(r runnerRow) []string {
			offline := span(time.Duration(deref(r.OfflineFor) * float64(time.Second)))
			return []string{r.Target, strconv.FormatInt(r.RunnerID, 10), r.Name, orElse(string(deref(r.Status)), "-"), yesNo(r.Busy), offline, momentOf(r.LastSeenAt), strings.Join(r.Labels, ",")}
		})
		return err
	})
}

// knownTarget refuses the name of a target that is neither configured nor was
// ever used: a slip of the pen would look like an empty fleet.
// where is what the user has named it with.
func knownTarget(ctx context.Context, c *config, store *db.DB, where, name string) error {
	if name == "" {
		return nil
	}
	if _, ok := c.target(name); ok {
		return nil
	}
	_, err := store.TargetState(ctx, name)
	if errors.Is(err, fleet.ErrNotFound) {
		return usage("%s: %s", where, c.unknownTarget(name))
	}
	return err
}

func momentOf(t *time.Time) string { return moment(deref(t)) }

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
