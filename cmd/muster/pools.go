package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/worker/scale"
)

var poolHead = []string{"POOL", "TARGET", "MIN", "MAX", "DESIRED", "ONLINE", "BUSY", "BOOTING", "DRAINING", "QUEUED", "RUNNING", "DEMAND", "EXPIRED", "DECIDED"}

func poolCells(r scale.Row) []string {
	cells := []string{r.Pool, r.Target}
	for _, n := range []int{r.Min, r.Max, r.Desired, r.Online, r.Busy, r.Booting, r.Draining, r.Queued, r.InProgress} {
		cells = append(cells, strconv.Itoa(n))
	}
	return append(cells, string(r.Confidence), strconv.Itoa(r.LeasesExpired), moment(r.DecidedAt))
}

func (a *app) poolsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pools",
		Short: "List the pools: their sizes, what workflow jobs want of them, and why",
		Long: `List the pools as they were last decided on: how many hosts there should be, are,
and boot, and how many workflow jobs wait and run. Why it is so is REASON, the
last column. muster plan --pool P decides anew, muster explain --pool P tells
more.`,
		Args: cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.pools(cmd.Context(), *output) }
	return cmd
}

func (a *app) pools(ctx context.Context, output format) error {
	return a.withRecord(ctx, func(c *config, store *db.DB) error {
		states, err := store.PoolStates(ctx)
		if err != nil {
			return err
		}
		decided := map[string]bool{}
		rows := make([]scale.Row, len(states))
		for i, s := range states {
			rows[i], decided[s.Pool] = scale.RowOf(s), true
			if _, configured := c.pool(s.Pool); !configured && len(c.pools) > 0 {
				a.say("%s is not configured any more: nobody decides on it", printable(s.Pool))
			}
		}
		for _, p := range c.pools {
			if !decided[p.Name] {
				a.say("%s was not decided on yet: that comes with the first complete sync of %s", p.Name, p.Target)
			}
		}
		return show(a, output, rows, "no pools", append(poolHead, "REASON"), func(r scale.Row) []string { return append(poolCells(r), r.Reason) })
	})
}

// findingRow is one thing that is wrong, with the keys of api.findings.
type findingRow struct {
	Kind    fleet.FindingKind `json:"kind"`
	Target  string            `json:"target"`
	Subject string            `json:"subject"`
	Since   *time.Time        `json:"since"`
	Detail  fleet.Evidence    `json:"detail"`
}

func findingRows(found []fleet.Finding) []findingRow {
	rows := make([]findingRow, len(found))
	for i, f := range found {
		rows[i] = findingRow{f.Kind, f.Target, f.Subject, orNull(f.Since), f.Detail}
	}
	return rows
}

// tellFinding is a finding in words, and what mends it.
func tellFinding(f fleet.Finding) (found, mend string) {
	subject, since := printable(f.Subject), ""
	if !f.Since.IsZero() {
		since = " since " + moment(f.Since)
	}
	switch f.Kind {
	case fleet.FindingMislabelledHost:
		hosts := counted(f.Detail["hosts"], "host of pool "+subject+" was", "hosts of pool "+subject+" were")
		return fmt.Sprintf("%s registered without %v: hosts like that count, and take none of its jobs", hosts, f.Detail["they_lack"]), "mend what provisions them"
	case fleet.FindingUnlabelledJob:
		jobs := counted(f.Detail["jobs"], "workflow job of "+subject+" asks", "workflow jobs of "+subject+" ask")
		return fmt.Sprintf("%s for no label%s, so nobody can tell which hosts would do", jobs, since), "write runs-on in the workflow"
	case fleet.FindingUnservedJob:
		return tellUnserved(f, counted(f.Detail["jobs"], "workflow job wants ", "workflow jobs want ")+subject+since)
	case fleet.FindingClaimedRunner:
		return tellClaimed(f, subject, since)
	}
	return fmt.Sprintf("%s: %s%s", f.Kind, subject, since), "see api.findings"
}

// tellClaimed is what is wrong where a host lists a runner that is not its own.
func tellClaimed(f fleet.Finding, runner, since string) (found, mend string) {
	claimants := printable(fmt.Sprint(f.Detail["claimed_by"]))
	if host, known := f.Detail["host"].(string); known {
		return fmt.Sprintf("runner %s of host %s is listed by %s too%s, so no host is asked to drain it", runner, printable(host), claimants, since),
			"mend the heartbeats of " + claimants
	}
	return fmt.Sprintf("runner %s is listed by %s%s, which has neither a token nor a grant for that name, so no host is asked to drain it", runner, claimants, since),
		"name the runner after its host, and let a grant cover the host"
}

// tellUnserved is what is wrong where jobs want labels.
func tellUnserved(f fleet.Finding, jobs string) (found, mend string) {
	repository, _ := f.Detail["repository"].(string)
	if pool, closed := f.Detail["closed_pool"].(string); closed {
		return fmt.Sprintf("%s, which pool %s has; its runner groups are closed to %s, whose job waits longest", jobs, pool, printable(repository)),
			"open one to that repository at GitHub, or have hosts of another group"
	}
	found = jobs + ", which no pool and no other runner has"
	if repository != "" {
		found += ", the first of " + printable(repository)
	}
	if pool, ok := f.Detail["nearest_pool"].(string); ok {
		found += fmt.Sprintf("; pool %s lacks only %v", pool, f.Detail["it_lacks"])
	}
	return found, "correct runs-on in the workflow, or have a pool with these labels"
}

// counted is a number with the words that agree with it.
func counted(number any, one, others string) string {
	if fmt.Sprint(number) == "1" {
		others = one
	}
	return fmt.Sprintf("%v %s", number, others)
}

// bulleted are lines of a page, indented.
func bulleted(lines []string) string {
	var text strings.Builder
	for _, line := range lines {
		text.WriteString("  " + printable(line) + "\n")
	}
	return text.String()
}
