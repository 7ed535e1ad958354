package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muster-fleet/muster/db"
	"github.com/muster-fleet/muster/fleet"
	"github.com/muster-fleet/muster/internal/web"
)

// ready lists what is not as it should be.
func (s *service) ready(ctx context.Context) []web.Fault {
	var faults []web.Fault
	record, conn := s.record.Load(), s.conn.Load()
	add := func(detail bool, format string, args ...any) {
		faults = append(faults, web.Fault{Text: fmt.Sprintf(format, args...), Detail: detail})
	}
	if record == nil {
		add(false, "postgres: not started yet")
	} else if err := record.Ping(ctx); err != nil {
		add(false, "postgres: %v", err)
	} else if !s.usable.Load() {
		add(false, "postgres: the schema is not ready yet")
	}
	if conn == nil {
		add(false, "nats: not connected yet")
	} else if err := conn.Ready(); err != nil {
		add(false, "%v", err)
	}
	pending := s.refusals.Pending()
	for _, target := range slices.Sorted(maps.Keys(pending)) {
		add(true, "target %s: %d of the deliveries of its webhook were refused and are not recorded yet", target, pending[target])
	}
	if record == nil || conn == nil || slices.ContainsFunc(faults, func(f web.Fault) bool { return !f.Detail }) {
		return faults
	}
	faults = append(faults, s.prober.found(ctx)...)
	if !s.serving.Load() {
		add(false, "muster: still starting, no requests are taken yet")
	}
	if why := s.refused.Load(); why != nil {
		add(true, "configuration: not taken over, the one before goes on: %s: mend it and send SIGHUP again", *why)
	}
	if err := conn.WithoutAdvisories(); err != nil {
		add(true, "%v", err)
	}
	if standing := s.standing.Load(); standing != nil && !standing.Safe() {
		add(true, "postgres: %s: %s", weakness(*standing), weaknessMend)
	}
	targets, err := record.TargetStates(ctx)
	if err != nil {
		add(true, "targets: %v", err)
	}
	states, err := record.PolicyStates(ctx)
	if err != nil {
		add(true, "policies: %v", err)
	}
	refused, err := record.Refusals(ctx)
	if err != nil {
		add(true, "webhooks: %v", err)
	}
	for _, line := range refusedDetails(s.wiring.Load().config, refused) {
		add(true, "%s", line)
	}
	for _, line := range details(s.wiring.Load().config, targets, states) {
		add(true, "%s", line)
	}
	return faults
}

// weaknessMend is what mends a login that could weaken the audit trail.
const weaknessMend = "run muster migrate up as a role that may make roles, or give database_url a login that is a member of muster_app alone, and the owner's to migrate_url"

// weakness says what the login in use could do to the audit trail.
func weakness(s db.Standing) string {
	text := fmt.Sprintf("login %s could weaken the audit trail: it %s", s.Login, strings.Join(s.Powers, ", and "))
	if s.Why != "" {
		text += "; " + s.Why
	}
	return text
}

// details are what the record says against targets and policies. It remembers
// those that are no longer configured too, which concern nobody.
func details(c *config, targets []fleet.TargetState, states []fleet.PolicyState) []string {
	var lines []string
	for _, t := range targets {
		if _, configured := c.target(t.Name); configured && t.CredentialFault != "" {
			lines = append(lines, fmt.Sprintf("target %s: %s", t.Name, t.CredentialFault))
		}
	}
	for _, p := range states {
		if p.Halted && c.runs(p.Policy, p.Target) {
			lines = append(lines, fmt.Sprintf("policy %s on %s is halted: %s; when you have looked: muster policy resume %s --target %s --reason WHY",
				p.Policy, p.Target, p.Reason, p.Policy, p.Target))
		}
	}
	return lines
}

// refusedDetails are the targets that were told of workflow jobs and did not take
// it in.
func refusedDetails(c *config, refused map[string]fleet.Refused) []string {
	var lines []string
	for _, target := range slices.Sorted(maps.Keys(refused)) {
		if _, configured := c.target(target); configured {
			lines = append(lines, fmt.Sprintf("target %s: %s: %s; %s", target, refusedText(refused[target]), refused[target].Reason, refusedMeanwhile))
		}
	}
	return lines
}

// refusedMeanwhile is what follows from a refusal, and how it ends.
const refusedMeanwhile = "until GitHub has delivered them again or workflow jobs are compared, none of its runners is deleted and no pool shrinks: docs/webhooks.md"

// refusedText says how many deliveries were refused, and since when.
func refusedText(r fleet.Refused) string {
	word := "deliveries of its webhook were refused"
	if r.Deliveries == 1 {
		word = "delivery of its webhook was refused"
	}
	return fmt.Sprintf("%d %s since %s", r.Deliveries, word, r.Since.UTC().Format(time.RFC3339))
}
