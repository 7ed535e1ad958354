package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/queue"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check policies, and reopen those that were halted",
	}
	cmd.AddCommand(a.policyCheckCommand(), a.policyResumeCommand())
	return cmd
}

type policyRow struct {
	File        string            `json:"file"`
	Policy      string            `json:"policy"`
	Enforcement fleet.Enforcement `json:"enforcement"`
	Action      string            `json:"action"` // several with commas between
	Targets     []string          `json:"targets"`
	SHA256      string            `json:"sha256"`
}

func (a *app) policyCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check FILE…",
		Short: "Load policies, compile their expressions and run their tests",
		Long: `Load policies, compile their expressions and run their tests. Nothing is
contacted, and no configuration is needed. Faults go to stderr, one line each
with file, line and column; then the exit status is 2. A policy that may delete
a runner within three syncs after it went offline has a warning on stderr: the
configuration says how far syncs are apart, else one a minute is assumed.`,
		Args: cobra.MinimumNArgs(1),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, files []string) error {
		rows, loaded, err := checkPolicies(files)
		if err != nil {
			return configError{err}
		}
		for _, b := range shortBounds(loaded, a.checkedInterval()) {
			a.say("warning: %s: %s", b.found(), b.mend())
		}
		head := []string{"FILE", "POLICY", "ENFORCEMENT", "ACTION", "TARGETS"}
		return show(a, *output, rows, "no policies", head, func(r policyRow) []string {
			return []string{r.File, r.Policy, string(r.Enforcement), r.Action, strings.Join(r.Targets, ",")}
		})
	}
	return cmd
}

func checkPolicies(files []string) ([]policyRow, []*policies.Policy, error) {
	var rows []policyRow
	var all []*policies.Policy
	var faults []error
	seen := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			faults = append(faults, fault{where: file, text: "read the policies: " + pathless(err).Error()})
			continue
		}
		loaded, err := policies.Load(file, text)
		faults = append(faults, lines(err)...)
		for _, p := range loaded {
			if other, twice := seen[p.Name]; twice {
				faults = append(faults, fault{where: file, text: fmt.Sprintf("policy %s stands in %s too: give each its own name", p.Name, other)})
			}
			seen[p.Name] = file
			all = append(all, p)
			var actions []string
			for _, kind := range p.Actions() {
				actions = append(actions, string(kind))
			}
			rows = append(rows, policyRow{file, p.Name, p.Enforcement, strings.Join(actions, ","), p.Targets, p.SHA256})
		}
	}
	return rows, all, errors.Join(faults...)
}

func (a *app) policyResumeCommand() *cobra.Command {
	var target, reason string
	var allow int
	cmd := &cobra.Command{
		Use:   "resume NAME --reason R",
		Short: "Reopen a policy that ran into its limit or the brake",
		Long: `Reopen a policy that ran into its limit, or that its target's brake has halted,
on one target or on all it is halted on. With --allow N it may then act on N
runners beyond its limit, once: the answer to a backlog on the first day.
Without, it halts again where as many runners are due as before. Whoever
reopens one that the brake has halted says that what went dark by now was
looked into; the brake halts again only for what goes dark later.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&target, "target", "", "on this `target` only")
	reasonFlag(cmd, &reason)
	cmd.Flags().IntVar(&allow, "allow", 0, "`number` of runners that may be acted on beyond the limit, once")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		why, err := reasonFor("policy resume", reason)
		if err != nil {
			return err
		}
		const most = 1_000_000
		if allow < 0 || allow > most {
			return usage("--allow %d is out of bounds, want 0 to %d", allow, most)
		}
		return a.policyResume(cmd.Context(), args[0], target, why, allow)
	}
	return cmd
}

func (a *app) policyResume(ctx context.Context, policy, target, reason string, allow int) error {
	return a.withRecord(ctx, func(c *config, store *db.DB) error {
		if err := knownTarget(ctx, c, store, "--target", target); err != nil {
			return err
		}
		now, err := store.Now(ctx)
		if err != nil {
			return err
		}
		actor := operator()
		var resumed []string
		err = store.InTx(ctx, func(tx *db.Tx) error {
			var err error
			if resumed, err = tx.Resume(ctx, policy, target, reason, allow); err != nil {
				return err
			}
			for _, name := range resumed {
				err := tx.Audit(ctx, fleet.AuditEvent{
					At: now, Code: fleet.AuditPolicyResumed, Actor: actor, Target: name, Policy: policy, Reason: reason,
					Details: map[string]any{"allow": allow},
				})
				if err != nil {
					return err
				}
				event, err := queue.Event("policy.resumed", name, policy, now, map[string]any{
					"policy": policy, "target": name, "state": "active", "reason": reason, "allow": allow,
				})
				if err != nil {
					return err
				}
				if err := tx.Enqueue(ctx, event); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(resumed) == 0 {
			return notHalted(ctx, store, policy, target)
		}
		for _, name := range resumed {
			if _, err := fmt.Fprintf(a.stdout, "%s resumed on %s\n", policy, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// notHalted says why there was nothing to resume.
func notHalted(ctx context.Context, store *db.DB, policy, target string) error {
	states, err := store.PolicyStates(ctx)
	if err != nil {
		return err
	}
	where, halted := "", "it is halted on no target"
	if target != "" {
		where, halted = " on "+target, "it is not halted there"
	}
	var known []string
	for _, s := range states {
		if s.Policy == policy {
			return exit(exitFailed, "resume policy %s%s: %s", policy, where, halted)
		}
		known = append(known, s.Policy)
	}
	slices.Sort(known)
	if known = slices.Compact(known); len(known) == 0 {
		return exit(exitFailed, "resume policy %s%s: no policy has run yet", policy, where)
	}
	return exit(exitFailed, "resume policy %s%s: it never ran; there is %s", policy, where, strings.Join(known, ", "))
}
