package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
)

const (
	// publishLimit is how long a trigger may take to be published: a stream on a
	// slow disk answers late. That nobody answers at all is said at once.
	publishLimit = 30 * time.Second
	// followEvery is how often --wait looks at the record.
	followEvery = 200 * time.Millisecond
	// silence is how long --wait waits before it wonders aloud whether
	// anybody is there to begin.
	silence = 10 * time.Second
)

func (a *app) triggerCommand() *cobra.Command {
	var wait bool
	var timeout string
	var jobs []string
	for _, job := range fleet.Jobs {
		jobs = append(jobs, string(job))
	}
	cmd := &cobra.Command{
		Use:   "trigger " + strings.Join(jobs, "|") + " [NAME|all]",
		Short: "Make a job run now",
		Long: `Make a job run now: publish its trigger and print the trigger's id. NAME is a
target, of scale a pool; without one, or with all, the job runs for each of
them. With --wait the outcome follows, one line for each run. A trigger that is
done with another one for the same job and name is followed there. The exit
status is 1 where a run failed for good, or for a reason that no repetition
mends, such as a credential that GitHub refuses; 4 where it has not ended within
--timeout. The trigger goes on then.`,
		Args: cobra.RangeArgs(1, 2),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "follow it to its outcome")
	cmd.Flags().StringVar(&timeout, "timeout", "5m", "how long --wait waits")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		job, name := fleet.Job(args[0]), fleet.All
		if len(args) == 2 {
			name = args[1]
		}
		switch {
		case !slices.Contains(fleet.Jobs, job):
			return usage("trigger: job %q is unknown, want %s", job, strings.Join(jobs, ", "))
		case !job.Named() && name != fleet.All:
			return usage("trigger %s is for all of muster and takes no name", job)
		}
		longest, err := fleet.ParseDuration(timeout)
		switch {
		case err != nil:
			return usage("trigger: --timeout: %w", err)
		case longest <= 0:
			return usage("trigger: --timeout %s: want more than 0, such as 5m", timeout)
		case !wait && cmd.Flags().Changed("timeout"):
			return usage("trigger: --timeout says how long --wait waits, which is not given")
		case !wait:
			longest = 0
		}
		return a.trigger(cmd.Context(), job, name, longest)
	}
	return cmd
}

// trigger publishes a trigger, and follows it for as long as wait says; 0: it does
// not.
func (a *app) trigger(ctx context.Context, job fleet.Job, name string, wait time.Duration) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	// Without any of them here the service's configuration is elsewhere, and
	// knows.
	known, unknown := c.targetNames(), c.unknownTarget
	if job == fleet.JobScale {
		known, unknown = c.poolNames(), c.unknownPool
	}
	if !slices.Contains(known, name) && name != fleet.All && (len(known) > 0 || !fleet.ValidName(name)) {
		return usage("trigger %s: %s", job, unknown(name))
	}
	var store *db.DB
	if wait > 0 {
		if store, err = openDB(ctx, c); err != nil {
			return err
		}
		defer store.Close()
	}
	conn, err := connectNATS(ctx, c, "")
	if err != nil {
		return err
	}
	defer conn.Close()
	limited, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	// For triggers of the command line the reason is who sent it.
	id, err := conn.PublishTrigger(limited, job, name, operator().Name)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(a.stdout, id); err != nil || wait == 0 {
		return err
	}
	waiting, stop := context.WithTimeoutCause(ctx, wait, errWaited)
	defer stop()
	return a.follow(waiting, store, id)
}

// follow waits for a run and, where it was split up, for its parts, and prints
// how each came out.
func (a *app) follow(ctx context.Context, store runs, id string) error {
	whole, err := a.await(ctx, store, id)
	if err != nil {
		return err
	}
	ended := []fleet.Run{whole}
	if whole.Trigger.Name == fleet.All && whole.Trigger.Job.Named() && whole.State == fleet.RunDone {
		parts, err := store.Parts(ctx, whole.Trigger.ID)
		if ctx.Err() != nil {
			return gaveUp(ctx, whole.Trigger.ID, whole, nil)
		}
		if err != nil {
			return err
		}
		if len(parts) == 0 {
			a.say("the configuration of muster serve names %s: nothing was to be done", map[bool]string{true: "no pools", false: "no targets"}[whole.Trigger.Job == fleet.JobScale])
		}
		ended = nil
		for _, part := range parts {
			run, err := a.await(ctx, store, part.Trigger.ID)
			if err != nil {
				return err
			}
			ended = append(ended, run)
		}
	}
	dead, lasting := 0, 0
	for _, run := range ended {
		if _, err := fmt.Fprintln(a.stdout, outcome(run)); err != nil {
			return err
		}
		switch run.State {
		case fleet.RunDead:
			dead++
		case fleet.RunFailed:
			lasting++
		}
	}
	if lasting > 0 {
		return exit(exitFailed, "%d of %d failed for a reason that no repetition mends: muster doctor says what does", lasting, len(ended))
	}
	if dead > 0 {
		return exit(exitFailed, "%d of %d failed for good: muster dead-letters list shows why", dead, len(ended))
	}
	return nil
}

// await looks at a run until it has ended, or has failed for a reason that no
// repetition mends. A run that is joined to another one is followed there.
func (a *app) await(ctx context.Context, store runs, id string) (fleet.Run, error) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	wonder := time.NewTimer(silence)
	defer wonder.Stop()
	said := 0        // the attempt whose failure was told
	var away error   // why the record could not be read last
	var at fleet.Run // as last read
	for {
		run, err := store.Run(ctx, id)
		switch {
		case ctx.Err() != nil:
			return at, gaveUp(ctx, id, at, away)
		case errors.Is(err, fleet.ErrNotFound):
			err := rejected(ctx, store, id)
			if err != nil && ctx.Err() != nil {
				return at, gaveUp(ctx, id, at, away)
			}
			if err != nil {
				return run, err
			}
		case errors.Is(err, fleet.ErrUnavailable):
			away = err
		case err != nil:
			return run, err
		case run.State == fleet.RunJoined:
			a.say("%s %s is done with trigger %s, which waits for the same", run.Trigger.Job, run.Trigger.Name, run.JoinedTo)
			id = run.JoinedTo
			continue
		case run.State == fleet.RunDone || run.State == fleet.RunDead || run.State == fleet.RunFailed && run.Lasting:
			return run, nil
		case run.State == fleet.RunFailed && run.Attempt > said:
			said = run.Attempt
			a.say("%s %s: attempt %d failed, trying again: %s", run.Trigger.Job, run.Trigger.Name, run.Attempt, printable(run.Error))
		}
		if err == nil {
			at, away = run, nil
		}
		select {
		case <-ctx.Done(): // said above
		case <-wonder.C:
			if at.StartedAt.IsZero() {
				a.say("nobody has begun trigger %s yet: is muster serve running?", id)
			}
		case <-tick.C:
		}
	}
}

// errWaited is the cause of a context that ended with --timeout.
var errWaited = errors.New("--timeout")

// gaveUp is why nobody waits for a trigger any longer.
func gaveUp(ctx context.Context, id string, at fleet.Run, away error) error {
	if !errors.Is(context.Cause(ctx), errWaited) {
		return fmt.Errorf("stopped waiting for trigger %s, which goes on: %w", id, ctx.Err())
	}
	state := "nobody has begun it: is muster serve running?"
	switch {
	case away != nil:
		state = "the record cannot be read: " + oneLine(away)
	case at.State == fleet.RunFailed:
		state = fmt.Sprintf("attempt %d failed, and it is tried again: %s", at.Attempt, printable(at.Error))
	case !at.StartedAt.IsZero():
		state = fmt.Sprintf("attempt %d is going", at.Attempt)
	}
	return exit(exitUnreachable, "trigger %s has not ended within --timeout: %s", id, state)
}

// runs is where triggers are followed.
type runs interface {
	Run(ctx context.Context, triggerID string) (fleet.Run, error)
	Parts(ctx context.Context, triggerID string) ([]fleet.Run, error)
	EachDeadLetter(ctx context.Context) iter.Seq2[fleet.DeadLetter, error]
}

// rejected is why a message never became a trigger; nil where it was not, or
// not yet.
func rejected(ctx context.Context, store runs, id string) error {
	for l, err := range store.EachDeadLetter(ctx) {
		if errors.Is(err, fleet.ErrUnavailable) {
			return nil // not yet
		}
		if err != nil {
			return err
		}
		if l.ID == id {
			return exit(exitFailed, "muster serve refused the trigger: %s", printable(l.Error))
		}
	}
	return nil
}

// outcome is one line about a run that has ended.
func outcome(run fleet.Run) string {
	line := fmt.Sprintf("%s %s %s in %s", run.Trigger.Job, run.Trigger.Name, run.State, run.FinishedAt.Sub(run.StartedAt).Round(time.Millisecond))
	if run.Attempt > 1 {
		line += fmt.Sprintf(", attempt %d", run.Attempt)
	}
	keys := make([]string, 0, len(run.Counts))
	for key := range run.Counts {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		line += fmt.Sprintf(" %s=%d", key, run.Counts[key])
	}
	if run.Counts[fleet.CountNoInventory] > 0 {
		line += ": nothing was decided, since there is no inventory yet: muster trigger sync brings one"
	}
	if run.Error != "" {
		line += ": " + printable(run.Error)
	}
	return line
}
