package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/enforce"
	"github.com/muster-fleet/muster/worker/scale"
)

func (a *app) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain [TARGET] RUNNER | explain --pool POOL",
		Short: "Tell one runner's story: what happened, who says what, and which clause decided",
		Long: `Tell one runner's story on a page: what happened to it, what each witness says,
what each policy makes of it and by which clause, and what would have to happen
for it to be deleted, or, with --removed, why it is gone. With --pool it is the
story of a pool: how it would be sized now and why, the last decision, and the
hosts asked for. Nothing is done and nothing is written.

` + runnerHelp,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("pool") {
				return cobra.NoArgs(cmd, args)
			}
			if cmd.Flags().Changed("id") {
				return cobra.MaximumNArgs(1)(cmd, args)
			}
			return cobra.RangeArgs(1, 2)(cmd, args)
		},
	}
	output := outputFlag(cmd)
	var which runnerFlags
	which.idFlag(cmd)
	which.removedFlag(cmd)
	pool := cmd.Flags().String("pool", "", "tell of this `pool` instead")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("pool") {
			return a.explainPool(cmd.Context(), *pool, *output)
		}
		target, runner := "", ""
		if !cmd.Flags().Changed("id") {
			runner = args[len(args)-1]
			args = args[:len(args)-1]
		}
		if len(args) == 1 {
			target = args[0]
		}
		arg, err := which.read(target, runner)
		if err != nil {
			return err
		}
		return a.explain(cmd.Context(), arg, *output)
	}
	return cmd
}

func (a *app) explain(ctx context.Context, runner runnerArg, output format) error {
	return a.withRecord(ctx, func(c *config, store *db.DB) error {
		if err := knownTarget(ctx, c, store, "explain", runner.target); err != nil {
			return err
		}
		meant, err := findRunner(ctx, store, "explain", runner)
		if err != nil {
			return err
		}
		now, err := store.Now(ctx)
		if err != nil {
			return err
		}
		// A target that is no longer configured has a past all the same.
		on := fleet.Target{Name: meant.Target}
		if configured, ok := c.target(meant.Target); ok {
			on = configured.Target
		}
		x, err := enforce.Explain(ctx, enforce.NewReader(store), c.policies, on, meant.ID, now)
		if err != nil {
			return err
		}
		if output == formatJSON {
			return writeJSON(a.stdout, explanationOf(x))
		}
		pool, err := poolLine(ctx, store, c, &x.Runner)
		if err != nil {
			return err
		}
		return writePage(a.stdout, x, pool)
	})
}

// poolLine tells of the pool that a runner counts for; empty: there is none.
func poolLine(ctx context.Context, store *db.DB, c *config, r *fleet.Observed) (string, error) {
	name := scale.HomeOf(c.pools, r)
	if name == "" || !r.RemovedAt.IsZero() {
		return "", nil
	}
	state, err := store.PoolState(ctx, name)
	if err != nil {
		return "", err
	}
	if state.Decision.At.IsZero() {
		return name + ", which was not decided on yet", nil
	}
	return name + ": " + state.Reason, nil
}

// explanation is a runner's story in JSON.
type explanation struct {
	Runner    runnerRow      `json:"runner"`
	InShort   string         `json:"in_short"`
	Story     []storyRow     `json:"story"`
	More      bool           `json:"story_has_more"`
	Witnesses []testimonyRow `json:"witnesses"`
	Policies  []opinionRow   `json:"policies"`
}

type storyRow struct {
	At        time.Time    `json:"at"`
	Kind      db.StoryKind `json:"kind"`
	What      string       `json:"what"`
	Who       *string      `json:"who"`
	Detail    *string      `json:"detail"`
	ID        *string      `json:"id"`
	TriggerID *string      `json:"trigger_id"`
}

type testimonyRow struct {
	Witness    string     `json:"witness"`
	Says       string     `json:"says"`
	At         *time.Time `json:"at"`
	AgeSeconds *int64     `json:"age_seconds"`
	Objects    bool       `json:"objects"`
}

type opinionRow struct {
	Policy      string            `json:"policy"`
	Enforcement fleet.Enforcement `json:"enforcement"`
	State       string            `json:"state"`
	Verdict     fleet.Verdict     `json:"verdict"`
	Reasons     []reasonRow       `json:"reasons"`
	Evidence    fleet.Evidence    `json:"evidence"`
	Halt        *string           `json:"would_halt"`
	Match       *readingRow       `json:"match"` // null: it matches always
	Exempt      []readingRow      `json:"exempt"`
}

type reasonRow struct {
	Reason string  `json:"reason"`
	Says   string  `json:"says"`
	Needs  *string `json:"needs"`
}

type readingRow struct {
	Name    *string         `json:"name"`
	Answer  policies.Answer `json:"answer"`
	Clauses []clauseRow     `json:"clauses"`
}

type clauseRow struct {
	Text    string          `json:"text"`
	Answer  policies.Answer `json:"answer"`
	Decides bool            `json:"decides"`
	Known   []string        `json:"known"`
}

func explanationOf(x enforce.Explanation) explanation {
	e := explanation{
		Runner: runnerRowOf(x.Runner), InShort: x.InShort(), More: x.More,
		Story: []storyRow{}, Witnesses: []testimonyRow{}, Policies: []opinionRow{},
	}
	for _, s := range x.Story {
		e.Story = append(e.Story, storyRow{s.At, s.Kind, s.What, orNull(s.Who), orNull(s.Detail), orNull(s.ID), orNull(s.TriggerID)})
	}
	for _, t := range x.Witnesses() {
		row := testimonyRow{Witness: t.Witness, Says: t.Says, At: orNull(t.At), Objects: t.Objects}
		if !t.At.IsZero() {
			age := int64(x.Now.Sub(t.At) / time.Second)
			row.AgeSeconds = &age
		}
		e.Witnesses = append(e.Witnesses, row)
	}
	for _, o := range x.Opinions {
		e.Policies = append(e.Policies, opinionRowOf(o))
	}
	return e
}

func opinionRowOf(o enforce.Opinion) opinionRow {
	row := opinionRow{
		Policy: o.Policy.Name, Enforcement: o.Policy.Enforcement, State: stateOf(o.State), Verdict: o.Decision.Verdict,
		Reasons: []reasonRow{}, Evidence: o.Decision.Evidence, Halt: orNull(o.Halt), Exempt: []readingRow{},
	}
	for _, reason := range o.Decision.Reasons {
		w := policies.InWords(reason, o.Decision.Evidence)
		row.Reasons = append(row.Reasons, reasonRow{reason, w.Says, orNull(w.Needs)})
	}
	for _, r := range o.Readings {
		reading := readingRow{Name: orNull(r.Name), Answer: r.Answer, Clauses: []clauseRow{}}
		for _, c := range r.Clauses {
			known := append([]string{}, c.Known...) // [] and not null
			reading.Clauses = append(reading.Clauses, clauseRow{c.Text, c.Answer, c.Decides, known})
		}
		if r.Name == "" {
			row.Match = &reading
		} else {
			row.Exempt = append(row.Exempt, reading)
		}
	}
	return row
}

func stateOf(s fleet.PolicyState) string {
	if s.Halted {
		return "halted"
	}
	return "active"
}
