package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/policies"
	"github.com/muster-fleet/muster/worker/scale"
)

// poolPlan is what would be decided on a pool now.
type poolPlan struct {
	scale.Row
	Direction fleet.SizeDirection `json:"direction"`
	Change    int                 `json:"change"`
	Reasons   []string            `json:"reasons"`
	Evidence  fleet.Evidence      `json:"evidence"`
	Findings  []findingRow        `json:"findings"`
}

func poolPlanOf(p scale.Preview) poolPlan {
	d := p.State.Decision
	return poolPlan{scale.RowOf(p.State), d.Direction, d.Change, d.Reasons, d.Evidence, findingRows(p.Findings)}
}

// onPool decides on a pool, writes nothing, and shows what came of it.
func (a *app) onPool(ctx context.Context, name string, show func(*db.DB, scale.Preview, time.Time) error) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	pool, known := c.pool(name)
	if !known {
		return usage("--pool: %s", c.unknownPool(name))
	}
	return onRecord(ctx, c, func(store *db.DB) error {
		now, err := store.Now(ctx)
		if err != nil {
			return err
		}
		target, _ := c.target(pool.Target) // a pool has one, by the check of the configuration
		p, err := scale.Plan(ctx, store, pool, c.pools, target.Hosts, now)
		if errors.Is(err, fleet.ErrNotFound) {
			return exit(exitFailed, "pool %s: target %s was never synced, so nobody knows what there is: muster trigger sync %s", name, pool.Target, pool.Target)
		}
		if err != nil {
			return err
		}
		return show(store, p, now)
	})
}

func (a *app) planPool(ctx context.Context, name string, output format) error {
	return a.onPool(ctx, name, func(_ *db.DB, p scale.Preview, _ time.Time) error {
		plan := poolPlanOf(p)
		if output == formatJSON {
			return writeJSON(a.stdout, plan)
		}
		if err := writeTable(a.stdout, poolHead, [][]string{poolCells(plan.Row)}); err != nil {
			return err
		}
		_, err := fmt.Fprint(a.stdout, bulleted(policies.TellSize(p.State.Decision)))
		return err
	})
}

// mostLeases is how many requests for hosts a pool's story tells of.
const mostLeases = 20

// leaseRow is a request for a host, with the keys of api.leases.
type leaseRow struct {
	RequestID   string           `json:"request_id"`
	Pool        string           `json:"pool"`
	Host        *string          `json:"host"`
	State       fleet.LeaseState `json:"state"`
	Attempt     int              `json:"attempt"`
	RequestedAt time.Time        `json:"requested_at"`
	Deadline    time.Time        `json:"deadline"`
	RunnerID    *int64           `json:"runner_id"`
}

func leaseRowOf(l fleet.Lease) leaseRow {
	return leaseRow{l.RequestID, l.Pool, orNull(l.Host), l.State, l.Attempt, l.RequestedAt, l.Deadline, orNull(l.RunnerID)}
}

// poolStory is a pool's story in JSON.
type poolStory struct {
	Now       poolPlan   `json:"now"`
	Last      *scale.Row `json:"last"` // null: not decided on yet
	GrewAt    *time.Time `json:"grew_at"`
	ShrankAt  *time.Time `json:"shrank_at"`
	WatchedAt *time.Time `json:"watched_since"`
	Leases    []leaseRow `json:"leases"`
}

func (a *app) explainPool(ctx context.Context, name string, output format) error {
	return a.onPool(ctx, name, func(store *db.DB, p scale.Preview, now time.Time) error {
		leases, err := store.NewestLeases(ctx, name, mostLeases)
		if err != nil {
			return err
		}
		if output == formatJSON {
			m := p.Last.Decision.Memory
			story := poolStory{Now: poolPlanOf(p), GrewAt: orNull(m.UpAt), ShrankAt: orNull(m.DownAt), WatchedAt: orNull(m.Since), Leases: []leaseRow{}}
			if !p.Last.Decision.At.IsZero() {
				last := scale.RowOf(p.Last)
				story.Last = &last
			}
			for _, l := range leases {
				story.Leases = append(story.Leases, leaseRowOf(l))
			}
			return writeJSON(a.stdout, story)
		}
		text, err := poolPage(p, leases, now)
		if err == nil {
			_, err = fmt.Fprint(a.stdout, text)
		}
		return err
	})
}

// poolPage is a pool's story on a page.
func poolPage(p scale.Preview, leases []fleet.Lease, now time.Time) (string, error) {
	s, last := p.State, p.Last.Decision
	var page strings.Builder
	fmt.Fprintf(&page, "%s: hosts of %s with the labels %s\n", s.Pool, s.Target, strings.Join(s.Labels, ", "))
	fmt.Fprintf(&page, "\nWhat would be decided now\n%s", bulleted(policies.TellSize(s.Decision)))
	page.WriteString("\nWhat was decided last\n")
	if last.At.IsZero() {
		page.WriteString("  nothing yet\n")
	} else {
		page.WriteString(bulleted([]string{fmt.Sprintf("at %s, %s ago: %s", moment(last.At), ago(now, last.At), p.Last.Reason)}))
		for _, m := range []struct {
			what string
			at   time.Time
		}{{"it last grew", last.Memory.UpAt}, {"it last shrank", last.Memory.DownAt}} {
			if !m.at.IsZero() {
				page.WriteString(bulleted([]string{fmt.Sprintf("%s at %s, %s ago", m.what, moment(m.at), ago(now, m.at))}))
			}
		}
	}
	if len(leases) > 0 {
		page.WriteString("\nHosts asked for, newest first\n")
		rows := make([][]string, len(leases))
		for i, l := range leases {
			runner := ""
			if l.RunnerID != 0 {
				runner = strconv.FormatInt(l.RunnerID, 10)
			}
			rows[i] = []string{moment(l.RequestedAt), string(l.State), strconv.Itoa(l.Attempt), l.Host, runner, moment(l.Deadline), l.RequestID}
		}
		if err := writeTable(&page, []string{"ASKED", "STATE", "ATTEMPT", "HOST", "RUNNER", "DEADLINE", "REQUEST"}, rows); err != nil {
			return "", err
		}
	}
	if len(p.Findings) > 0 {
		page.WriteString("\nWhat a person has to mend\n")
		for _, f := range p.Findings {
			found, mend := tellFinding(f)
			page.WriteString(bulleted([]string{found + "; " + mend}))
		}
	}
	return page.String(), nil
}

// ago is how long it is since then; "0s" where that is less than a second.
func ago(now, at time.Time) string {
	if d := span(now.Sub(at)); d != "" {
		return d
	}
	return "0s"
}
